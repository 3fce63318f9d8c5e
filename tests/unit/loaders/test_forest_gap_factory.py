"""Forest gaps in one call: pairs and heights alone, normalisation, augmentation, division, odd rasters."""

import pickle
import subprocess
import sys

import albumentations
import numpy as np
import pytest
import rasterio
import torch
from data_sets import write_raster, write_vast_raster
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from autotune.data.apply import apply
from autotune.data.datasets.base import BaseDataset
from autotune.data.datasets.forest_gap import ForestGapDataset, HeightGapDataset
from autotune.data.datasets.gaps import GapMaskDataset
from autotune.data.datasets.raster import GeoTiffPairDataset
from autotune.data.datasets.raster_statistics import raster_blocks
from autotune.data.facts import declared_structure, describe_sample, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.stages import StagedDataset, has_augment, is_staged
from autotune.data.transforms.normalization import Normalization
from autotune.errors import DatasetError, SampleError, SpecError
from autotune.loaders.factory import (
    create_dataloader,
    create_dataset,
    create_train_val_dataloaders,
    create_train_val_datasets,
)
from autotune.loaders.splitting import split_dataset, split_files
from autotune.spec import LoaderConfig


def make_pairs(folder, count=4, shape=(1, 16, 12), nodata=None):
    images, masks = [], []
    for number in range(count):
        values = np.random.default_rng(number).normal(20 + 10 * number, 5, shape).astype(np.float32)
        images.append(write_raster(folder / f"{number}.tif", values, nodata))
        masks.append(write_raster(folder / f"{number}_mask.tif", (values[0] < 20).astype(np.uint8)))
    return images, masks


@pytest.fixture
def pairs(tmp_path):
    return make_pairs(tmp_path)


@pytest.fixture
def heights(real_data):
    found = sorted(path for path in (real_data / "forest_gaps").glob("**/*.tif") if "chm" in path.name.lower())
    return found or pytest.skip("the rasters are absent")


def measured_heights(paths):
    return np.concatenate([pixels[~missing] for pixels, missing in raster_blocks(paths)]).astype(np.float64)


# Datasets


def test_pairs_come_as_the_dataset_of_pairs_gives_them(pairs):
    dataset = create_dataset(*pairs)
    assert type(dataset) is ForestGapDataset
    plain = GeoTiffPairDataset(*pairs)
    assert all(samples_equal(dataset[index], plain[index]) for index in range(4))
    assert is_staged(dataset)
    assert samples_equal(dataset.decode(dataset.read(2)), dataset[2])


def test_one_path_stands_for_a_list_of_one(pairs):
    assert len(create_dataset(pairs[0][0], str(pairs[1][0]))) == 1
    assert len(create_dataset(str(pairs[0][0]), window=4)) == 12


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("kind", ["min_max", "z_score", "robust"])
def test_normalised_pixels_are_those_of_the_statistics_through_every_decoder(pairs, kind, window):
    dataset = create_dataset(*pairs, normalization=kind, window=window, fill=-7)
    plain = create_dataset(*pairs, window=window, fill=np.nan)
    for name in dataset.decoders:
        image, mask = dataset.with_decoder(name)[1]
        before, mask_before = plain[1]
        expected = dataset.normalization.apply(before)
        assert np.array_equal(image.numpy(), np.nan_to_num(expected.numpy(), nan=-7))
        assert torch.equal(mask, mask_before)
        assert image.dtype == torch.float32


def test_pixels_without_a_measurement_neither_count_nor_are_normalised(tmp_path):
    values = np.array([[2, 4, -9999, np.nan]], np.float32)
    image = write_raster(tmp_path / "a.tif", values, -9999.0)
    mask = write_raster(tmp_path / "b.tif", np.array([[1, 0, 1, 1]], np.uint8))
    settings = {"normalization": "min_max", "ignore_index": 255}
    dataset = create_dataset(image, mask, fill=-1, **settings)
    assert dataset.normalization.bands[0].count == 2
    assert dataset[0][0].flatten().tolist() == [0, 1, -1, -1]
    assert dataset[0][1].flatten().tolist() == [1, 0, 255, 255]
    kept = create_dataset(image, mask, nodata="keep", normalization="min_max")[0][0].flatten()
    assert kept[:3].tolist() == [0, 1, -9999]
    assert torch.isnan(kept[3])


