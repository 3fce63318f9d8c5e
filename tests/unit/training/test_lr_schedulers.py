"""Learning rates rise and fall as they are told to, and go on exactly from a saved state."""

import copy
import json
import logging
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, PolynomialLR, ReduceLROnPlateau, StepLR

from autotune.errors import SpecError
from autotune.training.config import Config
from autotune.training.optimization.lr_schedulers import create_scheduler

NAMES = ("cosine_warm", "cosine", "one_cycle", "polynomial", "step", "plateau", None)
BY_UPDATE = ("cosine_warm", "cosine", "one_cycle", "polynomial")

pytestmark = pytest.mark.filterwarnings("error")


def optimizer_of(config):
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=config.learning_rate)


def rate_of(optimizer):
    return optimizer.param_groups[0]["lr"]


class Run:
    """A training that only steps: its rates at each update, with losses that are known beforehand."""

    def __init__(self, config, steps_per_epoch, losses=None):
        self.config = config
        self.per_epoch = steps_per_epoch
        self.losses = losses or [1.0] * config.epochs
        self.optimizer = optimizer_of(config)
        self.schedule = create_scheduler(self.optimizer, config, steps_per_epoch)
        self.updates = 0

    def rates(self, updates=None):
        found = []
        for _ in range(updates if updates is not None else self.config.epochs * self.per_epoch - self.updates):
            found.append(rate_of(self.optimizer))
            self.optimizer.step()
            self.updates += 1
            self._step()
        return found

    def _step(self):
        over = self.updates % self.per_epoch == 0
        if self.schedule.interval == "batch" or (over and self.schedule.interval == "epoch"):
            self.schedule.step()
        elif over:
            self.schedule.step(self.losses[self.updates // self.per_epoch - 1])

    def resumed(self, config=None):
        other = Run(config or self.config, self.per_epoch, self.losses)
        other.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        other.schedule.load_state_dict(json.loads(json.dumps(self.schedule.state_dict())))
        other.updates = self.updates
        return other


def configurations():
    return st.builds(
        lambda name, epochs, warmup, floor, power: Config(
            scheduler_type=name,
            epochs=epochs,
            warmup_epochs=warmup,
            min_learning_rate=floor,
            polynomial_power=power,
            plateau_patience=1,
            step_epochs=2,
        ),
        st.sampled_from(NAMES),
        st.integers(1, 7),
        st.floats(0, 9),
        st.sampled_from([0.0, 1e-6, 1e-4]),
        st.floats(0.5, 3),
    )


@settings(deadline=None)
@given(configurations(), st.integers(1, 6), st.data())
def test_a_resumed_schedule_gives_exactly_the_rates_of_an_uninterrupted_one(config, per_epoch, data):
    losses = data.draw(
        st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=config.epochs, max_size=config.epochs), "losses"
    )
    cut = data.draw(st.integers(0, config.epochs * per_epoch), "cut")
    first = Run(config, per_epoch, losses)
    begun = first.rates(cut)
    assert begun + first.resumed().rates() == Run(config, per_epoch, losses).rates()


@settings(deadline=None)
@given(configurations(), st.integers(1, 6))
def test_rates_stay_between_their_bounds_and_end_at_the_last_one(config, per_epoch):
    run = Run(config, per_epoch)
    rates = run.rates()
    lowest = min(config.min_learning_rate, config.learning_rate / 25)  # where the one-cycle schedule starts
    assert lowest * (1 - 1e-9) <= min(rates)
    assert max(rates) <= config.learning_rate * (1 + 1e-9)
    last = rate_of(run.optimizer)
    if config.scheduler_type in BY_UPDATE:
        assert last == pytest.approx(config.min_learning_rate, abs=1e-12)
        for _ in range(3):
            run.schedule.step()
        assert rate_of(run.optimizer) == last


def against(build, config, steps):
    optimizer = optimizer_of(config)
    scheduler = build(optimizer)
    found = [rate_of(optimizer)]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        found.append(rate_of(optimizer))
    return found


@pytest.mark.parametrize(
    ("name", "per_epoch", "build"),
    [
        ("cosine", 5, lambda optimizer: CosineAnnealingLR(optimizer, 30)),
        ("polynomial", 5, lambda optimizer: PolynomialLR(optimizer, 30, power=0.9)),
        ("step", 1, lambda optimizer: StepLR(optimizer, 2)),
        (
            "one_cycle",
            5,
            lambda optimizer: OneCycleLR(
                optimizer, 1e-3, 30, pct_start=0.5, cycle_momentum=False, final_div_factor=math.inf
            ),
        ),
    ],
)
def test_rates_are_those_of_torch_where_nothing_is_added(name, per_epoch, build):
    config = Config(scheduler_type=name, epochs=6, min_learning_rate=0.0, step_epochs=2)
    assert Run(config, per_epoch).rates() == pytest.approx(against(build, config, 6 * per_epoch), abs=1e-12)


def test_plateau_lowers_the_rate_as_torch_does():
    losses = [1.0, 0.9, 0.95, 0.96, 0.97, 0.98, 0.5, 0.6, 0.7, 0.8]
    config = Config(scheduler_type="plateau", plateau_patience=2, plateau_factor=0.3)
    optimizer = optimizer_of(config)
    torchs = ReduceLROnPlateau(optimizer, patience=2, factor=0.3, min_lr=1e-6)
    expected = []
    for loss in losses:
        expected.append(rate_of(optimizer))
        torchs.step(loss)
    assert Run(config, 1, losses).rates() == expected


def test_plateau_follows_figures_that_are_to_rise():
    rising = [0.1, 0.2, 0.3, 0.4]
    lowest = Config(scheduler_type="plateau", plateau_patience=0, epochs=4)
    highest = Config(scheduler_type="plateau", plateau_patience=0, epochs=4, monitor_mode="max")
    assert len(set(Run(highest, 1, rising).rates())) == 1
    assert len(set(Run(lowest, 1, rising).rates())) > 1


def test_plateau_needs_a_figure():
    with pytest.raises(SpecError, match=r"Config.monitor names, got None"):
        create_scheduler(optimizer_of(Config()), Config(scheduler_type="plateau"), 5).step()


def test_warm_up_rises_along_a_line_and_then_falls():
    rates = Run(Config(epochs=10, warmup_epochs=2), 5).rates()
    rises = [later - earlier for earlier, later in pairwise(rates[:11])]
    assert rises == pytest.approx([1e-3 / 11] * 10)
    assert rates[10] == pytest.approx(1e-3)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


@pytest.mark.parametrize("name", ["cosine_warm", "one_cycle"])
def test_a_short_training_spends_at_most_half_of_it_on_warming_up(name):
    rates = Run(Config(epochs=2, warmup_epochs=5, scheduler_type=name), 10).rates()
    assert rates.index(max(rates)) in (9, 10)


def test_warm_up_may_be_a_part_of_an_epoch():
    rates = Run(Config(epochs=2, warmup_epochs=0.5), 10).rates()
    assert rates.index(max(rates)) == 5


def test_without_warm_up_the_two_cosines_are_one():
    warm, plain = (Run(Config(scheduler_type=name, warmup_epochs=0), 4).rates() for name in ("cosine_warm", "cosine"))
    assert warm == plain


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        *((name, "epochs", 8) for name in BY_UPDATE),
        *((name, "min_learning_rate", 5e-4) for name in (*BY_UPDATE, "step", "plateau")),
        *((name, "learning_rate", 2e-3) for name in NAMES),
        ("cosine_warm", "warmup_epochs", 1.0),
        ("one_cycle", "warmup_epochs", 1.0),
        ("polynomial", "polynomial_power", 2.0),
        ("plateau", "plateau_patience", 1),
        ("plateau", "plateau_factor", 0.1),
        ("plateau", "monitor_mode", "max"),
        ("step", "step_epochs", 3),
        ("step", "step_factor", 0.5),
        *(("cosine_warm", "scheduler_type", name) for name in NAMES[1:]),
    ],
)
def test_every_field_of_a_schedule_changes_its_rates(name, field, value):
    base = {"scheduler_type": name, "epochs": 10, "plateau_patience": 0, "step_epochs": 2}
    losses = [1.0 / (epoch + 1) if epoch < 3 else 1.0 for epoch in range(10)]
    plain = Run(Config(**base), 3, losses).rates(24)
    assert Run(Config(**{**base, field: value}), 3, losses).rates(24) != plain


