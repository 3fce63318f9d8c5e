"""Transforms of the general datasets: Albumentations, generators of their own, threads, and what is kept."""

import logging
import multiprocessing
import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from autotune.data.datasets.general_images import ImageDataset
from autotune.data.datasets.hdf5_arrays import HDF5Dataset
from autotune.data.datasets.memory_efficient import MemoryEfficientDataset
from autotune.data.datasets.npy_files import NpyDataset
from autotune.data.datasets.texts import TextDataset
from autotune.data.facts import samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.randomness import refuse_unlike_stages, seeded_alone
from autotune.data.stages import Augmentation, StagedDataset, place_of
from autotune.errors import ArchiveError
from autotune.resolve.best import best_loader

COUNT = 12


@pytest.fixture
def folder(tmp_path):
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        path = tmp_path / "images" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


def all_of(dataset):
    return [dataset[index] for index in range(len(dataset))]


def flips():
    albumentations = pytest.importorskip("albumentations")
    return [albumentations.D4(p=1.0), albumentations.RandomBrightnessContrast(p=0.8)]


class OwnGenerator:
    """Draws from a generator that nobody seeds, as a composition does that a function calls."""

    def __init__(self):
        self.generator = np.random.default_rng(3)

    def __call__(self, image):
        return torch.from_numpy(np.asarray(image).copy()) + int(self.generator.integers(1, 50))


@pytest.mark.parametrize("mode", ["eager", "cached"])
def test_a_transform_with_a_generator_of_its_own_runs_on_what_memory_keeps(folder, mode):
    dataset = ImageDataset(folder, transform=OwnGenerator(), loading_mode=mode)
    plain = all_of(ImageDataset(folder, transform=lambda image: torch.from_numpy(np.asarray(image).copy())))
    for _ in range(2):
        for (image, target), (kept, label) in zip(all_of(dataset), plain, strict=True):
            assert int(target) == int(label)
            assert len((image - kept).unique()) == 1
    assert not samples_equal(all_of(dataset), all_of(dataset))


@pytest.mark.parametrize("mode", ["eager", "cached"])
def test_a_function_around_albumentations_runs_on_what_memory_keeps(folder, mode):
    composed = pytest.importorskip("albumentations").Compose(flips())
    dataset = ImageDataset(
        folder, transform=lambda image: torch.from_numpy(composed(image=np.array(image))["image"]), loading_mode=mode
    )
    assert {tuple(image.shape) for image, _ in all_of(dataset)} == {(24, 24, 3)}


class Outside(StagedDataset):
    """Changes samples outside its stages, beside an augmentation of its own."""

    def __len__(self):
        return 4

    def read(self, index):
        return (bytes([index]),)

    def decode(self, raw):
        return torch.tensor(list(raw[0])).float()

    def augment(self, sample, generator):
        return sample + torch.rand(1, generator=generator)

    def __getitem__(self, index):
        return super().__getitem__(index) * 2


class Unaugmented(Outside):
    """Never gives what it augments."""

    def __getitem__(self, index):
        return self.base_sample(index)


@pytest.mark.parametrize("kind", [Outside, Unaugmented])
def test_what_happens_outside_the_stages_is_still_refused(kind):
    dataset = kind()
    with pytest.raises(ArchiveError, match="it differs, so storing it would change samples"):
        refuse_unlike_stages(dataset)
    assert "augment_sample" not in vars(dataset)


