"""Samples that stay within a share of memory, and the cache of those used last."""

import gc
import multiprocessing
import os
import pickle

import h5py
import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, default_collate, get_worker_info

from autotune.data.apply import apply
from autotune.data.caches._base import ABSENT
from autotune.data.datasets.general_images import ImageDataset
from autotune.data.datasets.lru_cache import LruCache, fresh_copy
from autotune.data.datasets.memory_efficient import MemoryEfficientDataset
from autotune.data.datasets.memory_room import MemoryRoom, return_freed_memory
from autotune.data.facts import samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.stages import apart
from autotune.errors import DatasetError, SampleError, SpecError
from autotune.spec import LoaderConfig
from autotune.units import MIB

COUNT, SAMPLE = 12, 64 * 1024


@pytest.fixture
def arrays(tmp_path):
    """Twelve arrays of 64 KiB in two class folders."""
    root = tmp_path / "arrays"
    for number in range(COUNT):
        place = root / ("b" if number % 2 else "a") / f"{number:02d}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, np.full((SAMPLE // 8,), number, dtype=np.int64))
    return root


class Machine:
    """Memory that a test gives and takes."""

    def __init__(self, free):
        self.free = free

    def __call__(self):
        return self.free


def all_of(dataset):
    return [dataset[index] for index in range(len(dataset))]


def plenty():
    return 100 * MIB


def five_samples():
    return 10 * SAMPLE


def test_samples_are_kept_after_their_first_use(arrays):
    dataset = MemoryEfficientDataset(arrays, available=plenty)
    expected = all_of(dataset)
    assert [int(target) for _, target in expected] == [0] * 6 + [1] * 6
    for path in arrays.rglob("*.npy"):
        path.unlink()
    expected[0][0].zero_()
    again = all_of(dataset)
    assert samples_equal(again[1:], expected[1:])
    assert int(again[0][0][0]) == 0
    stats = dataset.memory_stats()
    assert (stats["samples"], stats["hits"], stats["misses"], stats["evictions"]) == (COUNT, COUNT, COUNT, 0)
    assert stats["used_bytes"] <= stats["limit_bytes"] == dataset.memory_limit == int(0.8 * plenty())


def test_share_is_never_exceeded_and_those_used_last_stay(arrays):
    dataset = MemoryEfficientDataset(arrays, 0.5, "cached", available=five_samples)
    expected = all_of(MemoryEfficientDataset(arrays))
    for _ in range(2):
        for index in range(COUNT):
            assert samples_equal(dataset[index], expected[index])
            assert dataset.memory_stats()["used_bytes"] <= five_samples() // 2
    stats = dataset.memory_stats()
    assert stats["samples"] == 4  # a fifth one has no room beside what Python needs for each
    assert stats["evictions"] > 0
    hits = stats["hits"]
    dataset[COUNT - 1]
    assert dataset.memory_stats()["hits"] == hits + 1


def test_samples_go_when_others_need_the_memory(arrays):
    machine = Machine(100 * SAMPLE)
    dataset = MemoryEfficientDataset(arrays, 0.8, available=machine)
    dataset._recent = LruCache(room=dataset._room, look_every_s=0)
    all_of(dataset)
    assert dataset.memory_stats()["samples"] == COUNT
    machine.free = 20 * SAMPLE - 4 * SAMPLE  # 20 stay available: four samples too many
    dataset[COUNT - 1]
    assert dataset.memory_stats()["samples"] == COUNT - 4
    machine.free = 0
    dataset[COUNT - 1]
    assert dataset.memory_stats()["samples"] == 0
    machine.free = 100 * SAMPLE
    all_of(dataset)
    assert dataset.memory_stats()["samples"] == COUNT
    dataset.release()
    assert dataset.memory_stats()["used_bytes"] == 0


def test_eager_reads_up_to_the_share(arrays):
    whole = MemoryEfficientDataset(arrays, loading_mode="eager", available=plenty)
    assert whole.memory_stats()["samples"] == COUNT
    part = MemoryEfficientDataset(arrays, 0.5, "eager", available=five_samples)
    assert part.memory_stats()["samples"] == 4
    assert part.memory_stats()["misses"] < COUNT
    assert samples_equal(all_of(part), all_of(whole))


def test_streaming_keeps_nothing(arrays):
    dataset = MemoryEfficientDataset(arrays, loading_mode="streaming")
    assert samples_equal(list(dataset.loaded()), all_of(MemoryEfficientDataset(arrays)))
    assert dataset.memory_stats() == {"limit_bytes": dataset.memory_limit}


