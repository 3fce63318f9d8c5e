"""The schedule of the learning rate that a configuration asks for."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from autotune.errors import SpecError
from autotune.training.config import Config
from autotune.training.optimization.schedule import Interval, Schedule

OPEN_ENDED = ("step", "plateau", None)
"""Schedules that go by epochs, however many those are and however many batches they have."""

_WARMUP_SHARE_MAX = 0.5
"""Part of a training that warm-up may take: a short one would end before it ever had its full rate."""
_ONE_CYCLE_START = 25.0
"""How far under its highest the one-cycle schedule starts; torch's own."""
_FIELDS = (
    "epochs", "learning_rate", "min_learning_rate", "monitor", "monitor_mode", "plateau_factor", "plateau_patience",
    "polynomial_power", "scheduler_type", "step_epochs", "step_factor", "warmup_epochs",
)  # fmt: skip
"""Fields that rates follow from."""


def create_scheduler(optimizer: Optimizer, config: Config, steps_per_epoch: int) -> Schedule:
    """Make the schedule of an optimizer's learning rate.

    - `cosine_warm`: rises along a line for `warmup_epochs`, then falls along half a cosine to `min_learning_rate`;
    - `cosine`: the same without rising;
    - `one_cycle`: rises and falls along cosines (Smith and Topin 2018, arXiv:1708.07120); momentum stays;
    - `polynomial`: falls by `(1 - part)^polynomial_power` to `min_learning_rate`;
    - `step`: multiplied by `step_factor` every `step_epochs`, down to `min_learning_rate`;
    - `plateau`: multiplied by `plateau_factor` after `plateau_patience` epochs without improvement;
    - None: stays.

    Args:
        optimizer: The optimizer, at `learning_rate`.
        config: The fields above count, and `epochs`, which is how long the schedule is.
        steps_per_epoch: Updates in an epoch: batches, over `accumulation_steps`.

    Raises:
        SpecError: An epoch has no update.
    """
    if steps_per_epoch < 1:
        raise SpecError(f"an epoch has at least one update, got steps_per_epoch={steps_per_epoch}; the loader is empty")
    interval: Interval = {"plateau": "metric", "step": "epoch", None: "epoch"}.get(config.scheduler_type, "batch")  # type: ignore[assignment]  # the values are literals
    per_epoch = steps_per_epoch if interval == "batch" else 1
    fixed = config.model_copy()  # later changes are those of another schedule
    steps = config.epochs * per_epoch
    build = None if config.scheduler_type is None else _BUILDERS[config.scheduler_type]
    length = _length(config, steps)
    # a schedule without a length is the same whatever the number of epochs, and one by steps whatever is monitored
    without = {"epochs"} if length is None else set()
    if interval != "metric":
        without |= {"monitor", "monitor_mode"}
    fields = [name for name in _FIELDS if name not in without]
    return Schedule(
        optimizer,
        None if build is None else lambda rated: build(rated, fixed, steps),
        interval=interval,
        length=length,
        shape={**{name: getattr(config, name) for name in fields}, "steps_per_epoch": per_epoch},
    )


def warmup_steps(config: Config, steps: int) -> int:
    """Give the updates in which the rate rises, at most half of all.

    Args:
        config: Its `epochs` and `warmup_epochs` count.
        steps: Updates of the training.
    """
    return math.floor(min(config.warmup_epochs / config.epochs, _WARMUP_SHARE_MAX) * steps)


def _length(config: Config, steps: int) -> int | None:
    if config.scheduler_type in OPEN_ENDED:
        return None
    # the one-cycle schedule counts its first rate, and refuses more
    return max(steps, 2) - 1 if config.scheduler_type == "one_cycle" else steps


def _cosine_warm(optimizer: Optimizer, config: Config, steps: int) -> LRScheduler:
    rising = warmup_steps(config, steps)
    if not rising:
        return _cosine(optimizer, config, steps)
    return SequentialLR(
        optimizer,
        [
            LinearLR(optimizer, start_factor=1 / (rising + 1), total_iters=rising),
            _cosine(optimizer, config, steps - rising),
        ],
        milestones=[rising],
    )


def _cosine(optimizer: Optimizer, config: Config, steps: int) -> LRScheduler:
    return CosineAnnealingLR(optimizer, T_max=steps, eta_min=config.min_learning_rate)


def _one_cycle(optimizer: Optimizer, config: Config, steps: int) -> LRScheduler:
    total = max(steps, 2)
    rising = warmup_steps(config, total)
    start = config.learning_rate / _ONE_CYCLE_START
    return OneCycleLR(
        optimizer,
        max_lr=config.learning_rate,
        total_steps=total,
        pct_start=rising / total if rising > 1 else 0.0,  # torch divides by the steps of the rise but one
        cycle_momentum=False,
        div_factor=_ONE_CYCLE_START,
        final_div_factor=start / config.min_learning_rate if config.min_learning_rate else math.inf,
    )


def _polynomial(optimizer: Optimizer, config: Config, steps: int) -> LRScheduler:
    floor = config.min_learning_rate / config.learning_rate
    power = config.polynomial_power
    return LambdaLR(optimizer, lambda step: floor + (1 - floor) * max(0.0, 1 - step / steps) ** power)


def _step(optimizer: Optimizer, config: Config, steps: int) -> LRScheduler:
    del steps  # goes on for ever
    floor = config.min_learning_rate / config.learning_rate
    factor, every = config.step_factor, config.step_epochs
    return LambdaLR(optimizer, lambda epoch: max(floor, factor ** (epoch // every)))


def _plateau(optimizer: Optimizer, config: Config, steps: int) -> LRScheduler:
    del steps  # goes by the figures
    return ReduceLROnPlateau(
        optimizer,
        mode=config.monitor_mode,
        factor=config.plateau_factor,
        patience=config.plateau_patience,
        min_lr=config.min_learning_rate,
        eps=0.0,
    )


_BUILDERS: dict[str, Callable[[Optimizer, Config, int], LRScheduler]] = {
    "cosine": _cosine,
    "cosine_warm": _cosine_warm,
    "one_cycle": _one_cycle,
    "plateau": _plateau,
    "polynomial": _polynomial,
    "step": _step,
}

__all__ = ["OPEN_ENDED", "create_scheduler", "warmup_steps"]
