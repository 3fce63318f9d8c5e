"""Memory that processes and copies share, and its lock."""

import copy
import multiprocessing
import pickle
import threading

import numpy as np
import pytest

from autotune.data.shared_memory import SharedMemory, SharedNumbers, backing_free_bytes
from autotune.errors import CapacityError


def numbers(memory):
    return memory.array(0, 8).view(np.int64)


def test_copies_in_one_process_share_it_even_after_the_first_is_gone():
    memory = SharedMemory(8)
    second = copy.deepcopy(memory)
    numbers(memory)[0] = 7
    del memory
    third = pickle.loads(pickle.dumps(second))
    numbers(third)[0] += 1
    assert numbers(second)[0] == 8


def test_pickle_outlives_nothing():
    data = pickle.dumps(SharedMemory(8))
    again = pickle.loads(data)
    assert again.size_bytes == 8
    assert numbers(again)[0] == 0


def test_numbers_are_copied_by_value():
    first = SharedNumbers(2)
    first.values[:] = 3, 4
    second = copy.deepcopy(first)
    first.values[0] = 9
    assert second.values.tolist() == [3, 4]


def test_memory_that_cannot_be_had_is_a_capacity_error():
    with pytest.raises(CapacityError, match="smaller cache"):
        SharedMemory(1 << 62)
    with pytest.raises(CapacityError):
        SharedMemory(1 << 70)


def test_memory_alone_is_behind_it_here():
    assert backing_free_bytes() is None


def add(memory, times):
    for _ in range(times):
        with memory.locked():
            seen = int(numbers(memory)[0])
            for _ in range(20):
                pass
            numbers(memory)[0] = seen + 1


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_lock_keeps_processes_apart(start):
    memory = SharedMemory(8)
    add(memory, 1)  # the lock is open before the children start
    context = multiprocessing.get_context(start)
    children = [context.Process(target=add, args=(memory, 3000)) for _ in range(2)]
    for child in children:
        child.start()
    add(memory, 3000)
    for child in children:
        child.join()
    assert numbers(memory)[0] == 9001


def test_lock_keeps_processes_apart_where_an_inherited_file_cannot_be_opened_again(monkeypatch):
    monkeypatch.setattr("autotune.data.shared_memory._OPENED_FILES", "/nowhere")  # as on systems without /proc
    memory = SharedMemory(8)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=add, args=(memory, 3000)) for _ in range(2)]
    for child in children:
        child.start()
    add(memory, 3000)
    for child in children:
        child.join()
    assert numbers(memory)[0] == 9000


def test_lock_keeps_threads_and_copies_apart():
    memory = SharedMemory(8)
    threads = [threading.Thread(target=add, args=(copy.deepcopy(memory), 2000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(memory)[0] == 8000