def test_a_value_that_becomes_nodata_by_normalising_stays_a_measurement(tmp_path):
    image = write_raster(tmp_path / "a.tif", np.array([[0, 5, 10, -1]], np.float32), -1.0)
    dataset = create_dataset(image, image, normalization=Normalization.fixed(mean=5, std=5), fill=9, mask_dtype="int16")
    assert dataset[0][0].flatten().tolist() == [-1, 0, 1, 9]


def test_statistics_are_saved_and_loaded(pairs, tmp_path):
    dataset = create_dataset(*pairs, normalization="robust")
    path = dataset.normalization.save(tmp_path / "statistics.json")
    for choice in (path, str(path), dataset.normalization):
        again = create_dataset(*pairs, normalization=choice)
        assert again.normalization == dataset.normalization
        assert samples_equal(again[0], dataset[0])


def test_real_heights_become_normalised_windows_with_gaps_at_four_thresholds(heights):
    dataset = create_dataset(heights, window=64, stride=32, normalization="z_score", ignore_index=255)
    assert type(dataset) is HeightGapDataset
    values = measured_heights(heights)
    assert dataset.normalization.centre[0] == pytest.approx(values.mean())
    assert dataset.normalization.scale[0] == pytest.approx(values.std())
    plain = GapMaskDataset(heights, threshold=(5, 10, 15, 20), window=64, stride=32, invalid="report")
    assert len(dataset) == len(plain)
    for index in range(0, len(dataset), 37):
        (image, gaps), (metres, reported) = dataset[index], plain[index]
        assert torch.equal(gaps, reported)
        measured = reported[:1] != 255
        assert torch.allclose(dataset.normalization.inverse(image)[measured], metres[measured], atol=1e-4)
        assert (image[~measured] == 0).all()
    assert declared_structure(dataset) == describe_sample(dataset[0])
    image, gaps = next(iter(create_dataloader(dataset, batch_size=16, num_workers=2)))
    assert (image.shape, gaps.shape) == ((16, 1, 64, 64), (16, 4, 64, 64))


def test_whole_rasters_of_heights_are_filled_up_to_the_largest(heights):
    dataset = create_dataset(heights, thresholds=5)
    assert {describe_sample(sample) for sample in dataset} == {"(float32[1,300,300], uint8[1,300,300])"}
    assert len(dataset) == len(heights)


def test_metadata_tells_where_heights_and_pairs_come_from(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.ones((8, 8), np.float32), -1)
    window = create_dataset(path, window=4, metadata=True)[3][2]
    pair = create_dataset(path, path, window=4, metadata=True)[3][2]
    assert window == pair
    assert (window["path"], window["crs"], window["window"]) == (str(path), "EPSG:32633", (4, 4, 4, 4))
    assert next(iter(create_dataloader(create_dataset(path, window=4, metadata=True))))[2]["crs"] == ["EPSG:32633"] * 4


def test_samples_have_the_structure_that_is_declared(pairs):
    dataset = create_dataset(*pairs, window=4)
    assert declared_structure(dataset) == describe_sample(dataset[0]) == "(float32[1,4,4], uint8[1,4,4])"
    assert declared_structure(create_dataset(*pairs)) is None


# Augmentation


def squares(folder):
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    image = write_raster(folder / "image.tif", values)
    return [image] * 6, [write_raster(folder / "mask.tif", values.astype(np.uint8))] * 6


@pytest.mark.parametrize("masks", [True, False])
def test_augmentation_belongs_to_the_epoch_and_is_alike_for_image_and_mask(tmp_path, masks):
    images, mask_paths = squares(tmp_path)
    settings = {"augmentation": albumentations.D4(p=1.0), "seed": 3}
    dataset = create_dataset(images, mask_paths if masks else None, **settings)
    epochs = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        epochs.append([dataset[index] for index in range(6)])
    assert samples_equal(epochs[0], epochs[2])
    assert not samples_equal(epochs[0], epochs[1])
    for image, mask in epochs[0]:
        assert torch.equal(mask[:1], image.to(torch.uint8) if masks else (image < 5).to(torch.uint8))
    assert has_augment(dataset)
    assert not has_augment(dataset.without_augmentation())
    assert samples_equal(dataset.without_augmentation()[0], dataset.base_sample(0))


