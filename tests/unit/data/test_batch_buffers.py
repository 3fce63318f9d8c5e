"""Memory of batches: used again when nobody holds it, and never before."""

import copy
import gc
import pickle
import sys
import threading

import pytest
import torch
from data_sets import MixedDataset
from torch.utils.data import DataLoader

from autotune.data.apply import prepare
from autotune.data.batch_buffers import BatchBuffers
from autotune.data.facts import samples_equal
from autotune.spec import LoaderConfig

MIB = 2**20


def taken(buffers, leaf, size_bytes):
    return torch.from_numpy(buffers.take(leaf, size_bytes))


def test_memory_of_a_batch_that_is_gone_is_used_again():
    buffers = BatchBuffers()
    places = set()
    for _ in range(10):
        batch = taken(buffers, 0, MIB)
        places.add(batch.data_ptr())
        del batch
    assert len(places) == 1


@pytest.mark.parametrize(
    "hold",
    [
        lambda batch: batch,
        lambda batch: batch[5:6],
        lambda batch: batch.view(torch.float32).reshape(2, -1).unbind(0)[1],
        lambda batch: batch.numpy()[3:],
        lambda batch: batch.untyped_storage(),
        lambda batch: memoryview(batch.numpy()),
        torch.utils.dlpack.to_dlpack,
    ],
    ids=["batch", "slice", "sample", "array", "storage", "buffer", "capsule"],
)
def test_memory_that_anything_refers_to_is_left_alone(hold):
    buffers = BatchBuffers()
    batch = taken(buffers, 0, MIB)
    place = batch.data_ptr()
    held = hold(batch)
    del batch
    gc.collect()
    assert all(taken(buffers, 0, MIB).data_ptr() != place for _ in range(10))
    del held
    assert taken(buffers, 0, MIB).data_ptr() == place


def test_leaves_have_their_own_and_smaller_batches_take_part_of_it():
    buffers = BatchBuffers()
    first, second = taken(buffers, 0, MIB), taken(buffers, 1, MIB)
    assert first.data_ptr() != second.data_ptr()
    place = first.data_ptr()
    del first
    last = taken(buffers, 0, 100)
    assert (last.data_ptr(), last.shape, last.dtype) == (place, (100,), torch.uint8)
    assert taken(buffers, 0, 0).shape == (0,)


def test_larger_batches_take_the_place_of_smaller_ones():
    buffers = BatchBuffers()
    for size in (1, 10, 100):
        assert taken(buffers, 0, size).shape == (size,)
    assert [len(one) for one in buffers._kept[0]] == [100]


def test_no_more_are_kept_than_were_in_use_nor_ever_many():
    buffers = BatchBuffers()
    held = [taken(buffers, 0, 64) for _ in range(2)]
    assert len(buffers._kept[0]) == 2
    held += [taken(buffers, 0, 64) for _ in range(20)]
    assert len({one.data_ptr() for one in held}) == 22
    assert len(buffers._kept[0]) == 4


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda buffers: pickle.loads(pickle.dumps(buffers))])
def test_copies_have_none(travel):
    buffers = BatchBuffers()
    taken(buffers, 0, 64)
    assert not travel(buffers)._kept


def test_arrays_stay_when_the_tensor_beside_them_moves_to_shared_memory():
    buffers = BatchBuffers()
    array = buffers.take(0, 64)
    tensor = torch.from_numpy(array).fill_(1)
    tensor.share_memory_()
    assert all(buffers.take(0, 64) is not None and taken(buffers, 0, 64).fill_(2) is not None for _ in range(5))
    assert (array == 1).all()


def test_a_tracer_that_holds_frames_does_not_free_what_is_in_use():
    def holding(frame, event, argument):
        assert frame.f_locals is not None
        return holding

    buffers = BatchBuffers()
    sys.settrace(holding)
    try:
        first = taken(buffers, 0, 64).fill_(1)
    finally:
        sys.settrace(None)
    taken(buffers, 0, 64).fill_(2)
    assert bool((first == 1).all())


def test_no_two_threads_get_the_same():
    buffers = BatchBuffers()
    broken = []

    def take(number):
        for turn in range(2000):
            batch = taken(buffers, 0, 4096)
            batch.fill_((number + turn) % 256)
            broken.extend([number] * (not bool((batch == (number + turn) % 256).all())))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []


@pytest.mark.parametrize(
    "config",
    [
        LoaderConfig(batch_size=2, archive="npy", stored="decoded"),
        LoaderConfig(batch_size=2, archive="hdf5", stored="decoded"),
        LoaderConfig(batch_size=2, archive="lmdb", stored="decoded"),
        LoaderConfig(batch_size=2, cache="memory", cache_fraction=1.0),
    ],
    ids=lambda config: config.label(),
)
def test_batches_that_are_kept_stay_what_they_were(config, tmp_path):
    dataset = MixedDataset()
    applied = prepare(dataset, config, archive_root=tmp_path, cache_root=tmp_path, build=True)
    loader = DataLoader(applied.dataset, **applied.arguments)
    expected = list(DataLoader(dataset, batch_size=2))
    for _ in range(3):
        kept = list(loader)
        assert samples_equal(kept, expected)
