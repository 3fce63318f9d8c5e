"""Pairs of GeoTIFFs: types, windows, nodata, errors."""

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
import torch
from data_sets import error_of_worker, write_raster, write_vast_raster
from torch.utils.data import DataLoader

from autotune.data.datasets.raster import GeoTiffPairDataset
from autotune.data.datasets.raster_files import Raster, invalid_pixels, raster_size, read_bytes, read_path
from autotune.data.datasets.tiff_header import read_tiff_header
from autotune.data.datasets.windows import window_origins
from autotune.data.facts import dataset_facts, describe_sample, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.stages import is_staged
from autotune.errors import DatasetError, SampleError, SpecError


def pair(folder, image, mask=None, *, name="a", nodata=None, **options):
    if mask is None:
        mask = np.zeros(image.shape[-2:], np.uint8)
    return (
        write_raster(folder / f"{name}.tif", image, nodata, **options),
        write_raster(folder / f"{name}_mask.tif", mask),
    )


def dataset_of(*pairs, **settings):
    return GeoTiffPairDataset([image for image, _ in pairs], [mask for _, mask in pairs], **settings)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16", "int16", "float64"])
def test_image_is_float32_with_the_values_of_the_file(tmp_path, dtype):
    values = np.arange(2 * 7 * 5).reshape(2, 7, 5).astype(dtype)
    image, mask = dataset_of(pair(tmp_path, values))[0]
    assert (image.dtype, image.shape, mask.dtype, mask.shape) == (torch.float32, (2, 7, 5), torch.uint8, (1, 7, 5))
    assert np.array_equal(image.numpy(), values)


def test_dtype_none_keeps_the_files_type(tmp_path):
    image, _ = dataset_of(pair(tmp_path, np.full((4, 4), 4095, np.uint16)), dtype=None)[0]
    assert image.dtype == torch.uint16
    assert (image.numpy() == 4095).all()


@pytest.mark.parametrize("metadata", [False, True])
@pytest.mark.parametrize("options", [{}, {"compress": "lzw", "predictor": 3, "tiled": True}])
def test_bytes_and_path_give_the_same_bits(tmp_path, metadata, options):
    values = np.random.default_rng(0).normal(size=(33, 65)).astype(np.float32)
    values[0, :3] = np.nan, -9999.0, -0.0
    dataset = dataset_of(pair(tmp_path, values, nodata=-9999.0, **options), metadata=metadata)
    assert is_staged(dataset)
    assert samples_equal(dataset.decode(dataset.read(0)), dataset[0])


@pytest.mark.fault(34)
def test_nan_infinite_and_declared_nodata_are_filled(tmp_path):
    values = np.array([[1, np.nan, np.inf, -9999]], np.float32)
    files = pair(tmp_path, values, np.array([[1, 1, 1, 1]], np.uint8), nodata=-9999.0)
    image, mask = dataset_of(files, fill=-1.0, ignore_index=255)[0]
    assert image.flatten().tolist() == [1, -1, -1, -1]
    assert mask.flatten().tolist() == [1, 255, 255, 255]
    kept, _ = dataset_of(files, nodata="keep")[0]
    assert np.array_equal(kept.numpy()[0], values, equal_nan=True)


@pytest.mark.fault(34)
def test_zero_as_nodata_is_bare_ground_unless_asked(tmp_path):
    files = pair(tmp_path, np.array([[0, 3]], np.float32), nodata=0)
    assert dataset_of(files, fill=-1)[0][0].flatten().tolist() == [0, 3]
    assert dataset_of(files, fill=-1, nodata_zero_is_invalid=True)[0][0].flatten().tolist() == [-1, 3]


def test_raster_without_any_measurement_is_all_fill(tmp_path):
    image, _ = dataset_of(pair(tmp_path, np.full((5, 5), np.nan, np.float32), nodata=float("nan")), fill=2)[0]
    assert (image == 2).all()


@pytest.mark.parametrize(
    ("dtype", "nodata", "expected"),
    [
        ("uint8", 255.0, [False, True]),
        ("uint8", -1.0, [False, False]),
        ("uint8", float("nan"), [False, False]),
        ("uint8", 254.5, [False, False]),
        ("float32", -3.4028234663852886e38, [False, False]),
        ("float32", None, [False, False]),
    ],
)
def test_nodata_that_the_type_cannot_hold_marks_nothing(dtype, nodata, expected):
    raster = Raster(pixels=np.array([1, 255]).astype(dtype).reshape(1, 1, 2), nodata=nodata)
    assert invalid_pixels(raster).flatten().tolist() == expected


def test_windows_cover_odd_sizes_to_the_edge(tmp_path):
    values = np.arange(11 * 7, dtype=np.float32).reshape(11, 7)
    dataset = dataset_of(pair(tmp_path, values, (values % 2).astype(np.uint8)), window=4)
    seen = np.full((11, 7), np.nan, np.float32)
    origins = window_origins([(11, 7)], (4, 4), (4, 4)).tolist()
    assert len(dataset) == len(origins) == 6
    for (_, row, column), (image, mask) in zip(origins, dataset, strict=True):
        seen[row : row + 4, column : column + 4] = image[0]
        assert np.array_equal(mask.numpy(), image.numpy() % 2)
    assert np.array_equal(seen, values)