@pytest.mark.parametrize("served", [{"cache": "none"}, {"cache": "memory"}, {"archive": "build"}])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")
def test_passes_over_a_loader_augment_anew_and_validation_stays(tmp_path, served, workers):
    images, masks = make_pairs(tmp_path, count=5, shape=(1, 4, 4))
    train, validation = create_train_val_dataloaders(
        images, masks, augmentation=albumentations.D4(p=1.0), seed=3, num_workers=workers, batch_size=8,
        loader_settings={"home": tmp_path / "home", **served},
    )  # fmt: skip
    epochs = [sorted(image.tolist() for images, _ in train for image in images) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    flat = [sorted(sorted(torch.tensor(image).flatten().tolist()) for image in epoch) for epoch in epochs]
    assert flat[0] == flat[1] == flat[2], "pixels are moved and nothing else"
    fixed = [list(validation) for _ in range(2)]
    assert samples_equal(*fixed)


def raise_in_place(pixels, **_):
    pixels += 1
    return pixels


def test_a_transform_that_works_in_place_leaves_the_stored_sample_alone(pairs):
    shifted = albumentations.Lambda(image=raise_in_place, mask=raise_in_place, p=1.0)
    dataset = create_dataset(*pairs, augmentation=shifted)
    sample, before = dataset.base_sample(0), dataset.base_sample(0)
    image, mask = dataset.augment(sample, torch.Generator().manual_seed(0))
    assert torch.equal(image, before[0] + 1)
    assert torch.equal(mask, before[1] + 1)
    assert samples_equal(sample, before)


def test_augmented_samples_are_the_same_in_workers_and_after_a_cache(tmp_path):
    dataset = create_dataset(*squares(tmp_path), augmentation=[albumentations.D4(p=1.0)], normalization="min_max")
    expected = [dataset[index] for index in range(6)]
    cached, _ = apply(dataset, LoaderConfig(cache="memory"))
    assert samples_equal([cached[index] for index in range(6)], expected)
    assert samples_equal([cached[index] for index in range(6)], expected), "a transform changed what is cached"
    for workers in (0, 2):
        loaded = [image for image, _ in DataLoader(dataset, batch_size=None, num_workers=workers)]
        assert samples_equal(loaded, [image for image, _ in expected])
    assert samples_equal(pickle.loads(pickle.dumps(dataset))[1], expected[1])


@pytest.mark.parametrize("archive", ["npy", "tar"])
def test_archives_hold_normalised_samples_without_the_random_part(tmp_path, pairs, archive):
    dataset = create_dataset(*pairs, window=4, normalization="z_score", augmentation=albumentations.D4(p=1.0))
    stored, _ = apply(dataset, LoaderConfig(archive=archive, stored="decoded"), archive_root=tmp_path / "archives")
    assert samples_equal([stored[index] for index in range(9)], [dataset[index] for index in range(9)])


def test_fingerprint_follows_the_statistics_and_not_the_augmentation(pairs):
    plain, other = create_dataset(*pairs), create_dataset(*pairs, normalization="min_max")
    assert source_fingerprint(plain) != source_fingerprint(other)
    assert source_fingerprint(other) == source_fingerprint(create_dataset(*pairs, normalization="min_max"))
    assert source_fingerprint(plain) == source_fingerprint(
        create_dataset(*pairs, augmentation=albumentations.D4(p=1.0))
    )
    heights = create_dataset(pairs[0], window=4)
    assert source_fingerprint(heights) != source_fingerprint(create_dataset(pairs[0], window=4, normalization="robust"))


def test_fingerprint_is_the_same_in_another_process(pairs, tmp_path):
    dataset = create_dataset(*pairs, normalization="robust")
    (tmp_path / "dataset.pkl").write_bytes(pickle.dumps(dataset))
    script = (
        "import pickle, sys; from autotune.data.fingerprint import source_fingerprint;"
        "print(source_fingerprint(pickle.load(open(sys.argv[1], 'rb'))))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "dataset.pkl"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == source_fingerprint(dataset)


# Loaders


def test_given_loader_settings_are_pins(pairs):
    loader = create_dataloader(
        create_dataset(*pairs), batch_size=3, num_workers=1, prefetch_factor=4, persistent_workers=False,
        pin_memory=False, drop_last=True,
    )  # fmt: skip
    assert (loader.batch_size, loader.num_workers, loader.prefetch_factor) == (3, 1, 4)
    assert (loader.persistent_workers, loader.pin_memory, loader.drop_last) == (False, False, True)
    assert len(loader) == 1
    with pytest.raises(SpecError, match="prefetch_factor needs num_workers"):
        create_dataloader(create_dataset(*pairs), num_workers=0, prefetch_factor=2)


def test_a_seed_gives_the_order_of_the_plain_loader(pairs):
    dataset = create_dataset(*pairs)
    plain = DataLoader(dataset, batch_size=1, shuffle=True, generator=torch.Generator().manual_seed(5))
    ours = create_dataloader(dataset, batch_size=1, shuffle=True, seed=5)
    assert samples_equal(list(ours), list(plain))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"seed": 1, "generator": torch.Generator()}, "give one"),
        ({"seed": -(2**63) - 1}, "whole number"),
        ({"seed": 2**64}, "whole number"),
        ({"seed": 1.5}, "whole number"),
    ],
)
def test_orders_that_cannot_be_are_refused(settings, told):
    with pytest.raises(SpecError, match=told):
        create_dataloader(TensorDataset(torch.arange(4)), shuffle=True, **settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loader_settings": {"drop_last": True}}, "got drop_last, and it is an argument of its own"),
        ({"loader_settings": {"shuffle": False}}, "got shuffle, and training is shuffled"),
        ({"loader_settings": {"sampler": [0, 1]}}, "got sampler, and it orders the samples of one dataset"),
        ({"loader_settings": {"batch_sampler": [[0]]}}, "got batch_sampler"),
        ({"seed": -1}, "seed is a whole number from 0"),
        ({"seed": True}, "seed is a whole number from 0"),
        ({"seed": 2**64}, "seed is a whole number from 0"),
    ],
)
def test_arguments_that_cannot_be_those_of_both_parts_are_refused(settings, told):
    with pytest.raises(SpecError, match=told):
        create_train_val_dataloaders(TensorDataset(torch.arange(9)), **settings)


@pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")
def test_a_generator_for_both_parts_takes_the_place_of_the_seed():
    generators = [torch.Generator().manual_seed(8) for _ in range(2)]
    loaders = [
        create_train_val_dataloaders(TensorDataset(torch.arange(40)), batch_size=1, loader_settings={"generator": one})
        for one in generators
    ]
    seeded, _ = create_train_val_dataloaders(TensorDataset(torch.arange(40)), batch_size=1)
    orders = [[int(batch[0]) for batch in train] for train in (loaders[0][0], loaders[1][0], seeded)]
    assert orders[0] == orders[1] != orders[2]


# Division


def windows_of(dataset):
    """Give path, row and column of each sample of a subset or dataset."""
    if isinstance(dataset, Subset):
        whole = windows_of(dataset.dataset)
        return [whole[index] for index in dataset.indices]
    return [(dataset.path_of(index), *origin[1:]) for index, origin in enumerate(dataset.window_origins().tolist())]


@pytest.mark.parametrize("masks", [True, False])
def test_rasters_are_divided_as_files_and_statistics_come_from_the_training_part(tmp_path, masks):
    images, mask_paths = make_pairs(tmp_path, count=5)
    train, validation = create_train_val_dataloaders(
        images, mask_paths if masks else None, window=8, stride=4, normalization="z_score", val_split=0.4, seed=1,
        batch_size=2, augmentation=albumentations.D4(p=1.0), drop_last=True,
    )  # fmt: skip
    trained = {path for path, *_ in windows_of(train.dataset)}
    validated = {path for path, *_ in windows_of(validation.dataset)}
    assert len(trained) == 3
    assert len(validated) == 2
    assert trained.isdisjoint(validated)
    assert trained | validated == {str(path) for path in images}
    statistics = train.dataset.normalization
    assert statistics == validation.dataset.normalization
    assert statistics.centre[0] == pytest.approx(measured_heights(sorted(trained)).mean(), rel=1e-6)
    assert train.dataset.augments_samples
    assert not validation.dataset.augments_samples
    first = list(validation)
    assert samples_equal(first, list(validation))
    assert len(list(train)) == len(train.dataset) // 2


