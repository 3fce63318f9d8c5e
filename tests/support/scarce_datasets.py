"""Datasets and steps that need what is scarce: memory, shared memory, device memory; imported by dotted path."""

import torch
from torch.utils.data import Dataset, IterableDataset

MIB = 2**20


class Hungry(Dataset):
    """One sample needs far more memory for a moment than all others."""

    def __init__(self, megabytes, count=64):
        self.megabytes = megabytes
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        if index == self.count // 2:
            held = bytearray(self.megabytes * MIB)
            held[::4096] = b"x" * len(held[::4096])
        return torch.full((4,), float(index))


class Large(Dataset):
    """Samples of some size."""

    def __init__(self, kilobytes, count=128):
        self.kilobytes = kilobytes
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return torch.full((self.kilobytes * 1024,), index, dtype=torch.uint8)


class LargeStream(IterableDataset):
    """The same as a stream: nobody can look at a sample before it comes."""

    def __init__(self, kilobytes, count=128):
        self.kilobytes = kilobytes
        self.count = count

    def __iter__(self):
        return (torch.full((self.kilobytes * 1024,), 1, dtype=torch.uint8) for _ in range(self.count))


def make_device_hungry_step(megabytes):
    """Make a step that takes device memory."""

    def step(batch):
        held = torch.ones(megabytes * MIB, dtype=torch.uint8, device=batch.device)
        return held.sum() + batch.sum()

    return step
