"""Datasets that are random in rare or hidden ways, and ones that only look like it."""

import random
import threading
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from autotune.data.stages import StagedDataset

RARELY = 1e-9
"""So rarely that no comparison of two reads sees it."""
MODULE_GENERATOR = np.random.default_rng(3)


class Numbers(Dataset):
    """Numbers with a fingerprint, the same each time."""

    def __init__(self, count=20):
        self.count = count

    def __len__(self):
        return self.count

    def fingerprint(self):
        return f"{type(self).__name__} {self.count}"

    def __getitem__(self, index):
        return self.changed(torch.full((3,), float(index)))

    def changed(self, sample):
        return sample


class RarePython(Numbers):
    def changed(self, sample):
        return sample.flip(0) + 1 if random.random() < RARELY else sample


class RareNumpy(Numbers):
    def changed(self, sample):
        return sample + 1 if np.random.rand() < RARELY else sample  # noqa: NPY002


class RareTorch(Numbers):
    def changed(self, sample):
        return sample + 1 if torch.rand(()) < RARELY else sample


class OwnGenerator(Numbers):
    def __init__(self, count=20, generator=None):
        super().__init__(count)
        self.rng = np.random.default_rng(0) if generator is None else generator

    def changed(self, sample):
        return sample + 1 if self._drawn() < RARELY else sample

    def _drawn(self):
        if isinstance(self.rng, torch.Generator):
            return torch.rand((), generator=self.rng)
        return self.rng.random()


class CapturedGenerator(Numbers):
    """Its transform captured a generator."""

    def __init__(self, count=20):
        super().__init__(count)
        rng = random.Random(0)
        self.transforms = [lambda sample: sample + 1 if rng.random() < RARELY else sample]

    def changed(self, sample):
        return self.transforms[0](sample)


class ModuleGenerator(Numbers):
    def changed(self, sample):
        return sample + 1 if MODULE_GENERATOR.random() < RARELY else sample


class ClassGenerator(Numbers):
    rng = random.Random(0)

    def changed(self, sample):
        return sample + 1 if self.rng.random() < RARELY else sample


class FrozenMemo(Numbers):
    """Keeps what it drew at the first read, so that two reads agree."""

    def __init__(self, count=20):
        super().__init__(count)
        self.memo = {}

    def __getitem__(self, index):
        return self.memo.setdefault(index, torch.rand(3))


class Counting(Numbers):
    """Depends on how often it was read, now and then."""

    def __init__(self, count=20):
        super().__init__(count)
        self.reads = 0

    def changed(self, sample):
        self.reads += 1
        return sample + 1 if self.reads % 50 == 0 else sample


class SeedsItself(Numbers):
    def __getitem__(self, index):
        torch.manual_seed(index)
        return torch.rand(3)


class RandomDecode(StagedDataset):
    """Staged, and random where it must not be."""

    def __len__(self):
        return 20

    def fingerprint(self):
        return "random decode"

    def read(self, index):
        return (bytes([index]),)

    def decode(self, raw):
        return torch.tensor([raw[0][0]]) + int(random.random() < RARELY)


class DeclaredMemo(Numbers):
    """Keeps samples that are the same each time, and says so."""

    unfingerprinted = ("memo",)

    def __init__(self, count=20):
        super().__init__(count)
        self.memo = {}

    def __getitem__(self, index):
        return self.memo.setdefault(index, torch.full((3,), float(index)))


class OpensFiles(Numbers):
    """Opens files on first use, one for all and one for each sample, and holds a lock."""

    def __init__(self, paths):
        super().__init__(len(paths))
        self.paths = [str(path) for path in paths]
        self.file = None
        self.files = {}
        self.lock = None

    def __getitem__(self, index):
        if self.lock is None:
            self.lock = threading.Lock()
            self.file = Path(self.paths[0]).open("rb")  # noqa: SIM115  # kept open
        if index not in self.files:
            self.files[index] = Path(self.paths[index]).open("rb")  # noqa: SIM115
        self.files[index].seek(0)
        return torch.tensor(list(self.files[index].read(4)))


class OwnPerIndex(Numbers):
    """Draws from a generator that belongs to the index: the same each time."""

    def __init__(self, count=20):
        super().__init__(count)
        self.large = torch.zeros(1 << 19)
        self.table = np.arange(1 << 18)
        self.transform = lambda sample: sample * 2
        self.me = self

    def changed(self, sample):
        drawn = torch.rand(3, generator=torch.Generator().manual_seed(int(sample[0])))
        return self.transform(drawn) + np.random.default_rng(int(sample[0])).random()


RANDOM = (
    RarePython,
    RareNumpy,
    RareTorch,
    OwnGenerator,
    CapturedGenerator,
    ModuleGenerator,
    ClassGenerator,
    FrozenMemo,
    Counting,
    SeedsItself,
    RandomDecode,
)
"""Each is refused."""

STEADY = (Numbers, DeclaredMemo, OwnPerIndex)
"""None is refused."""
