"""Small models, datasets and loaders for the tests of training."""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from autotune.data.build import make_loader
from autotune.data.stages import StagedDataset
from autotune.training import Config, Trainer
from autotune.training.models.unet import ThresholdUNet

SIDE = 8
THRESHOLDS = (5.0, 10.0)


def heights(count=10, seed=0):
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 30


def gaps(tall, thresholds=THRESHOLDS):
    return torch.cat([(tall < metres).to(torch.uint8) for metres in thresholds], dim=1)


def pairs(count=10, thresholds=THRESHOLDS, seed=0):
    """Give a dataset of heights, scaled, with one mask for each threshold."""
    tall = heights(count, seed)
    return TensorDataset(tall / 30, gaps(tall, thresholds))


class Jittered(StagedDataset):
    """Heights with noise that each epoch draws anew, of seed, epoch and index."""

    def __init__(self, count=10):
        super().__init__()
        self.tall = heights(count)

    def __len__(self):
        return len(self.tall)

    def read(self, index):
        return (self.tall[index].numpy().tobytes(),)

    def decode(self, raw):
        tall = torch.from_numpy(np.frombuffer(raw[0], dtype=np.float32).reshape(1, SIDE, SIDE).copy())
        return tall / 30, gaps(tall[None])[0]

    def augment(self, sample, generator):
        return sample[0] + 0.1 * torch.randn(sample[0].shape, generator=generator), sample[1]


class GloballyRandom(Dataset):
    """Heights with noise from the global generators, as many datasets have it."""

    def __init__(self, count=10):
        self.tall = heights(count)

    def __len__(self):
        return len(self.tall)

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002
        return self.tall[index] / 30 + 0.1 * noise.float(), gaps(self.tall[index : index + 1])[0]


class Streamed(IterableDataset):
    """Samples that come by themselves, without a length."""

    def __init__(self, count=10):
        self.count = count

    def __iter__(self):
        return iter(pairs(self.count))


def model(dropout=0.2, seed=0):
    """Give a small model that is conditioned on the threshold, with batch normalisation and dropout."""
    torch.manual_seed(seed)
    return ThresholdUNet(width=4, depth=1, dropout_rate=dropout)


class Plain(nn.Module):
    """A model that knows no thresholds: one channel for each mask."""

    def __init__(self, channels=2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, channels, 1)
        )

    def forward(self, images):
        return self.layers(images)


def config(**changes):
    return Config(**{"epochs": 3, "thresholds": THRESHOLDS, "learning_rate": 0.01, "warmup_epochs": 1, **changes})


def torch_loader(dataset=None, *, batch_size=3, seed=5, shuffle=True, **settings):
    """Give torch's own loader with a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    dataset = pairs() if dataset is None else dataset
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, generator=generator, **settings)


def own_loader(dataset=None, *, batch_size=3, seed=5, shuffle=True, **settings):
    """Give a loader as `best_loader` makes it."""
    arguments = {"batch_size": batch_size, **settings}
    return make_loader(pairs() if dataset is None else dataset, arguments, shuffle=shuffle, seed=seed)


def trainer(train_loader=None, val_loader=None, *, callbacks=(), network=None, dropout=0.2, **settings):
    """Give a trainer with validation, without progress on the terminal."""
    return Trainer(
        model(dropout) if network is None else network,
        config(**settings),
        torch_loader() if train_loader is None else train_loader,
        torch_loader(pairs(4, seed=1), shuffle=False) if val_loader is None else val_loader,
        callbacks=callbacks,
    )


def losses(history):
    """Give the figures that a resumed training must share with an uninterrupted one."""
    timed = ("data_wait_share", "first_batch_s", "train_s")
    return {name: values for name, values in history.items() if name not in timed}
