"""Decoders of rasters give the same bits, and the choice reaches through subsets."""

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
import torch
from data_sets import BytesDataset, MixedDataset, write_raster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.io import MemoryFile
from torch.utils.data import ConcatDataset, DataLoader, Subset

from autotune.data.archives.store import open_or_build
from autotune.data.datasets import tiff_pages
from autotune.data.datasets.raster import GeoTiffPairDataset
from autotune.data.datasets.raster_files import read_bytes, read_path
from autotune.data.datasets.tiff_pages import read_tiff
from autotune.data.decoders import declared_exact_decoders, offered_decoders, with_decoder, with_own_decoder
from autotune.data.facts import dataset_facts, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.inspect import inspect_dataset
from autotune.errors import SampleError, SpecError
from autotune.spec import LoaderConfig, MachineFacts

MACHINE = MachineFacts(host="here", system="Linux x86_64", cpu_count=2, memory_bytes=2**34)
REAL = Path(__file__).parents[3] / "../shared/data"
ALL = ("rasterio_path", "rasterio_bytes", "tifffile")


def same_raster(path, bands=None):
    """Tell whether tifffile gave what GDAL gives, and whether it was asked at all."""
    data = Path(path).read_bytes()
    expected, got = read_bytes(data, bands=bands), read_tiff(data, bands=bands)
    assert samples_equal(got.pixels, expected.pixels)
    assert samples_equal(got.nodata, expected.nodata)
    assert got.pixels.flags.writeable
    assert samples_equal(read_path(str(path), bands=bands).pixels, expected.pixels)
    try:
        return tiff_pages._read_page(tifffile, data, bands) is not None
    except Exception:  # noqa: BLE001
        return False


def values_of(dtype, shape, seed=0):
    drawn = np.random.default_rng(seed).normal(size=shape) * 50
    return np.abs(drawn).astype(dtype) if np.dtype(dtype).kind == "u" else drawn.astype(dtype)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["uint8", "uint16", "uint32", "int16", "int32", "float32", "float64", "int8", "int64"]),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 70)),
    squeezed=st.tuples(st.sampled_from([None, "lzw", "deflate", "zstd", "packbits", "lzma"]), st.booleans()),
    tiled=st.booleans(),
    plain=st.fixed_dictionaries(
        {
            "interleave": st.sampled_from(["pixel", "band"]),
            "BIGTIFF": st.sampled_from(["YES", "NO"]),
            "ENDIANNESS": st.sampled_from(["LITTLE", "BIG"]),
            "nodata": st.sampled_from([None, 0, 7, 100]),
        }
    ),
)
def test_rasters_of_every_layout_are_read_alike(tmp_path, *, dtype, shape, squeezed, tiled, plain):
    (compress, predictor), options = squeezed, dict(plain)
    if compress:
        options["compress"] = compress
    if compress in ("lzw", "deflate", "zstd") and predictor:
        options["predictor"] = 3 if np.dtype(dtype).kind == "f" else 2
    if tiled:
        options |= {"tiled": True, "blockxsize": 32, "blockysize": 16}
    path = write_raster(tmp_path / "any.tif", values_of(dtype, shape), **options)
    asked = same_raster(path)
    same_raster(path, bands=(shape[0], 1))
    assert asked or compress in ("packbits", "lzma") or dtype in ("int8", "int64") or np.prod(shape) < 200