def test_a_schedule_is_that_of_the_configuration_when_it_was_made():
    config = Config(scheduler_type="polynomial")
    run = Run(config, 2)
    config.polynomial_power = 3.0
    assert run.rates(10) == Run(Config(scheduler_type="polynomial"), 2).rates(10)


@pytest.mark.parametrize("old", NAMES)
@pytest.mark.parametrize("new", [name for name in NAMES if name not in {None, "plateau"}])
def test_another_schedule_takes_over_at_the_same_epoch(old, new, caplog):
    first = Run(Config(scheduler_type=old, epochs=4), 3)
    first.rates(6)
    changed = Config(scheduler_type=new, epochs=9, step_epochs=1)
    with caplog.at_level(logging.INFO, logger="autotune"):
        resumed = first.resumed(changed)
    assert resumed.rates() == pytest.approx(Run(changed, 3).rates()[6:], rel=1e-9)
    assert "another schedule after 2 epochs" in caplog.text


def test_a_plateau_takes_over_at_the_rate_that_the_training_has():
    first = Run(Config(scheduler_type="cosine", epochs=4), 3)
    first.rates(6)
    rate = rate_of(first.optimizer)
    assert first.resumed(Config(scheduler_type="plateau")).rates(1) == [rate]


def test_an_epoch_without_updates_is_refused():
    with pytest.raises(SpecError, match="at least one update, got steps_per_epoch=0"):
        create_scheduler(optimizer_of(Config()), Config(), 0)


def test_a_state_does_not_change_after_it_was_taken():
    run = Run(Config(), 3)
    state = run.schedule.state_dict()
    before = copy.deepcopy(state)
    run.rates()
    assert state == before
    assert math.isfinite(rate_of(run.optimizer))