def test_masks_stay_with_their_images_when_files_are_divided(tmp_path):
    images, masks = make_pairs(tmp_path, count=7)
    train, validation = create_train_val_datasets(images, masks, val_split=0.3, seed=4)
    for part in (train, validation):
        for index in range(len(part)):
            image, mask = part[index]
            assert torch.equal(mask, (image < 20).to(torch.uint8))


def test_division_depends_on_the_seed_alone(tmp_path):
    images, masks = make_pairs(tmp_path, count=8, shape=(1, 4, 4))
    parts = [[ds.path_of(i) for i in range(len(ds))] for s in (0, 0, 1) for ds in
             create_train_val_datasets(images, masks, seed=s)]  # fmt: skip
    assert parts[:2] == parts[2:4]
    assert parts[1] != parts[5] or parts[0] != parts[4]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("stride", [8, 3])
def test_windows_of_a_single_raster_are_divided_so_that_no_pixel_is_in_both_parts(tmp_path, seed, stride):
    values = np.random.default_rng(0).normal(size=(50, 21)).astype(np.float32)
    path = write_raster(tmp_path / "one.tif", values)
    train, validation = create_train_val_datasets(
        [path], window=8, stride=stride, normalization="min_max", val_split=0.3, seed=seed
    )
    covered = []
    for part in (train, validation):
        pixels = np.zeros((50, 21), dtype=bool)
        for _, row, column in windows_of(part):
            pixels[row : row + 8, column : column + 8] = True
        covered.append(pixels)
    assert not (covered[0] & covered[1]).any()
    assert 0.15 < len(validation) / (len(train) + len(validation)) < 0.5
    statistics = train.dataset.normalization
    assert (statistics.bands[0].minimum, statistics.bands[0].maximum) == (
        values[covered[0]].min(),
        values[covered[0]].max(),
    )
    assert statistics.bands[0].count == covered[0].sum()
    assert statistics == validation.dataset.normalization


def test_one_raster_under_two_names_is_in_one_part(tmp_path):
    images, masks = make_pairs(tmp_path, count=3)
    twin = tmp_path / "twin.tif"
    twin.symlink_to(images[0])
    for seed in range(5):
        parts = create_train_val_datasets([*images, twin], [*masks, masks[0]], seed=seed, val_split=0.5)
        holding = [part for part in parts if {str(twin), str(images[0])} & {part.path_of(i) for i in range(len(part))}]
        assert len(holding) == 1


def test_given_validation_files_are_taken_and_must_be_others(tmp_path):
    images, masks = make_pairs(tmp_path, count=4)
    train, validation = create_train_val_datasets(
        images[:3], masks[:3], val_input_paths=images[3], val_mask_paths=masks[3], normalization="min_max"
    )
    assert (len(train), len(validation)) == (3, 1)
    assert validation.normalization.bands[0].count == 3 * 16 * 12
    with pytest.raises(DatasetError, match=r"no file may train and validate, got 1 in both: .*2\.tif"):
        create_train_val_datasets(images[:3], masks[:3], val_input_paths=images[2:], val_mask_paths=masks[2:])
    with pytest.raises(SpecError, match="give both"):
        create_train_val_datasets(images, masks, val_mask_paths=masks)


def test_a_given_dataset_is_divided_by_its_files_and_keeps_its_settings(tmp_path):
    images, masks = make_pairs(tmp_path, count=5)
    dataset = create_dataset(images, masks, window=8, augmentation=albumentations.D4(p=1.0))
    train, validation = create_train_val_dataloaders(dataset, normalization="z_score", val_split=0.2, batch_size=4)
    trained = {path for path, *_ in windows_of(train.dataset)}
    assert trained.isdisjoint(path for path, *_ in windows_of(validation.dataset))
    assert train.dataset.dataset.normalization.bands[0].count == len(trained) * 16 * 12
    assert has_augment(train.dataset)
    assert not has_augment(validation.dataset)
    assert dataset.normalization is None
    assert dataset.augments_samples


