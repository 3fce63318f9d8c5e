"""Normalisation for any values: round trips, its inverse, and what must not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from autotune.data.transforms.normalization import FITTED_KINDS, Normalization, fit_normalization

kinds = st.sampled_from(FITTED_KINDS)
# whole thousandths of moderate size: differences are never lost to rounding, which is not what is tested here
numbers = st.integers(-(10**7), 10**7).map(lambda number: number / 1000)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
images = shapes.flatmap(lambda shape: arrays.arrays(np.float64, shape, elements=numbers))
seeds = st.integers(0, 2**32 - 1)


def measured(image):
    return image, np.zeros(image.shape, dtype=bool)


def fit(kind, *images):
    return fit_normalization(kind, [measured(image) for image in images])


def tolerance(image):
    return 1e-9 * (1 + float(np.abs(image).max()))


@given(images, kinds)
def test_statistics_survive_their_json(image, kind):
    found = fit(kind, image)
    assert Normalization.from_json(found.to_json()) == found
    assert Normalization.from_json(found.to_json()).digest() == found.digest()


@given(images, kinds)
def test_the_inverse_gives_the_data_back(image, kind):
    found = fit(kind, image)
    assert found.inverse(found.apply(image)) == pytest.approx(image, abs=tolerance(image), rel=1e-9)


@given(images, kinds, st.data())
def test_how_the_data_is_cut_into_blocks_changes_nothing(image, kind, data):
    line = data.draw(st.integers(0, image.shape[1]))
    one, other = fit(kind, image), fit(kind, image[:, :line], image[:, line:])
    assert other.centre == pytest.approx(one.centre, abs=tolerance(image))
    assert other.scale == pytest.approx(one.scale, abs=tolerance(image), rel=1e-6)


@given(images, kinds, seeds)
def test_the_order_of_pixels_changes_nothing(image, kind, seed):
    flat = image.reshape(len(image), -1, 1)
    mixed = flat[:, np.random.default_rng(seed).permutation(flat.shape[1])]
    one, other = fit(kind, flat), fit(kind, mixed)
    assert other.centre == pytest.approx(one.centre, abs=tolerance(image))
    assert other.scale == pytest.approx(one.scale, abs=tolerance(image), rel=1e-6)


@given(images, kinds, st.integers(-1000, 1000), st.sampled_from([0.5, 2.0, 1024.0]))
def test_other_units_give_the_same_normalised_pixels(image, kind, shift, factor):
    other = image * factor + shift
    one = fit(kind, image)
    constant = np.array([band.constant for band in one.bands])
    first, second = one.apply(image), fit(kind, other).apply(other)
    assert second[~constant] == pytest.approx(first[~constant], abs=1e-5, rel=1e-6)
    assert (np.abs(second[constant]) <= tolerance(other)).all()


@given(images, kinds, seeds, st.floats(0.1, 0.9))
def test_what_stands_in_pixels_without_a_measurement_changes_nothing(image, kind, seed, share):
    generator = np.random.default_rng(seed)
    missing = generator.random(image.shape) < share
    missing[:, 0, 0] = False
    one = fit_normalization(kind, [(np.where(missing, np.nan, image), missing)])
    other = fit_normalization(kind, [(np.where(missing, 1e30, image), missing)])
    assert one == other
    assert [band.count for band in one.bands] == (~missing).sum(axis=(1, 2)).tolist()


@given(images)
def test_min_max_stays_between_0_and_1(image):
    normalised = fit("min_max", image).apply(image)
    assert normalised.min() >= 0
    assert normalised.max() <= 1


@given(images, kinds)
def test_scales_are_above_0_whatever_the_data(image, kind):
    assert all(scale > 0 for scale in fit(kind, image).scale)
