"""How many samples batches have, by what they are and not by how many parts happen to be as many as samples."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset, default_collate

from autotune.loaders.collating import CustomCollateFn
from autotune.measure.batches import SampleCounter


def zeros(*shape):
    return torch.zeros(shape)


def labels(count):
    return torch.zeros(count, dtype=torch.int64)


def images(count):
    return [zeros(count, 3, 8, 8), labels(count)]


def padded(count):
    return zeros(count, 9), labels(count), labels(count)


def texts(count):
    return [zeros(7 + number) for number in range(count)], labels(count)


def twins(count):
    return [zeros(count, 5), zeros(count, 5)]


def boxes(count):
    pictures = tuple(zeros(3, 8 + number, 8) for number in range(count))
    return pictures, tuple({"boxes": zeros(2 + number, 4)} for number in range(count))


def nested(count):
    return (zeros(count, 3), zeros(count, 4)), (labels(count), zeros(count))


def pictures(count):
    return [zeros(3, 8, 8)] * count


def pairs(count):
    return [(zeros(3, 5, 5), 5)] * count


def one_dict(count):
    return [{"data": zeros(count, 3), "label": labels(count)}]


MAKERS = [images, padded, texts, twins, boxes, nested, pictures, pairs, one_dict]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("batch_size", [2, 3, 4, 16])
def test_full_batches_and_the_last_one_are_counted(make, batch_size):
    counter = SampleCounter(batch_size)
    assert [counter(make(batch_size)) for _ in range(3)] == [batch_size] * 3
    assert counter(make(batch_size - 1)) == batch_size - 1


@pytest.mark.parametrize(
    ("batch", "batch_size", "samples"),
    [
        (images(1), 2, 1),
        (padded(2), 3, 2),
        (padded(2), 2, 2),
        (texts(16), 64, 16),
        (texts(1), 2, 1),
        (pairs(1), 4, 1),
        (pictures(2), 2, 2),
        ([zeros(3, 8, 8), zeros(8, 8), zeros(3, 9, 9), zeros(1, 4, 4)], 4, 4),
        ((zeros(4, 3, 8, 8), zeros(9, 5)), 4, 4),
        ((zeros(8, 3), labels(8)), 4, 4),
        ({"texts": [zeros(7), zeros(5)], "targets": labels(2)}, 4, 2),
        ({"image": zeros(4, 3), "names": ["a"] * 4}, 8, 4),
        (pack_sequence([zeros(3), zeros(2)]), 4, 2),
        ("text", 8, 8),
        ({}, 8, 8),
    ],
)
def test_a_batch_by_itself_is_counted(batch, batch_size, samples):
    assert SampleCounter(batch_size).or_full(batch) == samples


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        (images(5), 5),
        (texts(5), 5),
        (texts(1), 1),
        (twins(5), 5),
        (boxes(4), 4),
        (["a", "b", "c"], 3),
        ((), 0),
        ((["a", "b"], np.zeros((2, 5))), 2),
        ({"image": zeros(4, 3), "classes": ["a", "b", "c"]}, 4),
        (torch.tensor(3.0), None),
        (object(), None),
    ],
)
def test_without_a_batch_size_arrays_and_lists_tell(batch, samples):
    assert SampleCounter(None)(batch) == samples


class Texts(Dataset):
    """Texts of several lengths with targets; `widest` bounds how they differ."""

    def __init__(self, count, lengths):
        self.count, self.lengths = count, lengths

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.zeros(self.lengths[index % len(self.lengths)]), index


@given(
    st.integers(1, 40),
    st.integers(1, 9),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from([list, CustomCollateFn.variable_length_collate, CustomCollateFn.padded_collate]),
)
def test_all_samples_of_an_epoch_are_counted_whatever_the_collate_function(count, batch_size, lengths, collate):
    counter = SampleCounter(batch_size)
    loader = DataLoader(Texts(count, lengths), batch_size=batch_size, collate_fn=collate)
    counts = [counter(batch) for batch in loader]
    if count >= batch_size or collate is not list:  # a list that is the only batch, and not full, could be parts
        assert sum(counts) == count


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_stacked_batches_are_counted_by_their_first_dimension(count, batch_size, length):
    counter = SampleCounter(batch_size)
    loader = DataLoader(Texts(count, [length]), batch_size=batch_size, collate_fn=default_collate)
    assert sum(counter(batch) for batch in loader) == count


@pytest.mark.parametrize(
    ("batch", "batch_size", "samples"),
    [
        ((labels(64), labels(5000), labels(64)), 64, 64),  # texts end to end, with their offsets
        ([zeros(8, 16), zeros(40, 16)], 8, 8),
        ({"tokens": zeros(1000), "lengths": labels(8)}, 8, 8),
        (zeros(1000, 4), 8, 8),
        (zeros(0, 3), 8, 0),
    ],
)
def test_rows_that_are_no_samples_are_not_counted(batch, batch_size, samples):
    counter = SampleCounter(batch_size)
    assert [counter.or_full(batch) for _ in range(3)] == [samples] * 3
