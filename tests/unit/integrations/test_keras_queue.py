"""Loaders through Keras's queue: torch's batches in torch's order, and nothing left when they end."""

import itertools
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from registry_values import Numbers, Stream
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

from autotune.data.build import make_loader
from autotune.data.facts import samples_equal
from autotune.errors import SampleError, SpecError
from autotune.resolve.best import best_loader

pytest.importorskip("autotune.integrations.keras", exc_type=ImportError)

from autotune.integrations.keras import KerasLoader, KerasThreadLoader  # only where Keras is installed

CLASSES = (KerasLoader, KerasThreadLoader)
SETTINGS = {
    "plain": {"batch_size": 4},
    "shuffled": {"batch_size": 4, "shuffle": True},
    "shuffled, drop_last": {"batch_size": 4, "shuffle": True, "drop_last": True},
    "single samples": {"batch_size": None, "shuffle": True},
    "batch sampler": {"batch_sampler": BatchSampler(SequentialSampler(range(11)), 3, drop_last=False)},
    "collate": {"batch_size": 5, "collate_fn": list},
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def drained(loader):
    """Take the batches of two epochs, and see that no process is left."""
    found = [list(loader), list(loader)]
    assert not multiprocessing.active_children()
    return found


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("loader_class", CLASSES)
def test_batches_are_those_of_torch_in_torchs_order(loader_class, settings):
    want = drained(DataLoader(Numbers(11), generator=seeded(3), **settings))
    for workers in (0, 2):
        loader = loader_class(Numbers(11), num_workers=workers, generator=seeded(3), **settings)
        assert isinstance(loader, DataLoader)
        assert len(loader) == len(want[0])
        assert samples_equal(drained(loader), want)


@pytest.mark.parametrize("persistent", [False, True])
def test_orders_are_those_of_a_made_loader_over_several_epochs(persistent):
    arguments = {"batch_size": 4, "num_workers": 2, "persistent_workers": persistent}
    want = make_loader(Numbers(11), dict(arguments), shuffle=True, seed=5)
    found = make_loader(Numbers(11), dict(arguments), shuffle=True, seed=5, loader_class=KerasLoader)
    for _ in range(3):
        assert samples_equal(list(found), list(want))
    assert found.persistent_workers is False


def test_best_loader_serves_through_it_with_archive_and_cache(tmp_path):
    arguments = {"batch_size": 4, "shuffle": True, "home": tmp_path, "archive": "build", "cache": "memory"}
    want = best_loader(Numbers(11), generator=seeded(1), **arguments)
    found = best_loader(Numbers(11), generator=seeded(1), num_workers=2, loader_class=KerasLoader, **arguments)
    assert type(found) is KerasLoader
    for _ in range(2):
        assert samples_equal(list(found), list(want))


def test_the_queue_is_as_long_as_torchs(tmp_path):
    assert KerasLoader(Numbers(), num_workers=2).queue_size == 4
    assert KerasLoader(Numbers(), num_workers=3, prefetch_factor=5).queue_size == 15


class Kinds(Dataset):
    """Samples of many types."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return {
            "half": torch.full((2,), index, dtype=torch.bfloat16),
            "complex": torch.full((2,), index + 1j).conj(),
            "bool": torch.tensor(index > 2),
            "array": np.full(2, index, np.int16),
            "nested": (torch.zeros(0), [index, "text"]),
        }


def test_every_type_arrives_as_torch_gives_it():
    want = list(DataLoader(Kinds(), batch_size=4))
    assert samples_equal(list(KerasLoader(Kinds(), batch_size=4, num_workers=2)), want)
    single = list(KerasLoader(Kinds(), batch_size=None, num_workers=1))
    assert samples_equal(single, list(DataLoader(Kinds(), batch_size=None)))


class Random(Dataset):
    """Draws from every global generator."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        drawn = np.random.random()  # noqa: NPY002  # the global generator is the question
        return random.random(), drawn, torch.rand(()), float(torch.get_num_threads())


def three_epochs(loader):
    return [batch for _ in range(3) for batch in loader]


def drawn(batches):
    """The different random numbers of batches of `Random`."""
    return {float(value) for batch in batches for part in batch[:3] for value in part}


@pytest.mark.parametrize("persistent", [False, True])
def test_what_is_random_in_workers_does_not_depend_on_their_number(persistent):
    def epochs(workers, seed):
        return three_epochs(
            KerasLoader(
                Random(), 3, num_workers=workers, generator=seeded(seed), persistent_workers=persistent and workers > 0
            )
        )

    one, two, three = (epochs(workers, 2) for workers in (1, 2, 3))
    assert samples_equal(one, two)
    assert samples_equal(two, three)
    assert {float(value) for batch in one for value in batch[3]} == {1.0}
    assert len(drawn(one)) == 3 * 36, "as with torch, no number comes twice, within an epoch or in another"
    assert not drawn(one) & drawn(epochs(2, 3)), "another seed gives other numbers in every epoch"


def test_epochs_of_persistent_workers_differ_where_those_of_torch_do_and_draw_as_many_numbers():
    arguments = {"batch_size": 3, "num_workers": 2, "persistent_workers": True}
    torchs, own = (cls(Random(), generator=seeded(2), **arguments) for cls in (DataLoader, KerasLoader))
    found = [[len(drawn(loader)) for _ in range(3)] for loader in (torchs, own)]
    assert found == [[36] * 3] * 2
    assert len(drawn(three_epochs(torchs))) == len(drawn(three_epochs(own))) == 3 * 36
    assert torch.equal(torchs.generator.get_state(), own.generator.get_state())


class Told(Dataset):
    """Gives what `worker_init_fn` was called with in the process that reads."""

    number = None

    def __len__(self):
        return 24

    def __getitem__(self, index):
        time.sleep(0.02)
        return -1 if Told.number is None else Told.number


def remember(number):
    Told.number = number


def test_worker_init_fn_gets_the_numbers_of_the_workers():
    found = {int(n) for batch in KerasLoader(Told(), 1, num_workers=2, worker_init_fn=remember) for n in batch}
    assert found == {0, 1}
    assert Told.number is None


@pytest.mark.long
def test_another_start_method_gives_the_same():
    loader = KerasLoader(Numbers(11), 4, num_workers=1, multiprocessing_context="spawn")
    assert samples_equal(list(loader), list(DataLoader(Numbers(11), 4)))
    assert not multiprocessing.active_children()


class Broken(Dataset):
    """One sample in the middle cannot be read."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index == 13:
            raise SampleError("it is broken", "/data/13.png")
        return index


@pytest.mark.parametrize("loader_class", CLASSES)
def test_an_error_in_the_middle_comes_with_its_path_and_ends_the_workers(loader_class):
    batches = iter(loader_class(Broken(), 4, num_workers=2))
    assert [next(batches).tolist() for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(SampleError, match=r"/data/13.png: it is broken") as caught:
        next(batches)
    assert caught.value.path == "/data/13.png"
    assert not multiprocessing.active_children()
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize("loader_class", CLASSES)
def test_an_epoch_that_is_left_early_leaves_nothing(loader_class):
    loader = loader_class(Numbers(400), 2, num_workers=2)
    for number, _ in enumerate(loader):
        if number == 3:
            break
    assert not multiprocessing.active_children()
    assert len(list(loader)) == 200


class Slow(Dataset):
    """Takes its time."""

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        time.sleep(0.05)
        return index


def started(loader):
    """Begin an epoch, and give its batches and a process of its own."""
    before = multiprocessing.active_children()
    batches = iter(loader)
    next(batches)
    return batches, next(child for child in multiprocessing.active_children() if child not in before)


@pytest.mark.fault
def test_a_killed_worker_ends_the_epoch_with_an_error():
    batches, worker = started(KerasLoader(Slow(), 2, num_workers=2))
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="of Keras's pool ended with exit code -9"):
        list(batches)
    assert not multiprocessing.active_children()


@pytest.mark.fault
def test_a_stopped_worker_runs_into_the_timeout():
    batches, worker = started(KerasLoader(Slow(), 2, num_workers=1, timeout=2))
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(RuntimeError, match="no batch came out of Keras's queue for 2 s"):
        list(batches)
    assert not multiprocessing.active_children()


class Leaving(Slow):
    """Ends the process that reads one sample, as if nothing were wrong."""

    def __getitem__(self, index):
        if index == 5:
            os._exit(0)
        return super().__getitem__(index)


@pytest.mark.fault
def test_a_worker_that_ends_itself_with_success_ends_the_epoch_with_an_error():
    with pytest.raises(RuntimeError, match="of Keras's pool ended with exit code 0"):
        list(KerasLoader(Leaving(), 2, num_workers=2, timeout=30))
    assert not multiprocessing.active_children()


class Endless(torch.utils.data.Sampler):
    """Gives positions for ever."""

    def __iter__(self):
        return itertools.cycle(range(11))


class EndlessBatches(Endless):
    def __iter__(self):
        return itertools.repeat([1, 2] * 500)


@pytest.mark.parametrize(
    "settings",
    [{"sampler": Endless()}, {"sampler": Endless(), "batch_size": None}, {"batch_sampler": EndlessBatches()}],
)
def test_a_sampler_without_an_end_is_refused(settings):
    with pytest.raises(SpecError, match=r"must end with its epoch, got 1,00\d,\d+ positions .* torch's DataLoader"):
        iter(KerasLoader(Numbers(11), **settings))


def test_a_sampler_may_repeat_samples_as_often_as_it_says():
    often = torch.utils.data.RandomSampler(range(2), replacement=True, num_samples=1_100_000)
    batches = KerasLoader(Numbers(2), batch_size=1000, sampler=often).draw_batches()[1]
    assert sum(map(len, batches)) == 1_100_000


def test_what_has_no_meaning_is_refused():
    with pytest.raises(SpecError, match="batches by their number"):
        KerasLoader(Stream())
    with pytest.raises(SpecError, match="in_order=False"):
        KerasLoader(Numbers(), num_workers=1, in_order=False)
    with pytest.raises(SpecError, match="worker_init_fn is for worker processes"):
        KerasThreadLoader(Numbers(), num_workers=2, worker_init_fn=print)
    with pytest.raises(ValueError, match="prefetch_factor"):
        KerasLoader(Numbers(), prefetch_factor=2)


class OpenFile(Dataset):
    """Seeks and reads in a file that it opens on first use: wrong for two threads at once."""

    def __init__(self, path):
        self.path = path
        self._file = None

    def __len__(self):
        return 200

    def __getitem__(self, index):
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
        self._file.seek(index)
        time.sleep(0.0005)
        return self._file.read(1)[0]


def test_threads_read_from_copies_of_the_dataset(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(200)))
    dataset = OpenFile(path)
    found = [int(value) for batch in KerasThreadLoader(dataset, 5, num_workers=4) for value in batch]
    assert found == list(range(200))
    assert dataset._file is None


def test_an_empty_epoch_ends_at_once():
    assert list(KerasLoader(Numbers(3), 4, num_workers=2, drop_last=True)) == []