def test_raster_smaller_than_its_window_is_filled_up(tmp_path):
    files = pair(tmp_path, np.full((3, 5), 7, np.float32), np.ones((3, 5), np.uint8))
    image, mask = dataset_of(files, window=(4, 6), fill=-1, ignore_index=9)[0]
    assert image.shape == mask.shape == (1, 4, 6)
    assert (image[0, :3, :5] == 7).all()
    assert (image[0, 3] == -1).all()
    assert (mask[0, :, 5] == 9).all()


def test_windows_of_a_raster_are_not_staged(tmp_path):
    assert not is_staged(dataset_of(pair(tmp_path, np.zeros((8, 8), np.float32)), window=4))


def test_metadata_tells_where_a_window_comes_from(tmp_path):
    files = pair(tmp_path, np.zeros((8, 8), np.float32), nodata=-1)
    sample = dataset_of(files, window=4, metadata=True)[3]
    facts = sample[2]
    assert (facts["path"], facts["crs"], facts["window"]) == (str(files[0]), "EPSG:32633", (4, 4, 4, 4))
    assert facts["transform"] == (2.0, 0.0, 500_008.0, 0.0, -2.0, 5_399_992.0)
    assert (facts["has_nodata"], facts["nodata"]) == (True, -1)
    assert next(iter(DataLoader(dataset_of(files, metadata=True))))[2]["crs"] == ["EPSG:32633"]


@pytest.mark.fault(34)
def test_rotated_raster_keeps_its_transform(tmp_path):
    turned = rasterio.Affine(1.0, 0.5, 10.0, 0.5, -1.0, 20.0)
    files = pair(tmp_path, np.ones((4, 4), np.float32), transform=turned)
    image, _, facts = dataset_of(files, metadata=True)[0]
    assert facts["transform"] == tuple(turned)[:6]
    assert (image == 1).all()


@pytest.mark.fault(34)
def test_12_bit_raster_is_read_as_stored_and_cmyk_as_gdal_shows_it(tmp_path):
    twelve = pair(tmp_path, np.full((4, 4), 4095, np.uint16), name="twelve", nbits=12)
    assert (dataset_of(twelve)[0][0] == 4095).all()
    inks = np.zeros((4, 4, 4), np.uint8)
    inks[0] = 255
    shown = dataset_of(pair(tmp_path, inks, name="cmyk", photometric="CMYK"))[0][0]
    assert shown[:, 0, 0].tolist() == [0, 255, 255, 255]  # red, green, blue, alpha


@pytest.mark.fault(34)
def test_claimed_size_of_terabytes_is_refused_before_it_is_allocated(tmp_path):
    path = write_vast_raster(tmp_path / "vast.tif")
    dataset = GeoTiffPairDataset([path], [path])
    with pytest.raises(SampleError, match="claims") as caught:
        dataset[0]
    assert caught.value.path == str(path)
    assert GeoTiffPairDataset([path], [path], window=8, stride=100_000)[5][0].shape == (1, 8, 8)


@pytest.mark.fault(12)
@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("which", [0, 1])
def test_truncated_file_gives_an_error_with_its_path(tmp_path, window, which):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    files = pair(tmp_path, noise.astype(np.float32), noise)
    whole = files[which].read_bytes()
    dataset = dataset_of(files, window=window)
    files[which].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SampleError) as caught:
        [dataset[index] for index in range(len(dataset))]
    assert caught.value.path == str(files[which])
    assert str(files[which]) in str(caught.value)


@pytest.mark.fault(12)
@pytest.mark.parametrize("content", [b"", b"II*\0", b"not a raster at all", None])
def test_unreadable_file_gives_an_error_with_its_path(tmp_path, content):
    files = pair(tmp_path, np.zeros((4, 4), np.float32))
    if content is None:
        files[0].unlink()
    else:
        files[0].write_bytes(content)
    for read in (lambda d: d[0], lambda d: d.decode(d.read(0))):
        with pytest.raises(SampleError) as caught:
            read(dataset_of(files))
        assert caught.value.path in (str(files[0]), None)
    with pytest.raises(SampleError) as caught:
        dataset_of(files, window=2)
    assert caught.value.path == str(files[0])


def test_error_travels_from_worker_to_parent_with_its_path(tmp_path):
    files = pair(tmp_path, np.zeros((4, 4), np.float32))
    files[0].write_bytes(b"broken")
    error = error_of_worker(DataLoader(dataset_of(files), num_workers=1))
    assert isinstance(error, SampleError)
    assert str(files[0]) in str(error)


def test_sizes_of_image_and_mask_must_agree(tmp_path):
    files = pair(tmp_path, np.zeros((4, 4), np.float32), np.zeros((4, 5), np.uint8))
    with pytest.raises(SampleError, match="one size"):
        dataset_of(files)[0]