@pytest.mark.parametrize("mode", ["lazy", "eager", "cached"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_of_albumentations_belongs_to_seed_epoch_and_index(folder, mode, workers):
    compose = pytest.importorskip("albumentations").Compose
    plain = ImageDataset(folder, transform=compose(flips()), seed=4)
    dataset = ImageDataset(folder, transform=compose(flips(), seed=9), loading_mode=mode, seed=4)
    epochs = []
    for epoch in range(2):
        plain.set_epoch(epoch)
        dataset.set_epoch(epoch)
        loaded = [image for batch in DataLoader(dataset, batch_size=5, num_workers=workers) for image in batch[0]]
        assert samples_equal(loaded, [torch.from_numpy(image) for image, _ in all_of(plain)])
        epochs.append(loaded)
    assert not samples_equal(*epochs)
    assert tuple(epochs[0][0].shape) == (24, 24, 3)


def test_a_tensor_stays_one_under_albumentations(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(64, dtype=np.float32).reshape(1, 8, 8) / 64)
    flip = pytest.importorskip("albumentations").VerticalFlip(p=1)
    (plain, made) = (NpyDataset(tmp_path / "a.npy", transform=transform)[0] for transform in (None, flip))
    assert torch.equal(made[0], plain[0].flip(0))
    assert made[0].dtype == plain[0].dtype


def two_draws(image):
    """Lets other threads in between its draws."""
    first = random.random()
    pixels = np.asarray(image.resize((200, 200))).sum()
    return torch.tensor([first, random.random(), float(np.random.rand()), float(torch.rand(())), float(pixels)])  # noqa: NPY002


def test_threads_get_the_numbers_that_belong_to_their_samples(folder):
    dataset = ImageDataset(folder, transform=two_draws, cache_size=0)
    expected = all_of(dataset)
    before = random.getstate(), torch.get_rng_state()
    found = {}

    def work(name):
        found[name] = [dataset[index] for _ in range(4) for index in range(len(dataset))]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(samples_equal(found[name], expected * 4) for name in range(4))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def draw_alone():
    with seeded_alone(1):
        random.random()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="nothing forks here")
def test_a_process_forked_while_a_thread_has_its_turn_gets_one_too():
    taken, done = threading.Event(), threading.Event()

    def hold():
        with seeded_alone(0):
            taken.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    child = multiprocessing.get_context("fork").Process(target=draw_alone)
    child.start()
    child.join(60)
    alive = child.is_alive()
    done.set()
    holder.join()
    if alive:
        child.kill()
    assert not alive
    assert child.exitcode == 0


def test_a_turn_within_a_turn_is_none_to_wait_for():
    with seeded_alone(1):
        first = random.random()
        with seeded_alone(1):
            assert random.random() == first
        assert random.random() != first


def write_kinds(root):
    h5py = pytest.importorskip("h5py")
    for label in ("a", "b"):
        (root / "texts" / label).mkdir(parents=True)
        (root / "arrays" / label).mkdir(parents=True)
        (root / "texts" / label / "1.txt").write_text("hello")
        np.save(root / "arrays" / label / "1.npy", np.arange(4.0))
    np.save(root / "rows.npy", np.arange(4.0))
    with h5py.File(root / "rows.h5", "w") as file:
        file["data"] = np.arange(8)


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        (ImageDataset, "images", {}),
        (ImageDataset, "images/cat/0.png", {}),
        (NpyDataset, "arrays", {}),
        (NpyDataset, "rows.npy", {}),
        (TextDataset, "texts", {"max_length": 4}),
        (HDF5Dataset, "rows.h5", {}),
        (MemoryEfficientDataset, "images", {}),
        (MemoryEfficientDataset, "arrays", {}),
    ],
)
def test_a_relative_path_and_an_absolute_one_are_the_same_data(folder, monkeypatch, kind, name, settings):
    write_kinds(folder.parent)
    monkeypatch.chdir(folder.parent)
    fingerprints = {source_fingerprint(kind(path, **settings)) for path in (name, f"./{name}", folder.parent / name)}
    assert len(fingerprints) == 1
    assert None not in fingerprints


class LabelledByPath(ImageDataset):
    """Labels images by where they lie under the path that it was given."""

    def read(self, index):
        image, _ = super().read(index)
        place = Path(self.path_of(index)).relative_to(self.data_path)
        return image, str(len(place.parts)).encode()


def test_another_path_to_the_same_files_is_other_data_where_samples_may_go_by_it(folder):
    (folder / "dog").rename(folder.parent / "dog")
    above, inside = LabelledByPath(folder, 16), LabelledByPath(folder / "cat", 16)
    assert above.path_of(0) == inside.path_of(0)
    assert (int(above[0][1]), int(inside[0][1])) == (2, 1)
    assert source_fingerprint(above) != source_fingerprint(inside)


def test_other_files_of_equal_content_are_other_data(folder, tmp_path):
    other = tmp_path / "copied"
    folder.rename(other)
    before = source_fingerprint(ImageDataset(other))
    other.rename(folder)
    assert source_fingerprint(ImageDataset(folder)) != before


@pytest.mark.parametrize("mode", ["eager", "cached"])
@pytest.mark.parametrize("limit", [0, 10])
def test_samples_are_read_from_files_where_not_one_has_room(folder, mode, limit, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = ImageDataset(folder, 16, loading_mode=mode, memory_limit_bytes=limit)
    assert samples_equal(all_of(dataset), all_of(ImageDataset(folder, 16)))
    assert samples_equal(dataset.__getitems__([3, 1]), [dataset[3], dataset[1]])
    (record,) = [one for one in caplog.records if "nothing is kept" in one.message]
    assert "each is read when it is asked for" in record.message
    assert len(next(iter(best_loader(dataset, batch_size=4)))[0]) == 4


def test_an_index_from_the_end_means_one_place_in_every_wrapper():
    dataset = Augmented()
    assert torch.equal(dataset[-1], dataset[3])
    assert torch.equal(Subset(dataset, [-1])[0], dataset[3])
    assert torch.equal(Augmentation().apply(Subset(dataset, [-1]), dataset.base_sample(3), 0), dataset[3])
    assert [place_of(index, 4) for index in (-4, -1, 0, np.int64(3))] == [0, 3, 0, 3]
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            dataset[beyond]
    assert len(list(dataset)) == 4


class Augmented(Outside):
    """Stages alone."""

    __getitem__ = StagedDataset.__getitem__
