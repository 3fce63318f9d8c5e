"""One block of bytes for each sample: exact where it is whole, an error and nothing worse where it is not."""

import json
import struct
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.utils.data import default_collate

from autotune.data.batch_buffers import BatchBuffers
from autotune.data.facts import samples_equal
from autotune.data.records import pack_parts, pack_sample, unpack, unpack_all
from autotune.data.whole_batch import WholeBatch, collate_whole
from autotune.errors import ArchiveDamagedError, ArchiveError

DTYPES = st.sampled_from(["?", "i1", "<u2", ">i4", "<i8", "<f2", "<f4", ">f8", "<c8", "U3", "S4", "M8[s]", "m8[D]"])
ARRAYS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)))
TENSORS = st.builds(
    lambda data, dtype: torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, 3, dtype=dtype),
    st.integers(0, 4).flatmap(lambda count: st.binary(min_size=8 * count, max_size=8 * count)),
    st.sampled_from([torch.float32, torch.bfloat16, torch.uint8, torch.int64, torch.float16]),
)
LEAVES = st.one_of(
    TENSORS,
    ARRAYS,
    st.integers(),
    st.floats(),
    st.booleans(),
    st.complex_numbers(),
    st.none(),
    st.text(max_size=5),
    st.binary(max_size=40),
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
PARTS = st.lists(st.binary(max_size=50), max_size=4)
BLOCKS = st.one_of(SAMPLES.map(pack_sample), PARTS.map(pack_parts))


@given(SAMPLES)
def test_sample_comes_back_from_its_block(sample):
    block = pack_sample(sample)
    assert pack_sample(sample) == block
    for kept in (block, memoryview(block)):
        assert samples_equal(unpack(kept, check=True), sample)
        assert samples_equal(unpack(kept), sample)


@given(PARTS)
def test_original_bytes_come_back_from_their_block(parts):
    assert unpack(pack_parts(parts), check=True) == tuple(parts)


@given(SAMPLES)
def test_what_comes_back_is_fresh(sample):
    block = bytearray(pack_sample(sample))
    first = unpack(block)
    block[:] = bytes(len(block))
    assert samples_equal(first, sample)


@given(st.lists(SAMPLES, min_size=1, max_size=3), st.booleans())
def test_batch_equals_its_samples_one_by_one(samples, same):
    samples = [samples[0]] * len(samples) if same else samples
    batch = unpack_all([memoryview(pack_sample(sample)) for sample in samples], BatchBuffers())
    assert samples_equal(list(batch), samples)
    if isinstance(batch, WholeBatch):
        assert samples_equal(collate_whole(batch), default_collate(samples))


@given(st.lists(PARTS, max_size=3))
def test_batch_of_original_bytes_equals_its_samples_one_by_one(parts):
    assert unpack_all([memoryview(pack_parts(part)) for part in parts], BatchBuffers()) == [
        tuple(part) for part in parts
    ]


def test_batch_of_one_layout_is_gathered_at_once():
    samples = [(torch.full((2, 3), float(index)), index) for index in range(4)]
    batch = unpack_all([memoryview(pack_sample(sample)) for sample in samples], BatchBuffers())
    assert isinstance(batch, WholeBatch)
    assert samples_equal(batch.collated, default_collate(samples))


@given(BLOCKS, st.data())
def test_damaged_block_in_a_batch_is_damaged_or_another_sample(block, data):
    place = data.draw(st.integers(0, len(block) - 1))
    changed = bytearray(block)
    changed[place] ^= data.draw(st.integers(1, 255))
    cut = memoryview(block)[: data.draw(st.integers(0, len(block) - 1))]
    for wrong in ([memoryview(changed)], [memoryview(block), memoryview(changed)]):
        with suppress(ArchiveDamagedError):
            unpack_all(wrong, BatchBuffers())
    for wrong in ([cut], [memoryview(block), cut], [cut, cut]):
        with pytest.raises(ArchiveDamagedError):
            unpack_all(wrong, BatchBuffers())


@given(BLOCKS, st.data())
def test_block_of_another_length_is_damaged(block, data):
    size = data.draw(st.integers(0, len(block) - 1))
    more = data.draw(st.binary(min_size=1, max_size=20))
    for wrong in (block[:size], block + more):
        for check in (True, False):
            with pytest.raises(ArchiveDamagedError):
                unpack(wrong, check=check)


@given(BLOCKS, st.data())
def test_changed_byte_is_found_by_the_check_and_never_ends_in_another_error(block, data):
    place = data.draw(st.integers(0, len(block) - 1))
    changed = bytearray(block)
    changed[place] ^= data.draw(st.integers(1, 255))
    if not 12 <= place < 16:  # four bytes that are kept for later
        with pytest.raises(ArchiveDamagedError):
            unpack(changed, check=True)
    with suppress(ArchiveDamagedError):
        unpack(changed)


@given(st.binary(max_size=100))
def test_foreign_bytes_are_damaged(data):
    with pytest.raises(ArchiveDamagedError):
        unpack(data)


def hostile(magic, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    rest = text + bytes(-len(text) % 16) + data
    return struct.pack("<4sII4x", magic, len(text), zlib.crc32(rest)) + rest


ARRAY = '["array"]'
HEADERS = [
    (b"ATS1", [ARRAY, [["|u1", 2**50]]]),
    (b"ATS1", [ARRAY, [["<f8", 2**31, 2**31, 2**31]]]),
    (b"ATS1", [ARRAY, [["<f8", -1]]]),
    (b"ATS1", [ARRAY, [["<f8", -1, -1]]]),
    (b"ATS1", [ARRAY, [["<f8", 1.5]]]),
    (b"ATS1", [ARRAY, [["<f8", "8"]]]),
    (b"ATS1", [ARRAY, [["<f8", None]]]),
    (b"ATS1", [ARRAY, [["<f8", True]]]),
    (b"ATS1", [ARRAY, [["<f8", 0, 2**62, 2**62]]]),
    (b"ATS1", [ARRAY, [["<f8", *[1] * 100]]]),
    (b"ATS1", [ARRAY, [["|O", 0]]]),
    (b"ATS1", [ARRAY, [["|O"]]]),
    (b"ATS1", [ARRAY, [["|V8", 0]]]),
    (b"ATS1", [ARRAY, [["|S999999999", 999999999]]]),
    (b"ATS1", [ARRAY, [["no type", 0]]]),
    (b"ATS1", [ARRAY, [[{"names": ["a"], "formats": ["O"]}, 0]]]),
    (b"ATS1", [ARRAY, [[]]]),
    (b"ATS1", [ARRAY, []]),
    (b"ATS1", [ARRAY, 3]),
    (b"ATS1", [ARRAY]),
    (b"ATS1", ["[", []]),
    (b"ATS1", ["[]", []]),
    (b"ATS1", ["3", []]),
    (b"ATS1", ['["tuple"]', []]),
    (b"ATS1", ['["bigint", "x"]', []]),
    (b"ATS1", ['["bigint", "' + "9" * 100_000 + '"]', []]),
    (b"ATS1", ['["dict", [[["str", []], ["none"]]]]', []]),
    (b"ATS1", ['["eval", "1"]', [["|u1", 0]]]),
    (b"ATS1", ['["tensor", "load"]', [["<U3", 0]]]),
    (b"ATS1", ['["tensor", "bfloat16"]', [["|u1", 1]]]),
    (b"ATS1", ['["list", [' * 100_000, []]),
    (b"ATS1", b"[" * 100_000),
    (b"ATS1", b"\xff\xfe"),
    (b"ATP1", [2**62]),
    (b"ATP1", [2**31] * 3),
    (b"ATP1", [-1]),
    (b"ATP1", [16, -16]),
    (b"ATP1", ["x"]),
    (b"ATP1", [None]),
    (b"ATP1", {"a": 1}),
    (b"ATP1", 5),
    (b"ATP1", b"[" * 100_000),
]


@pytest.mark.fault(26)
@pytest.mark.parametrize("number", range(len(HEADERS)))
@pytest.mark.parametrize("data", [b"", bytes(64)], ids=["empty", "zeros"])
def test_hostile_header_is_damaged_before_memory_is_taken(number, data):
    block = hostile(*HEADERS[number], data)
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveDamagedError):
            unpack(block, check=True)
        with pytest.raises(ArchiveDamagedError):
            unpack_all([memoryview(block)] * 2, BatchBuffers())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 30 * len(block) + 200_000


@pytest.mark.parametrize("sample", [object(), np.array([object()]), {1, 2}])
def test_what_cannot_be_given_back_is_refused(sample):
    with pytest.raises(ArchiveError):
        pack_sample(sample)