def test_labels_that_do_not_fit_are_refused_not_wrapped(tmp_path):
    files = pair(tmp_path, np.zeros((2, 2), np.float32), np.full((2, 2), 300, np.uint16))
    with pytest.raises(SampleError, match="mask_dtype"):
        dataset_of(files)[0]
    assert (dataset_of(files, mask_dtype="int64")[0][1] == 300).all()
    fitting = pair(tmp_path, np.zeros((2, 2), np.float32), np.full((2, 2), 1.0, np.float32), name="b")
    assert (dataset_of(fitting)[0][1] == 1).all()


def test_wrong_settings_are_refused_when_the_dataset_is_built(tmp_path):
    files = pair(tmp_path, np.zeros((4, 4), np.float32))
    with pytest.raises(DatasetError, match="one mask"):
        GeoTiffPairDataset([files[0]], [])
    for wrong in ({"stride": 2}, {"window": 0}, {"nodata": "drop"}):
        with pytest.raises(SpecError):
            dataset_of(files, **wrong)


def test_declared_size_is_checked(tmp_path):
    files = pair(tmp_path, np.zeros((4, 4), np.float32))
    with pytest.raises(SampleError, match="8 x 8"):
        dataset_of(files, size=8)[0]


@pytest.mark.parametrize("settings", [{"size": 4, "bands": (1,)}, {"window": 2, "bands": (1,)}])
def test_structure_is_declared_without_opening_a_file(tmp_path, settings):
    files = pair(tmp_path, np.zeros((4, 4), np.float32))
    dataset = dataset_of(files, **settings)
    sample = dataset[0]
    for path in files:
        path.unlink()
    facts = dataset_facts(dataset)
    assert facts.declared
    assert facts.structure == describe_sample(sample)
    assert not dataset_facts(GeoTiffPairDataset(["a"], ["b"])).declared


def test_files_kept_open_are_not_used_across_a_fork_and_pickle(tmp_path):
    values = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    dataset = dataset_of(pair(tmp_path, values, compress="lzw"), window=8)
    expected = [dataset[index] for index in range(len(dataset))]
    loaded = [sample for batch in DataLoader(dataset, batch_size=None, num_workers=2) for sample in [batch]]
    assert samples_equal([tuple(sample) for sample in loaded], expected)
    assert samples_equal(pickle.loads(pickle.dumps(dataset))[3], expected[3])
    with ThreadPoolExecutor(4) as threads:
        assert samples_equal(list(threads.map(dataset.__getitem__, range(16))), expected)


def test_reading_leaves_the_fingerprint_and_touching_changes_it(tmp_path):
    files = pair(tmp_path, np.zeros((4, 4), np.float32))
    dataset = dataset_of(files, window=2)
    before = source_fingerprint(dataset)
    dataset[0]
    dataset.set_epoch(5)
    assert before
    assert source_fingerprint(dataset) == before
    assert source_fingerprint(dataset_of(files, window=2, seed=3)) == before
    assert source_fingerprint(dataset_of(files, window=2, fill=1.0)) != before
    files[1].touch()
    assert source_fingerprint(dataset_of(files, window=2)) != before


def test_reading_does_not_warn_of_missing_coordinates(tmp_path):
    files = pair(tmp_path, np.zeros((4, 4), np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset_of(files)[0]
        dataset_of(files, window=2)[0]


@pytest.mark.parametrize("options", [{}, {"bigtiff": "yes"}, {"endianness": "big"}, {"tiled": True}])
def test_header_tells_the_size_without_gdal(tmp_path, options):
    path = write_raster(tmp_path / "a.tif", np.zeros((3, 70_000 // 100, 33), np.uint8), **options)
    header = read_tiff_header(path)
    assert (header.height, header.width, header.bands) == (700, 33, 3)


def test_size_of_what_is_no_tiff_comes_from_gdal(tmp_path):
    path = tmp_path / "a.png"
    with rasterio.open(path, "w", driver="PNG", width=5, height=6, count=1, dtype="uint8") as file:
        file.write(np.zeros((1, 6, 5), np.uint8))
    assert read_tiff_header(path) is None
    assert raster_size(str(path)) == (6, 5)


def test_real_pairs_are_read(real_data):
    folder = real_data / "tif_pairs" / "derived_fly_256_float32"
    images, masks = (sorted((folder / part).glob("*.tif")) for part in ("dente", "edente"))
    dataset = GeoTiffPairDataset(images, masks, mask_dtype="float32", window=100)
    whole = GeoTiffPairDataset(images, masks, mask_dtype="float32")
    assert len(whole) == 18
    assert len(dataset) == 18 * 9
    assert samples_equal(dataset[8][0], whole[0][0][:, 156:, 156:].contiguous())
    assert samples_equal(whole.decode(whole.read(2)), whole[2])


def test_every_real_raster_is_read_by_path_as_by_bytes(real_data):
    paths = sorted(real_data.joinpath("tif_pairs").rglob("*.tif"), key=str)[::7]
    paths += sorted(real_data.joinpath("forest_gaps").rglob("*.tif"))
    for path in paths:
        by_path, by_bytes = read_path(str(path)), read_bytes(path.read_bytes())
        assert samples_equal(by_path.pixels, by_bytes.pixels)
        assert raster_size(str(path)) == by_path.pixels.shape[1:]