def odd_rasters(folder):
    """Write one file of every odd kind and give their paths by name."""
    values = values_of("uint8", (1, 33, 20))
    floats = values_of("float32", (1, 33, 20))
    rotated = rasterio.Affine.rotation(30) * rasterio.Affine.scale(2, -2)
    nan, half = np.full_like(floats, np.nan), floats.copy()
    half[0, :10] = -9999
    four = values_of("uint8", (4, 33, 20))
    files = {
        "all nodata": (nan, {"nodata": float("nan")}),
        "some nodata": (half, {"nodata": -9999.0}),
        "zero nodata": (values, {"nodata": 0}),
        "lowest float": (floats, {"nodata": -3.4028234663852886e38}),
        "rotated": (floats, {"transform": rotated}),
        "12 bits": (values.astype(np.uint16) * 16, {"NBITS": 12}),
        "1 bit": (values % 2, {"NBITS": 1}),
        "cmyk": (four, {"photometric": "CMYK"}),
        "white is zero": (values, {"photometric": "MINISWHITE"}),
        "jpeg": (four[:3], {"compress": "jpeg", "photometric": "YCBCR"}),
        "rgb and alpha": (four, {"photometric": "RGB", "ALPHA": "YES"}),
        "complex": (floats.astype(np.complex64), {}),
        "lerc": (floats, {"compress": "lerc"}),
        "sparse": (np.full((1, 64, 64), 5, np.float32), {"SPARSE_OK": "TRUE", "tiled": True, "blockxsize": 16,
                                                       "blockysize": 16, "nodata": 5.0}),
    }  # fmt: skip
    paths = {name: write_raster(folder / f"{name}.tif", pixels, **options) for name, (pixels, options) in files.items()}
    with rasterio.open(paths["some nodata"], "r+") as file:
        file.scales = (0.1,)
    paths["palette"] = write_raster(folder / "palette.tif", values % 4, photometric="palette")
    with rasterio.open(paths["palette"], "r+") as file:
        file.write_colormap(1, {number: (number, 0, 9, 255) for number in range(4)})
    for name, text in (("words", "none"), ("far", "1e40"), ("broken", "254.5"), ("spaced", " 7 "), ("many", "7 8")):
        paths[f"nodata {name}"] = folder / f"nodata {name}.tif"
        tag = (42113, "s", 0, text, True)
        tifffile.imwrite(paths[f"nodata {name}"], values[0], extratags=[tag], photometric="minisblack")
    paths["several pages"] = folder / "several pages.tif"
    tifffile.imwrite(paths["several pages"], values_of("uint8", (3, 33, 20)), photometric="minisblack")
    paths["half floats"] = folder / "half floats.tif"
    tifffile.imwrite(paths["half floats"], floats[0].astype(np.float16), photometric="minisblack")
    paths["png"] = folder / "mask.png"
    with rasterio.open(paths["png"], "w", driver="PNG", count=1, height=33, width=20, dtype="uint8") as file:
        file.write(values)
    return paths


def test_odd_rasters_are_read_alike(tmp_path):
    asked = {name: same_raster(path) for name, path in odd_rasters(tmp_path).items()}
    for name in (
        "all nodata",
        "some nodata",
        "zero nodata",
        "lowest float",
        "rotated",
        "rgb and alpha",
        "nodata spaced",
    ):
        assert asked[name], name
    for name in ("12 bits", "1 bit", "cmyk", "white is zero", "jpeg", "complex", "palette", "sparse", "png", "lerc"):
        assert not asked[name], name
    for name in ("nodata words", "nodata far", "nodata broken", "nodata many"):
        assert not asked[name], name


def test_tifffile_warns_of_nothing_that_it_is_not_asked_for(tmp_path, caplog):
    path = write_raster(tmp_path / "a.tif", values_of("float32", (1, 9, 9)), nodata=-3.4028234663852886e38)
    read_tiff(path.read_bytes())
    assert not caplog.records
    tifffile.TiffFile(path).pages.first.asarray()
    assert [record.name for record in caplog.records] == ["tifffile"]


@pytest.mark.parametrize("name", ALL)
def test_nodata_is_filled_alike(tmp_path, name):
    values = np.array([[1, np.nan, np.inf, -9999, 0]], np.float32)
    path = write_raster(tmp_path / "a.tif", values, nodata=-9999.0)
    mask = write_raster(tmp_path / "m.tif", np.ones((1, 5), np.uint8))
    dataset = GeoTiffPairDataset([path], [mask], fill=-1.0, ignore_index=255).with_decoder(name)
    image, labels = dataset[0]
    assert image.flatten().tolist() == [1, -1, -1, -1, 0]
    assert labels.flatten().tolist() == [1, 255, 255, 255, 1]