class Shaken(StagedDataset):
    """Numbers with a random part."""

    def __len__(self):
        return 10

    def read(self, index):
        return (bytes([index]),)

    def decode(self, raw):
        return torch.tensor(float(raw[0][0]))

    def augment(self, sample, generator):
        return sample + torch.rand((), generator=generator)


def test_other_datasets_are_divided_by_sample_and_validate_without_augmentation():
    train, validation = create_train_val_dataloaders(Shaken(), val_split=0.3, batch_size=10, num_workers=0)
    assert (len(train.dataset), len(validation.dataset)) == (7, 3)
    (validated,), (trained,) = list(validation), list(train)
    assert validated.tolist() == [float(index) for index in validation.dataset.indices]
    assert all(value != int(value) for value in trained.tolist())
    tensors = TensorDataset(torch.arange(9))
    parts = create_train_val_datasets(tensors, val_split=0.2)
    assert sorted(int(part[index][0]) for part in parts for index in range(len(part))) == list(range(9))


class Tiles(BaseDataset):
    """Tiles of one folder, without a normalisation of their own."""

    def __len__(self):
        return 10

    def path_of(self, index):
        return f"{index}.bin"

    def read(self, index):
        return (bytes([index]) * 4,)

    def decode(self, raw):
        return torch.frombuffer(bytearray(raw[0]), dtype=torch.uint8), 0


def halved(pixels):
    return pixels.float() / 2


def sometimes_negative(pixels):
    return -pixels.float() if torch.rand(()) < 0.5 else pixels.float()


@pytest.mark.parametrize("inside", [False, True])
def test_validation_keeps_the_transforms_that_make_samples_of_files(tmp_path, inside):
    dataset = Tiles(tmp_path, halved)
    whole = Subset(dataset, range(10)) if inside else dataset
    for part in create_train_val_datasets(whole, val_split=0.3):
        image, _ = part[0]
        assert image.dtype == torch.float32
        assert image[0] == float(dataset.read(whole.indices[part.indices[0]] if inside else part.indices[0])[0][0]) / 2
    assert len(create_train_val_datasets(Tiles(tmp_path), val_split=0.3)[1]) == 3


@pytest.mark.parametrize("transform", [sometimes_negative, albumentations.HorizontalFlip(p=0.0)])
def test_random_transforms_of_what_would_validate_are_refused_with_a_way_out(tmp_path, transform):
    with pytest.raises(SpecError, match="make two datasets"):
        create_train_val_datasets(Tiles(tmp_path, transform))
    with pytest.raises(SpecError, match="make two datasets"):
        create_train_val_datasets(ConcatDataset([Tiles(tmp_path), Tiles(tmp_path, transform)]))


@pytest.mark.parametrize("masked", ["training", "validation"])
def test_masks_of_one_part_alone_are_refused(tmp_path, masked):
    images, masks = make_pairs(tmp_path, count=4)
    given = {"mask_paths": masks[:2]} if masked == "training" else {"val_mask_paths": masks[2:]}
    with pytest.raises(SpecError, match="both parts have masks or neither has"):
        create_train_val_datasets(images[:2], val_input_paths=images[2:], **given)
    train, validation = create_train_val_datasets(images[:2], val_input_paths=images[2:], window=4)
    assert type(train) is type(validation) is HeightGapDataset


@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        (lambda d: create_train_val_datasets(d, val_split=0), SpecError, "between 0 and 1"),
        (lambda d: create_train_val_datasets(d, val_split=1.0), SpecError, "between 0 and 1"),
        (lambda d: create_train_val_datasets(d, window=4), SpecError, "got window beside"),
        (
            lambda d: create_train_val_datasets(d, augmentation=albumentations.D4()),
            SpecError,
            "got augmentation beside",
        ),
        (lambda d: create_train_val_datasets(d, normalization="robust"), SpecError, "datasets of forest gaps"),
        (lambda d: create_train_val_datasets(ConcatDataset([d, d])), SpecError, "divide each part"),
        (lambda d: create_train_val_datasets(Subset(d, [1])), DatasetError, "at least two samples"),
    ],
)
def test_divisions_that_cannot_be_are_refused(call, kind, told):
    with pytest.raises(kind, match=told):
        call(Shaken())


