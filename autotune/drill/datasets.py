"""Datasets that do harm, or to which harm is done; trials import them by their dotted path."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's fixed place


class Numbers(Dataset[Tensor]):
    """Small tensors `(4,)` float32 that tell their index.

    Args:
        count: How many.
    """

    def __init__(self, count: int = 64) -> None:
        self.count = count

    def __len__(self) -> int:
        """Give the number of samples."""
        return self.count

    def fingerprint(self) -> str:
        """Say what the samples depend on."""
        return f"numbers {self.count}"

    def __getitem__(self, index: int) -> Tensor:
        """Give one sample."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return torch.full((4,), float(index))


class SlowNumbers(Numbers):
    """Takes its time, so that a builder can be killed in the middle."""

    def __getitem__(self, index: int) -> Tensor:
        """Give one sample after 2 ms."""
        time.sleep(0.002)
        return super().__getitem__(index)


class SignalledWorker(Numbers):
    """The process that reads sample 5 sends itself a signal.

    Args:
        name: Name of the signal.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.signal = signal.Signals[name]

    def __getitem__(self, index: int) -> Tensor:
        """Give one sample, the fifth to nobody."""
        if index == 5:
            os.kill(os.getpid(), self.signal)
        return super().__getitem__(index)


class KilledTrial(Numbers):
    """The worker that reads sample 5 kills the process of its trial, with a batch under way.

    Args:
        log: File that gets the worker's number, which is in the name of its shared memory, and its temporary folder.
    """

    def __init__(self, log: str) -> None:
        super().__init__()
        self.log = log
        self.trial = os.getpid()

    def __getitem__(self, index: int) -> Tensor:
        """Give one sample, the fifth to nobody."""
        if index == 5:
            with Path(self.log).open("a") as log:
                log.write(f"{os.getpid()} {tempfile.gettempdir()}\n")
            if SHARED_MEMORY.is_dir():
                (SHARED_MEMORY / f"torch_{os.getpid()}_1_0").touch()  # torch's, between sending and receiving a batch
            os.kill(self.trial, signal.SIGKILL)
        return super().__getitem__(index)


class Files(Dataset[Tensor]):
    """The first bytes of files, one file a sample: tensors `(4,)` float32.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = [str(path) for path in paths]

    def source_paths(self) -> list[str]:
        """Name the files."""
        return self.paths

    def __len__(self) -> int:
        """Give the number of samples."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Give one sample."""
        return torch.tensor(list(Path(self.paths[index]).read_bytes()[:4]), dtype=torch.float32)


class Augmented(Numbers):
    """Draws in `__getitem__`, as most people write it."""

    def __getitem__(self, index: int) -> Tensor:
        """Give one sample with noise."""
        return super().__getitem__(index) + random.random()  # noqa: S311 - no secret