@pytest.mark.fault(12)
@pytest.mark.parametrize("name", ALL)
def test_damaged_raster_is_an_error_with_its_path(tmp_path, name):
    path = write_raster(tmp_path / "a.tif", values_of("float32", (1, 64, 64)), compress="lzw")
    mask = write_raster(tmp_path / "m.tif", np.zeros((64, 64), np.uint8))
    dataset = GeoTiffPairDataset([path], [mask]).with_decoder(name)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:9], b"", b"II*\0" + b"\xff" * 40):
        path.write_bytes(damaged)
        with pytest.raises(SampleError) as caught:
            dataset[0]
        assert caught.value.path == str(path)
    path.unlink()
    with pytest.raises(SampleError, match=r"a\.tif"):
        dataset[0]


@pytest.mark.fault(34)
@pytest.mark.parametrize("name", ALL)
def test_raster_that_claims_a_terabyte_is_refused(tmp_path, name):
    path = tmp_path / "huge.tif"
    side = 1_000_000
    entries = [(256, 4, side), (257, 4, side), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1),
               (278, 4, side), (279, 4, 4), (339, 3, 3)]  # fmt: skip
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + body + bytes(100))
    dataset = GeoTiffPairDataset([path], [path]).with_decoder(name)
    with pytest.raises(SampleError, match=r"claims|cannot be read"):
        dataset[0]


@pytest.fixture
def pairs(tmp_path):
    files = [write_raster(tmp_path / f"{n}.tif", values_of("float32", (1, 16, 16), n)) for n in range(6)]
    masks = [write_raster(tmp_path / f"{n}m.tif", values_of("uint8", (16, 16), n) % 2) for n in range(6)]
    return files, masks


def test_decoders_are_offered_where_they_can_be_used(pairs):
    assert GeoTiffPairDataset(*pairs).decoders == ALL
    assert GeoTiffPairDataset(*pairs).exact_decoders == ALL
    assert GeoTiffPairDataset(*pairs, metadata=True).decoders == ALL[:2]
    assert GeoTiffPairDataset(*pairs, window=8).decoders == ALL[:1]
    with pytest.raises(SpecError, match="rasterio_bytes"):
        GeoTiffPairDataset(*pairs).with_decoder("gdal")
    with pytest.raises(SpecError, match="rasterio_path"):
        GeoTiffPairDataset(*pairs, window=8).with_decoder("tifffile")


def test_decoder_without_its_package_is_not_offered(pairs, monkeypatch):
    from autotune.data.datasets import raster

    monkeypatch.setattr(raster, "is_installed", lambda package: package != "tifffile")
    assert GeoTiffPairDataset(*pairs).decoders == ALL[:2]


def test_choice_leaves_the_dataset_and_its_identity_alone(pairs):
    dataset = GeoTiffPairDataset(*pairs, size=16, bands=(1,))
    for name in ALL:
        chosen = dataset.with_decoder(name)
        assert (chosen.decoder, dataset.decoder) == (name, "rasterio_path")
        assert source_fingerprint(chosen) == source_fingerprint(dataset)
        assert dataset_facts(chosen) == dataset_facts(dataset)
        assert all(samples_equal(chosen[index], dataset[index]) for index in range(6))
        assert all(samples_equal(chosen.decode(dataset.read(index)), dataset[index]) for index in range(6))


def test_choice_goes_through_subsets_and_parts(pairs):
    dataset = GeoTiffPairDataset(*pairs)
    tree = ConcatDataset([Subset(dataset, [3, 1]), GeoTiffPairDataset(*pairs, metadata=False)])
    assert offered_decoders(tree) == declared_exact_decoders(tree) == ALL
    chosen = with_decoder(tree, "tifffile")
    assert [leaf.decoder for leaf in (chosen.datasets[0].dataset, chosen.datasets[1])] == ["tifffile", "tifffile"]
    assert all(samples_equal(one, other) for one, other in zip(chosen, tree, strict=True))
    assert source_fingerprint(with_own_decoder(chosen)) == source_fingerprint(tree)
    assert with_own_decoder(tree) is tree
    mixed = ConcatDataset([dataset, GeoTiffPairDataset(*pairs, metadata=True)])
    assert offered_decoders(mixed) == ALL[:2]