def test_a_raster_too_small_to_be_divided_is_refused(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.zeros((10, 10), np.float32))
    with pytest.raises(DatasetError, match="leave no two parts"):
        create_train_val_datasets(path, window=8)
    with pytest.raises(DatasetError, match="at least two samples"):
        create_train_val_datasets(path, path)
    with pytest.raises(DatasetError, match="at least two of them, got 1"):
        split_files([path, path], 0.5, 0)


def test_division_of_a_concatenation_knows_its_files(tmp_path):
    images, masks = make_pairs(tmp_path, count=4)
    whole = ConcatDataset(
        [create_dataset(images[:2], masks[:2], window=8), create_dataset(images[2:], masks[2:], window=8)]
    )
    split = split_dataset(whole, 0.25, 0)
    assert split.rule == "file"
    assert len(split.validation) == len(whole) // 4


# Bad input


def test_lists_that_do_not_match_or_are_empty_are_refused(pairs):
    images, masks = pairs
    for call in (create_dataset, create_train_val_datasets):
        with pytest.raises(DatasetError, match="got 4 images and 3 masks"):
            call(images, masks[:3])
        with pytest.raises(DatasetError, match="at least one"):
            call([], [])
        with pytest.raises(DatasetError, match="at least one"):
            call([])
    with pytest.raises(SpecError, match=r"create_dataset\(paths\)"):
        ForestGapDataset(images, None)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"normalization": "sigmoid"}, "got 'sigmoid'"),
        ({"normalization": "fixed"}, "needs its numbers"),
        ({"normalization": Normalization.fixed(mean=(1, 2), std=(1, 2))}, "2 bands do not fit an image of 1"),
        ({"normalization": "min_max", "dtype": "uint8"}, "got dtype='uint8'"),
        ({"normalization": "min_max", "dtype": None}, "got dtype=None"),
        ({"bands": (2,)}, r"has 1, got bands=\(2,\)"),
        ({"bands": (0,)}, "counted from 1"),
        ({"thresholds": 5}, "leave one out"),
        ({"stride": 4}, "stride needs a window"),
    ],
)
def test_senseless_settings_are_refused(pairs, settings, told):
    with pytest.raises(SpecError, match=told):
        create_dataset(*pairs, **settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"thresholds": -1}, "above 0 m"),
        ({"thresholds": ()}, "above 0 m"),
        ({"ignore_index": 300}, "0 to 255"),
        ({"stride": 4}, "stride needs a window"),
    ],
)
def test_senseless_settings_of_heights_are_refused(pairs, settings, told):
    with pytest.raises(SpecError, match=told):
        create_dataset(pairs[0], **settings)


@pytest.mark.fault(34)
@pytest.mark.parametrize("normalization", [None, "z_score"])
@pytest.mark.parametrize("later", [1, 3])
def test_an_image_of_another_band_count_is_named(tmp_path, normalization, later):
    images, masks = make_pairs(tmp_path, count=2, shape=(2, 8, 8))
    odd = write_raster(tmp_path / "odd.tif", np.ones((later, 8, 8), np.float32))
    with pytest.raises(SampleError, match=f"2 bands of the first, got {later}") as caught:
        create_dataset([*images, odd], [*masks, masks[0]], normalization=normalization)[2]
    assert caught.value.path == str(odd)
    if later == 1:
        with pytest.raises((SampleError, SpecError), match=r"odd\.tif"):
            create_dataset([*images, odd], [*masks, masks[0]], normalization=normalization, bands=(1, 2))[2]


def test_an_index_that_is_not_there_ends_iteration(pairs):
    assert len(list(create_dataset(*pairs, bands=(1,)))) == 4


@pytest.mark.fault(34)
def test_raster_without_any_measurement_is_all_fill_and_no_ground_for_statistics(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.full((5, 5), np.nan, np.float32), float("nan"))
    mask = write_raster(tmp_path / "b.tif", np.zeros((5, 5), np.uint8))
    assert (create_dataset(path, mask, fill=3)[0][0] == 3).all()
    image, gaps = create_dataset(path, fill=3)[0]
    assert (image == 3).all()
    assert not gaps.any()
    for masks in (mask, None):
        with pytest.raises(DatasetError, match="none in band 1"):
            create_dataset(path, masks, normalization="z_score")
    other = write_raster(tmp_path / "c.tif", np.arange(25, dtype=np.float32).reshape(5, 5))
    assert (create_dataset([path, other], normalization="min_max")[0][0] == 0).all()


