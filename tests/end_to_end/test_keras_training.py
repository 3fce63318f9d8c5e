"""`model.fit` trains on tuned datasets, through Keras's own process, its worker processes and its threads."""

import math
import multiprocessing

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from autotune.errors import SampleError

pytest.importorskip("autotune.integrations.keras", exc_type=ImportError)
albumentations = pytest.importorskip("albumentations")

from autotune.integrations.keras import (  # noqa: E402  # only where Keras is installed
    TunedPyDataset,
    create_data_generators,
    keras,
)

QUEUES = {
    "own process": {"workers": 0},
    "two processes": {"workers": 2, "use_multiprocessing": True},
    "two threads": {"workers": 2, "use_multiprocessing": False},
}


@pytest.fixture
def scenes(real_data):
    """The real street scenes."""
    folder = real_data / "street_scenes"
    if not folder.is_dir():
        pytest.skip("the street scenes are absent")
    return folder


def segmentation(side):
    model = keras.Sequential(
        [
            keras.Input((side, side, 3)),
            keras.layers.Conv2D(4, 3, strides=4, padding="same", activation="relu"),
            keras.layers.Conv2DTranspose(8, 4, strides=4),
        ]
    )
    # logits: the gradient of a softmax over the last axis fails on torch 2.13, "grad_input must be contiguous"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize("queue", QUEUES.values(), ids=QUEUES)
def test_fit_trains_on_real_street_scenes_with_validation(scenes, queue):
    augmentation = albumentations.Compose(
        [albumentations.HorizontalFlip(p=0.5), albumentations.RandomBrightnessContrast(p=0.5)]
    )
    train, val = create_data_generators(
        batch_size=8, dim=(32, 32), augmentation=augmentation, data_dir=scenes, seed=1, **queue
    )
    keras.utils.set_random_seed(0)
    train[0]  # augmentation has run here before processes are forked, as in a notebook
    history = segmentation(32).fit(train, validation_data=val, epochs=2, verbose=0).history
    assert len(history["loss"]) == len(history["val_loss"]) == 2
    assert all(math.isfinite(value) for values in history.values() for value in values)
    assert history["val_loss"][-1] < history["val_loss"][0]


class Marked(Dataset):
    """Samples that tell their index, and how they were augmented."""

    def __init__(self, broken=None):
        self.broken = broken
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 26

    def __getitem__(self, index):
        if index == self.broken:
            raise SampleError("it is broken", "/data/broken.png")
        return torch.tensor([float(index), float(self.epoch)]), torch.zeros(1)


class Recorder(keras.Model):
    """A model that remembers what it was trained on."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.seen = []

    def call(self, inputs):
        return self.dense(inputs)

    def train_step(self, data):
        self.seen.append(data[0].numpy().astype(int).tolist())
        return super().train_step(data)


def trained(queue, *, epochs=3, seed=7, mixed=False, **settings):
    """Train, and give the samples of each epoch as they came."""
    data = TunedPyDataset(Marked(), batch_size=4, shuffle=True, seed=seed, **queue, **settings)
    model = Recorder()
    model.compile(optimizer="sgd", loss="mse")
    model.fit(data, epochs=epochs, verbose=0, shuffle=mixed)
    batches = [tuple(tuple(sample) for sample in batch) for batch in model.seen]
    assert len(batches) == 7 * epochs
    return [batches[7 * epoch : 7 * epoch + 7] for epoch in range(epochs)]


@pytest.mark.parametrize("queue", QUEUES.values(), ids=QUEUES)
@pytest.mark.parametrize("mixed", [False, True])
def test_each_epoch_has_each_sample_once_in_an_order_and_augmentation_of_its_own(queue, mixed):
    epochs = trained(queue, mixed=mixed)
    for batches in epochs:
        assert sorted(index for batch in batches for index, _ in batch) == list(range(26))
    numbers = [{epoch for batch in batches for _, epoch in batch} for batches in epochs]
    assert numbers == [{1}, {2}, {3}]
    orders = [tuple(index for batch in batches for index, _ in batch) for batches in epochs]
    assert len(set(orders)) == 3


def test_orders_are_the_same_again_and_with_every_queue():
    found = [trained(queue) for queue in QUEUES.values()]
    assert found[0] == found[1] == found[2]
    assert trained(QUEUES["own process"], seed=8) != found[0]


@pytest.mark.parametrize("queue", QUEUES.values(), ids=QUEUES)
def test_a_sample_that_cannot_be_read_stops_training_with_its_path(queue):
    model = Recorder()
    model.compile(optimizer="sgd", loss="mse")
    with pytest.raises(SampleError, match=r"/data/broken.png: it is broken"):
        model.fit(TunedPyDataset(Marked(broken=13), batch_size=4, **queue), epochs=2, verbose=0)


def test_training_leaves_no_process():
    before = set(multiprocessing.active_children())
    trained(QUEUES["two processes"], epochs=1)
    left = set(multiprocessing.active_children()) - before
    for child in left:
        child.join(20)
    assert not [child for child in left if child.is_alive()]


def test_predictions_come_in_the_order_of_the_dataset():
    data = TunedPyDataset(Marked(), batch_size=4, workers=2)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda inputs: inputs[:, :1])])
    assert np.array_equal(model.predict(data, verbose=0)[:, 0], np.arange(26))
