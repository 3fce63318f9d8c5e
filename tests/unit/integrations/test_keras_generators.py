"""Keras data generators: what their batches hold, in which order, and what they refuse."""

import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from registry_values import Numbers, Stream, decision_here
from torch.utils.data import Dataset

from autotune.data.apply import prepare
from autotune.errors import DatasetError, SampleError, SpecError
from autotune.registry import open_registry
from autotune.spec import LoaderConfig

pytest.importorskip("autotune.integrations.keras", exc_type=ImportError)
albumentations = pytest.importorskip("albumentations")

from autotune.integrations.keras import (  # noqa: E402  # only where Keras is installed
    CityscapesDataGenerator,
    DataGenerator,
    TunedPyDataset,
    create_data_generators,
    keras,
)

DIM = (4, 3, 2)


@pytest.fixture
def arrays(tmp_path):
    """Eleven arrays in files, each filled with its number, and their labels."""
    ids = [f"id-{number}" for number in range(11)]
    for number, name in enumerate(ids):
        np.save(tmp_path / f"{name}.npy", np.full((*DIM, 2), number, np.float64))
    return tmp_path, ids, {name: number % 3 for number, name in enumerate(ids)}


def generator(arrays, **settings):
    folder, ids, labels = arrays
    return DataGenerator(ids, labels, **{"dim": DIM, "n_channels": 2, "n_classes": 3, "data_dir": folder, **settings})


def numbers_of(py_dataset):
    """The numbers that the arrays are filled with, batch by batch."""
    return [py_dataset[index][0][:, 0, 0, 0, 0].astype(int).tolist() for index in range(len(py_dataset))]


def test_it_is_a_py_dataset_with_keras_own_settings(arrays):
    made = generator(arrays, batch_size=4, workers=3, use_multiprocessing=False, max_queue_size=7)
    assert isinstance(made, keras.utils.PyDataset)
    assert (made.workers, made.use_multiprocessing, made.max_queue_size) == (3, False, 7)
    assert (made.num_batches, made.batch_size, made.dim, made.n_channels, made.n_classes) == (2, 4, DIM, 2, 3)
    assert (made.list_IDs[0], made.labels["id-4"], made.shuffle) == ("id-0", 1, True)


def test_batches_are_arrays_with_one_hot_labels_and_partial_ones_are_dropped(arrays):
    made = generator(arrays, batch_size=4, shuffle=False)
    samples, labels = made[1]
    assert (samples.shape, samples.dtype) == ((4, *DIM, 2), np.float32)
    assert labels.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert labels.dtype == np.float32
    assert numbers_of(made) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert numbers_of(generator(arrays, batch_size=4, shuffle=False, drop_last=False))[-1] == [8, 9, 10]


def test_files_of_one_channel_may_leave_out_its_axis(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(DIM, np.uint8))
    np.save(tmp_path / "b.npy", np.ones((*DIM, 1), np.float32, order="F"))
    made = DataGenerator(["a", "b"], {"a": 0, "b": 1}, DIM, 2, data_dir=tmp_path, shuffle=False)
    samples, labels = made[0]
    assert (samples.shape, labels.shape) == ((2, *DIM, 1), (2, 10))
    assert (samples == 1).all()


def test_on_epoch_end_gives_another_order_and_the_same_seed_the_same_orders(arrays):
    one, same, other = (generator(arrays, batch_size=4, seed=seed) for seed in (1, 1, 2))
    orders = []
    for made in (one, same, other):
        epochs = []
        for _ in range(3):
            epochs.append(numbers_of(made))
            assert made.indexes.tolist() == [number for batch in epochs[-1] for number in batch]
            made.on_epoch_end()
        orders.append(epochs)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][0] != orders[0][1] != orders[0][2]
    assert all(len({number for batch in epoch for number in batch}) == 8 for epoch in orders[0])


def test_its_arguments_are_taken_by_position_in_the_documented_order(arrays):
    folder, ids, labels = arrays
    made = DataGenerator(ids, labels, DIM, 5, 3, 2, False, data_dir=folder)
    assert (made.dim, made.batch_size, made.n_classes, made.n_channels, made.shuffle) == (DIM, 5, 3, 2, False)
    assert numbers_of(made) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    with pytest.raises(SpecError, match=r"dim must be the shape of a sample, got 5; the order is DataGenerator\("):
        DataGenerator(ids, labels, 5, DIM, data_dir=folder)


