"""Normalisation: kinds, what was not measured, constant bands, saved statistics, wrong band counts."""

import json

import numpy as np
import pytest
import torch

from autotune.data.transforms.normalization import BandStatistics, Normalization, fit_normalization, fitted_kind
from autotune.errors import DatasetError, SpecError


def blocks(*arrays):
    return [(np.asarray(array), ~np.isfinite(array)) for array in arrays]


def two_bands(seed=0, shape=(2, 40, 30)):
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    values[1] = 100 + 7 * values[1]
    return values


@pytest.mark.parametrize(
    ("kind", "centre", "scale"),
    [
        ("min_max", np.min, np.ptp),
        ("z_score", np.mean, np.std),
        ("robust", np.median, lambda band: np.subtract(*np.quantile(band, (0.75, 0.25)))),
    ],
)
def test_statistics_are_those_of_each_band(kind, centre, scale):
    values = two_bands()
    found = fit_normalization(kind, blocks(values[:, :7], values[:, 7:]))
    exact = values.astype(np.float64)
    assert found.kind == kind
    assert found.centre == pytest.approx([centre(band) for band in exact])
    assert found.scale == pytest.approx([scale(band) for band in exact])
    assert [band.count for band in found.bands] == [1200, 1200]


def test_min_max_reaches_from_0_to_1_and_z_score_has_mean_0_and_deviation_1():
    values = two_bands()
    spread = fit_normalization("min_max", blocks(values)).apply(values)
    assert [spread.min(), spread.max()] == pytest.approx([0, 1])
    standard = fit_normalization("z_score", blocks(values)).apply(values)
    assert standard.dtype == np.float32
    assert standard.mean(axis=(1, 2)) == pytest.approx([0, 0], abs=1e-5)
    assert standard.std(axis=(1, 2)) == pytest.approx([1, 1], rel=1e-5)


def test_pixels_without_a_measurement_count_in_no_statistic():
    values = two_bands()
    holes = values.copy()
    holes[:, ::3] = np.nan
    missing = np.isnan(holes)
    filled = np.where(missing, -9999.0, holes)
    found = fit_normalization("robust", [(filled, missing)])
    kept = values[:, np.arange(40) % 3 != 0]
    assert [band.count for band in found.bands] == [kept[0].size, kept[1].size]
    assert [band.minimum for band in found.bands] == pytest.approx([band.min() for band in kept])
    assert found.centre == pytest.approx([np.median(band) for band in kept])


@pytest.mark.parametrize("kind", ["min_max", "z_score", "robust"])
def test_constant_band_is_only_centred(kind):
    found = fit_normalization(kind, blocks(np.full((1, 9, 9), 0.1, np.float32), np.full((1, 5, 9), 0.1, np.float32)))
    assert found.scale == (1.0,)
    assert found.bands[0].constant
    assert found.bands[0].std == 0
    assert (found.apply(np.full((1, 3, 3), 0.1, np.float32)) == 0).all()


def test_standard_deviation_stands_in_where_quartiles_coincide():
    mostly_ground = np.zeros((1, 10, 10))
    mostly_ground[0, 0, :5] = 30
    found = fit_normalization("robust", blocks(mostly_ground))
    assert found.bands[0].iqr == 0
    assert found.scale == pytest.approx((mostly_ground.std(),))


def test_robust_takes_a_sample_of_the_stated_size_and_the_same_one_for_a_seed():
    values = np.random.default_rng(1).normal(size=(1, 300, 300))
    pieces = [values[:, start : start + 50] for start in range(0, 300, 50)]
    found = fit_normalization("robust", blocks(*pieces), sample_size=5000)
    assert found.bands[0].sampled == 5000
    assert found.centre[0] == pytest.approx(np.median(values), abs=0.1)
    assert found == fit_normalization("robust", blocks(*pieces), sample_size=5000)
    assert found != fit_normalization("robust", blocks(*pieces), sample_size=5000, seed=1)


def test_robust_sample_is_drawn_from_all_blocks_alike():
    rising = np.arange(90_000, dtype=np.float64).reshape(1, 300, 300)
    pieces = [rising[:, start : start + 30] for start in range(0, 300, 30)]
    found = fit_normalization("robust", blocks(*pieces), sample_size=9000)
    # 3 standard errors of a median of 9000: 0.5 / sqrt(9000) of the range
    assert found.centre[0] == pytest.approx(45_000, abs=3 * 90_000 * 0.5 / 9000**0.5)
    assert found.scale[0] == pytest.approx(45_000, abs=2000)


