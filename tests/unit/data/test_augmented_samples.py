"""Augmented samples are ones that the dataset declares: labels stay labels, sizes and values stay what they mean."""

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from autotune.data.datasets.cityscapes import CityscapesDataset
from autotune.data.datasets.forest_gap import ForestGapDataset, HeightGapDataset
from autotune.data.datasets.tif_images import TifImageDataset, TifPairDataset
from autotune.data.facts import dataset_facts, describe_sample, samples_equal
from autotune.data.transforms.augmentation import SeededAugmentation
from autotune.errors import SpecError

A = pytest.importorskip("albumentations")

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SIDE = 16
LABELS = (3, 7, 26)
CATEGORIES = {0, 1, 7}
"""Categories of those label ids: void, flat, vehicle."""

PHOTOMETRIC = {
    "brightness": A.RandomBrightnessContrast(p=1),
    "hue": A.HueSaturationValue(p=1),
    "noise": A.GaussNoise(p=1),
    "blur": A.GaussianBlur(p=1),
    "gamma": A.RandomGamma(p=1),
    "one of two": A.OneOf([A.RandomBrightnessContrast(p=1), A.GaussNoise(p=1)], p=1),
}
GEOMETRIC = {
    "flip": A.HorizontalFlip(p=1),
    "dihedral": A.D4(p=1),
    "affine": A.Affine(translate_px=(-3, 3), rotate=(-30, 30), p=1),
    "elastic": A.ElasticTransform(p=1),
    "grid": A.GridDistortion(p=1),
}
BOTH = {"flip and brightness": [A.HorizontalFlip(p=0.5), A.RandomBrightnessContrast(p=1)]}
GRAY = ("brightness", "noise", "blur", "gamma", "one of two")
"""Those that take images of one channel."""


