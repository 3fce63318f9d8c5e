"""Grey TIF images, single and in pairs: kinds of files, order of the steps, augmentation, errors."""

import io
import pickle

import numpy as np
import pytest
import rasterio
import torch
from data_sets import write_vast_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autotune.data.apply import apply
from autotune.data.build import make_loader
from autotune.data.datasets.raster_files import read_bytes
from autotune.data.datasets.tif_folders import matched_names, split_names, tif_files
from autotune.data.datasets.tif_grayscale import LUMA, gray_pixels, tiff_tags
from autotune.data.datasets.tif_images import TifImageDataset, TifPairDataset, resized_by_area
from autotune.data.datasets.tiff_pages import read_tiff
from autotune.data.facts import dataset_facts, describe_sample, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.stages import has_augment, is_staged
from autotune.data.transforms.local_normalization import LocalNormalizeByMask
from autotune.data.transforms.tif_augmentation import tif_augmentation
from autotune.errors import DatasetError, SampleError, SpecError
from autotune.spec import LoaderConfig

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
normalize = LocalNormalizeByMask()


def write_tif(path, pixels, **options):
    """Write bands first, or one band, as GDAL does."""
    bands = pixels if pixels.ndim == 3 else pixels[None]
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype.name, **options
    ) as file:
        file.write(bands)
    return path


def jaw(seed=0, shape=(40, 52), dtype="uint16", top=4095):
    """Noise inside a frame of background."""
    image = np.random.default_rng(seed).uniform(0.1, 1.0, shape) * top
    image[:6] = image[-6:] = 0
    return image.astype(dtype)


def single(path, patch_size=(16, 16), **more):
    return TifImageDataset([path], patch_size=patch_size, **more)


@pytest.fixture
def pair_folder(tmp_path):
    for number in range(6):
        (tmp_path / "edente").mkdir(exist_ok=True)
        (tmp_path / "dente").mkdir(exist_ok=True)
        write_tif(tmp_path / "edente" / f"{number}.tif", jaw(number))
        write_tif(tmp_path / "dente" / f"{number}.tif", jaw(number + 100, (33, 47)))
    return tmp_path


def pairs_of(folder, **more):
    targets, conditions = (list(tif_files(folder / name).values()) for name in ("edente", "dente"))
    return TifPairDataset(targets, conditions, **{"patch_size": (16, 16), **more})


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("uint8", {}),
        ("uint16", {"compress": "lzw", "predictor": 2}),
        ("uint16", {"nbits": 12}),
        ("int16", {}),
        ("uint32", {"tiled": True, "blockxsize": 16, "blockysize": 16}),
        ("float32", {"compress": "deflate", "predictor": 3}),
        ("float64", {}),
        ("float32", {"bigtiff": "yes"}),
        ("uint16", {"endianness": "big"}),
    ],
)
def test_every_kind_of_number_becomes_normalised_float32(tmp_path, dtype, options):
    image = jaw(dtype=dtype, top=250 if dtype == "uint8" else 4095)
    sample = single(write_tif(tmp_path / "a.tif", image, **options), image.shape)[0]
    assert (sample.dtype, sample.shape) == (torch.float32, (1, 40, 52))
    assert torch.equal(sample[0], normalize(torch.from_numpy(image.astype(np.float32))))
    assert not sample[0, :6].any()


def test_steps_are_load_resize_normalise_as_monai_does_them(tmp_path):
    monai = pytest.importorskip("monai.transforms")
    image = jaw()
    sample = single(write_tif(tmp_path / "a.tif", image), (24, 20))[0]
    resized = monai.Resize((24, 20))(image[None].astype(np.float32))
    expected = normalize(resized.as_tensor())
    assert torch.equal(sample, expected)
    assert not torch.equal(sample, monai.Resize((24, 20))(normalize(image)[None]).as_tensor())


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(0, 2**32))
def test_resizing_gives_the_bits_of_monai(height, width, size, seed):
    monai = pytest.importorskip("monai.transforms")
    image = torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed))
    expected = monai.Resize(size)(image).as_tensor()
    resized = resized_by_area(image, size)
    if (image == image[0, 0, 0]).all():
        assert torch.allclose(resized, expected)
        assert (resized == image[0, 0, 0]).all()
    else:
        assert torch.equal(resized, expected)


