"""DALI's pipeline as a loader class: the samples of torch's DataLoader in its order, at every number of workers."""

import importlib.util
import os
import sys
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data_sets import AugmentedDataset, BytesDataset, ShardedNumbers, keep_list
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from autotune.data.build import make_loader
from autotune.errors import DatasetError, MissingExtraError, SampleError, SpecError
from autotune.integrations.dali import DaliLoader
from autotune.integrations.dali_source import Parts, Source
from autotune.resolve.best import best_loader
from autotune.resolve.resolution import AutotuneWarning


def _installed():
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False


needs_dali = pytest.mark.skipif(not _installed(), reason="DALI is not installed")
WORKERS = pytest.mark.parametrize("workers", [0, 2])


class Mixed(Dataset):
    """Fixed shapes: a tensor, an array, numbers, an empty part, nested."""

    def __init__(self, count=23):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(index))
        image[0, 0, :2] = torch.tensor([float("nan"), -0.0])
        half = torch.full((2,), index, dtype=torch.bfloat16)
        array = np.arange(6, dtype=np.uint16).reshape(2, 3).T + np.uint16(index)
        return {"image": image, "parts": (array, [index, index / 3]), "flag": index % 2 == 0, "half": half}


class Boxes(Dataset):
    """Shapes that differ, one of them empty, and text."""

    def __len__(self):
        return 9

    def __getitem__(self, index):
        return torch.arange(4 * (index % 3), dtype=torch.float32).reshape(-1, 4), "x" * (index % 2), torch.tensor(index)


class Broken(Mixed):
    """Sample 13 cannot be read."""

    def __getitem__(self, index):
        if index == 13:
            raise SampleError("it is truncated", "folder/13.png")
        return super().__getitem__(index)


class Hanging(Mixed):
    def __getitem__(self, index):
        if index == 5:
            time.sleep(600)
        return super().__getitem__(index)


class Changing(Mixed):
    def __getitem__(self, index):
        return torch.zeros(3) if index < 6 else (torch.zeros(3),)


class Processes(Mixed):
    """Samples tell who read them."""

    def __getitem__(self, index):
        return torch.tensor([os.getpid(), torch.get_num_threads(), torch.initial_seed() % 2**31])


def _bytes(tensor):
    whole = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    return whole.numpy().tobytes()