def with_what_is_kept(samples):
    """Collate a batch in a worker, and tell what that worker keeps."""
    info = get_worker_info()
    return default_collate(samples), info.id, info.dataset.memory_stats()["used_bytes"]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_workers_divide_the_share(arrays, start):
    dataset = MemoryEfficientDataset(arrays, 0.5, available=five_samples)
    expected = [row for row, _ in all_of(MemoryEfficientDataset(arrays))]
    loader = DataLoader(
        dataset,
        batch_size=2,
        num_workers=2,
        multiprocessing_context=start,
        persistent_workers=True,
        collate_fn=with_what_is_kept,
    )
    for _ in range(2):
        told = list(loader)
        assert samples_equal([row for (rows, _), _, _ in told for row in rows], expected)
        for worker in range(2):
            most = max(used for _, number, used in told if number == worker)
            assert 2 * SAMPLE <= most <= dataset.memory_limit // 2


BEGUN = 3


def read_and_tell(dataset, barrier, told):
    """Read everything once every process has begun, and tell what is kept."""
    dataset[0]
    barrier.wait(60)
    all_of(dataset)
    barrier.wait(60)
    told.put((os.getpid(), dataset.memory_stats()["used_bytes"]))


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_processes_that_are_no_workers_of_torch_divide_the_share(arrays, start):
    dataset = MemoryEfficientDataset(arrays, available=five_samples)
    context = multiprocessing.get_context(start)
    barrier = context.Barrier(BEGUN)
    told = context.SimpleQueue()
    for _ in range(2):  # those that have ended take no share of the others
        processes = [context.Process(target=read_and_tell, args=(dataset, barrier, told)) for _ in range(BEGUN)]
        for process in processes:
            process.start()
        kept = dict(told.get() for _ in processes)
        for process in processes:
            process.join(60)
        assert len(kept) == BEGUN
        assert all(2 * SAMPLE <= used <= dataset.memory_limit // BEGUN for used in kept.values())


def test_copies_for_threads_divide_the_share_while_they_live(arrays):
    dataset = MemoryEfficientDataset(arrays, available=five_samples)
    first, second = apart(dataset), apart(dataset)
    for copy in (first, second, first):
        all_of(copy)
    for copy in (first, second):
        assert 2 * SAMPLE <= copy.memory_stats()["used_bytes"] <= dataset.memory_limit // 2
    del copy, second
    gc.collect()
    all_of(first)
    assert first.memory_stats()["used_bytes"] > dataset.memory_limit // 2


@pytest.mark.parametrize("name", ["cache_size", "memory_limit_bytes"])
def test_settings_that_the_share_makes_useless_are_refused(arrays, name):
    with pytest.raises(SpecError, match=rf"max_memory_usage alone.*{name}"):
        MemoryEfficientDataset(arrays, **{name: 1})


def test_hidden_files_are_of_no_kind(arrays):
    (arrays / "a" / "._00.png").write_bytes(b"made by another system")
    (arrays / ".previews").mkdir()
    (arrays / ".previews" / "00.png").write_bytes(b"")
    assert len(MemoryEfficientDataset(arrays)) == COUNT


def test_every_kind_of_file_is_read_by_its_own_dataset(tmp_path):
    Image.new("RGB", (9, 8), "red").save(tmp_path / "a.png")
    np.save(tmp_path / "rows.npy", np.arange(6, dtype=">f4").reshape(3, 2))
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.arange(4)
    image, target = MemoryEfficientDataset(tmp_path / "a.png", image_size=(4, 4))[0]
    assert (image.shape, int(target)) == ((3, 4, 4), 0)
    rows = MemoryEfficientDataset(tmp_path / "rows.npy")
    assert (len(rows), rows[1][0].tolist()) == (3, [2.0, 3.0])
    texts = MemoryEfficientDataset(tmp_path / "a.txt", max_length=3)
    assert [len(ids) for ids, _ in all_of(texts)] == [3, 3]
    assert int(MemoryEfficientDataset(tmp_path / "a.h5", dataset_name="features")[3]) == 3
    with pytest.raises(DatasetError, match=r"one kind, got 1 of hdf5, 1 of images, 1 of npy, 1 of text"):
        MemoryEfficientDataset(tmp_path)
    assert len(MemoryEfficientDataset(tmp_path, kind="images")) == 1


def test_a_transform_may_be_replaced_by_another_as_the_dataset_behind_it_allows(tmp_path):
    Image.new("RGB", (9, 8), "red").save(tmp_path / "a.png")
    dataset = MemoryEfficientDataset(tmp_path, transform=lambda image: image.size)
    dataset.transform = lambda image: image.mode
    assert dataset[0][0] == "RGB"
    with pytest.raises(SpecError, match="make a new one"):
        dataset.transform = None
    assert dataset[0][0] == "RGB"


def test_images_are_kept_small_and_transformed_anew(tmp_path):
    for number in range(3):
        Image.new("RGB", (9, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    dataset = MemoryEfficientDataset(tmp_path, image_size=(64, 64), available=plenty)
    assert samples_equal(all_of(dataset), all_of(ImageDataset(tmp_path, (64, 64))))
    assert dataset.memory_stats()["used_bytes"] < 3 * (3 * 64 * 64 + 1000)
    seen = []
    counted = MemoryEfficientDataset(tmp_path, transform=lambda image: seen.append(image.size) or torch.zeros(1))
    for _ in range(2):
        all_of(counted)
    assert seen == [(9, 8)] * 6


@pytest.mark.fault(12)
def test_broken_files_follow_the_policy(arrays):
    (arrays / "a" / "04.npy").write_bytes(b"\x93NUMPY damaged")
    np.savez(arrays / "b" / "zip", a=np.arange(3))
    (arrays / "b" / "zip.npz").rename(arrays / "b" / "05.npy")
    with pytest.raises(SampleError, match=r"04\.npy"):
        all_of(MemoryEfficientDataset(arrays))
    for mode in ("lazy", "eager"):
        left = MemoryEfficientDataset(arrays, loading_mode=mode, on_broken="skip")
        assert sum(len(rows) for rows, _ in DataLoader(left, batch_size=3)) == COUNT - 2
        assert len(left.broken_files) == 2
    replaced = MemoryEfficientDataset(arrays, on_broken="substitute")
    assert samples_equal(replaced[2], replaced[3])
    with pytest.raises(DatasetError, match=r"04\.npy"):
        MemoryEfficientDataset(arrays / "a" / "04.npy")


@pytest.mark.parametrize("share", [0, 1.5, -1, float("nan"), "much", True])
def test_share_that_is_none_is_refused(arrays, share):
    with pytest.raises(SpecError, match="max_memory_usage"):
        MemoryEfficientDataset(arrays, share)


def test_nothing_to_read_is_told(arrays, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.exe").write_bytes(b"")
    with pytest.raises(DatasetError, match="nothing under"):
        MemoryEfficientDataset(tmp_path / "other")
    with pytest.raises(DatasetError, match=r"end in '\.exe'"):
        MemoryEfficientDataset(tmp_path / "other" / "a.exe")
    with pytest.raises(SpecError, match="kind must be"):
        MemoryEfficientDataset(arrays, kind="video")


def test_archives_and_caches_take_it(arrays, tmp_path):
    dataset = MemoryEfficientDataset(arrays)
    assert source_fingerprint(dataset) is not None
    for config in (LoaderConfig(archive="tar", stored="encoded"), LoaderConfig(cache="memory")):
        assert samples_equal(all_of(apply(dataset, config, archive_root=tmp_path / "home").dataset), all_of(dataset))
    assert samples_equal(pickle.loads(pickle.dumps(dataset))[0], dataset[0])


def test_real_limits_are_those_of_this_machine(arrays):
    dataset = MemoryEfficientDataset(arrays)
    assert 0 < dataset.memory_limit <= 0.8 * psutil.virtual_memory().total
    return_freed_memory()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 3000)), max_size=60), st.integers(1, 6))