def test_a_constant_image_gives_zeros_whatever_its_size(tmp_path):
    path = write_tif(tmp_path / "a.tif", np.full((300, 310), 0.7, np.float32))
    assert not single(path)[0].any()


def test_colours_become_grey_by_the_documented_weights(tmp_path):
    colors = np.random.default_rng(0).integers(1, 255, (3, 20, 20)).astype(np.uint8)
    gray = sum(weight * band.astype(np.float64) for weight, band in zip(LUMA, colors, strict=True)).astype(np.float32)
    path = write_tif(tmp_path / "rgb.tif", colors, photometric="RGB")
    assert torch.equal(single(path, (20, 20))[0][0], normalize(torch.from_numpy(gray)))
    with_alpha = np.concatenate([colors, np.full((1, 20, 20), 9, np.uint8)])
    path = write_tif(tmp_path / "rgba.tif", with_alpha, photometric="RGB", alpha="yes")
    assert torch.equal(single(path, (20, 20))[0][0], normalize(torch.from_numpy(gray)))
    reference = np.asarray(Image.fromarray(colors.transpose(1, 2, 0)).convert("L"))
    assert np.abs(gray - reference).max() <= 1


def test_white_that_is_zero_becomes_black(tmp_path):
    image = jaw(dtype="uint8", top=250)
    inverse = write_tif(tmp_path / "inverse.tif", 255 - image, photometric="MINISWHITE")
    plain = write_tif(tmp_path / "plain.tif", image)
    assert torch.equal(single(inverse)[0], single(plain)[0])
    bits = (image > 100).astype(np.uint8)
    inverse = write_tif(tmp_path / "inverse1.tif", 1 - bits, photometric="MINISWHITE", nbits=1)
    assert torch.equal(single(inverse)[0], single(write_tif(tmp_path / "plain1.tif", bits, nbits=1))[0])


@pytest.mark.parametrize(
    ("bands", "options", "told"),
    [
        (3, {"photometric": "MINISBLACK"}, "got 3 bands without colours"),
        (2, {"photometric": "MINISBLACK", "alpha": "no"}, "got 2 bands without colours"),
        (5, {"photometric": "RGB", "alpha": "no"}, "got 5 bands of which 3 are colours"),
        (4, {"photometric": "CMYK"}, "CMYK colours; convert it"),
    ],
)
def test_bands_that_are_no_grey_image_are_refused_with_the_path(tmp_path, bands, options, told):
    path = write_tif(tmp_path / "a.tif", np.ones((bands, 8, 8), np.uint8), **options)
    with pytest.raises(SampleError, match=told) as caught:
        single(path)[0]
    assert caught.value.path == str(path)


def test_a_palette_counts_by_its_colours(tmp_path):
    index = np.random.default_rng(0).integers(0, 256, (20, 20)).astype(np.uint8)
    colors = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint8)
    picture = Image.fromarray(index, "P")
    picture.putpalette(colors.tobytes())
    picture.save(tmp_path / "palette.tif")
    picture.convert("RGB").save(tmp_path / "rgb.tif")
    palette, rgb = (single(tmp_path / f"{name}.tif", (20, 20))[0] for name in ("palette", "rgb"))
    # PIL writes 8 bits of colour as their upper 8 of 16, so 255 becomes 65280: all by the same factor
    assert torch.allclose(palette, rgb, atol=1e-6)


def test_complex_numbers_are_refused(tmp_path):
    write_tif(tmp_path / "complex.tif", np.ones((9, 9), np.complex64))
    with pytest.raises(SampleError, match="real numbers"):
        single(tmp_path / "complex.tif")[0]


def test_a_band_of_alpha_is_dropped(tmp_path):
    image = jaw(dtype="uint8", top=250)
    both = np.stack([image, np.full_like(image, 7)])
    path = write_tif(tmp_path / "a.tif", both, photometric="MINISBLACK", alpha="yes")
    assert torch.equal(single(path)[0], single(write_tif(tmp_path / "b.tif", image))[0])


