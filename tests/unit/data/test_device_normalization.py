"""Datasets that leave normalisation to the device: the same batches in the end, raw samples until then."""

import copy
import pickle
from functools import partial

import albumentations
import numpy as np
import pytest
import torch
from data_sets import write_raster
from PIL import Image
from torch.utils.data import TensorDataset

from autotune.data.apply import prepare
from autotune.data.build import make_loader
from autotune.data.datasets.cityscapes import CityscapesDataset
from autotune.data.datasets.forest_gap import ForestGapDataset, HeightGapDataset
from autotune.data.datasets.general_factories import images
from autotune.data.datasets.general_images import ImageDataset
from autotune.data.datasets.memory_efficient import MemoryEfficientDataset
from autotune.data.datasets.tif_factories import ldm_tif, vae_tif
from autotune.data.datasets.tif_images import TifImageDataset
from autotune.data.device_stage import device_transform_of
from autotune.data.facts import declared_structure, describe_sample
from autotune.data.fingerprint import device_transform_digest, source_fingerprint
from autotune.data.transforms.device_normalization import NormalizesByMask, NormalizesImages
from autotune.data.transforms.normalization import Normalization
from autotune.errors import SpecError
from autotune.loaders.factory import create_train_val_datasets
from autotune.spec import LoaderConfig

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def make(tmp_path):
    """Make each built-in dataset that offers it, by its name."""
    generator = np.random.default_rng(0)

    def rasters():
        inputs, masks = [], []
        for number in range(5):
            values = generator.normal(20 + 10 * number, 5, (2, 13, 11)).astype(np.float32)
            values[:, :3] = -9999.0
            values[0, 5, 5] = np.nan
            inputs.append(write_raster(tmp_path / f"{number}.tif", values, -9999.0))
            masks.append(write_raster(tmp_path / f"{number}m.tif", generator.integers(0, 2, (13, 11)).astype(np.uint8)))
        return inputs, masks

    def photographs():
        folder = tmp_path / "photographs"
        for number in range(5):
            (folder / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{number % 2}" / f"{number}.png")
        return folder

    def scenes():
        for kind, suffix in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
            folder = tmp_path / kind / "train" / "bonn"
            folder.mkdir(parents=True)
            for number in range(5):
                top, shape = (256, (12, 16, 3)) if kind == "leftImg8bit" else (34, (12, 16))
                pixels = generator.integers(0, top, shape).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"bonn_000000_{number:06d}_{suffix}.png")
        return tmp_path

    files = {
        "forest": rasters,
        "windows": rasters,
        "heights": rasters,
        "images": photographs,
        "memory": photographs,
        "scenes": scenes,
    }
    makers = {
        "forest": lambda found, **more: ForestGapDataset(*found, normalization="z_score", fill=-3.0, **more),
        "windows": lambda found, **more: ForestGapDataset(
            *found, normalization="min_max", window=5, metadata=True, ignore_index=255, **more
        ),
        "heights": lambda found, **more: HeightGapDataset(
            found[0], normalization="robust", window=8, fill=7.0, ignore_index=9, **more
        ),
        "images": lambda found, **more: ImageDataset(found, 16, **more),
        "memory": lambda found, **more: MemoryEfficientDataset(found, image_size=16, **more),
        "scenes": lambda found, **more: CityscapesDataset(found, size=(8, 8), **more),
        "scenes last": lambda found, **more: CityscapesDataset(found, size=(8, 8), channels="last", **more),
        "tif": lambda _, **more: vae_tif(count=5, size=40, patch_size=(24, 24), **more),
        "tif pairs": lambda _, **more: ldm_tif(count=5, size=40, patch_size=(24, 24), **more),
    }

    def made(name):
        found = files.get(name.partition(" ")[0], lambda: None)()
        return partial(makers[name], found)

    return made


NAMES = ("forest", "windows", "heights", "images", "memory", "scenes", "scenes last", "tif", "tif pairs")


def batches(dataset, arguments=None):
    return list(make_loader(dataset, {"batch_size": 2, **(arguments or {})}, seed=0))


