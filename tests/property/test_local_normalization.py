"""Rules of normalising by what is not background, over any image."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autotune.data.transforms.local_normalization import ApplyLocalNormd, LocalNormalizeByMask, ToTuple
from autotune.errors import SpecError

DTYPES = st.sampled_from(["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64", "bool"])
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, max_side=12)
ANY = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))

normalize = LocalNormalizeByMask()


def foreground(image):
    return np.isfinite(image) & (image != 0)


@given(ANY)
def test_background_stays_exactly_zero_and_nothing_becomes_senseless(image):
    result = normalize(image)
    assert result.dtype == np.float32
    assert result.shape == image.shape
    assert np.isfinite(result).all()
    assert not result[~foreground(image)].any()
    assert not np.signbit(result[~foreground(image)]).any()


@given(ANY)
def test_foreground_has_mean_0_and_deviation_1_or_is_all_0(image):
    values = normalize(image)[foreground(image)].astype(np.float64)
    if values.any():
        assert abs(values.mean()) < 1e-4
        assert abs(values.std() - 1) < 1e-4


@given(ANY)
def test_the_image_that_comes_in_is_left_alone(image):
    before = image.copy()
    result = normalize(image)
    assert image.tobytes() == before.tobytes()
    assert not np.shares_memory(result, image)


@given(ANY)
def test_tensors_give_the_bits_that_arrays_give(image):
    result = normalize(torch.from_numpy(image.copy()))
    assert type(result) is torch.Tensor
    assert result.dtype == torch.float32
    assert result.numpy().tobytes() == normalize(image).tobytes()


@given(hnp.arrays("uint8", (9, 9)), st.sampled_from([0.1, 2.0, 1e9]))
def test_a_change_of_scale_changes_nothing(image, factor):
    np.testing.assert_allclose(normalize(image * np.float64(factor)), normalize(image), atol=1e-5)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), SHAPES)
def test_constant_images_give_zeros(value, shape):
    image = np.full(shape, value, dtype=np.float32)
    assert not normalize(image).any()
    image.flat[0] = 0
    assert not normalize(image).any()


def test_a_constant_that_resizing_rounded_is_still_a_constant():
    image = torch.full((1, 1, 300, 310), 0.7)
    resized = torch.nn.functional.interpolate(image, size=(16, 16), mode="area")
    assert len(resized.unique()) > 1, "resizing was to round, or this shows nothing"
    assert not normalize(resized).any()


def test_a_16_bit_image_with_one_step_of_contrast_keeps_it():
    image = np.full((4, 4), 65534, dtype=np.uint16)
    image[0, 0] = 65535
    assert normalize(image)[0, 0] > 3


@pytest.mark.parametrize("image", [np.zeros((0, 4), np.uint8), np.full((3, 3), np.nan), np.zeros((1, 2, 2), bool)])
def test_images_without_foreground_give_zeros(image):
    assert not normalize(image).any()


@pytest.mark.parametrize("image", [[[1, 2]], "image.tif", None, np.ones(3, complex), np.array(["a"])])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(SpecError, match="an image"):
        normalize(image)


def test_the_order_of_axes_in_memory_does_not_matter():
    image = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    np.testing.assert_array_equal(normalize(image), normalize(np.ascontiguousarray(image)))
    assert torch.equal(normalize(torch.from_numpy(image).T), torch.from_numpy(normalize(image).T))


@settings(max_examples=20)
@given(hnp.arrays("float32", (1, 5, 5), elements=st.floats(0, 9, width=32)))
def test_dictionaries_are_normalised_value_by_value_and_not_changed(image):
    data = {"image": image, "condition": image * 3, "name": "a"}
    result = ApplyLocalNormd(keys=["image", "condition"])(data)
    assert data["image"] is image
    assert list(result) == ["image", "condition", "name"]
    np.testing.assert_array_equal(result["image"], normalize(image))
    np.testing.assert_array_equal(result["condition"], normalize(image * 3))
    assert ToTuple(keys=["condition", "name"])(result) == (result["condition"], "a")


def test_one_key_may_be_given_as_text():
    image = np.arange(4.0)
    assert list(ApplyLocalNormd("image")({"image": image})) == ["image"]
    assert ToTuple("image")({"image": 1}) == (1,)


def test_a_missing_key_is_refused_or_passed_over_by_choice():
    with pytest.raises(SpecError, match=r"without \['condition'\]"):
        ApplyLocalNormd(["image", "condition"])({"image": np.ones(2)})
    assert ApplyLocalNormd(["image", "condition"], allow_missing_keys=True)({"x": 1}) == {"x": 1}
    with pytest.raises(SpecError, match=r"without \['condition'\]"):
        ToTuple(["image", "condition"])({"image": 1})
    with pytest.raises(SpecError, match="at least one"):
        ToTuple([])


@pytest.mark.parametrize("transform", [normalize, ApplyLocalNormd("image"), ToTuple(["a", "b"])])
def test_transforms_are_picklable(transform):
    assert vars(pickle.loads(pickle.dumps(transform))).keys() == vars(transform).keys()