def test_pixels_without_a_measurement_are_background(tmp_path):
    image = jaw(dtype="float32")
    image[20, 20:30] = np.nan
    image[21, 20] = np.inf
    image[22, 20] = -9999
    sample = single(write_tif(tmp_path / "a.tif", image, nodata=-9999), image.shape)[0]
    assert torch.isfinite(sample).all()
    assert not sample[0, 20, 20:30].any()
    assert not sample[0, 21:23, 20].any()
    empty = write_tif(tmp_path / "empty.tif", np.full((8, 8), np.nan, np.float32))
    assert not single(empty)[0].any()


def test_of_several_pages_the_first_counts(tmp_path):
    pages = [Image.fromarray(jaw(seed, dtype="uint8", top=250)) for seed in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "b.tif")
    assert torch.equal(single(tmp_path / "a.tif")[0], single(tmp_path / "b.tif")[0])


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    "content", [b"", b"II*\0", b"II*\0\xff\xff\xff\x7f" + b"\0" * 20, b"no image at all, but text"]
)
def test_an_unreadable_file_gives_an_error_with_its_path(tmp_path, content):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(SampleError) as caught:
        single(path)[0]
    assert caught.value.path == str(path)


@pytest.mark.fault(12)
@pytest.mark.parametrize("decoder", ["rasterio_bytes", "tifffile"])
def test_a_cut_or_missing_file_gives_an_error_with_its_path(tmp_path, decoder):
    path = write_tif(tmp_path / "a.tif", jaw())
    dataset = single(path).with_decoder(decoder)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SampleError) as caught:
        dataset[0]
    assert caught.value.path == str(path)
    path.unlink()
    with pytest.raises(SampleError, match=r"No such file") as caught:
        dataset[0]
    assert caught.value.path == str(path)


@pytest.mark.fault(34)
def test_claimed_terabytes_are_refused_before_they_are_allocated(tmp_path):
    path = write_vast_raster(tmp_path / "vast.tif")
    with pytest.raises(SampleError, match="claims") as caught:
        single(path)[0]
    assert caught.value.path == str(path)


@given(st.binary(max_size=300), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b""]))
def test_reading_tags_of_any_bytes_gives_numbers_or_a_sample_error(data, start):
    try:
        tags = tiff_tags(start + data)
    except SampleError:
        return
    assert all(isinstance(number, int) for values in tags.values() for number in values)


def test_pairs_of_different_sizes_come_out_in_one_size(pair_folder):
    dataset = pairs_of(pair_folder)
    target, condition = dataset[2]
    assert target.shape == condition.shape == (1, 16, 16)
    assert torch.equal(target, single(pair_folder / "edente" / "2.tif")[0])
    assert torch.equal(condition, single(pair_folder / "dente" / "2.tif")[0])
    assert describe_sample(dataset[0]) == dataset.sample_structure() == dataset_facts(dataset).structure


def test_the_condition_is_named_where_it_is_what_is_wrong(pair_folder):
    path = pair_folder / "dente" / "1.tif"
    path.write_bytes(b"text")
    dataset = pairs_of(pair_folder)
    with pytest.raises(SampleError) as caught:
        dataset[1]
    assert caught.value.path == str(path)
    with pytest.raises(SampleError, match=r"condition\.tif: the file is no TIFF"):
        dataset.decode(dataset.read(1))


def test_target_and_condition_need_each_other(tmp_path):
    with pytest.raises(DatasetError, match="got 2 targets and 1 conditions"):
        TifPairDataset(["a.tif", "b.tif"], ["a.tif"], patch_size=(8, 8))


@pytest.mark.parametrize("patch_size", [256, (256,), (1, 2, 3), (0, 4), (4, -1), (4.0, 4), "44", (True, 4), None])
def test_a_patch_size_that_is_none_is_refused(patch_size):
    with pytest.raises(SpecError, match="patch_size is height and width"):
        TifImageDataset([], patch_size=patch_size)


def test_decoders_give_the_same_bits(pair_folder):
    dataset = pairs_of(pair_folder)
    assert dataset.decoders[0] == "rasterio_bytes"
    for name in dataset.decoders:
        assert samples_equal(dataset.with_decoder(name)[3], dataset[3])
    with pytest.raises(SpecError, match="decoder must be one of"):
        dataset.with_decoder("pil")