class GlobalNoise(Dataset):
    """Draws from a global generator."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.rand(()), index


def test_what_is_random_in_worker_processes_goes_by_seed_in_every_epoch():
    found = []
    for seed in (0, 5):
        made = TunedPyDataset(GlobalNoise(), batch_size=4, workers=1, seed=seed, persistent_workers=True)
        for _ in range(3):  # Keras begins another one before its first epoch
            found.append(made._seed)
            made.on_epoch_end()
    assert len(set(found)) == 6, "each epoch of each seed has numbers of its own"


def test_without_shuffling_every_epoch_is_the_same(arrays):
    made = generator(arrays, shuffle=False, batch_size=2)
    before = numbers_of(made)
    made.on_epoch_end()
    assert numbers_of(made) == before


def test_missing_files_and_labels_are_listed(arrays):
    folder, ids, labels = arrays
    with pytest.raises(DatasetError, match=r"2 are missing: .*lost-1.npy, .*lost-2.npy"):
        DataGenerator([*ids, "lost-1", "lost-2"], labels, data_dir=folder)
    with pytest.raises(DatasetError, match="1 have none: id-10"):
        DataGenerator(ids, dict.fromkeys(ids[:-1], 0), data_dir=folder)
    with pytest.raises(SpecError, match="from 0 to 1, got 2 for 'id-2'"):
        DataGenerator(ids, labels, data_dir=folder, n_classes=2)
    with pytest.raises(SpecError, match=r"inside .*, got '../id-0'"):
        DataGenerator(["../id-0"], {"../id-0": 0}, data_dir=folder)
    with pytest.raises(DatasetError, match="at least one id"):
        DataGenerator([], {}, data_dir=folder)
    with pytest.raises(DatasetError, match="a batch of 64 is more than all 11 samples"):
        generator(arrays, batch_size=64)


class Canary:
    """Pickled, it would run code."""

    def __reduce__(self):
        return pytest.fail, ("the pickle was loaded",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (np.array([Canary()], dtype=object), "pickled objects"),
        (np.zeros((2, 2)), r"must have the shape \(4, 3, 2, 2\), got \(2, 2\)"),
        (np.zeros((*DIM, 2), "U3"), "must hold numbers, got <U3"),
    ],
)
def test_arrays_that_are_something_else_are_refused_with_their_path(arrays, content, told):
    path = arrays[0] / "id-0.npy"
    np.save(path, content, allow_pickle=True)
    with pytest.raises(SampleError, match=told) as caught:
        generator(arrays, batch_size=1, shuffle=False)[0]
    assert caught.value.path == str(path)


def test_a_header_that_claims_too_much_is_refused(arrays):
    path = arrays[0] / "id-0.npy"
    path.write_bytes(path.read_bytes().replace(b"(4, 3, 2, 2)", b"(4, 3, 9, 9)"))
    with pytest.raises(SampleError, match="declares float64"):
        generator(arrays, batch_size=1, shuffle=False)[0]


@pytest.fixture
def scenes(tmp_path):
    """Five scenes for training and three for validation."""
    random = np.random.default_rng(0)
    for number, split in enumerate(["train"] * 5 + ["val"] * 3):
        name = f"ulm_000000_{number:06d}"
        for kind, suffix, array in (
            ("leftImg8bit", "leftImg8bit", random.integers(0, 256, (20, 30, 3))),
            ("gtFine", "gtFine_labelIds", random.integers(0, 34, (20, 30))),
        ):
            folder = tmp_path / "data" / "raw" / kind / split / "ulm"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(folder / f"{name}_{suffix}.png")
    return tmp_path


def test_generators_read_the_usual_folders_with_the_usual_settings(scenes, monkeypatch):
    monkeypatch.chdir(scenes)
    train, val = create_data_generators()
    assert (train.batch_size, train.dim, train.normalize, train.augmentation) == (16, (512, 512), True, None)
    assert (train.shuffle, val.shuffle, len(train), len(val)) == (True, False, 1, 1)
    images, masks = train[0]
    assert (images.shape, images.dtype) == ((5, 512, 512, 3), np.float32)
    assert (masks.shape, masks.dtype) == ((5, 512, 512), np.uint8)
    assert (masks.max(), images.max() <= 1) == (7, True)


def test_validation_is_neither_augmented_nor_shuffled(scenes):
    flip = albumentations.HorizontalFlip(p=1.0)
    root = scenes / "data" / "raw"
    train, val = create_data_generators(batch_size=2, dim=(20, 30), augmentation=flip, data_dir=root)
    plain = CityscapesDataGenerator(data_dir=root, split="train", batch_size=5, dim=(20, 30), shuffle=False)
    plain_val = CityscapesDataGenerator(data_dir=root, split="val", batch_size=2, dim=(20, 30), shuffle=False)
    for _ in range(2):
        for index in range(2):
            assert all(np.array_equal(one, other) for one, other in zip(val[index], plain_val[index], strict=True))
        images, masks = train[0]
        places = train.indexes[:2]
        assert np.array_equal(images, plain[0][0][places][:, :, ::-1])
        assert np.array_equal(masks, plain[0][1][places][:, :, ::-1])
        train.on_epoch_end()
        val.on_epoch_end()


def test_each_epoch_is_augmented_otherwise_and_reproducibly(scenes):
    def epochs():
        made = CityscapesDataGenerator(
            data_dir=scenes / "data" / "raw",
            batch_size=5,
            dim=(20, 30),
            shuffle=False,
            augmentation=albumentations.RandomBrightnessContrast(p=1.0),
        )
        for _ in range(3):
            yield made[0][0]
            made.on_epoch_end()

    first, again = list(epochs()), list(epochs())
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[1], first[2])


def test_ids_choose_scenes_and_channels_follow_keras(scenes):
    root = scenes / "data" / "raw"
    made = CityscapesDataGenerator([("ulm", 0, 3), ("ulm", 0, 1)], data_dir=root, batch_size=2, dim=(8, 8))
    assert made.ids == [("ulm", "000000", "000003"), ("ulm", "000000", "000001")]
    keras.config.set_image_data_format("channels_first")
    try:
        first = CityscapesDataGenerator(data_dir=root, batch_size=2, dim=(8, 9), normalize=False)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert (first[0][0].shape, first[0][0].dtype) == ((2, 3, 8, 9), np.uint8)
    with pytest.raises(DatasetError, match="no such folder"):
        create_data_generators(data_dir=root, val_split="holdout")


def test_what_was_measured_best_is_resolved(tmp_path):
    dataset = Numbers(20)
    config = LoaderConfig(num_workers=2, prefetch_factor=3, archive="npy", cache="memory").canonical(
        has_accelerator=False
    )
    prepare(dataset, config, archive_root=tmp_path / "archives")
    with open_registry(tmp_path) as registry:
        registry.save_decision(decision_here(dataset, config))
    made = TunedPyDataset(dataset, home=tmp_path, batch_size=8)
    assert (made.workers, made.use_multiprocessing, made.max_queue_size) == (2, True, 6)
    assert made.dataset is not dataset
    assert [len(batch[0]) for batch in made] == [8, 8, 4]
    values, indices = made[0]
    assert np.array_equal(values, np.stack([dataset[number][0].numpy() for number in range(8)]))
    assert indices.tolist() == list(range(8))
    pinned = TunedPyDataset(dataset, home=tmp_path, batch_size=8, workers=0)
    assert (pinned.workers, pinned.use_multiprocessing, pinned.max_queue_size) == (0, False, 10)


def test_nothing_measured_leaves_keras_own_process(tmp_path):
    made = TunedPyDataset(Numbers(70), home=tmp_path)
    assert (made.workers, made.batch_size, len(made)) == (0, 32, 3)
    with pytest.raises(IndexError):
        made[3]
    assert made[-1][1].tolist() == [64, 65, 66, 67, 68, 69]


def test_a_copy_in_another_process_stays_in_its_epoch():
    made = TunedPyDataset(Numbers(10), batch_size=3, shuffle=True, seed=4)
    made.on_epoch_end()
    copied = pickle.loads(pickle.dumps(made))
    want = [made[index][1].tolist() for index in range(4)]
    made.on_epoch_end()
    copied.on_epoch_end()
    assert [copied[index][1].tolist() for index in range(4)] == want
    assert [made[index][1].tolist() for index in range(4)] != want


def test_iterable_datasets_have_no_numbered_batches():
    with pytest.raises(SpecError, match="which an iterable dataset"):
        TunedPyDataset(Stream())


class Kinds(Dataset):
    """Samples of several structures of tensors."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"x": torch.full((2,), float(index)), "half": torch.ones(2, dtype=torch.bfloat16)}, index, "text"


def test_batches_keep_their_structure():
    mapped, numbers, texts = TunedPyDataset(Kinds(), batch_size=2)[1]
    assert mapped["x"].tolist() == [[2, 2], [3, 3]]
    assert mapped["half"].dtype is torch.bfloat16
    assert (numbers.tolist(), list(texts)) == ([2, 3], ["text", "text"])


def test_making_generators_starts_no_process(arrays):
    generator(arrays, batch_size=4, workers=2)
    assert not multiprocessing.active_children()
