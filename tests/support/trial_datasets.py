"""Datasets, steps and faults for trials; imported by dotted path in the trial's process."""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from autotune.data.stages import StagedDataset
from autotune.errors import SampleError


class Plain(Dataset):
    """Small tensors, with a little work each."""

    def __init__(self, count=64, work_ms=0.2):
        self.count = count
        self.work_ms = work_ms

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        end = time.perf_counter() + self.work_ms / 1000
        while time.perf_counter() < end:
            pass
        return torch.full((4,), float(index))


class SlowKnown(Plain):
    """Samples that are waited for, and can be recognised."""

    def __init__(self, count, sleep_ms):
        super().__init__(count, work_ms=0)
        self.sleep_ms = sleep_ms

    def __getitem__(self, index):
        time.sleep(self.sleep_ms / 1000)
        return super().__getitem__(index)

    def fingerprint(self):
        return f"known {self.count}"


class NotesModules(Plain):
    """Notes which libraries its process had imported before it was built."""

    def __init__(self, path, names):
        super().__init__()
        with Path(path).open("a") as file:
            file.write(" ".join(name for name in names if name in sys.modules) + "\n")


class Endless(Plain):
    """Long enough that a trial is still running when the test finds its processes."""

    def __init__(self, count=10_000_000):
        super().__init__(count, work_ms=1.0)


class SignalsWorker(Plain):
    """A worker sends itself a signal at one sample, in every process or only until a file is there."""

    def __init__(self, number, once=None, **settings):
        super().__init__(**settings)
        self.number = number
        self.once = once

    def __getitem__(self, index):
        if index == 5 and (self.once is None or not Path(self.once).exists()):
            if self.once is not None:
                Path(self.once).touch()
            os.kill(os.getpid(), self.number)
        return super().__getitem__(index)


class JumpsClock(Plain):
    """The wall clock jumps once, in the middle of a measurement; see `jumping_clock`."""

    def __init__(self, path, seconds, **settings):
        super().__init__(**settings)
        self.path = path
        self.seconds = seconds

    def __getitem__(self, index):
        if index == self.count // 2 and not Path(self.path).exists():
            before = time.time()
            Path(self.path).write_text(str(self.seconds))
            assert abs(time.time() - before - self.seconds) < 60, "the clock did not jump"
        return super().__getitem__(index)


class KillsTrial(Plain):
    """The trial process kills itself while the dataset is built, in every process or only the first time."""

    def __init__(self, once=None):
        super().__init__()
        if once is None or not Path(once).exists():
            if once is not None:
                Path(once).touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Files(Dataset):
    """Bytes of files as tensors; a damaged one is named by the error."""

    def __init__(self, paths, length):
        self.paths = list(paths)
        self.length = length

    def source_paths(self):
        return self.paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        path = self.paths[index]
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise SampleError(f"cannot be read: {error}", path) from error
        if len(data) != self.length:
            raise SampleError(f"must have {self.length} bytes, got {len(data)}", path)
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)


class Stream(IterableDataset):
    """Numbers, divided over workers or not, with a length or without."""

    def __init__(self, count=64, sharded=True):
        self.count = count
        self.sharded = sharded

    def __iter__(self):
        info = get_worker_info()
        step, start = (info.num_workers, info.id) if info and self.sharded else (1, 0)
        for number in range(start, self.count, step):
            yield torch.full((4,), float(number))


class SizedStream(Stream):
    def __len__(self):
        return self.count


class Raises(Plain):
    """Raises what it was told to."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def __getitem__(self, index):
        if self.kind == "memory":
            raise MemoryError
        if self.kind == "descriptors":
            raise OSError(24, "Too many open files", "x")
        raise ValueError(f"sample {index} is odd")


class LosesWorkerWhileFailing(Plain):
    """Fails, and has the next handler of a signal that is set raise first, as torch's does where a worker is lost."""

    def __getitem__(self, index):
        def lose(frame, event, _argument):
            if event == "call" and frame.f_code is signal.signal.__code__:
                sys.setprofile(None)
                raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

        sys.setprofile(lose)
        raise ValueError("the first error")