def same(one, other):
    if isinstance(one, torch.Tensor):
        same_kind = one.dtype == other.dtype and one.shape == other.shape
        return same_kind and _bytes(one) == _bytes(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(map(same, one, other)) and len(one) == len(other)
    return type(one) is type(other) and np.array_equal(one, other)


def check_same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    assert all(map(same, ours, theirs))


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


def both(dataset, **arguments):
    """Give our loader and torch's, each with a generator of its own."""
    settings = {"batch_size": 5, **arguments}
    return tuple(cls(dataset, **settings, generator=seeded()) for cls in (DaliLoader, DataLoader))


@needs_dali
@WORKERS
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_those_of_torch_bit_for_bit_and_in_order(workers, shuffle):
    ours, theirs = both(Mixed(), num_workers=workers, shuffle=shuffle)
    for _ in range(2):
        check_same(ours, theirs)


class Skipping(Mixed):
    """Leaves samples out of its batches, as those with `on_broken="skip"` do."""

    def __getitems__(self, indices):
        return [self[index] for index in indices if index != 1]


def test_a_batch_that_lost_samples_is_refused_with_the_way_out():
    dataset = Skipping()
    source = Source(dataset, Parts.of(dataset[0]), [[0, 1, 2]], workers=0, seed=0, initialise=None)
    with pytest.raises(
        DatasetError, match=r"every sample of a batch, got 2 of 3 from Skipping.*on_broken='substitute'"
    ):
        source(SimpleNamespace(iteration=0))


@needs_dali
@WORKERS
def test_samples_of_different_shapes_reach_a_collate_function_of_the_caller(workers):
    ours, theirs = both(Boxes(), num_workers=workers, collate_fn=keep_list)
    check_same(ours, theirs)


@needs_dali
@pytest.mark.parametrize("shuffle", [False, True])
def test_persistent_workers_give_every_epoch_the_order_of_torch(shuffle):
    ours, theirs = both(Mixed(), num_workers=2, shuffle=shuffle, persistent_workers=True)
    for _ in range(3):
        check_same(ours, theirs)


@needs_dali
def test_persistent_workers_stay_and_others_are_new_each_epoch():
    kept = DaliLoader(Processes(8), batch_size=2, num_workers=1, persistent_workers=True)
    new = DaliLoader(Processes(8), batch_size=2, num_workers=1)
    pids = [[int(row[0]) for batch in loader for row in batch] for loader in (kept, kept, new, new)]
    assert len(set(pids[0] + pids[1])) == 1
    assert len(set(pids[2] + pids[3])) == 2
    assert not any(os.getpid() in found for found in pids)


@needs_dali
def test_workers_are_single_threaded_and_seeded_apart():
    loader = DaliLoader(Processes(64), batch_size=2, num_workers=2, generator=seeded())
    rows = torch.cat(list(loader)).tolist()
    assert {threads for _, threads, _ in rows} == {1}
    assert len({(pid, seed) for pid, _, seed in rows}) == len({pid for pid, _, _ in rows})


@needs_dali
def test_an_epoch_that_is_left_early_does_not_show_in_the_next_one():
    ours, theirs = both(Mixed(), num_workers=2, shuffle=True, persistent_workers=True)
    for loader in (ours, theirs):
        for _ in loader:
            break
    assert sorted(index for batch in ours for index in batch["parts"][1][0].tolist()) == list(range(23))


@needs_dali
@WORKERS
def test_batches_of_the_caller_may_differ_in_size_from_epoch_to_epoch(workers):
    batches = [[3, 1], [4], [0, 2, 22, 7]]
    loader = DaliLoader(Mixed(), batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0)
    first = [batch["parts"][1][0].tolist() for batch in loader]
    assert first == [[3, 1], [4], [0, 2, 22, 7]]
    batches[:] = [list(range(20)), [5]]
    assert [batch["parts"][1][0].tolist() for batch in loader] == batches


@needs_dali
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(1, 30),
    batch_size=st.integers(1, 9),
    drop_last=st.booleans(),
    seed=st.integers(0, 99),
    workers=st.sampled_from([0, 1]),
)
def test_every_length_and_batch_size_gives_what_torch_gives(count, batch_size, drop_last, seed, workers):
    settings = {"batch_size": batch_size, "drop_last": drop_last, "shuffle": True}
    ours = DaliLoader(Mixed(count), **settings, num_workers=workers, generator=seeded(seed))
    theirs = DataLoader(Mixed(count), **settings, generator=seeded(seed))
    assert len(ours) == len(theirs)
    check_same(ours, theirs)


@needs_dali
@WORKERS
def test_an_error_of_a_sample_comes_with_its_batch_and_its_type(workers):
    loader = DaliLoader(Broken(), batch_size=5, num_workers=workers)
    batches = iter(loader)
    taken = [next(batches), next(batches)]
    with pytest.raises(SampleError, match=r"folder/13\.png: it is truncated") as raised:
        next(batches)
    assert raised.value.path == "folder/13.png"
    check_same(taken, list(DataLoader(Mixed(10), batch_size=5)))


@needs_dali
def test_a_worker_that_hangs_ends_with_the_time_out_of_torch():
    loader = DaliLoader(Hanging(), batch_size=5, num_workers=2, timeout=2)
    batches = iter(loader)
    next(batches)
    with pytest.raises(RuntimeError, match="timed out after 2"):
        next(batches)


@needs_dali
@WORKERS
def test_samples_of_another_structure_are_named(workers):
    with pytest.raises(DatasetError, match="sample 6"):
        list(DaliLoader(Changing(), batch_size=4, num_workers=workers))


@needs_dali
def test_what_dali_has_no_type_for_is_named():
    class Named(Mixed):
        def __getitem__(self, index):
            return torch.zeros(2), np.array(["a"])

    with pytest.raises(DatasetError, match="no type for arrays of <U1"):
        list(DaliLoader(Named(), batch_size=4))


