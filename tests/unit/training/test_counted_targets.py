"""What a batch has of images, targets and thresholds, and which targets count in a loss."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from training_parts import THRESHOLDS, Plain, gaps, heights, model, trainer

from autotune.training import Callback
from autotune.training.callbacks import VisualizationCallback

IGNORED = 255


class Watching(Callback):
    """Keeps what validation tells of a batch."""

    def on_validation_batch_end(self, batch, logs=None):
        self.logs = logs


@pytest.mark.parametrize("network", [model, Plain], ids=["conditioned", "a channel for each mask"])
def test_each_target_of_validation_comes_with_its_own_image_and_threshold(network):
    watching, tall = Watching(), heights(3)
    batches = [(tall / 30, gaps(tall))]
    trainer(batches, batches, network=network(), callbacks=[watching], epochs=1).train()
    told = watching.logs
    assert {len(told[name]) for name in ("images", "targets", "probabilities", "thresholds")} == {6}
    assert told["thresholds"].tolist() == [*THRESHOLDS] * 3
    for place in range(6):
        sample, mask = divmod(place, 2)
        assert torch.equal(told["images"][place], tall[sample] / 30)
        assert torch.equal(told["targets"][place, 0], gaps(tall)[sample, mask])


# Losses of epochs


class Pointwise(nn.Module):
    """A model whose loss of a sample is the same in every batch."""

    def __init__(self, channels=2):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, channels, 1)

    def forward(self, images):
        return self.layer(images)


def partly_ignored():
    """Give samples of which some do not count at all, and some in one of two masks."""
    tall = heights(12)
    masks = gaps(tall)
    masks[:4] = IGNORED
    masks[7, 0] = IGNORED
    masks[:, :, :2] = IGNORED
    return TensorDataset(tall / 30, masks)


@pytest.mark.parametrize("loss", ["combined", "bce"])
def test_losses_are_those_of_the_masks_that_count_whatever_the_batch_size(loss):
    def of_batches(size):
        loader = DataLoader(partly_ignored(), batch_size=size)
        made = trainer(
            loader, loader, network=Pointwise(), loss=loss, ignore_index=IGNORED, epochs=1,
            learning_rate=1e-12, min_learning_rate=0.0, weight_decay=0.0, optimizer="sgd",
        )  # fmt: skip
        history = made.train()
        return history["train_loss"][0], history["val_loss"][0]

    whole = of_batches(12)
    for size in (1, 3, 4, 5):
        assert of_batches(size) == pytest.approx(whole, rel=1e-5)


def test_losses_of_classes_are_those_of_the_samples_that_count_too():
    tall = heights(6)
    classes = (tall[:, 0] > 10).long()
    classes[:3] = IGNORED
    dataset = TensorDataset(tall / 30, classes)

    def of_batches(size):
        loader = DataLoader(dataset, batch_size=size)
        made = trainer(loader, loader, network=Pointwise(), loss="cross_entropy", ignore_index=IGNORED)
        made.test_loader = loader
        return made.test()["loss"]

    assert of_batches(2) == pytest.approx(of_batches(6), rel=1e-5)
    assert of_batches(1) == pytest.approx(of_batches(6), rel=1e-5)


def test_an_epoch_in_which_nothing_counts_has_no_loss():
    tall = heights(4)
    batches = [(tall / 30, torch.full_like(gaps(tall), IGNORED))]
    history = trainer(batches, batches, ignore_index=IGNORED, epochs=1).train()
    assert math.isnan(history["train_loss"][0])
    assert math.isnan(history["val_loss"][0])


def test_a_picture_is_the_same_whatever_value_marks_what_does_not_count(tmp_path):
    tall = heights(3)
    classes = (tall[:, 0] > 10).long() + (tall[:, 0] > 20).long()

    def drawn(marker):
        marked = classes.clone()
        marked[:, 0] = marker
        batches, folder = [(tall / 30, marked)], tmp_path / str(marker)
        settings = {"loss": "cross_entropy", "ignore_index": marker, "epochs": 1}
        callbacks = [VisualizationCallback(folder)]
        trainer(batches, batches, network=Pointwise(3), callbacks=callbacks, **settings).train()
        return (folder / "epoch_0000.png").read_bytes()

    assert drawn(9) == drawn(IGNORED)
