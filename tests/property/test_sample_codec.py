"""Samples come back bit for bit from every codec."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.utils.data import Dataset, default_collate

from autotune.data.archives import FORMATS
from autotune.data.batch_buffers import BatchBuffers
from autotune.data.facts import describe_sample, sample_nbytes, samples_equal
from autotune.data.fixed_layout import FixedLayout, row_of
from autotune.data.sample_digest import sample_digest
from autotune.data.samples import put_together, take_apart
from autotune.data.whole_batch import WholeBatch, collate_whole
from autotune.errors import ArchiveError

DTYPES = st.sampled_from(["?", "i1", "u1", "<i2", "<u2", "<i4", ">i4", "<i8", "<f2", "<f4", "<f8", ">f8", "<c8", "U3"])
ARRAYS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)))
TORCH_DTYPES = [torch.float32, torch.bfloat16, torch.uint8, torch.int64, torch.bool, torch.float16, torch.uint16]


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(TORCH_DTYPES))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    count = int(np.prod(shape))
    size = 1 if dtype is torch.bool else torch.empty(0, dtype=dtype).element_size()
    data = draw(st.binary(min_size=count * size, max_size=count * size))
    if dtype is torch.bool:
        return torch.tensor([byte % 2 == 0 for byte in data], dtype=torch.bool).reshape(shape)
    flat = torch.frombuffer(bytearray(data), dtype=dtype) if count else torch.empty(0, dtype=dtype)
    return flat.reshape(shape).clone()


LEAVES = st.one_of(
    tensors(),
    ARRAYS,
    ARRAYS.filter(lambda array: array.size > 0).map(lambda array: array.reshape(-1)[0]),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.complex_numbers(),
    st.none(),
    st.text(st.characters(), max_size=5),
    st.binary(max_size=5),
)
SAMPLES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(), st.booleans()), inner, max_size=3),
    ),
    max_leaves=6,
)


@given(SAMPLES)
def test_sample_that_was_taken_apart_is_put_together_again(sample):
    skeleton, leaves = take_apart(sample)
    again = put_together(json.loads(skeleton), [leaf.copy() for leaf in leaves])
    assert samples_equal(again, sample)
    assert sample_digest(again) == sample_digest(sample)
    assert describe_sample(again) == describe_sample(sample)
    assert sample_nbytes(again) == sample_nbytes(sample)


class Samples(Dataset):
    """A list of samples."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


@pytest.mark.parametrize("name", ["tar", "tar.gz", "tar.xz", "tar.zst", "webdataset", "hdf5", "lmdb"])
@given(samples=st.lists(SAMPLES, min_size=1, max_size=3))
def test_format_gives_back_any_samples(name, tmp_path_factory, samples):
    directory = tmp_path_factory.mktemp("archive")
    FORMATS[name].build(Samples(samples), directory)
    opened = FORMATS[name].open(directory)
    assert samples_equal([opened[index] for index in range(len(samples))], samples)


@pytest.mark.parametrize("name", ["npy", "hdf5", "lmdb"])
@given(sample=SAMPLES, count=st.integers(1, 3))
def test_format_gives_back_samples_of_one_layout(name, tmp_path_factory, sample, count):
    directory = tmp_path_factory.mktemp("archive")
    FORMATS[name].build(Samples([sample] * count), directory)
    opened = FORMATS[name].open(directory)
    assert samples_equal([opened[index] for index in range(count)], [sample] * count)
    assert samples_equal(list(opened.__getitems__([count - 1, 0])), [sample, sample])


@given(st.lists(SAMPLES, min_size=2, max_size=4))
def test_whole_batch_equals_default_collate_or_leaves_it_to_torch(samples):
    layout = FixedLayout.of(samples[0])
    same = [sample for sample in samples if FixedLayout.of(sample) == layout]
    rows = [take_apart(sample)[1] for sample in same]
    blocks = [np.stack([row_of(row[place]) for row in rows]) for place in range(len(layout.shapes))]
    batch = layout.gather(blocks, np.arange(len(same)), BatchBuffers())
    assert samples_equal(list(batch), same)
    if isinstance(batch, WholeBatch):
        assert samples_equal(collate_whole(batch), default_collate(same))
        assert samples_equal(default_collate(batch), default_collate(same))  # by torch itself


@given(SAMPLES, SAMPLES)
def test_equality_agrees_with_digests(a, b):
    assert samples_equal(a, a)
    assert samples_equal(a, b) == samples_equal(b, a)
    assert samples_equal(a, b) == (sample_digest(a) == sample_digest(b))


@pytest.mark.parametrize(
    "sample",
    [
        object(),
        {1, 2},
        np.array([object()]),
        np.ma.masked_array([1, 2], [True, False]),
        torch.eye(2).to_sparse(),
        torch.nn.Parameter(torch.zeros(2)),
        {(1, 2): 3},
        np.zeros(2, dtype=[("a", "i4")]),
        np.str_("text\0"),
        {"name": np.bytes_(b"\0")},
    ],
)
def test_what_cannot_be_given_back_exactly_is_refused(sample):
    with pytest.raises(ArchiveError):
        take_apart((1, sample))


def test_zero_and_minus_zero_and_nan_bits_are_told_apart():
    assert not samples_equal(0.0, -0.0)
    assert samples_equal(float("nan"), float("nan"))
    assert not samples_equal(1, 1.0)
    assert not samples_equal(True, 1)
    assert not samples_equal(torch.zeros(2), torch.zeros(2, dtype=torch.int32))
    assert not samples_equal(torch.zeros(2), np.zeros(2, np.float32))
    assert not samples_equal({"a": 1, "b": 2}, {"b": 2, "a": 1})
