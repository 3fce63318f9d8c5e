"""Online loaders of tests, and what they read: numbers that can be told apart, slow, broken or deadly."""

import os
import signal
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

import autotune
from autotune.data.stages import StagedDataset


class Drawn(StagedDataset):
    """Staged numbers with something random added in each epoch."""

    def __init__(self, count, *, seed=3, slow_s=0.0):
        super().__init__(seed=seed)
        self.count = count
        self.slow_s = slow_s

    def __len__(self):
        return self.count

    def read(self, index):
        return (int(index).to_bytes(4, "little"),)

    def decode(self, raw):
        if self.slow_s:
            time.sleep(self.slow_s)
        return torch.tensor([int.from_bytes(raw[0], "little")], dtype=torch.float32)

    def augment(self, sample, generator):
        return sample + torch.rand(2, generator=generator)


class Plain(Dataset):
    """Numbers, and which process read them."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.tensor([index, os.getpid()])


class Deadly(Plain):
    """Kills the worker that reads one sample, as often as it is read in a worker."""

    def __init__(self, count, deadly):
        super().__init__(count)
        self.deadly = deadly

    def __getitem__(self, index):
        if index == self.deadly and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class NoSharedMemory(Plain):
    """Raises in workers what torch raises where there is no shared memory."""

    def __getitem__(self, index):
        if get_worker_info() is not None and index >= self.count // 2:
            raise RuntimeError(
                "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
            )
        return super().__getitem__(index)


class Broken(Plain):
    """Has one sample that cannot be read."""

    def __getitem__(self, index):
        if index == self.count - 3:
            raise ValueError("sample is broken")
        return super().__getitem__(index)


class OneFile(Dataset):
    """Reads from one file that is opened on first use; its place is shared by processes that inherit it."""

    def __init__(self, path, count):
        self.path = str(path)
        self.count = count
        self.file = None

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if self.file is None:
            self.file = Path(self.path).open("rb")  # noqa: SIM115  # kept open
        self.file.seek(4 * index)
        return torch.tensor([int.from_bytes(self.file.read(4), "little")])


def report_in_group(rank, store):
    """Train in a process group of two that begins once the loader is made, and tell what was tried.

    Args:
        rank: Number of this process.
        store: File that the processes meet in.
    """
    loader = autotune.online_loader(Plain(200), batch_size=2, segment_batches=1, settings=[{"num_workers": 1}])
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        assert len(list(loader)) == 100
    finally:
        torch.distributed.destroy_process_group()
    return loader.report.outcome, loader.report.why, len(loader.report.segments)


SHORT = {"segment_batches": 1, "settings": [{"num_workers": 1, "prefetch_factor": 1}, {"num_workers": 2}]}
"""A plan that tries two settings within some dozen batches."""


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def online(dataset, **arguments):
    return autotune.online_loader(dataset, **{"batch_size": 2, **SHORT, **arguments})


def plain_epochs(dataset, epochs, *, first=0, **arguments):
    """Give what a plain loader gives, epoch by epoch."""
    loader = DataLoader(dataset, **{"batch_size": 2, **arguments})
    found = []
    for epoch in range(first, first + epochs):
        dataset.set_epoch(epoch)
        found.append(list(loader))
    return found


def assert_same(found, expected):
    assert [len(epoch) for epoch in found] == [len(epoch) for epoch in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
