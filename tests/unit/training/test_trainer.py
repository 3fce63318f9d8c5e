"""What a trainer makes of models, batches and configurations."""

import logging
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from training_parts import (
    SIDE,
    THRESHOLDS,
    Plain,
    Streamed,
    config,
    gaps,
    heights,
    losses,
    model,
    own_loader,
    pairs,
    torch_loader,
    trainer,
)

import autotune.training
from autotune.data.datasets.forest_gap import HeightGapDataset
from autotune.errors import DatasetError, NonFiniteLossError, SpecError
from autotune.training import Callback, Config, Trainer, train_model
from autotune.training.data_wait import TimedBatches
from autotune.training.forward import takes_thresholds
from autotune.training.optimization.drop_path import DropPath


class Noted(Callback):
    """Keeps what it was told."""

    def __init__(self):
        self.told = []

    def on_train_begin(self, logs=None):
        self.told.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.told.append(f"epoch {epoch}")

    def on_batch_end(self, batch, logs=None):
        self.told.append(logs)

    def on_epoch_end(self, epoch, logs=None):
        self.told.append(logs)

    def on_train_end(self, logs=None):
        self.told.append(logs["status"])


def test_the_names_of_the_package_are_pinned():
    assert autotune.training.__all__ == ["Callback", "Config", "Trainer", "train_model"]
    assert set(dir(autotune.training)) == set(autotune.training.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = autotune.training.nothing


def test_history_is_a_plain_dictionary_of_lists_with_a_number_for_each_epoch():
    history = trainer().train()
    assert type(history) is dict
    wanted = {"train_loss", "val_loss", "learning_rate", "data_wait_share", "first_batch_s", "train_s", "val_iou"}
    assert wanted | {"val_iou_5m", "val_mean_f1"} <= set(history)
    assert all(type(values) is list and len(values) == 3 for values in history.values())
    assert all(0 <= share <= 1 for share in history["data_wait_share"])


def test_a_training_learns():
    history = trainer(epochs=12, learning_rate=0.03, scheduler_type=None).train()
    assert history["train_loss"][-1] < 0.8 * history["train_loss"][0]


def test_a_model_is_trained_tested_and_given_with_its_history():
    trained, history = train_model(
        model=model(),
        config=config(),
        train_loader=torch_loader(),
        val_loader=torch_loader(shuffle=False),
        test_loader=torch_loader(shuffle=False),
        callbacks=[],
    )
    assert isinstance(trained, nn.Module)
    assert history["test_loss"] == [history["val_loss"][-1]], "the same samples, after the same updates"
    assert 0 <= history["test_mean_iou"][0] <= 1


def test_callbacks_are_told_of_everything_in_order():
    noted = Noted()
    trainer(callbacks=[noted], epochs=1).train()
    kinds = [entry if isinstance(entry, str) else "logs" for entry in noted.told]
    assert kinds == ["begin", "epoch 0", "logs", "logs", "logs", "logs", "logs", "finished"]
    assert {"loss", "learning_rate", "gradient_norm", "epoch"} == set(noted.told[2])
    assert noted.told[-2]["val_metrics"]["iou"] == noted.told[-2]["val_metrics"]["iou"]
    assert {"train_loss", "val_loss", "val_metrics", "data_wait_share"} <= set(noted.told[-2])


def test_a_callback_that_is_none_is_refused():
    with pytest.raises(SpecError, match="subclasses of"):
        trainer(callbacks=[print])


# Accumulation, clipping, precision


def test_accumulated_batches_update_as_one_large_batch_does():
    """Groups of 2 and a last group of 1 over equal batches, without what depends on the batch size."""
    found = []
    for size, steps in ((2, 2), (4, 1)):
        loader = torch_loader(pairs(8), batch_size=size, shuffle=False)
        alone = trainer(loader, dropout=0.0, accumulation_steps=steps, loss="bce", normalization="group", epochs=2)
        alone.train()
        found.append(torch.cat([value.flatten() for value in alone.model.state_dict().values()]))
    assert torch.allclose(*found, atol=1e-5)


def test_the_last_group_of_an_epoch_is_averaged_over_the_batches_that_it_has():
    """Three batches, accumulated by two: the third makes an update by itself, with its full gradient."""
    noted = Noted()
    settings = {
        "scheduler_type": None,
        "optimizer": "sgd",
        "momentum": 0.0,
        "loss": "bce",
        "use_gradient_clipping": False,
    }
    loader = torch_loader(pairs(6), batch_size=2, shuffle=False)
    grouped = trainer(loader, callbacks=[noted], accumulation_steps=2, epochs=1, dropout=0.0, **settings)
    grouped.train()
    norms = [entry["gradient_norm"] for entry in noted.told if isinstance(entry, dict) and "gradient_norm" in entry]
    assert [norm is None for norm in norms] == [True, False, True], "the last update follows the last batch"

    reference = trainer(loader, dropout=0.0, epochs=1, **settings)
    network, batches = reference.model, list(loader)
    reference._prepared()
    network = reference.model.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for group in ((0, 1), (2,)):
        for place in group:
            images, masks = batches[place]
            tall = images.repeat_interleave(2, dim=0)
            logits = network(tall, torch.tensor(THRESHOLDS).repeat(2))
            loss = nn.functional.binary_cross_entropy_with_logits(logits, masks.reshape(4, 1, SIDE, SIDE).float())
            (loss / len(group)).backward()
        # weights decay as in the configuration, those of one dimension not
        for parameter in network.parameters():
            if parameter.ndim >= 2:
                parameter.grad.add_(parameter.detach(), alpha=1e-4)
        optimizer.step()
        optimizer.zero_grad()
    for name, value in network.state_dict().items():
        assert torch.allclose(value, grouped.model.state_dict()[name], atol=1e-6), name


def test_half_precision_on_the_cpu_is_bfloat16_and_only_where_it_is_asked_for():
    seen = []

    class Watching(Plain):
        def forward(self, images):
            seen.append(self.layers[0](images).dtype)
            return super().forward(images)

    for wanted in ("auto", True, False):
        trainer(network=Watching(), mixed_precision=wanted, epochs=1).train()
    assert {*seen} == {torch.float32, torch.bfloat16}
    seen.clear()
    trainer(network=Watching(), epochs=1).train()
    assert {*seen} == {torch.float32}


# Normalisation, regularisation, seeds


@pytest.mark.parametrize(
    ("normalization", "batch_size", "kind"),
    [("auto", 3, nn.GroupNorm), ("auto", 8, nn.BatchNorm2d), ("group", 8, nn.GroupNorm), ("keep", 3, nn.BatchNorm2d)],
)
def test_the_batch_size_of_the_loader_chooses_the_normalisation_before_the_optimizer_is_made(
    normalization, batch_size, kind
):
    made = trainer(torch_loader(batch_size=batch_size), network=Plain(), normalization=normalization, epochs=1)
    made.train()
    assert isinstance(made.model.layers[1], kind)
    held = {id(part) for group in made._fitting.updates.optimizer.param_groups for part in group["params"]}
    assert held == {id(part) for part in made.model.parameters()}


def test_a_tuned_batch_size_chooses_it_too():
    made = Trainer(Plain(), config(batch_size=2, epochs=1), pairs(), callbacks=[], loader_settings={"num_workers": 0})
    made.train()
    assert made.batch_size == 2
    assert isinstance(made.model.layers[1], nn.GroupNorm)


def test_a_models_own_dropout_stays_unless_the_configuration_says_another():
    for changes, rate in (({}, 0.2), ({"dropout_rate": 0.4}, 0.4), ({"dropout_rate": 0.0}, 0.0)):
        made = trainer(epochs=1, **changes)
        made.train()
        rates = {layer.p for layer in made.model.modules() if isinstance(layer, nn.Dropout | nn.Dropout2d)}
        assert rates == {rate}


def test_a_models_own_stochastic_depth_stays_unless_the_configuration_says_another():
    for changes, rates in (
        ({}, [0.3, 0.3]),
        ({"use_droppath": False}, [0.0, 0.0]),
        ({"use_droppath": True, "droppath_final_prob": 0.4}, [0.2, 0.4]),
    ):
        for settings in (config(epochs=1, **changes), Config(**config(epochs=1, **changes).model_dump())):
            network = nn.Sequential(nn.Conv2d(1, 2, 1), DropPath(0.3), DropPath(0.3))
            Trainer(network, settings, torch_loader(), callbacks=()).train()
            assert [network[place].drop_prob for place in (1, 2)] == pytest.approx(rates)


def test_layers_that_are_exchanged_are_told(caplog):
    caplog.set_level(logging.INFO)
    trainer(network=Plain(), epochs=1).train()
    assert "1 layers of the model are exchanged: BatchNorm2d to GroupNorm" in caplog.text


def test_configurations_cannot_change_under_a_training():
    made = trainer(epochs=1)
    made.train()
    made.config.epochs = 2
    made.train()
    made.config.learning_rate = 0.5
    with pytest.raises(SpecError, match=r"learning_rate=0.5 instead of 0.01; make a new Trainer"):
        made.train()


def test_deterministic_algorithms_are_asked_for_only_meanwhile():
    seen = []

    class Watching(Callback):
        def on_batch_end(self, batch, logs=None):
            seen.append(torch.are_deterministic_algorithms_enabled())

    trainer(callbacks=[Watching()], deterministic=True, epochs=1).train()
    assert set(seen) == {True}
    assert not torch.are_deterministic_algorithms_enabled()


# Forms of batches


def batches(*parts):
    return [parts, parts]


def test_masks_may_come_without_a_channel_and_thresholds_third():
    tall = heights(3)
    masks = gaps(tall, (7.5,))
    third = torch.full((3,), 7.5)
    alike = {"thresholds": (7.5,), "epochs": 1}
    expected = losses(trainer(batches(tall, masks), batches(tall, masks), **alike).train())
    assert losses(trainer(batches(tall, masks[:, 0]), batches(tall, masks), **alike).train()) == expected
    assert losses(trainer(batches(tall, masks.float(), third), batches(tall, masks), **alike).train()) == expected
    described = batches(tall, masks, {"path": ["one", "two", "three"]})
    assert losses(trainer(described, described, **alike).train()) == expected


def test_a_model_without_thresholds_has_a_channel_for_each_mask_and_metrics_by_threshold():
    made = trainer(network=Plain(), epochs=1)
    assert "val_iou_10m" in made.train()
    assert made.predict(heights(3)).shape == (3, 2, SIDE, SIDE)
    each = made.predict(heights(3), [5, 10, 5])
    assert each.shape == (3, 1, SIDE, SIDE)
    assert torch.equal(each[1, 0], made.predict(heights(3))[1, 1])
    with pytest.raises(SpecError, match="not conditioned on thresholds"):
        made.predict(heights(3), 7.0)


def test_several_classes_are_trained_by_cross_entropy():
    tall = heights(6)
    classes = (tall[:, 0] > 10).long() + (tall[:, 0] > 20).long()
    loader = DataLoader(TensorDataset(tall / 30, classes), batch_size=3)
    made = trainer(loader, loader, network=Plain(3), loss="cross_entropy", epochs=1)
    history = made.train()
    assert "val_iou_class_2" in history
    assert made.predict(tall[:2] / 30).sum(dim=1).allclose(torch.ones(2, SIDE, SIDE))


def test_a_loader_without_a_length_trains_with_schedules_that_need_none():
    with pytest.raises(SpecError, match="needs the number of batches"):
        trainer(DataLoader(Streamed(), batch_size=3)).train()
    history = trainer(DataLoader(Streamed(), batch_size=3), scheduler_type="step").train()
    assert len(history["train_loss"]) == 3


def test_predictions_are_those_of_the_model_batch_by_batch():
    made = trainer(epochs=1)
    made.train()
    images = heights(7) / 30
    made.model.train()
    found = made.predict(images, [5, 10, 5, 10, 5, 10, 5])
    assert made.model.training, "the mode is put back"
    made.model.eval()
    with torch.no_grad():
        expected = torch.sigmoid(made.model(images, torch.tensor([5.0, 10, 5, 10, 5, 10, 5])))
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(made.predict(images[0], 5), made.predict(images[:1], torch.tensor(5.0)))


@pytest.mark.parametrize(
    ("inputs", "thresholds", "told"),
    [
        (torch.zeros(SIDE, SIDE), 5.0, "inputs are images"),
        (torch.zeros(2, 1, SIDE, SIDE), [5, 10, 5], "got 3 for 2 images"),
        (torch.zeros(2, 1, SIDE, SIDE), None, "takes the threshold"),
    ],
)
def test_what_cannot_be_predicted_is_told(inputs, thresholds, told):
    with pytest.raises(SpecError, match=told):
        trainer().predict(inputs, thresholds)


# What is wrong with data or use


@pytest.mark.parametrize(
    ("loader", "error", "told"),
    [
        ([], DatasetError, "at least one batch"),
        (DataLoader(pairs(2), batch_size=3, drop_last=True), DatasetError, "fewer than batch_size=3 with drop_last"),
        (3, SpecError, "gives batches"),
    ],
)
def test_an_empty_loader_is_refused_at_once(loader, error, told):
    with pytest.raises(error, match=told):
        trainer(loader)
    with pytest.raises(error, match=told):
        trainer(val_loader=loader)


def test_a_loader_that_turns_out_to_be_empty_is_refused():
    with pytest.raises(DatasetError, match="at least one batch"):
        trainer(DataLoader(Streamed(0), batch_size=3), scheduler_type=None).train()


@pytest.mark.parametrize(
    ("batch", "error", "told"),
    [
        ((heights(2), gaps(heights(2)) * 255), DatasetError, r"batch 0 of epoch 0: .*0 to 1, got 255.*ignore_index"),
        ((heights(2), gaps(heights(2)).float() * torch.nan), DatasetError, "0 to 1, got nan"),
        ((heights(2), gaps(heights(2)).int() - 1), DatasetError, "got -1"),
        ((heights(2), gaps(heights(3))), DatasetError, "each image has a mask"),
        ((heights(2)[:, 0], gaps(heights(2))), DatasetError, "images are a tensor"),
        ((heights(2),), DatasetError, r"a batch is \(images, masks\)"),
        (heights(2), DatasetError, r"a batch is \(images, masks\)"),
        ((heights(2), gaps(heights(2)), torch.ones(3)), DatasetError, "one number of metres a sample"),
        ((heights(2), gaps(heights(2), (5.0, 10.0, 15.0))), SpecError, "got 3 masks and thresholds"),
        ((heights(2), gaps(heights(2), (5.0,))), SpecError, "takes the threshold of each image"),
    ],
)
def test_a_batch_that_does_not_fit_is_told_with_its_place(batch, error, told):
    with pytest.raises(error, match=told):
        trainer([batch]).train()


@pytest.mark.parametrize("network", [model, lambda: Plain(1)], ids=["conditioned", "plain"])
@pytest.mark.parametrize("third", [torch.arange(3), torch.tensor([5.0, 7.0, 10.0]), [0, 1, 2]])
def test_numbers_third_in_a_batch_are_thresholds_of_the_configuration_or_refused(network, third):
    tall = heights(3)
    loader = batches(tall / 30, gaps(tall, (5.0,)), third)
    with pytest.raises(SpecError, match=r"batch 0 of epoch 0: numbers third .* thresholds=\(5.0, 10.0\)"):
        trainer(loader, loader, network=network()).train()
    known = batches(tall / 30, gaps(tall, (5.0,)), torch.tensor([5, 10, 5]))
    assert "val_iou_10m" in trainer(known, known, network=network(), epochs=1).train()


def test_numbers_of_samples_disturb_no_sample_with_a_mask_for_each_threshold():
    tall = heights(3)
    counted = batches(tall / 30, gaps(tall), torch.arange(3))
    plain = batches(tall / 30, gaps(tall))
    assert losses(trainer(counted, counted, epochs=1).train()) == losses(trainer(plain, plain, epochs=1).train())


def test_a_compiled_model_takes_thresholds_as_the_model_does():
    for network in (model(), Plain()):
        compiled = torch.compile(network, backend="eager")
        assert takes_thresholds(compiled) is takes_thresholds(network)


def test_a_mask_that_means_nothing_is_ignored_where_the_configuration_says_so():
    tall = heights(4)
    masks = gaps(tall)
    masks[:, :, :2] = 255
    history = trainer([(tall, masks)], [(tall, masks)], ignore_index=255, epochs=1).train()
    assert math.isfinite(history["val_iou"][0])


def test_batches_that_change_shape_train_where_the_model_takes_them():
    small, large = heights(2), torch.rand(2, 1, 12, 12) * 30
    assert trainer([(small, gaps(small)), (large, gaps(large))], epochs=1).train()["train_loss"]


def test_batches_that_change_to_a_shape_that_the_model_cannot_take_are_told():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(SIDE, SIDE)

        def forward(self, images):
            return self.layer(images)

    small, large = heights(2), torch.rand(2, 1, 12, 12) * 30
    loader = [(small, gaps(small, (5.0,))), (large, gaps(large, (5.0,)))]
    made = trainer(loader, network=Fixed(), thresholds=(5.0,))
    with pytest.raises(DatasetError, match=r"batch 1 of epoch 0: .*\(1, 12, 12\).*first ones had \(1, 8, 8\)"):
        made.train()


def test_a_model_with_other_channels_than_masks_is_told():
    with pytest.raises(SpecError, match="one channel for each mask"):
        trainer(network=Plain(3)).train()


def test_a_loss_that_is_not_finite_ends_the_training_with_its_place_and_the_reason():
    tall = heights(6) / 30
    broken = tall.clone()
    broken[4] = torch.nan
    loader = DataLoader(TensorDataset(broken, gaps(tall)), batch_size=3)
    made = trainer(loader)
    with pytest.raises(NonFiniteLossError, match=r"batch 1 of epoch 0: .* its images hold NaN") as caught:
        made.train()
    assert (caught.value.epoch, caught.value.batch) == (0, 1)
    assert caught.value.learning_rate > 0
    assert all(torch.isfinite(value).all() for value in made.model.parameters())


def test_broken_weights_and_overflowing_gradients_are_told_apart():
    made = trainer()
    with torch.no_grad():
        next(made.model.parameters()).fill_(torch.inf)
    with pytest.raises(NonFiniteLossError, match="weights are not finite"):
        made.train()

    class Overflowing(Plain):
        def forward(self, images):
            logits = super().forward(images)
            if logits.requires_grad:
                logits.register_hook(lambda gradient: gradient * torch.inf)
            return logits

    made = trainer(network=Overflowing())
    with pytest.raises(NonFiniteLossError, match="gradients must be finite"):
        made.train()
    assert all(torch.isfinite(value).all() for value in made.model.parameters())


def test_scaled_losses_whose_gradients_never_become_finite_end_the_training():
    class Undefined(Plain):
        def forward(self, images):
            logits = super().forward(images)
            if logits.requires_grad:
                logits.register_hook(lambda gradient: gradient * torch.nan)
            return logits

    made = trainer(network=Undefined(), epochs=9)
    made._prepared().updates.scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(NonFiniteLossError, match=r"for 20 updates in a row.*mixed_precision=False") as caught:
        made.train()
    assert (caught.value.epoch, caught.value.batch) == (4, 3), "the 20th, as an epoch has 4"
    assert all(torch.isfinite(value).all() for value in made.model.parameters())


def test_scaled_losses_may_overflow_now_and_then():
    class Overflowing(Plain):
        backward_passes = 0

        def forward(self, images):
            logits = super().forward(images)
            if logits.requires_grad:
                self.backward_passes += 1
                if self.backward_passes % 20:
                    logits.register_hook(lambda gradient: gradient * torch.inf)
            return logits

    made = trainer(network=Overflowing(), epochs=12)
    made._prepared().updates.scaler = torch.amp.GradScaler("cpu")
    assert len(made.train()["train_loss"]) == 12


def test_what_has_no_loader_is_told():
    alone = Trainer(model(), config(), callbacks=[])
    with pytest.raises(SpecError, match="needs train_loader"):
        alone.train()
    with pytest.raises(SpecError, match="needs test_loader"):
        alone.test()


def test_a_batch_size_that_a_given_loader_does_not_have_is_refused():
    with pytest.raises(SpecError, match="batch_size=16 in the configuration and a loader of 3"):
        trainer(batch_size=16)


def test_training_without_validation_goes_by_its_own_loss():
    made = Trainer(model(), config(scheduler_type="plateau"), torch_loader(), callbacks=[])
    assert "val_loss" not in made.train()
    with pytest.raises(SpecError, match="monitor is a figure of an epoch, got 'val_iou'"):
        Trainer(model(), config(monitor="val_iou"), torch_loader(), callbacks=[]).train()


# Waiting for data


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def slow_loader(clock, waits):
    for number, seconds in enumerate(waits):
        clock.now_s += seconds
        yield number


def test_the_share_of_waiting_leaves_the_first_batch_out():
    clock = Clock()
    timed = TimedBatches(slow_loader(clock, [5.0, 1.0, 2.0]), clock=clock)
    for _ in timed:
        clock.now_s += 3.0
    assert timed.first_batch_s == 5.0
    assert timed.wall_s == 12.0
    assert timed.wait_s == 3.0
    assert timed.share == 0.25


def test_waiting_goes_on_over_a_break_and_skipped_batches_are_not_waited_for():
    clock, given, told = Clock(), [], []
    earlier = {"first_batch_s": 4.0, "wait_s": 1.0, "wall_s": 6.0}
    timed = TimedBatches(
        slow_loader(clock, [5.0, 1.0, 2.0]), skip=1, earlier=earlier, after_skip=lambda: told.append(True), clock=clock
    )
    for number in timed:
        given.append(number)
        clock.now_s += 1.0
    assert given == [1, 2]
    assert told == [True]
    assert timed.figures == {"first_batch_s": 4.0, "wait_s": 4.0, "wall_s": 11.0}


def test_one_batch_has_no_share_of_waiting():
    timed = TimedBatches([1])
    assert list(timed) == [1]
    assert 0 <= timed.share <= 1


# Forest gaps as they are


def test_forest_gaps_train_from_a_dataset_as_it_is(tmp_path):
    import numpy as np
    import rasterio

    for number in range(2):
        tall = np.random.default_rng(number).uniform(0, 30, (1, 32, 32)).astype(np.float32)
        profile = {"driver": "GTiff", "width": 32, "height": 32, "count": 1, "dtype": "float32"}
        with rasterio.open(tmp_path / f"{number}.tif", "w", **profile) as file:
            file.write(tall)
    paths = sorted(tmp_path.glob("*.tif"))
    settings = {"thresholds": THRESHOLDS, "window": 16, "normalization": "min_max"}
    plain = HeightGapDataset(paths, **settings)
    moved = HeightGapDataset(paths, normalize_on="device", **settings)
    made = [
        Trainer(model(), config(epochs=1, batch_size=4), dataset, dataset, callbacks=[]) for dataset in (plain, moved)
    ]
    one, other = (trained.train() for trained in made)
    assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4), "the device normalises as the loader does"
    assert own_loader(plain).batch_size == 3


def test_config_none_is_the_default():
    assert Trainer(model(), callbacks=[]).config == Config()
