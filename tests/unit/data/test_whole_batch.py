"""Batches that were read as a whole are lists like any other, filled when they are first asked."""

import functools
import json
import operator
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from autotune.data.whole_batch import WholeBatch, collate_whole

SAMPLES = [(3, 1.5), (1, 2.5), (2, 3.5)]
COLLATED = default_collate(SAMPLES)


def changed(method, *args):
    def change(batch):
        getattr(batch, method)(*args)
        return list(batch)

    return change


def joined(batch):
    batch += [(0, 0.0)]
    return list(batch)


def removed(batch):
    del batch[0]
    return list(batch)


@pytest.mark.parametrize(
    "ask",
    [
        list,
        len,
        bool,
        repr,
        tuple,
        sorted,
        lambda batch: list(reversed(batch)),
        json.dumps,
        default_collate,
        lambda batch: list(zip(*batch, strict=True)),
        lambda batch: [*batch],
        lambda batch: batch[0],
        lambda batch: batch[-1:],
        lambda batch: (1, 2.5) in batch,
        lambda batch: batch.index((2, 3.5)),
        lambda batch: batch.count((2, 3.5)),
        lambda batch: batch.copy(),
        lambda batch: operator.add(batch, [1]),
        lambda batch: operator.add([1], batch),
        lambda batch: [1, *batch],
        lambda batch: functools.reduce(operator.add, [batch, batch], []),
        lambda batch: batch * 2,
        lambda batch: 2 * batch,
        lambda batch: batch == SAMPLES,
        lambda batch: batch != SAMPLES,
        lambda batch: batch < [(9, 9.0)],
        lambda batch: np.array(batch).tolist(),
        lambda batch: torch.tensor(batch).tolist(),
        operator.length_hint,
        max,
        changed("append", (0, 0.0)),
        changed("extend", [(0, 0.0)]),
        changed("insert", 0, (0, 0.0)),
        changed("pop"),
        changed("remove", (3, 1.5)),
        changed("reverse"),
        changed("sort"),
        changed("clear"),
        changed("__setitem__", 0, (0, 0.0)),
        joined,
        removed,
    ],
)
def test_whatever_is_asked_first_is_answered_as_a_list_does(ask):
    told, expected = ask(WholeBatch(COLLATED, lambda: list(SAMPLES))), ask(list(SAMPLES))
    assert str(told) == str(expected)
    assert type(told) is type(expected)


def test_a_list_takes_it_up():
    taken = [0]
    taken += WholeBatch(COLLATED, lambda: list(SAMPLES))
    taken.extend(WholeBatch(COLLATED, lambda: list(SAMPLES)))
    taken[:1] = WholeBatch(COLLATED, lambda: list(SAMPLES))
    assert taken == SAMPLES * 3


def whole():
    return WholeBatch(COLLATED, lambda: list(SAMPLES))


def test_two_of_them_are_joined_and_compared_like_lists():
    assert whole() + whole() == SAMPLES * 2
    assert functools.reduce(operator.add, [whole(), whole(), whole()]) == SAMPLES * 3
    joined = whole()
    joined += whole()
    joined.extend(whole())
    joined[:0] = whole()
    assert joined == SAMPLES * 4
    assert whole() == whole()
    assert not operator.ne(whole(), whole())
    assert whole() <= whole()
    assert whole() >= whole()
    assert not whole() < whole()
    assert not whole() > whole()
    assert [whole()] == [whole()]


def test_one_whose_samples_could_not_be_made_tries_again():
    answers = [MemoryError("full"), list(SAMPLES)]

    def split():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    batch = WholeBatch(COLLATED, split)
    with pytest.raises(MemoryError):
        len(batch)
    assert batch == SAMPLES


def test_threads_that_ask_together_all_get_the_samples():
    barrier = threading.Barrier(4)

    def split():
        time.sleep(0.05)
        return list(SAMPLES)

    batch = WholeBatch(COLLATED, split)

    def ask(_):
        barrier.wait(30)
        return len(batch)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [3] * 4


def test_samples_are_made_once_and_only_when_asked_for():
    made = []

    def split():
        made.append(1)
        return list(SAMPLES)

    batch = WholeBatch(COLLATED, split)
    assert collate_whole(batch) is COLLATED
    assert made == []
    assert len(batch) == 3
    assert batch[2] == (2, 3.5)
    assert made == [1]


def test_tensors_are_there_at_once_as_torch_stacks_them_without_asking():
    tensors = torch.rand(3, 2)
    assert torch.equal(torch.stack(WholeBatch(tensors, lambda: list(tensors.unbind(0)))), tensors)