def test_fixed_numbers_are_one_for_all_bands_or_one_for_each():
    one = Normalization.fixed(mean=10, std=2)
    assert one.apply(np.array([[[14.0]]])).item() == 2
    ranges = Normalization.fixed_range(low=(0, -10), high=(50, 10))
    assert ranges.apply(np.array([[[25]], [[5]]])).flatten().tolist() == [0.5, 0.75]
    assert ranges.bands == ()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Normalization.fixed(mean=0, std=0), "greater than 0"),
        (lambda: Normalization.fixed(mean=(0, 1), std=1), "2 centres and 1 scales"),
        (lambda: Normalization.fixed(mean=(), std=()), "at least 1"),
        (lambda: Normalization.fixed(mean=float("nan"), std=1), "finite"),
        (lambda: Normalization.fixed_range(low=3, high=3), "got 3 to 3"),
        (lambda: fitted_kind("fixed"), "needs its numbers"),
        (lambda: fit_normalization("sigmoid", []), "got 'sigmoid'"),
        (lambda: fit_normalization("robust", [], sample_size=1), "sample_size=1"),
    ],
)
def test_senseless_numbers_and_kinds_are_refused(make, told):
    with pytest.raises(SpecError, match=told):
        make()


@pytest.mark.parametrize("text", ["z-score", "zscore", "Z_SCORE", "standard", "z score"])
def test_kinds_are_known_in_their_usual_spellings(text):
    assert fitted_kind(text) == "z_score"


def test_band_without_any_measurement_is_named():
    values = two_bands()
    values[1] = np.nan
    with pytest.raises(DatasetError, match="none in band 2"):
        fit_normalization("z_score", blocks(values))
    with pytest.raises(DatasetError, match="at least one image"):
        fit_normalization("z_score", [])


def test_blocks_of_other_bands_are_refused():
    with pytest.raises(DatasetError, match="got 1 after 2"):
        fit_normalization("min_max", blocks(two_bands(), two_bands()[:1]))


def test_values_that_no_float_can_square_are_refused():
    with pytest.raises(DatasetError, match="band 1 has values"):
        fit_normalization("z_score", blocks(np.array([[[-1e300, 1e300]]])))


def test_images_of_another_band_count_are_refused():
    found = fit_normalization("z_score", blocks(two_bands()))
    for wrong in (np.zeros((1, 4, 4)), torch.zeros(8, 3, 4, 4)):
        with pytest.raises(SpecError, match=r"statistics of 2 bands do not fit an image of [13]"):
            found.apply(wrong)
    with pytest.raises(SpecError, match="bands, H, W"):
        found.apply(np.zeros((4, 4)))


def test_tensors_and_batches_are_normalised_like_arrays():
    found = fit_normalization("z_score", blocks(two_bands()))
    batch = torch.from_numpy(np.stack([two_bands(1), two_bands(2)]))
    whole = found.apply(batch)
    assert whole.dtype == torch.float32
    assert np.array_equal(whole[1].numpy(), found.apply(two_bands(2)))
    assert torch.allclose(found.inverse(whole), batch, atol=1e-4)


def test_whole_numbers_become_floats_and_float64_stays():
    found = Normalization.fixed(mean=1, std=2)
    assert found.apply(np.full((1, 1, 1), 2, np.uint8)).dtype == np.float32
    assert found.apply(torch.full((1, 1, 1), 2, dtype=torch.uint8)).item() == 0.5
    assert found.apply(np.full((1, 1, 1), 2.0)).dtype == np.float64


def test_saved_statistics_come_back_the_same(tmp_path):
    found = fit_normalization("robust", blocks(two_bands()))
    path = found.save(tmp_path / "deep" / "statistics.json")
    assert Normalization.load(path) == found
    assert Normalization.load(path, bands=2) == found
    assert json.loads(path.read_text())["schema_version"] == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["statistics.json"]
    with pytest.raises(SpecError, match=r"statistics\.json: statistics of 2 bands do not fit an image of 3"):
        Normalization.load(path, bands=3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must be a JSON document"),
        ("[1]", "must be a JSON object"),
        ('{"kind": "z_score", "centre": [0], "scale": [1]}', "schema_version 1, got None"),
        ('{"schema_version": 9, "kind": "z_score", "centre": [0], "scale": [1]}', "schema_version 1, got 9"),
        ('{"schema_version": 1, "kind": "z_score", "centre": [0], "scale": [0]}', "scale"),
        ('{"schema_version": 1, "kind": "z_score", "centre": [0], "scale": [1], "more": 1}', "more"),
    ],
)
def test_damaged_statistics_are_refused_with_their_path(tmp_path, text, told):
    path = tmp_path / "statistics.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=told) as caught:
        Normalization.load(path)
    assert str(path) in str(caught.value)


def test_missing_statistics_are_refused_with_their_path(tmp_path):
    with pytest.raises(SpecError, match="must be a JSON file"):
        Normalization.load(tmp_path / "none.json")


def test_statistics_are_frozen():
    found = Normalization.fixed(mean=0, std=1)
    with pytest.raises(ValueError, match="frozen"):
        found.centre = (1.0,)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        BandStatistics(count=0, mean=0, std=0, minimum=0, maximum=0)
