"""Images of a folder as training takes them: normalised, in every loading mode, with broken files among them."""

import copy
import logging
import pickle
import random
import shutil

import albumentations
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from autotune.data.apply import apply
from autotune.data.build import make_loader
from autotune.data.datasets.general_images import IMAGENET_MEAN, IMAGENET_STD, ImageDataset
from autotune.data.facts import dataset_facts, describe_sample, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.inspect import inspect_dataset
from autotune.data.modes import LoadingMode, load_in_mode
from autotune.errors import DatasetError, SampleError, SpecError
from autotune.loaders.collating import CustomCollateFn
from autotune.machine import machine_facts
from autotune.spec import LoaderConfig

COUNT, SIZE = 10, 16
BROKEN = 4


@pytest.fixture
def folder(tmp_path):
    """Ten images in two class folders, of varying size."""
    root = tmp_path / "pets"
    generator = np.random.default_rng(3)
    for number in range(COUNT):
        place = root / ("dog" if number >= COUNT // 2 else "cat") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)).save(place)
    return root


@pytest.fixture
def damaged(folder):
    """The same with a broken image in the middle."""
    place = folder / "cat" / f"{BROKEN}.png"
    place.write_bytes(place.read_bytes()[:60])
    return folder


def all_of(dataset):
    return [dataset[index] for index in range(len(dataset))]


def noisy(image):
    """A transform as people write them: random by all three generators."""
    array = np.asarray(image, dtype=np.float32)[:8, :8]
    return torch.from_numpy(array.copy()) + torch.rand(()) + random.random() + float(np.random.rand())  # noqa: NPY002


def as_array(image):
    assert isinstance(image, Image.Image)
    return torch.from_numpy(np.asarray(image.resize((8, 8))).copy()).permute(2, 0, 1)


def negative(target):
    return -target


def test_sample_is_resized_normalised_and_labelled(folder):
    dataset = ImageDataset(folder, image_size=(SIZE, 24))
    image, target = dataset[7]
    with Image.open(folder / "dog" / "7.png") as opened:
        pixels = np.asarray(opened.resize((24, SIZE), Image.Resampling.BILINEAR), dtype=np.float64) / 255
    expected = (pixels - IMAGENET_MEAN) / IMAGENET_STD
    assert describe_sample((image, target)) == f"(float32[3,{SIZE},24], int64[])"
    torch.testing.assert_close(image, torch.from_numpy(expected.transpose(2, 0, 1)).float(), atol=1e-5, rtol=1e-5)
    assert [int(sample[1]) for sample in all_of(dataset)] == [0] * 5 + [1] * 5
    assert dataset.classes == ("cat", "dog")
    assert (dataset.image_size, dataset.cache_size, dataset.loading_mode) == ((SIZE, 24), 1000, LoadingMode.LAZY)
    assert dataset_facts(dataset).structure == describe_sample(dataset[0])


def test_defaults_are_those_of_imagenet(folder):
    image, _ = ImageDataset(str(folder))[0]
    assert image.shape == (3, 224, 224)
    images, targets = CustomCollateFn.image_collate(all_of(ImageDataset(folder, SIZE)))
    assert (images.shape, targets.dtype) == ((COUNT, 3, SIZE, SIZE), torch.int64)


def test_folder_without_classes_and_single_image(folder):
    assert [int(sample[1]) for sample in all_of(ImageDataset(folder / "dog", SIZE))] == [0] * 5
    assert len(ImageDataset(folder / "dog" / "7.png", SIZE)) == 1


def test_hidden_files_are_no_images(folder):
    (folder / "cat" / "._0.png").write_bytes(b"made by another system")
    (folder / ".previews").mkdir()
    (folder / "dog" / "7.png").rename(folder / ".previews" / "7.png")
    dataset = ImageDataset(folder, SIZE)
    assert (len(dataset), dataset.classes) == (COUNT - 1, ("cat", "dog"))
    assert [int(sample[1]) for sample in all_of(dataset)] == [0] * 5 + [1] * 4


def test_image_beside_class_folders_is_refused(folder):
    (folder / "dog" / "7.png").rename(folder / "mean.png")
    with pytest.raises(DatasetError, match=r"mean\.png beside the folder cat; move it"):
        ImageDataset(folder, SIZE)


def test_transform_gets_the_whole_image_and_takes_the_place_of_the_default(folder):
    dataset = ImageDataset(folder, transform=as_array, target_transform=negative)
    image, target = dataset[9]
    with Image.open(folder / "dog" / "9.png") as opened:
        assert torch.equal(image, as_array(opened))
    assert int(target) == -1
    assert dataset.sample_structure() is None


def test_a_transform_may_be_replaced_by_another_but_not_by_none_nor_none_by_one(folder):
    given = ImageDataset(folder, transform=lambda image: image.size)
    stored = source_fingerprint(given)
    given.transform = lambda image: image.mode
    assert given[0][0] == "RGB"
    given.transform = albumentations.HorizontalFlip(p=1.0)
    assert isinstance(given[0][0], np.ndarray)
    assert source_fingerprint(given) == stored
    with pytest.raises(SpecError, match="got None for one made with one"):
        given.transform = None
    plain = ImageDataset(folder)
    before = plain[0]
    with pytest.raises(SpecError, match="resizes and normalises by itself; make a new one"):
        plain.transform = albumentations.HorizontalFlip(p=1.0)
    assert samples_equal(plain[0], before)


def test_random_transform_is_the_same_at_every_worker_count_and_new_in_each_epoch(folder):
    dataset = ImageDataset(folder, transform=noisy, seed=5)
    epochs = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        alone, shared = (
            [image for batch in DataLoader(dataset, batch_size=3, num_workers=workers) for image in batch[0]]
            for workers in (0, 2)
        )
        assert samples_equal(alone, shared)
        epochs.append(alone)
    assert not samples_equal(*epochs)
    before = torch.get_rng_state()
    dataset[0]
    assert torch.equal(before, torch.get_rng_state())
    for workers in (0, 2):
        for given in (dataset_of(folder), Subset(dataset_of(folder), range(COUNT))):
            loader = make_loader(given, {"batch_size": 3, "num_workers": workers})
            for expected in epochs:
                assert samples_equal([image for images, _ in loader for image in images], expected)


def dataset_of(folder):
    return ImageDataset(folder, transform=noisy, seed=5)


@pytest.mark.parametrize("mode", ["eager", "cached", "streaming"])
@pytest.mark.parametrize("workers", [0, 2])
def test_random_transform_is_new_in_each_pass_of_any_loading_mode(folder, mode, workers):
    dataset = ImageDataset(folder, transform=noisy, loading_mode=mode, seed=5)
    loader = make_loader(dataset.loaded(), {"batch_size": 5, "num_workers": workers})
    plain = dataset_of(folder)
    for epoch in range(3):
        plain.set_epoch(epoch)
        found = torch.cat([images for images, _ in loader])
        expected = torch.stack([plain[index][0] for index in range(COUNT)])
        assert torch.equal(found.sort(dim=0).values, expected.sort(dim=0).values)


@pytest.mark.parametrize("mode", ["lazy", "eager", "cached"])
@pytest.mark.parametrize("transform", [None, noisy])
def test_modes_give_the_same_samples(folder, mode, transform):
    lazy = ImageDataset(folder, SIZE, transform, cache_size=0)
    dataset = ImageDataset(folder, SIZE, transform, LoadingMode(mode))
    for _ in range(2):
        assert samples_equal(all_of(dataset), all_of(lazy))
    assert samples_equal(list(dataset.__getitems__([3, 9, 3])), [lazy[3], lazy[9], lazy[3]])
    assert dataset.loaded() is dataset


@pytest.mark.parametrize("workers", [0, 2])
def test_eager_reads_everything_at_once_and_cached_at_first_use(folder, workers):
    lazy = all_of(ImageDataset(folder, SIZE, cache_size=0))
    eager, cached = (ImageDataset(folder, SIZE, None, mode) for mode in ("eager", LoadingMode.CACHED))
    list(DataLoader(cached, batch_size=4, num_workers=workers))
    shutil.rmtree(folder)
    for dataset in (eager, cached):
        batches = DataLoader(dataset, batch_size=1, num_workers=workers)
        assert samples_equal([image[0] for image, _ in batches], [image for image, _ in lazy])


def test_eager_reads_later_what_has_no_room(folder):
    limit = 4 * SIZE * SIZE * 3 * 4 + 64
    dataset = ImageDataset(folder, SIZE, None, "eager", memory_limit_bytes=limit)
    assert samples_equal(all_of(dataset), all_of(ImageDataset(folder, SIZE)))
    shutil.rmtree(folder)
    gone = 0
    for index in range(COUNT):
        try:
            dataset[index]
        except SampleError:
            gone += 1
    assert 0 < gone < COUNT


@pytest.mark.fault(12)
@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_gives_every_sample_once(folder, workers):
    dataset = ImageDataset(folder, SIZE, None, LoadingMode.STREAMING)
    loader = make_loader(dataset.loaded(), {"batch_size": 3, "num_workers": workers}, shuffle=True, seed=1)
    expected = sorted(float(image.sum()) for image, _ in all_of(ImageDataset(folder, SIZE)))
    for _ in range(2):
        found = sorted(float(image.sum()) for images, _ in loader for image in images)
        assert found == pytest.approx(expected)
    assert dataset._recent is None


@pytest.mark.fault(12)
def test_streaming_can_read_an_archive(folder, tmp_path):
    dataset = ImageDataset(folder, SIZE, None, "streaming")
    streamed = dataset.loaded(tmp_path / "archives")
    assert samples_equal(list(streamed), all_of(dataset))
    assert list((tmp_path / "archives").rglob("manifest.json"))
    lazy = ImageDataset(folder, SIZE)
    assert samples_equal(list(load_in_mode(lazy, "streaming", archive_root=tmp_path / "archives")), all_of(lazy))


def test_images_used_last_are_kept_small_and_given_fresh(folder):
    dataset = ImageDataset(folder, SIZE, cache_size=3)
    expected = all_of(dataset)
    assert len(dataset._recent) == 3
    assert dataset._recent.used_bytes < 4 * (3 * SIZE * SIZE + 600)
    shutil.rmtree(folder)
    dataset[9][0].zero_()
    assert samples_equal([dataset[index] for index in (7, 8, 9)], expected[7:])
    with pytest.raises(SampleError, match=r"6\.png"):
        dataset[6]


def test_copies_for_workers_start_without_kept_images(folder):
    dataset = ImageDataset(folder, SIZE, cache_size=5)
    dataset[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert len(again._recent) == 0
    assert samples_equal(again[0], dataset[0])
    cached = ImageDataset(folder, SIZE, None, "cached")
    cached[0]
    assert samples_equal(copy.copy(cached)[0], cached[0])


@pytest.mark.parametrize("mode", ["lazy", "cached"])
def test_other_decoder_is_a_copy_that_keeps_nothing(folder, mode):
    dataset = ImageDataset(folder, SIZE, None, mode)
    expected = all_of(dataset)
    other = dataset.with_decoder("cv2_scaled")
    assert (other.decoder, other._recent, other._memory) == ("cv2_scaled", None, None)
    assert samples_equal(all_of(other), expected)  # no JPEG: all decoders leave these to PIL
    assert samples_equal(all_of(dataset), expected)


@pytest.mark.fault(12)
@pytest.mark.parametrize("mode", ["lazy", "cached"])
@pytest.mark.parametrize("workers", [0, 2])
def test_broken_image_in_the_middle_of_an_epoch_is_raised_with_its_path(damaged, workers, mode):
    dataset = ImageDataset(damaged, SIZE, None, mode) if mode == "lazy" else None
    if dataset is None:  # the look at a few samples may meet it already
        with pytest.raises(SampleError, match=rf"{BROKEN}\.png"):
            list(DataLoader(ImageDataset(damaged, SIZE, None, mode), batch_size=2, num_workers=workers))
        return
    batches = iter(DataLoader(dataset, batch_size=2, num_workers=workers))
    assert len(next(batches)[0]) == 2
    with pytest.raises(SampleError, match=rf"pets/cat/{BROKEN}\.png"):
        list(batches)
    if workers:
        batches._shutdown_workers()  # else torch waits 5 s for each of them when a collection finds the loader


@pytest.mark.fault(12)
@pytest.mark.parametrize("mode", ["lazy", "eager", "cached"])
@pytest.mark.parametrize("workers", [0, 2])
def test_broken_image_is_left_out_and_counted_once(damaged, mode, workers, caplog):
    dataset = ImageDataset(damaged, SIZE, None, mode, on_broken="skip")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            sizes = [len(images) for images, _ in DataLoader(dataset, batch_size=4, num_workers=workers)]
            assert sizes == [4, 3, 2]
    assert len(dataset) == COUNT
    assert dataset.broken_files == (str(damaged / "cat" / f"{BROKEN}.png"),)
    assert dataset.broken_samples == (BROKEN,)
    if not workers:  # workers log in their own processes
        assert len([one for one in caplog.records if "left out" in one.getMessage()]) == 1
    with pytest.raises(SampleError, match=rf"{BROKEN}\.png"):
        dataset[BROKEN]
    kept = [image for images, _ in DataLoader(dataset, batch_size=4) for image in images]
    whole = ImageDataset(damaged, SIZE)
    assert samples_equal(kept, [whole[index][0] for index in range(COUNT) if index != BROKEN])


@pytest.mark.fault(12)
@pytest.mark.parametrize("mode", ["lazy", "eager", "cached"])
@pytest.mark.parametrize("workers", [0, 2])
def test_broken_image_is_replaced_by_the_next_one(damaged, mode, workers):
    dataset = ImageDataset(damaged, SIZE, None, mode, on_broken="substitute")
    (damaged / "dog" / "9.png").write_bytes(b"")
    sizes = [len(images) for images, _ in DataLoader(dataset, batch_size=4, num_workers=workers)]
    assert sizes == [4, 4, 2]
    assert samples_equal(dataset[BROKEN], dataset[BROKEN + 1])
    if mode != "eager":  # which had read the last one before it broke
        assert samples_equal(dataset[9], dataset[0])
    assert str(damaged / "cat" / f"{BROKEN}.png") in dataset.broken_files


@pytest.mark.fault(12)
def test_streaming_leaves_broken_images_out(damaged):
    dataset = ImageDataset(damaged, SIZE, None, "streaming", on_broken="skip")
    assert len(list(dataset.loaded())) == COUNT - 1
    replaced = ImageDataset(damaged, SIZE, None, "streaming", on_broken="substitute")
    assert len(list(replaced.loaded())) == COUNT
    with pytest.raises(SampleError, match=rf"{BROKEN}\.png"):
        list(ImageDataset(damaged, SIZE, None, "streaming").loaded())


@pytest.mark.fault(12)
def test_batch_without_a_readable_image_names_its_files(damaged):
    dataset = ImageDataset(damaged, SIZE, on_broken="skip")
    for collate in (None, CustomCollateFn.image_collate):
        with pytest.raises(SampleError, match=rf"every sample of a batch.*{BROKEN}\.png"):
            list(DataLoader(dataset, batch_size=1, collate_fn=collate))


@pytest.mark.fault(12)
def test_dataset_of_broken_images_alone_is_an_error(damaged):
    for path in damaged.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(SampleError, match="no sample of 10 can be read"):
        ImageDataset(damaged, SIZE, on_broken="substitute")[3]


@pytest.mark.fault(12)
def test_broken_images_behind_caches_and_archives(damaged, tmp_path):
    replaced = ImageDataset(damaged, SIZE, on_broken="substitute")
    for config in (LoaderConfig(cache="memory"), LoaderConfig(archive="npy"), LoaderConfig(archive="tar")):
        applied = apply(replaced, config, archive_root=tmp_path / "archives").dataset
        assert samples_equal(all_of(applied), all_of(replaced))
    readable = ImageDataset(damaged, SIZE, on_broken="skip").readable()
    assert len(readable) == COUNT - 1
    cached = apply(readable, LoaderConfig(cache="memory")).dataset
    assert samples_equal(all_of(cached), all_of(readable))


def test_tuner_sees_one_structure_and_a_fingerprint(folder):
    dataset = ImageDataset(folder, SIZE)
    found = inspect_dataset(dataset, machine_facts(accelerator=False))
    assert (found.random, found.varying, found.augmented) == (False, False, False)
    assert found.dataset.declared
    assert found.exact_decoders[0] == "pil"
    with_transform = inspect_dataset(ImageDataset(folder, transform=noisy), machine_facts(accelerator=False))
    assert (with_transform.random, with_transform.varying, with_transform.augmented) == (False, True, True)


def test_fingerprint_is_that_of_what_is_stored(folder):
    plain = source_fingerprint(ImageDataset(folder, SIZE))
    assert plain is not None
    same = [
        ImageDataset(folder, SIZE, None, "cached"),
        ImageDataset(folder, SIZE, cache_size=0, seed=4),
        ImageDataset(folder, SIZE, target_transform=negative),
    ]
    assert {source_fingerprint(dataset) for dataset in same} == {plain}
    other = [
        ImageDataset(folder, SIZE + 1),
        ImageDataset(folder, SIZE, mean=(0, 0, 0)),
        ImageDataset(folder, SIZE, on_broken="substitute"),
        ImageDataset(folder, transform=as_array),
    ]
    assert plain not in {source_fingerprint(dataset) for dataset in other}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"on_broken": "ignore"}, "raise, skip, substitute"),
        ({"loading_mode": "sluggish"}, "lazy, eager, streaming, cached"),
        ({"cache_size": -1}, "cache_size"),
        ({"image_size": 0}, "image_size|size"),
        ({"mean": (0.5,)}, "three numbers"),
        ({"std": (1, 0, 1)}, "above 0"),
        ({"decoder": "turbo"}, "decoder must be one of"),
    ],
)
def test_settings_that_break_a_rule_are_refused(folder, settings, told):
    with pytest.raises(SpecError, match=told):
        ImageDataset(folder, **settings)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(DatasetError, match="nowhere"):
        ImageDataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no image"):
        ImageDataset(tmp_path)


def test_index_beyond_the_end_is_an_index_error(folder):
    dataset = ImageDataset(folder, SIZE)
    assert samples_equal(dataset[-1], dataset[COUNT - 1])
    for index in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError):
            dataset[index]


def test_real_photographs_all_load(real_data):
    dataset = ImageDataset(real_data / "images" / "pets", image_size=(64, 64), decoder="cv2_scaled")
    assert (len(dataset), dataset.classes) == (320, ("cat", "dog"))
    images, targets = next(iter(DataLoader(dataset, batch_size=320)))
    assert images.shape == (320, 3, 64, 64)
    assert targets.bincount().tolist() == [160, 160]
    assert bool(images.isfinite().all())
    assert abs(float(images.mean())) < 0.5
    assert 0.8 < float(images.std()) < 1.3