class LeavesThings(Plain):
    """Leaves a temporary file, a process in a session of its own and a stopped one."""

    def __init__(self):
        super().__init__()
        import subprocess
        import tempfile

        with tempfile.NamedTemporaryFile(delete=False, prefix="left-behind-") as file:
            file.write(b"x")
        subprocess.Popen(["sleep", "987654"], start_new_session=True)
        stopped = subprocess.Popen(["sleep", "987653"])
        os.kill(stopped.pid, signal.SIGSTOP)


def make_hungry_step(megabytes):
    """Make a step that takes memory for a moment."""

    def step(batch):
        held = bytearray(megabytes * 1024**2)
        held[::4096] = b"x" * len(held[::4096])
        return len(held) + len(batch)

    return step


def make_counting_step(path):
    """Make a step that notes what it gets."""

    def step(batch):
        with Path(path).open("a") as file:
            file.write(f"{len(batch)}\n")

    return step


def make_failing_step():
    def step(batch):
        raise ValueError("the model does not like this batch")

    return step


class SlowStages(StagedDataset):
    """Stages that take as long as they are told to."""

    def __init__(self, count=64, read_ms=0.1, decode_ms=0.1, augment_ms=0.1):
        super().__init__()
        self.count = count
        self.read_ms, self.decode_ms, self.augment_ms = read_ms, decode_ms, augment_ms

    def __len__(self):
        return self.count

    def read(self, index):
        spin(self.read_ms)
        return (index.to_bytes(4, "little"),)

    def decode(self, raw):
        spin(self.decode_ms)
        return torch.full((4,), float(int.from_bytes(raw[0], "little")))

    def augment(self, sample, generator):
        spin(self.augment_ms)
        return sample + torch.rand((), generator=generator)


class OnDevice(Plain):
    """Does something to batches on the device: sleeps, notes their size in a file, or raises."""

    def __init__(self, path=None, sleep_ms=0.0, raises=False, count=64):
        super().__init__(count)
        self.path, self.sleep_ms, self.raises = path, sleep_ms, raises

    def device_transform(self, batch):
        if self.raises:
            raise ValueError("the device does not like this batch")
        time.sleep(self.sleep_ms / 1000)
        if self.path is not None:
            with Path(self.path).open("a") as file:
                file.write(f"{os.getpid()} {len(batch)}\n")
        return {"twice": 2 * batch}


class Recognised(OnDevice):
    """One whose samples may be stored."""

    def fingerprint(self):
        return "recognised"


def make_step_on_transformed():
    """Make a step that takes what `OnDevice` makes of a batch, also while evaluating."""

    class Step:
        def __call__(self, batch):
            assert torch.equal(batch["twice"] % 2, torch.zeros_like(batch["twice"]))

        evaluate = __call__

    return Step()


class Varying(Dataset):
    """Vectors of bytes of which a few are long."""

    def __init__(self, count, short, long, every):
        self.count, self.short, self.long, self.every = count, short, long, every

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.zeros(self.long if index % self.every == 0 else self.short, dtype=torch.uint8)


def pad(samples):
    """Collate vectors of any lengths."""
    return torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)


def make_growing_step(mib_per_sample=0.0, evaluation_mib=0.0):
    """Hold memory for each sample while training, or for each batch while evaluating."""

    class Growing:
        def __call__(self, batch):
            torch.ones(int(mib_per_sample * len(batch) * 2**20) + 1, dtype=torch.uint8)

        def evaluate(self, batch):
            torch.ones(int(evaluation_mib * 2**20) + 1, dtype=torch.uint8)

    return Growing()


def spin(milliseconds):
    """Keep a CPU busy."""
    end = time.perf_counter() + milliseconds / 1000
    while time.perf_counter() < end:
        pass