@needs_dali
@pytest.mark.parametrize(
    ("dataset", "arguments", "words"),
    [
        (ShardedNumbers(), {}, "map-style"),
        (Mixed(), {"batch_size": None}, "batch_size"),
        (Mixed(), {"num_workers": 2, "multiprocessing_context": "spawn"}, "forks"),
    ],
)
def test_what_it_cannot_do_is_refused(dataset, arguments, words):
    with pytest.raises(SpecError, match=words):
        DaliLoader(dataset, **{"batch_size": 4, **arguments})


@needs_dali
def test_keys_that_are_no_numbers_are_refused():
    with pytest.raises(SpecError, match="whole numbers"):
        list(DaliLoader({"a": 1}, batch_size=1, sampler=["a"]))


@needs_dali
@WORKERS
def test_our_own_loaders_are_made_with_it(workers):
    dataset = AugmentedDataset()
    arguments = {"batch_size": 4, "num_workers": workers}
    ours, theirs = (
        make_loader(dataset, arguments, shuffle=True, seed=3, loader_class=cls) for cls in (DaliLoader, DataLoader)
    )
    assert type(ours) is DaliLoader
    check_same(ours, theirs)


@needs_dali
def test_staged_bytes_of_every_length_pass():
    ours, theirs = both(BytesDataset(), collate_fn=keep_list, num_workers=2)
    check_same(ours, theirs)


@needs_dali
@WORKERS
def test_operators_of_dali_stand_between(workers):
    from nvidia.dali import fn, types

    class Flipped(DaliLoader):
        def process(self, parts):
            image, *rest = parts
            return [fn.cast(fn.flip(fn.reshape(image, layout="CHW"), horizontal=1), dtype=types.FLOAT16), *rest]

    class Images(Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return torch.arange(24, dtype=torch.float32).reshape(2, 3, 4) + index, index

    plain = DataLoader(Images(), batch_size=4)
    for (image, label), (original, index) in zip(
        Flipped(Images(), batch_size=4, num_workers=workers), plain, strict=True
    ):
        assert image.dtype == torch.float16
        assert torch.equal(image.float(), original.flip(-1))
        assert torch.equal(label, index)


@needs_dali
def test_a_global_generator_is_left_where_torch_leaves_it():
    states = []
    for cls in (DaliLoader, DataLoader):
        torch.manual_seed(4)
        list(cls(Mixed(), batch_size=4, shuffle=True))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@needs_dali
def test_a_sampler_with_batches_of_torch_is_taken():
    sampler = BatchSampler(RandomSampler(Mixed(), generator=seeded()), 4, drop_last=True)
    other = BatchSampler(RandomSampler(Mixed(), generator=seeded()), 4, drop_last=True)
    check_same(DaliLoader(Mixed(), batch_sampler=sampler, num_workers=1), DataLoader(Mixed(), batch_sampler=other))


@needs_dali
def test_an_empty_epoch_has_no_batches():
    assert list(DaliLoader(Mixed(3), batch_size=5, drop_last=True)) == []


def trained(loader):
    torch.manual_seed(0)
    model = torch.nn.Linear(30, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        for batch in loader:
            optimizer.zero_grad()
            images = batch["image"].nan_to_num().flatten(1)
            (model(images)[:, 0] - batch["parts"][1][1].float()).square().mean().backward()
            optimizer.step()
    return model.weight


@needs_dali
@WORKERS
def test_training_comes_to_the_weights_that_torch_s_loader_gives(workers, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutotuneWarning)  # nothing was tuned here
        settings = {"batch_size": 5, "shuffle": True, "num_workers": workers, "home": tmp_path}
        ours, theirs = (
            best_loader(Mixed(), **settings, generator=seeded(), loader_class=cls) for cls in (DaliLoader, None)
        )
    assert type(ours) is DaliLoader
    assert torch.equal(trained(ours), trained(theirs))


def test_without_dali_the_way_to_install_it_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("nvidia.dali")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(MissingExtraError, match="nvidia-dali-cuda120"):
        DaliLoader(Mixed(), batch_size=4)