def test_augmentation_is_anew_in_each_epoch_and_alike_for_both(pair_folder):
    write_tif(pair_folder / "dente" / "0.tif", jaw(0))
    dataset = pairs_of(pair_folder, augmentation=tif_augmentation((16, 16)), seed=3)
    seen = set()
    for epoch in range(12):
        dataset.set_epoch(epoch)
        target, condition = dataset[0]
        assert torch.equal(target, condition), "these files are equal, so equal draws leave them so"
        seen.add(target.numpy().tobytes())
    assert len(seen) > 4
    again = pairs_of(pair_folder, augmentation=tif_augmentation((16, 16)), seed=3)
    again.set_epoch(11)
    assert samples_equal(again[0], dataset[0])
    assert samples_equal(dataset.base_sample(0), pairs_of(pair_folder)[0])


@pytest.mark.parametrize("patch_size", [(16, 16), (12, 20)])
def test_the_default_augmentation_invents_no_value_and_keeps_background(tmp_path, patch_size):
    path = write_tif(tmp_path / "a.tif", jaw())
    plain = single(path, patch_size)[0]
    values = set(plain.unique().tolist()) | {0.0}
    dataset = single(path, patch_size, augmentation=tif_augmentation(patch_size, shift_share=0.2))
    shifted = False
    for epoch in range(40):
        dataset.set_epoch(epoch)
        sample = dataset[0]
        assert sample.shape == (1, *patch_size)
        assert set(sample.unique().tolist()) <= values
        assert (sample == 0).sum() >= (plain == 0).sum()
        shifted |= bool((sample == 0).sum() > (plain == 0).sum())
    assert shifted


def test_alpha_and_one_saturated_colour_are_no_nodata(tmp_path):
    colors = np.random.default_rng(0).integers(1, 200, (3, 16, 16)).astype(np.uint8)
    colors[0, :4] = 255  # red alone is as bright as nodata
    colors[:, -2:] = 255
    alpha = np.full((1, 16, 16), 255, np.uint8)
    settings = {"photometric": "RGB", "nodata": 255}
    with_alpha = write_tif(tmp_path / "a.tif", np.concatenate([colors, alpha]), alpha="yes", **settings)
    without = write_tif(tmp_path / "b.tif", colors, **settings)
    for read in (read_bytes, read_tiff):
        gray = gray_pixels(with_alpha.read_bytes(), read)
        assert np.array_equal(gray, gray_pixels(without.read_bytes(), read))
        assert (gray[-2:] == 0).all()
        expected = np.tensordot(LUMA, colors.astype(np.float64), axes=1)
        np.testing.assert_allclose(gray[:-2], expected[:-2], rtol=1e-6)


def test_an_augmentation_that_changes_the_size_is_refused(tmp_path):
    A = pytest.importorskip("albumentations")  # noqa: N806  # as everybody calls it
    dataset = single(write_tif(tmp_path / "a.tif", jaw()), augmentation=A.RandomCrop(8, 8))
    with pytest.raises(SpecError, match=r"keeps the size .* image \(16, 16, 1\), got \(8, 8\)"):
        dataset[0]


def test_there_is_an_augment_stage_only_with_an_augmentation(tmp_path):
    path = write_tif(tmp_path / "a.tif", jaw())
    plain, augmented = single(path), single(path, augmentation=tif_augmentation((16, 16)))
    assert is_staged(plain)
    assert not has_augment(plain)
    assert has_augment(augmented)
    assert source_fingerprint(plain) == source_fingerprint(augmented)
    assert source_fingerprint(plain) != source_fingerprint(single(path, (16, 17)))
    assert source_fingerprint(plain) == source_fingerprint(plain.with_decoder(plain.decoders[-1]))