def test_cache_holds_its_limits_and_the_samples_used_last(steps, most):
    room = MemoryRoom(0.5, available=lambda: 20_000)
    cache, order = LruCache(most, room=room), []
    for put, key, size in steps:
        if put:
            kept = cache.put(key, torch.zeros(size, dtype=torch.uint8))
            assert kept
            order = [*(one for one in order if one != key), key]
        elif cache.get(key) is not ABSENT:
            order = [*(one for one in order if one != key), key]
        assert len(cache) <= most
        assert cache.used_bytes <= room.limit_bytes
        held = [key for key in order if key in cache]
        assert held == order[len(order) - len(held) :]
        order = held
    cache.clear()
    assert (len(cache), cache.used_bytes) == (0, 0)


def test_sample_larger_than_the_room_is_not_kept():
    cache = LruCache(room=MemoryRoom(0.5, available=lambda: 10_000))
    assert cache.put(0, torch.zeros(1000, dtype=torch.uint8))
    assert not cache.put(1, torch.zeros(6000, dtype=torch.uint8))
    assert 0 in cache


def test_cache_without_limits_is_refused():
    for settings in ({}, {"max_samples": 0}):
        with pytest.raises(SpecError):
            LruCache(**settings)


def test_fresh_copy_shares_no_array():
    sample = {"a": (torch.zeros(2), [np.zeros(2)]), "b": "text"}
    made = fresh_copy(sample)
    assert samples_equal(made, sample)
    made["a"][0].fill_(1)
    made["a"][1][0][:] = 1
    assert float(sample["a"][0].sum()) == float(sample["a"][1][0].sum()) == 0
