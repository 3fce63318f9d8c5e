"""Canopy gaps from height rasters, and the generated tiles."""

import shutil

import numpy as np
import pytest
import rasterio
from data_sets import error_of_worker, write_raster
from torch.utils.data import DataLoader

from autotune.data.datasets.factories import forest_gaps, forest_gaps_chm
from autotune.data.datasets.gaps import GapMaskDataset
from autotune.data.datasets.sample_tiles import draw_heights, forest_gap_tiles
from autotune.data.facts import dataset_facts, describe_sample, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.errors import DatasetError, SampleError, SpecError

HEIGHTS = np.array([[0, 4.99, 5, 9], [10, 15, 20, 25], [np.nan, -9999, -1, 30], [1, 2, 3, 4]], np.float32)


@pytest.fixture
def raster(tmp_path):
    return write_raster(tmp_path / "chm.tif", HEIGHTS, nodata=-9999)


def test_gap_is_what_is_lower_than_the_threshold(raster):
    height, gaps = GapMaskDataset([raster], window=4)[0]
    assert gaps[0].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1]]
    assert height[0, 2].tolist() == [0, 0, -1, 30]


def test_several_thresholds_give_a_channel_each(raster):
    dataset = GapMaskDataset([raster], window=4, threshold=(5, 10, 15, 20))
    _, gaps = dataset[0]
    assert gaps.sum(dim=(1, 2)).tolist() == [7, 9, 10, 11]
    assert dataset_facts(dataset).structure == describe_sample(dataset[0]) == "(float32[1,4,4], uint8[4,4,4])"


def test_pixels_without_measurement_are_kept_or_reported_by_rule(raster):
    kept, gaps = GapMaskDataset([raster], window=4, invalid="keep")[0]
    assert np.array_equal(kept[0].numpy(), HEIGHTS, equal_nan=True)
    assert gaps[0, 2].tolist() == [0, 0, 1, 0]
    filled, reported = GapMaskDataset([raster], window=4, invalid="report", fill=-5)[0]
    assert reported[0, 2].tolist() == [255, 255, 1, 0]
    assert filled[0, 2].tolist() == [-5, -5, -1, 30]


def test_declared_zero_is_a_gap_unless_asked(tmp_path):
    path = write_raster(tmp_path / "zero.tif", np.array([[0, 9]], np.float32), nodata=0)
    assert GapMaskDataset([path], window=(1, 2))[0][1].flatten().tolist() == [1, 0]
    asked = GapMaskDataset([path], window=(1, 2), nodata_zero_is_invalid=True)
    assert asked[0][1].flatten().tolist() == [0, 0]


@pytest.mark.parametrize(("rule", "expected"), [("fill", 0), ("keep", 0), ("report", 255)])
def test_outside_of_a_small_raster_is_no_gap(tmp_path, rule, expected):
    path = write_raster(tmp_path / "small.tif", np.zeros((2, 2), np.float32))
    _, gaps = GapMaskDataset([path], window=3, invalid=rule)[0]
    assert gaps[0].tolist() == [[1, 1, expected], [1, 1, expected], [expected] * 3]


def test_windows_come_from_all_rasters_in_order(tmp_path, raster):
    second = write_raster(tmp_path / "second.tif", np.full((4, 6), 30, np.float32))
    dataset = GapMaskDataset([raster, second], window=2, stride=2)
    assert len(dataset) == 4 + 6
    assert dataset.path_of(3) == str(raster)
    assert dataset.path_of(4) == str(second)
    assert dataset[1][0][0].tolist() == [[5, 9], [20, 25]]


def test_folder_is_searched_by_pattern(tmp_path):
    for name in ("a/CHM.tif", "a/DTM.tif", "b/chm_1.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_raster(tmp_path / name, np.zeros((4, 4), np.float32))
    dataset = GapMaskDataset.from_folder(tmp_path, "**/*[cC][hH][mM]*.tif", window=4)
    assert [str(path) for path in dataset.source_paths()] == [
        str(tmp_path / "a/CHM.tif"),
        str(tmp_path / "b/chm_1.tif"),
    ]
    assert len(GapMaskDataset.from_folder(tmp_path, ["a/CHM.tif", "a/*.tif"], window=4)) == 2
    with pytest.raises(DatasetError, match="matches"):
        GapMaskDataset.from_folder(tmp_path, "*.jp2")
    with pytest.raises(DatasetError, match="exist"):
        GapMaskDataset.from_folder(tmp_path / "absent")


def test_wrong_settings_are_refused(raster):
    with pytest.raises(DatasetError, match="at least one raster"):
        GapMaskDataset([])
    for wrong in ({"threshold": 0}, {"threshold": ()}, {"invalid": "drop"}, {"window": 0}):
        with pytest.raises(SpecError):
            GapMaskDataset([raster], **wrong)


@pytest.mark.fault(12)
def test_raster_truncated_after_the_start_gives_an_error_with_its_path(tmp_path):
    path = write_raster(tmp_path / "chm.tif", np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))
    dataset = GapMaskDataset([path], window=16)
    path.write_bytes(path.read_bytes()[:9000])
    error = error_of_worker(DataLoader(dataset, num_workers=1))
    assert isinstance(error, SampleError)
    assert str(path) in str(error)


