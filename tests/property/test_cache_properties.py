"""Caches give any sample back, and keep to their plans."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.utils.data import Dataset, default_collate

from autotune.data.caches import CACHE_MODES
from autotune.data.caches._base import rows_of_samples
from autotune.data.caches.planning import Look, plan_rows
from autotune.data.facts import samples_equal
from autotune.errors import CapacityError

DTYPES = st.sampled_from(["?", "i1", "<u2", "<i4", ">i4", "<i8", "<f2", "<f4", ">f8", "<c8", "U3", "S2", "<M8[s]"])
ARRAYS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)))
TENSORS = arrays.arrays("<f4", arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)).map(torch.tensor)
LEAVES = st.one_of(
    ARRAYS, TENSORS, st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=4), st.binary(max_size=4)
)
SAMPLES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=5,
)
NUMBERS = st.sampled_from(["?", "u1", "<i2", "<u2", "<i4", "<i8", "<f2", "<f4", "<f8", "<c8"])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)


class Samples(Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def fingerprint(self):
        return "made up"

    def __getitem__(self, index):
        return self.samples[index]


@pytest.mark.parametrize("mode", ["memory", "disk"])
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(samples=st.lists(SAMPLES, min_size=1, max_size=12), fraction=st.floats(0.01, 1), data=st.data())
def test_any_samples_come_back_in_any_order(mode, samples, fraction, data):
    dataset = Samples(samples)
    order = data.draw(st.lists(st.integers(0, len(samples) - 1), max_size=20))
    with tempfile.TemporaryDirectory() as folder:
        cached = CACHE_MODES[mode].wrap(dataset, fraction=fraction, directory=Path(folder))
        for _ in range(2):
            assert samples_equal([cached[index] for index in order], [samples[index] for index in order])
            assert samples_equal(list(cached.__getitems__(order)), [samples[index] for index in order])
        assert cached.filled <= max(1, round(fraction * len(samples)))
        assert cached.hits + cached.misses == 4 * len(order)


@settings(deadline=None, max_examples=60)
@given(kind=st.tuples(NUMBERS, SHAPES), count=st.integers(1, 9), fraction=st.floats(0.01, 1), data=st.data())
def test_device_gives_what_torch_collates(kind, count, fraction, data):
    samples = [
        {
            "array": data.draw(arrays.arrays(*kind)),
            "number": data.draw(st.floats()),
            "flag": data.draw(st.booleans()),
        }
        for _ in range(count)
    ]
    cached = CACHE_MODES["device"].wrap(Samples(samples), fraction=fraction, device=torch.device("cpu"))
    for _ in range(2):
        order = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=9))
        got = cached.__getitems__(order)
        assert samples_equal(got.collated, default_collate([samples[index] for index in order]))


@given(count=st.integers(1, 500), data=st.data())
def test_larger_share_keeps_the_places_of_the_smaller(count, data):
    few = data.draw(st.integers(1, count))
    many = data.draw(st.integers(few, count))
    smaller, larger = rows_of_samples(count, few), rows_of_samples(count, many)
    assert sorted(smaller[smaller >= 0]) == list(range(few))
    assert set(np.flatnonzero(smaller >= 0)) <= set(np.flatnonzero(larger >= 0))


@given(
    count=st.integers(1, 10**6),
    size=st.integers(0, 10**7),
    limit=st.integers(0, 10**12),
    fraction=st.one_of(st.none(), st.floats(1e-6, 1)),
)
def test_plan_never_exceeds_the_limit(count, size, limit, fraction):
    look = Look(count, None, size, size)
    wanted = count if fraction is None else max(1, round(fraction * count))
    if size * (1 if fraction is None else wanted) > limit:
        with pytest.raises(CapacityError) as caught:
            plan_rows(look, fraction, limit, name="memory")
        assert caught.value.needed_bytes > caught.value.available_bytes == limit
        return
    rows = plan_rows(look, fraction, limit, name="memory")
    assert 1 <= rows <= wanted
    assert rows * size <= limit
    assert rows == wanted or (fraction is None and (rows + 1) * size > limit)