@pytest.mark.fault(34)
@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (37, 1), (13, 29)])
@pytest.mark.parametrize("masks", [True, False])
def test_rasters_of_odd_sizes_are_covered_to_the_edge(tmp_path, shape, masks):
    values = (np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape) + 1) / 8
    path = write_raster(tmp_path / "a.tif", values)
    dataset = create_dataset(
        path, path if masks else None, window=8, fill=-1, **({"mask_dtype": "float32"} if masks else {})
    )
    seen = np.zeros(shape, np.float32)
    for (image, _), (_, row, column) in zip(dataset, dataset.window_origins().tolist(), strict=True):
        part = image[0, : shape[0] - row, : shape[1] - column].numpy()
        seen[row : row + 8, column : column + 8] = part
        assert image.shape == (1, 8, 8)
    assert np.array_equal(seen, values)


@pytest.mark.fault(34)
def test_declared_nodata_of_0_counts_only_where_asked(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.array([[0, 3, 9]], np.float32), 0)
    assert create_dataset(path, thresholds=5)[0][1].flatten().tolist() == [1, 1, 0]
    strict = create_dataset(path, thresholds=5, nodata_zero_is_invalid=True, normalization="min_max", fill=-1)
    assert strict[0][1].flatten().tolist() == [0, 1, 0]
    assert strict[0][0].flatten().tolist() == [-1, 0, 1]


@pytest.mark.fault(34)
def test_12_bit_rotated_and_cmyk_rasters_are_normalised(tmp_path):
    twelve = write_raster(tmp_path / "twelve.tif", np.arange(4096, dtype=np.uint16).reshape(64, 64), nbits=12)
    assert create_dataset(twelve, twelve, normalization="min_max", mask_dtype="uint16")[0][0].max() == 1
    turned = rasterio.Affine(1.0, 0.5, 10.0, 0.5, -1.0, 20.0)
    path = write_raster(tmp_path / "turned.tif", np.ones((4, 4), np.float32), transform=turned)
    assert create_dataset(path, metadata=True)[0][2]["transform"] == tuple(turned)[:6]
    inks = write_raster(tmp_path / "cmyk.tif", np.zeros((4, 4, 4), np.uint8), photometric="CMYK")
    assert create_dataset(inks, inks, normalization="z_score")[0][0].shape == (4, 4, 4)


@pytest.mark.fault(34)
def test_claimed_size_of_terabytes_is_refused_before_it_is_allocated(tmp_path):
    path = write_vast_raster(tmp_path / "vast.tif")
    for dataset in (create_dataset(path, path), create_dataset(path)):
        with pytest.raises(SampleError, match="claims"):
            dataset[0]
    assert create_dataset(path, window=8, stride=100_000)[5][0].shape == (1, 8, 8)


@pytest.mark.fault(12)
@pytest.mark.parametrize("content", [b"", b"II*\0", b"not a raster at all", None])
@pytest.mark.parametrize("normalization", [None, "robust"])
@pytest.mark.parametrize("masks", [True, False])
def test_unreadable_raster_is_named(tmp_path, content, normalization, masks):
    images, mask_paths = make_pairs(tmp_path, count=2)
    if content is None:
        images[1].unlink()
    else:
        images[1].write_bytes(content)
    with pytest.raises(SampleError) as caught:
        create_dataset(images, mask_paths if masks else None, normalization=normalization)[1]
    assert caught.value.path == str(images[1])
    with pytest.raises(SampleError) as caught:
        create_dataset(images[::-1], mask_paths if masks else None)
    assert caught.value.path == str(images[1])


def test_every_raster_of_the_real_data_loads(real_data):
    for path in sorted((real_data / "forest_gaps").glob("**/*.tif")):
        dataset = create_dataset(path, window=64, normalization="robust")
        assert all(torch.isfinite(dataset[index][0]).all() for index in range(len(dataset)))