def assert_close(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5, equal_nan=True)
    elif isinstance(theirs, list | tuple):
        assert type(ours) is type(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other)
    else:
        assert str(ours) == str(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_batches_end_up_as_those_that_the_loader_normalises(make, name):
    maker = make(name)
    plain, dataset = maker(), maker(normalize_on="device")
    assert plain.device_transform is None
    raw = batches(dataset)
    finished = [dataset.device_transform(batch) for batch in copy.deepcopy(raw)]
    assert_close(finished, batches(plain))
    first = raw[0] if isinstance(raw[0], torch.Tensor) else raw[0][0]
    done = finished[0] if isinstance(finished[0], torch.Tensor) else finished[0][0]
    assert not torch.equal(first.float(), done)
    if declared_structure(dataset) is not None:
        assert describe_sample(dataset[0]) == declared_structure(dataset)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("config", [{"archive": "tar"}, {"cache": "memory"}], ids=str)
def test_archives_and_caches_hold_raw_samples_and_pass_it_on(make, tmp_path, name, config):
    maker = make(name)
    dataset = maker(normalize_on="device")
    prepared = prepare(dataset, LoaderConfig(batch_size=2, **config), archive_root=tmp_path / "archives")
    stored = batches(prepared.dataset, prepared.arguments)
    assert_close(stored, batches(dataset))
    transform = device_transform_of(prepared.dataset)
    assert_close([transform(batch) for batch in stored], batches(maker()))


def test_statistics_are_no_part_of_what_is_stored_where_the_device_normalises(make):
    for name, one, other in (
        ("images", {"mean": (0.1, 0.2, 0.3)}, {"mean": (0.4, 0.5, 0.6)}),
        ("forest", {}, Normalization.fixed((1.0, 2.0), (3.0, 4.0))),
    ):
        maker = make(name)
        for place, same in (("device", True), ("loader", False)):
            first = maker(normalize_on=place, **one)
            by_setting = isinstance(other, dict)
            second = maker(normalize_on=place, **other) if by_setting else first.with_normalization(other)
            assert (source_fingerprint(first) == source_fingerprint(second)) is same
    assert source_fingerprint(maker()) != source_fingerprint(maker(normalize_on="device"))


def test_what_is_put_where_nothing_was_measured_is_part_of_what_is_stored(make):
    for name in ("forest", "heights"):
        dataset = make(name)(normalize_on="device")
        plain = dataset.with_normalization(None)
        assert dataset[0][0].isnan().any() != plain[0][0].isnan().any()
        assert source_fingerprint(dataset) != source_fingerprint(plain)


@pytest.mark.parametrize("name", ["forest", "heights"])
@pytest.mark.parametrize("place", ["loader", "device"])
def test_statistics_that_are_set_later_are_those_that_samples_are_normalised_by(make, name, place):
    train, dataset = (make(name)(normalize_on=place) for _ in range(2))
    bands = dataset.band_count
    dataset.normalization = Normalization.fixed([5.0] * bands, [2.0] * bands)
    expected = train.with_normalization(dataset.normalization)
    assert_close(batches(dataset), batches(expected))
    assert (source_fingerprint(dataset) == source_fingerprint(train)) is (place == "device")
    assert dataset.device_transform == expected.device_transform != train.device_transform or place == "loader"
    with pytest.raises(SpecError, match="statistics of 3 bands"):
        dataset.normalization = Normalization.fixed([5.0] * 3, [2.0] * 3)
    assert dataset.normalization == expected.normalization


def test_samples_are_those_of_the_fingerprint_whatever_is_set_for_the_device(make):
    dataset = make("images")()
    before, digest = dataset[0][0], source_fingerprint(dataset)
    for name in ("mean", "std"):
        with pytest.raises(AttributeError):
            setattr(dataset, name, (0.1, 0.1, 0.1))
    dataset.device_transform = torch.neg
    assert torch.equal(dataset[0][0], before)
    assert source_fingerprint(dataset) == digest
    assert declared_structure(dataset) == describe_sample(dataset[0])


def test_bytes_on_their_way_to_the_device_are_a_quarter():
    raw, normal = (images(count=8, image_size=8, normalize_on=place)[0][0] for place in ("device", "loader"))
    assert raw.dtype == torch.uint8
    assert 4 * raw.nbytes == normal.nbytes


def test_validation_is_normalised_on_the_device_too_by_statistics_of_training(tmp_path):
    values = np.random.default_rng(0).normal(20, 5, (1, 40, 40)).astype(np.float32)
    path = write_raster(tmp_path / "a.tif", values)
    settings = {"window": 8, "val_split": 0.3, "normalization": "z_score"}
    plain, device = (create_train_val_datasets(path, **settings, normalize_on=place) for place in ("loader", "device"))
    for one, other in zip(plain, device, strict=True):
        transform = device_transform_of(other)
        assert_close([transform(batch) for batch in batches(other)], batches(one))


def test_an_augmentation_of_8_bit_pixels_comes_before_it(make):
    dataset = make("scenes")(normalize_on="device", augmentation=albumentations.HorizontalFlip(p=1.0))
    plain = make_plain(dataset)
    assert dataset[0][0].dtype == torch.uint8
    assert torch.equal(dataset[0][0], plain[0][0].flip(-1))
    floats = CityscapesDataset(
        dataset.image_dir.parents[1], size=(8, 8), normalize_on="device", augmentation=albumentations.ToFloat()
    )
    with pytest.raises(SpecError, match="leaves pixels uint8, got float32"):
        floats[0]


def make_plain(dataset):
    return CityscapesDataset(dataset.image_dir.parents[1], size=(8, 8), normalize=False)


def test_settings_that_contradict_it_are_refused(make, tmp_path):
    flips = albumentations.HorizontalFlip()
    refused = [
        ("forest", {"augmentation": flips}, "augmentation is made for normalised images"),
        ("heights", {"augmentation": flips}, "augmentation is made for normalised images"),
        ("tif", {"augment": True}, "augmentation is made for normalised images"),
        ("forest", {"nodata": "keep"}, "nodata='mask' and float32 or float64, got nodata='keep'"),
        ("forest", {"dtype": "float16"}, "got nodata='mask' and dtype='float16'"),
        ("images", {"transform": np.asarray}, "a transform takes the place of normalising"),
        ("scenes", {"normalize": False}, "got it beside normalize=False"),
    ]
    for name, more, message in refused:
        maker = make(name)
        with pytest.raises(SpecError, match=message):
            maker(normalize_on="device", **more)
    with pytest.raises(SpecError, match="normalize_on must be one of loader, device, got 'worker'"):
        TifImageDataset([tmp_path / "a.tif"], patch_size=(8, 8), normalize_on="worker")


def test_batches_of_another_form_are_refused_with_the_way_out():
    change = NormalizesImages([0.0], [255.0])
    for batch in ({"image": torch.zeros(2)}, [], ["name"]):
        with pytest.raises(SpecError, match="normalise with normalize_on='loader'"):
            change(batch)
    with pytest.raises(SpecError, match="first 2 part"):
        NormalizesByMask(2)(torch.zeros(2, 1, 4, 4))
    with pytest.raises(SpecError, match="normalisation of 3 bands"):
        NormalizesImages([0.0] * 3, [1.0] * 3)(torch.zeros(2, 4, 5, 5))
    with pytest.raises(SpecError, match="got 1 centres and 2 scales"):
        NormalizesImages([0.0], [1.0, 2.0])


def test_it_is_the_same_in_another_process_and_equal_by_its_settings():
    made = NormalizesImages([1.0, 2.0], [3.0, 4.0], missing=float("nan"))
    dataset = TensorDataset(torch.zeros(4, 2, 3, 3))
    dataset.device_transform = made
    digest = device_transform_digest(dataset)
    assert digest is not None
    normal = made(torch.zeros(1, 2, 3, 3))
    assert device_transform_digest(dataset) == digest
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    for other in (again, copy.copy(made)):
        assert torch.equal(other(torch.zeros(1, 2, 3, 3)), normal)
    assert hash(again) == hash(made)
    assert again != NormalizesImages([1.0, 2.0], [3.0, 4.0])
    assert NormalizesByMask(2) == NormalizesByMask(2) != NormalizesByMask(1)