def test_real_rasters_give_thousands_of_windows(real_data):
    pattern = "**/*[cC][hH][mM]*.tif"
    dataset = forest_gaps_chm(str(real_data / "forest_gaps"), pattern, window=64, stride=8)
    names = [path.rsplit("/", 1)[1] for path in dataset.source_paths()]
    assert len(names) == 7
    assert not {"DSM.tif", "DTM.tif"} & set(names)
    assert len(dataset) == 3777
    reported = forest_gaps_chm(str(real_data / "forest_gaps"), pattern, window=64, stride=64, invalid="report")
    values = {int(value) for index in range(len(reported)) for value in reported[index][1].unique()}
    assert values == {0, 1, 255}
    assert all(bool(reported[index][0].isfinite().all()) for index in range(len(reported)))


def test_real_raster_with_zero_as_nodata_keeps_its_ground(real_data):
    path = real_data / "forest_gaps" / "pycrown" / "CHM.tif"
    with rasterio.open(path) as file:
        heights = file.read(1)
        assert file.nodata == 0
    _, gaps = GapMaskDataset([path], window=heights.shape)[0]
    assert int(gaps.sum()) == int((heights < 5).sum())


def test_tiles_are_drawn_once_and_the_same_each_time(tmp_path):
    seen = []
    first = forest_gap_tiles(tmp_path / "one", count=3, size=64, seed=4, progress=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    stamps = [path.stat().st_mtime_ns for path in sorted(first.rglob("*.tif"))]
    assert forest_gap_tiles(tmp_path / "one", count=3, size=64, seed=4) == first
    assert [path.stat().st_mtime_ns for path in sorted(first.rglob("*.tif"))] == stamps
    second = forest_gap_tiles(tmp_path / "two", count=3, size=64, seed=4)
    for path in first.rglob("*.tif"):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
    assert not np.array_equal(draw_heights(64, 4, 0), draw_heights(64, 5, 0))


def test_tiles_are_canopy_heights_with_gaps_as_described(tmp_path):
    folder = forest_gap_tiles(tmp_path, count=4, size=256)
    for number in range(4):
        with rasterio.open(folder / "heights" / f"{number:05d}.tif") as file:
            heights, profile = file.read(1), file.profile
            assert file.block_shapes == [(256, 256)]
            assert file.crs.to_epsg() == 32633
            assert file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
        with rasterio.open(folder / "gaps" / f"{number:05d}.tif") as file:
            gaps, gap_profile = file.read(1), file.profile
        assert (profile["dtype"], profile["compress"]) == ("float32", "lzw")
        assert (gap_profile["dtype"], gap_profile["compress"]) == ("uint8", "deflate")
        assert np.array_equal(gaps, heights < 5)
        assert 0.01 < gaps.mean() < 0.5
        assert heights.min() >= 0
        assert 20 < heights.max() < 60


@pytest.mark.fault
def test_interrupted_drawing_leaves_nothing_that_looks_whole(tmp_path):
    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forest_gap_tiles(tmp_path, count=4, size=32, progress=interrupt)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(list(forest_gap_tiles(tmp_path, count=4, size=32).rglob("*.tif"))) == 8


def test_wrong_tile_settings_are_refused(tmp_path):
    for wrong in ({"count": 0}, {"size": 8}):
        with pytest.raises(SpecError):
            forest_gap_tiles(tmp_path, **wrong)


def test_factory_gives_a_staged_dataset_with_declared_structure(tmp_path):
    dataset = forest_gaps(str(tmp_path), count=3, size=64)
    facts = dataset_facts(dataset)
    assert (facts.length, facts.staged, facts.declared) == (3, True, True)
    assert facts.structure == describe_sample(dataset[0])
    assert samples_equal(dataset.decode(dataset.read(1)), dataset[1])
    fingerprint = source_fingerprint(dataset)
    shutil.rmtree(tmp_path)
    assert source_fingerprint(forest_gaps(str(tmp_path), count=3, size=64)) != fingerprint


def test_factory_uses_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_HOME", str(tmp_path))
    assert forest_gaps(count=1, size=32).path_of(0).startswith(str(tmp_path / "data"))
