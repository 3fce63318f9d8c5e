"""Whole batches are normalised as their samples are one by one, to float tolerance."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autotune.data.transforms.device_normalization import NormalizesByMask, NormalizesImages
from autotune.data.transforms.local_normalization import LocalNormalizeByMask
from autotune.data.transforms.normalization import Normalization

NUMBERS = st.floats(-1e3, 1e3, width=32)
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
WHOLE = st.sampled_from([np.uint8, np.uint16, np.int32])
one_by_one = LocalNormalizeByMask()


@given(st.data(), SHAPES)
def test_statistics_are_applied_to_a_batch_as_to_each_image(data, shape):
    bands = shape[1]
    dtype = data.draw(st.one_of(WHOLE, st.sampled_from([np.float32, np.float64])))
    elements = NUMBERS if np.dtype(dtype).kind == "f" else st.integers(0, 255)
    pixels = data.draw(hnp.arrays(dtype, shape, elements=elements))
    centre = data.draw(st.lists(NUMBERS, min_size=bands, max_size=bands))
    scale = data.draw(st.lists(st.floats(0.125, 1e3, width=32), min_size=bands, max_size=bands))
    expected = torch.stack([Normalization.fixed(centre, scale).apply(torch.from_numpy(image)) for image in pixels])
    batch = torch.from_numpy(pixels.copy())
    found, label = NormalizesImages(centre, scale)((batch, "label"))
    assert label == "label"
    assert found.dtype == expected.dtype
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert np.array_equal(batch.numpy(), pixels), "the batch itself stays as it is"


@given(hnp.arrays(np.float32, SHAPES, elements=st.one_of(NUMBERS, st.just(float("nan")))), NUMBERS)
def test_what_was_not_measured_gets_its_value_after_it(pixels, missing):
    bands = pixels.shape[1]
    made = NormalizesImages([5.0] * bands, [2.0] * bands, missing=missing)(torch.from_numpy(pixels))
    absent = np.isnan(pixels)
    assert (made.numpy()[absent] == np.float32(missing)).all()
    assert np.allclose(made.numpy()[~absent], (pixels[~absent] - 5) / 2, rtol=1e-5, atol=1e-4)


PIXELS = st.one_of(
    st.just(0.0), st.floats(-(2.0**100), 2.0**100, width=32), st.sampled_from([float("nan"), float("inf"), 1e-30, 7.0])
)


@given(hnp.arrays(np.float32, SHAPES, elements=PIXELS), st.booleans())
def test_masks_are_normalised_in_a_batch_as_one_by_one(pixels, paired):
    expected = torch.stack([one_by_one(torch.from_numpy(image)) for image in pixels])
    batch = torch.from_numpy(pixels)
    found = NormalizesByMask(2)([batch, batch])[1] if paired else NormalizesByMask()(batch)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