def write_raster(path, pixels):
    with rasterio.open(path, "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype=pixels.dtype.name) as file:
        file.write(pixels, 1)
    return path


@pytest.fixture
def labels():
    return np.random.default_rng(1).choice(np.array(LABELS, np.uint8), (SIDE, SIDE))


@pytest.fixture
def scenes(tmp_path, labels):
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    for kind, ending, array in (("leftImg8bit", "leftImg8bit", pixels), ("gtFine", "gtFine_labelIds", labels)):
        folder = tmp_path / kind / "train" / "ulm"
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(array).save(folder / f"ulm_000000_{number:06d}_{ending}.png")
    return tmp_path


@pytest.fixture
def heights(tmp_path):
    """A raster of heights from 0 to 30 m."""
    return write_raster(tmp_path / "h.tif", np.linspace(0, 30, SIDE**2, dtype=np.float32).reshape(SIDE, SIDE))


@pytest.fixture
def label_raster(tmp_path, labels):
    return write_raster(tmp_path / "m.tif", labels)


def drawn(dataset, epochs=5):
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        yield dataset[0]


@pytest.mark.parametrize("kind", [*PHOTOMETRIC, *GEOMETRIC, *BOTH])
def test_labels_of_street_scenes_stay_in_their_set(scenes, kind):
    dataset = CityscapesDataset(scenes, size=SIDE, augmentation={**PHOTOMETRIC, **GEOMETRIC, **BOTH}[kind])
    plain = CityscapesDataset(scenes, size=SIDE)[0]
    assert set(plain[1].unique().tolist()) == CATEGORIES
    changed = False
    for image, mask in drawn(dataset):
        assert set(mask.unique().tolist()) <= CATEGORIES
        if kind in PHOTOMETRIC:
            assert torch.equal(mask, plain[1])
        changed |= not torch.equal(image, plain[0])
    assert changed


@pytest.mark.parametrize("kind", [*PHOTOMETRIC, *GEOMETRIC, *BOTH])
def test_labels_of_keras_batches_stay_in_their_set(scenes, kind):
    generators = pytest.importorskip("autotune.integrations.keras", exc_type=ImportError)
    made = generators.CityscapesDataGenerator(
        data_dir=scenes, dim=(SIDE, SIDE), batch_size=2, augmentation={**PHOTOMETRIC, **GEOMETRIC, **BOTH}[kind]
    )
    assert set(np.unique(made[0][1]).tolist()) <= CATEGORIES


@pytest.mark.parametrize("kind", [*GRAY, *GEOMETRIC])
def test_labels_of_forest_gaps_stay_in_their_set(heights, label_raster, kind):
    settings = {"normalization": "min_max", "window": SIDE, "augmentation": {**PHOTOMETRIC, **GEOMETRIC}[kind]}
    plain = ForestGapDataset([heights], [label_raster], window=SIDE)[0][1]
    for _, mask in drawn(ForestGapDataset([heights], [label_raster], **settings)):
        assert set(mask.unique().tolist()) <= {0, *LABELS}  # 0 is what comes in from outside
        if kind in GRAY:
            assert torch.equal(mask, plain)
    for image, gaps in drawn(HeightGapDataset([heights], **settings)):
        assert (image.shape, gaps.shape) == ((1, SIDE, SIDE), (4, SIDE, SIDE))
        assert set(gaps.unique().tolist()) <= {0, 1}


@pytest.mark.parametrize("kind", GEOMETRIC)
def test_both_images_of_a_pair_are_moved_alike(heights, kind):
    dataset = TifPairDataset([heights], [heights], patch_size=(SIDE, SIDE), augmentation=GEOMETRIC[kind])
    for target, condition in drawn(dataset):
        assert torch.equal(target, condition)


CHANGING_SIZE = [A.RandomCrop(4, 4), A.Resize(8, 8), A.PadIfNeeded(24, 24)]


@pytest.mark.parametrize("transform", CHANGING_SIZE, ids=lambda one: type(one).__name__)
def test_another_size_than_the_declared_one_is_refused(scenes, heights, label_raster, transform):
    for dataset in (
        CityscapesDataset(scenes, size=SIDE, augmentation=transform),
        CityscapesDataset(scenes, size=SIDE, augmentation=transform, channels="last"),
        ForestGapDataset([heights], [label_raster], window=SIDE, augmentation=transform),
        ForestGapDataset([heights], [label_raster], size=SIDE, augmentation=transform),
        HeightGapDataset([heights], augmentation=transform),
        TifImageDataset([heights], patch_size=(SIDE, SIDE), augmentation=transform),
    ):
        with pytest.raises(SpecError, match=r"keeps the size and the channels of samples, image \(16, 16, \d\), got"):
            dataset[0]


def test_tensors_made_by_the_augmentation_are_refused(scenes, heights, label_raster):
    to_tensor = pytest.importorskip("albumentations.pytorch").ToTensorV2()
    for dataset in (
        CityscapesDataset(scenes, size=SIDE, augmentation=[A.HorizontalFlip(p=1), to_tensor]),
        ForestGapDataset([heights], [label_raster], augmentation=to_tensor),
    ):
        with pytest.raises(SpecError, match=r"leave out .* ToTensorV2, as the dataset makes tensors by itself"):
            dataset[0]


def test_another_type_than_the_declared_one_is_refused(scenes, heights, label_raster):
    normalised = CityscapesDataset(scenes, size=SIDE, augmentation=A.Normalize())
    assert describe_sample(normalised[0]) == dataset_facts(normalised).structure
    for dataset in (
        CityscapesDataset(scenes, size=SIDE, augmentation=A.Normalize(), normalize=False),
        ForestGapDataset([heights], [label_raster], augmentation=A.FromFloat("uint8")),
    ):
        with pytest.raises(SpecError, match=r"keeps the type of image, (uint8|float32), got (float32|uint8)"):
            dataset[0]


def test_files_of_undeclared_size_may_be_cut_to_one(heights, label_raster):
    dataset = ForestGapDataset([heights], [label_raster], augmentation=A.RandomCrop(8, 8))
    assert [part.shape for part in dataset[0]] == [(1, 8, 8), (1, 8, 8)]


CLIPPING = {name: PHOTOMETRIC[name] for name in GRAY if name != "gamma"}


@pytest.mark.parametrize("kind", CLIPPING)
@pytest.mark.parametrize("normalization", [None, "z_score", "robust"])
def test_clipped_heights_are_refused_by_the_name_of_what_clips(heights, label_raster, kind, normalization):
    name = "(RandomBrightnessContrast|GaussNoise|GaussianBlur)"
    settings = {"normalization": normalization, "augmentation": [A.HorizontalFlip(p=0.5), CLIPPING[kind]]}
    for dataset in (
        ForestGapDataset([heights], [label_raster], **settings),
        HeightGapDataset([heights], **settings),
        TifImageDataset([heights], patch_size=(SIDE, SIDE), augmentation=settings["augmentation"]),
    ):
        with pytest.raises(SpecError, match=rf"^{name} of Albumentations clips float images to 0 to 1, .* or leave"):
            dataset[0]


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("normalization", ["z_score", "robust"])
def test_heights_that_would_become_nan_are_refused_by_the_name_of_what_makes_it(heights, label_raster, normalization):
    gamma = A.RandomGamma(gamma_limit=(50, 60), p=1)
    settings = {"normalization": normalization, "augmentation": [A.HorizontalFlip(p=0.5), gamma]}
    for dataset in (ForestGapDataset([heights], [label_raster], **settings), HeightGapDataset([heights], **settings)):
        with pytest.raises(
            SpecError, match=r"^RandomGamma of Albumentations makes NaN or infinity .* from -.*or leave"
        ):
            dataset[0]


@pytest.mark.parametrize("kind", GEOMETRIC)
def test_what_moves_pixels_keeps_values_outside_0_to_1(heights, label_raster, kind):
    dataset = ForestGapDataset([heights], [label_raster], augmentation=GEOMETRIC[kind])
    assert max(float(image.max()) for image, _ in drawn(dataset)) > 20


def augmented(transform, image, number=0):
    return SeededAugmentation(transform)(torch.Generator().manual_seed(number), image=image)["image"]


def test_clipping_between_other_steps_is_noticed_and_scaling_is_none():
    image = np.linspace(-2, 2, 64, dtype=np.float32).reshape(8, 8)
    stretched = A.Normalize(mean=(0,), std=(0.1,), max_pixel_value=1.0)
    with pytest.raises(SpecError, match=r"^GaussNoise .* values of image go from -2 to 2"):
        augmented([A.GaussNoise(p=1), stretched], image)
    scaled = augmented(A.Normalize(normalization="min_max"), image)
    assert (scaled.min(), scaled.max()) == pytest.approx((0, 1), abs=1e-3)
    assert augmented(A.ChannelDropout(p=1, fill=0), np.stack([image, image], -1)).min() == pytest.approx(-2)


def test_images_from_0_to_1_may_be_clipped_and_overshoot_a_little():
    image = np.linspace(-0.1, 1.1, 64, dtype=np.float32).reshape(8, 8)
    made = augmented(A.RandomBrightnessContrast(p=1), image)
    assert 0 <= made.min() < made.max() <= 1


def test_what_was_nan_before_may_stay_so():
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    image[2, 3] = np.nan
    made = augmented([A.RandomGamma(p=1), A.ToGray(num_output_channels=3, p=1)], np.stack([image] * 3, -1))
    assert np.array_equal(np.isnan(made), np.isnan(np.stack([image] * 3, -1)))


class Halved(A.ImageOnlyTransform):
    """A transform of a user's own, which knows what it does."""

    def apply(self, img, **_):
        return np.clip(img, 0, 1) / 2


def test_a_transform_of_the_callers_own_is_taken_as_it_is():
    image = np.linspace(-2, 2, 64, dtype=np.float32).reshape(8, 8)
    assert np.array_equal(augmented(Halved(p=1), image), np.clip(image, 0, 1) / 2)


def test_samples_counted_from_the_end_are_augmented_as_those_counted_from_the_front(scenes, heights, label_raster):
    noise = A.GaussNoise(p=1)
    for dataset in (
        CityscapesDataset(scenes, size=SIDE, augmentation=noise),
        ForestGapDataset([heights], [label_raster], window=8, normalization="min_max", augmentation=noise),
        HeightGapDataset([heights], window=8, normalization="min_max", augmentation=noise),
        TifImageDataset([heights] * 3, patch_size=(SIDE, SIDE), augmentation=A.D4(p=1)),
    ):
        for place in range(len(dataset)):
            assert samples_equal(dataset[place - len(dataset)], dataset[place])
        for beyond in (len(dataset), -len(dataset) - 1):
            with pytest.raises(IndexError, match=f"under {len(dataset)}, got {beyond}"):
                dataset[beyond]