def test_no_choice_is_no_choice(pairs):
    for dataset in (MixedDataset(), BytesDataset(), ConcatDataset([GeoTiffPairDataset(*pairs), BytesDataset()])):
        assert offered_decoders(dataset) == declared_exact_decoders(dataset) == ()
        assert with_own_decoder(dataset) is dataset
        with pytest.raises(SpecError, match="none at all"):
            with_decoder(dataset, "tifffile")


@pytest.mark.parametrize("stored", ["encoded", "decoded"])
def test_archive_is_one_for_all_exact_decoders(pairs, tmp_path, stored):
    dataset = GeoTiffPairDataset(*pairs)
    config = LoaderConfig(archive="tar", stored=stored)
    first = open_or_build(dataset, config, tmp_path / "archives")
    for name in ALL:
        again = open_or_build(dataset.with_decoder(name), config, tmp_path / "archives", build=False)
        assert again.directory == first.directory
        assert all(samples_equal(again.dataset[index], dataset[index]) for index in range(6))


@pytest.mark.parametrize("name", ALL)
def test_workers_decode_after_the_parent_has(pairs, name):
    dataset = GeoTiffPairDataset(*pairs).with_decoder(name)
    expected = [dataset[index] for index in range(6)]
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert all(samples_equal(tuple(one), other) for one, other in zip(loader, expected, strict=True))


def test_inspection_tells_decoders_and_the_exact_ones(pairs):
    found = inspect_dataset(Subset(GeoTiffPairDataset(*pairs), range(4)), MACHINE)
    assert found.decoders == found.exact_decoders == ALL
    assert (found.varying, found.augmented, found.random) == (False, False, False)
    assert inspect_dataset(MixedDataset(), MACHINE).decoders == ()


class Claims(GeoTiffPairDataset):
    """Claims of its decoders what is not so."""

    def decode(self, raw):
        image, mask = super().decode(raw)
        if self.decoder == "tifffile":
            raise RuntimeError("it does not work here")
        return image + (self.decoder == "rasterio_bytes"), mask


def test_inspection_believes_no_claim_of_exactness(pairs, caplog):
    found = inspect_dataset(Claims(*pairs), MACHINE)
    assert (found.decoders, found.exact_decoders) == (ALL, ALL[:1])
    assert "not exact" in caplog.text
    assert "does not work here" in caplog.text


def real_rasters():
    return [*REAL.glob("tif_pairs/**/*.*"), *REAL.glob("forest_gaps/**/*.tif")]


@pytest.mark.skipif(not real_rasters(), reason="no real rasters here")
def test_real_rasters_are_read_alike():
    asked = [same_raster(path) for path in real_rasters()]
    assert sum(asked) >= 20


@pytest.mark.skipif(not (REAL / "tif_pairs").is_dir(), reason="no real rasters here")
@pytest.mark.parametrize("name", ALL)
def test_real_pairs_give_the_same_samples(name):
    folder = REAL / "tif_pairs/derived_fly_256_float32"
    files = sorted(folder.glob("dente/*.tif*"))
    dataset = GeoTiffPairDataset(files, sorted(folder.glob("edente/*.tif*")), mask_dtype="float32")
    chosen = dataset.with_decoder(name)
    for index, other in itertools.product(range(len(dataset)), (chosen,)):
        assert samples_equal(other[index], dataset[index])
        assert samples_equal(other.decode(dataset.read(index)), dataset[index])
    assert torch.is_tensor(chosen[0][0])


def test_raster_in_memory_reads_like_its_file(tmp_path):
    path = write_raster(tmp_path / "a.tif", values_of("int16", (2, 9, 7)), compress="deflate")
    with MemoryFile(path.read_bytes()) as memory, memory.open() as file:
        assert samples_equal(read_tiff(path.read_bytes()).pixels, file.read())