@pytest.mark.parametrize(
    "config",
    [
        LoaderConfig(batch_size=2, cache="memory"),
        LoaderConfig(batch_size=2, archive="tar", stored="encoded", num_workers=2),
        LoaderConfig(batch_size=2, archive="npy", cache="memory", cache_fraction=0.5),
    ],
    ids=LoaderConfig.label,
)
def test_stores_give_the_augmented_samples_of_the_dataset(pair_folder, tmp_path, config):
    dataset = pairs_of(pair_folder, augmentation=tif_augmentation((16, 16)))
    served, arguments = apply(dataset, config, archive_root=tmp_path / "archives")
    for epoch in range(2):
        dataset.set_epoch(epoch)
        expected = [dataset[index] for index in range(len(dataset))]
        batches = list(make_loader(served, arguments, seed=0))
        assert [part.shape for part in batches[0]] == [(2, 1, 16, 16)] * 2
        for place, part in enumerate(zip(*expected, strict=True)):
            assert torch.equal(torch.cat([batch[place] for batch in batches]), torch.stack(part))


def test_a_pickled_copy_gives_the_same_samples(pair_folder):
    dataset = pairs_of(pair_folder, augmentation=tif_augmentation((16, 16)))
    assert samples_equal(pickle.loads(pickle.dumps(dataset))[4], dataset[4])


def test_every_tif_of_the_real_data_gives_finite_samples(real_data):
    paths = sorted(path for path in (real_data / "tif_pairs").rglob("*") if path.suffix.lower() == ".tif")
    paths += sorted((real_data / "forest_gaps").rglob("*.tif"))
    dataset = TifImageDataset(paths, patch_size=(64, 64))
    for index in range(len(dataset)):
        sample = dataset[index]
        assert (sample.shape, sample.dtype) == ((1, 64, 64), torch.float32)
        assert torch.isfinite(sample).all()
        assert sample.any(), "none of these files is empty"


def test_a_file_of_another_format_is_refused(real_data):
    path = next((real_data / "tif_pairs" / "dental_panoramic_masks").glob("*.png"))
    with pytest.raises(SampleError, match="is no TIFF"):
        single(path)[0]


def test_folders_give_tif_files_by_name(tmp_path):
    for name in ("b.TIF", "a.tiff", "c.png", "._a.tif"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d.tif").mkdir()
    assert {name: path.name for name, path in tif_files(tmp_path).items()} == {"a": "a.tiff", "b": "b.TIF"}
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"unique in a folder, got a\.tif and a\.tiff"):
        tif_files(tmp_path)


def test_folders_that_are_missing_or_empty_are_told(tmp_path):
    (tmp_path / "dente").mkdir()
    with pytest.raises(DatasetError, match=r"must exist, got .*edente'; .* holds the folders dente"):
        tif_files(tmp_path / "edente")
    with pytest.raises(DatasetError, match="got none in"):
        tif_files(tmp_path / "dente")


@given(st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=1), st.data())
def test_names_match_or_every_lonely_file_is_counted(names, data):
    from pathlib import Path

    target = {name: Path(f"t/{name}.tif") for name in sorted(names)}
    kept = data.draw(st.sets(st.sampled_from(sorted(names))))
    condition = {name: Path(f"c/{name}.tif") for name in sorted({*kept, "zzz"})}
    if kept == names and "zzz" not in condition:
        assert matched_names(target, condition) == list(target)
        return
    with pytest.raises(DatasetError) as caught:
        matched_names(target, condition)
    lonely = len(names - kept)
    assert lonely == 0 or f"{lonely} file" in str(caught.value)
    assert "1 file of c is not in t: zzz.tif" in str(caught.value)


@given(st.integers(2, 300), st.floats(0.001, 0.999), st.integers(0, 2**31))
def test_a_split_is_a_partition_that_the_seed_decides(count, share, seed):
    names = [f"{number:03d}" for number in range(count)]
    train, val = split_names(names, share, seed)
    assert sorted(train + val) == names
    assert train == sorted(train)
    assert val == sorted(val)
    assert min(len(train), len(val)) >= 1
    assert abs(len(train) - share * count) <= 1
    assert split_names(names, share, seed) == (train, val)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), "0.9", None, True])
def test_a_share_that_splits_nothing_off_is_refused(share):
    with pytest.raises(SpecError, match="train_split must be above 0 and below 1"):
        split_names(["a", "b"], share, 0)


def test_a_compressed_colour_tif_is_read(tmp_path):
    colors = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colors).save(buffer, "TIFF", compression="jpeg")
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    assert single(tmp_path / "a.tif")[0].any()
