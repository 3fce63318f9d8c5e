"""Street scenes laid out as Cityscapes: pairs, decoding, categories, augmentation, and what is wrong with files."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from autotune.data.apply import prepare
from autotune.data.build import make_loader
from autotune.data.datasets.cityscapes import CityscapesDataset
from autotune.data.datasets.cityscapes_labels import CATEGORIES, map_label_ids
from autotune.data.datasets.sample_scenes import draw_scene, street_scenes
from autotune.data.datasets.street_factories import cityscapes
from autotune.data.facts import dataset_facts, describe_sample, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.errors import DatasetError, SampleError, SpecError
from autotune.resolve.best import best_loader
from autotune.spec import LoaderConfig

albumentations = pytest.importorskip("albumentations")

HEIGHT, WIDTH = 24, 40


def write_frame(root, split="train", city="berlin", sequence=0, frame=0, *, ids=None, image=True, labels=True):
    """Write one image with its mask, and give their paths."""
    generator = np.random.default_rng((sequence, frame))
    pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    ids = generator.integers(0, 34, (HEIGHT, WIDTH)).astype(np.uint8) if ids is None else ids
    name = f"{city}_{sequence:06d}_{frame:06d}"
    paths = (
        root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png",
        root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png",
    )
    for path, array, wanted in zip(paths, (pixels, ids), (image, labels), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        if wanted:
            Image.fromarray(array).save(path)
    return paths


@pytest.fixture
def root(tmp_path):
    """Six scenes of two cities."""
    for number in range(6):
        write_frame(tmp_path, city=("berlin", "bad_essen")[number % 2], sequence=number // 4, frame=number)
    return tmp_path


@pytest.fixture
def scenes(real_data):
    """The real street scenes, which are laid out so."""
    folder = real_data / "street_scenes"
    if not folder.is_dir():
        pytest.skip("the street scenes are absent")
    return folder


def expected(image_path, label_path, size):
    with Image.open(image_path) as image, Image.open(label_path) as labels:
        pixels = np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))
        ids = np.asarray(labels.resize(size[::-1], Image.Resampling.NEAREST))
    return pixels, map_label_ids(ids)


def test_real_scenes_are_what_pil_and_the_table_make_of_them(scenes):
    for split in ("train", "val"):
        dataset = CityscapesDataset(scenes, split, size=(128, 160), channels="last")
        assert len(dataset) == len(list((scenes / "leftImg8bit" / split).glob("*/*.png"))) > 0
        for index in range(len(dataset)):
            image, mask = dataset[index]
            pixels, categories = expected(*dataset.paths_of(index), (128, 160))
            assert (image.dtype, mask.dtype) == (torch.float32, torch.uint8)
            assert np.array_equal(mask.numpy(), categories)
            assert np.array_equal(image.numpy(), pixels.astype(np.float32) / np.float32(255))
            assert 0 <= image.min() < image.max() <= 1
    assert len(set(mask.flatten().tolist())) >= 5


def test_samples_come_by_city_sequence_and_frame(root):
    dataset = CityscapesDataset(root, size=(16, 16))
    assert [tuple(one) for one in dataset.ids.tolist()] == [
        ("bad_essen", "000000", "000001"),
        ("bad_essen", "000000", "000003"),
        ("bad_essen", "000001", "000005"),
        ("berlin", "000000", "000000"),
        ("berlin", "000000", "000002"),
        ("berlin", "000001", "000004"),
    ]
    assert dataset.path_of(0).endswith("leftImg8bit/train/bad_essen/bad_essen_000000_000001_leftImg8bit.png")
    assert len(list(dataset.source_paths())) == 12


def test_ids_choose_scenes_in_their_order(root):
    everything = CityscapesDataset(root, size=(16, 16))
    chosen = CityscapesDataset(root, size=(16, 16), ids=[("berlin", "000001", "000004"), ("bad_essen", 0, 3)])
    arrays = [("berlin", np.int64(1), np.uint8(4)), ("bad_essen", *np.array([0, 3]))]
    assert CityscapesDataset(root, size=(16, 16), ids=arrays).ids.tolist() == chosen.ids.tolist()
    assert samples_equal(chosen[0], everything[5])
    assert samples_equal(chosen[1], everything[1])
    with pytest.raises(DatasetError, match=r"2 are missing: .*berlin_000009_000004_leftImg8bit.png"):
        CityscapesDataset(root, ids=[("berlin", "000009", "000004")])
    for wrong in (("berlin", "000001"), "berlin", ("berlin", "..", "1"), ("a/b", "1", "1")):
        with pytest.raises(SpecError, match=r"\(city, sequence, frame\), got"):
            CityscapesDataset(root, ids=[wrong])
    with pytest.raises(DatasetError, match="at least one id"):
        CityscapesDataset(root, ids=[])


def test_folders_can_be_given_themselves(root, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(root / "gtFine" / "train", moved)
    given_folders = CityscapesDataset(image_dir=root / "leftImg8bit" / "train", label_dir=moved, size=(16, 16))
    assert samples_equal(given_folders[0], CityscapesDataset(root, size=(16, 16))[0])


def test_settings_change_layout_range_and_target(root):
    plain = CityscapesDataset(root, size=(16, 20))
    first, mask = plain[0]
    last, _ = CityscapesDataset(root, size=(16, 20), channels="last")[0]
    raw, _ = CityscapesDataset(root, size=(16, 20), normalize=False)[0]
    ids = CityscapesDataset(root, size=(16, 20), target="id")[0][1]
    assert describe_sample((first, mask)) == "(float32[3,16,20], uint8[16,20])" == dataset_facts(plain).structure
    assert torch.equal(first.permute(1, 2, 0), last)
    assert torch.equal(raw.float() / 255, first)
    assert raw.dtype is torch.uint8
    assert np.array_equal(map_label_ids(ids.numpy()), mask.numpy())
    assert int(CityscapesDataset(root, size=(16, 20), target="train_id")[0][1].max()) == 255
    assert CityscapesDataset(root)[0][0].shape == (3, 512, 512)
    for wrong in ({"channels": "middle"}, {"target": "colour"}, {"size": (0, 4)}):
        with pytest.raises(SpecError):
            CityscapesDataset(root, **wrong)


def test_images_without_a_mask_and_masks_without_an_image_are_listed(root):
    write_frame(root, frame=70, labels=False)
    write_frame(root, frame=71, image=False)
    with pytest.raises(DatasetError) as caught:
        CityscapesDataset(root)
    assert "1 images have no mask: " in str(caught.value)
    assert "berlin_000000_000070_leftImg8bit.png" in str(caught.value)
    assert "1 masks have no image: " in str(caught.value)
    assert "berlin_000000_000071_gtFine_labelIds.png" in str(caught.value)


def test_long_lists_of_missing_masks_are_cut(root):
    for frame in range(100, 109):
        write_frame(root, frame=frame, labels=False)
    with pytest.raises(DatasetError, match=r"9 images have no mask: .* and 4 more"):
        CityscapesDataset(root)


def test_names_that_do_not_fit_are_listed(root):
    image, _ = write_frame(root, frame=9)
    image.rename(image.with_name("hamburg_000000_000009_leftImg8bit.png"))
    with pytest.raises(DatasetError, match=r"<city>_<sequence>_<frame>_leftImg8bit.png, got .*hamburg_000000_000009"):
        CityscapesDataset(root)


def test_missing_and_empty_folders_are_said(root, tmp_path):
    with pytest.raises(DatasetError, match=r"leftImg8bit/val: there is no such folder"):
        CityscapesDataset(root, "val")
    for kind in ("leftImg8bit", "gtFine"):
        (tmp_path / kind / "test").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"leftImg8bit/test: there is no image named <city>"):
        CityscapesDataset(tmp_path, "test")


def wrong_size(labels):
    Image.fromarray(np.zeros((HEIGHT, WIDTH + 1), np.uint8)).save(labels)


def colored(labels):
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(labels)


def unknown_ids(labels):
    ids = np.full((HEIGHT, WIDTH), 7, np.uint8)
    ids[3, 4], ids[5, 6:8] = 99, 255
    Image.fromarray(ids).save(labels)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


WRONG_MASKS = {
    wrong_size: "the mask has 41 x 24 pixels and its image 40 x 24",
    colored: "one 8-bit channel, got mode 'RGB'",
    unknown_ids: "got 99, 255 in 3 of 960 pixels",
    truncated: "cannot be decoded",
    lambda path: path.write_bytes(b"no image at all"): "it is no image that PIL reads",
    lambda path: path.unlink(): "cannot be read",
}


@pytest.mark.parametrize(("damage", "told"), WRONG_MASKS.items())
def test_a_mask_that_cannot_be_used_is_named(root, damage, told):
    dataset = CityscapesDataset(root, size=(16, 16))
    path = dataset.paths_of(2)[1]
    damage(root / path)
    with pytest.raises(SampleError) as caught:
        dataset[2]
    assert caught.value.path == path
    assert told in str(caught.value)
    assert path in str(caught.value)
    dataset[1]


@pytest.mark.parametrize("damage", [truncated, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_an_image_that_cannot_be_used_is_named(root, damage):
    dataset = CityscapesDataset(root, size=(16, 16))
    damage(root / dataset.path_of(2))
    with pytest.raises(SampleError) as caught:
        dataset[2]
    assert caught.value.path == dataset.path_of(2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_in_the_middle_of_an_epoch_stops_it_with_its_path(root, workers):
    dataset = CityscapesDataset(root, size=(16, 16))
    truncated(root / dataset.path_of(4))
    batches = iter(best_loader(dataset, batch_size=2, num_workers=workers))
    assert len(next(batches)[0]) == 2
    with pytest.raises(SampleError, match=r"berlin_000000_000002_leftImg8bit.png.*cannot be decoded"):
        list(batches)


def test_palette_masks_give_their_indices(root):
    dataset = CityscapesDataset(root, size=(HEIGHT, WIDTH))
    _, before = dataset[0]
    path = dataset.paths_of(0)[1]
    with Image.open(path) as grey:
        colored_index = Image.fromarray(np.asarray(grey), mode="P")
        colored_index.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    colored_index.save(path)
    assert torch.equal(dataset[0][1], before)


def flipping(seed=0):
    return albumentations.Compose(
        [albumentations.HorizontalFlip(p=0.5), albumentations.RandomBrightnessContrast(p=0.5)], seed=seed
    )


def test_augmentation_moves_image_and_mask_alike_and_depends_on_seed_epoch_and_index(root):
    flip = albumentations.HorizontalFlip(p=0.5)
    dataset = CityscapesDataset(root, size=(16, 16), augmentation=flip, seed=3)
    plain = CityscapesDataset(root, size=(16, 16))
    turned = []
    for epoch in range(6):
        dataset.set_epoch(epoch)
        for index in range(len(dataset)):
            sample, (image, mask) = dataset[index], plain[index]
            mirrored = not torch.equal(sample[0], image)
            assert samples_equal(sample, (image.flip(-1), mask.flip(-1)) if mirrored else (image, mask))
            assert samples_equal(sample, dataset[index])
            turned.append(mirrored)
    assert 6 < sum(turned) < 30
    assert turned[:6] != turned[6:12]


def test_stored_scenes_are_augmented_as_plain_ones_are(root, tmp_path):
    dataset = CityscapesDataset(root, size=(16, 16), augmentation=flipping())
    want = [dataset[index] for index in range(6)]
    for config in (
        LoaderConfig(archive="tar", stored="encoded"),
        LoaderConfig(archive="npy"),
        LoaderConfig(cache="memory"),
        LoaderConfig(archive="webdataset", stored="decoded", cache="memory"),
    ):
        prepared = prepare(dataset, config, archive_root=tmp_path / "archives")
        assert all(samples_equal(prepared.dataset[index], want[index]) for index in range(6)), config


def test_archives_serve_the_real_scenes(scenes, tmp_path):
    dataset = CityscapesDataset(scenes, "val", size=(64, 64), channels="last")
    plain = [dataset[index] for index in range(len(dataset))]
    for config in (LoaderConfig(archive="tar", stored="encoded"), LoaderConfig(archive="npy", num_workers=2)):
        prepared = prepare(dataset, config, archive_root=tmp_path)
        loader = make_loader(prepared.dataset, {**prepared.arguments, "batch_size": 5}, seed=0)
        found = [sample for images, masks in loader for sample in zip(images, masks, strict=True)]
        assert all(samples_equal(one, other) for one, other in zip(found, plain, strict=True))


def test_what_is_stored_is_recognised_whatever_the_augmentation_is(root):
    def fingerprint(**settings):
        return source_fingerprint(CityscapesDataset(root, size=(16, 16), **settings))

    assert fingerprint(augmentation=flipping()) == fingerprint(augmentation=flipping(1), seed=9)
    distinct = [fingerprint(), fingerprint(augmentation=flipping()), fingerprint(normalize=False)]
    distinct += [fingerprint(target="id"), fingerprint(channels="last")]
    assert len(set(distinct)) == 5
    assert None not in distinct


def test_drawn_scenes_have_all_categories_and_are_drawn_once(tmp_path):
    told = []
    folder = street_scenes(tmp_path, count=10, size=(96, 192), progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 12) for number in range(1, 13)]
    dataset = CityscapesDataset(folder, size=(96, 192))
    assert (len(dataset), len(CityscapesDataset(folder, "val"))) == (10, 2)
    seen = {value for index in range(10) for value in dataset[index][1].unique().tolist()}
    assert seen == set(range(len(CATEGORIES)))
    image = io.BytesIO((tmp_path / dataset.path_of(0)).read_bytes())
    again, ids = draw_scene((96, 192), 0, 0)
    assert np.array_equal(np.asarray(Image.open(image)), again)
    assert np.array_equal(np.asarray(Image.open(dataset.paths_of(0)[1])), ids)
    assert street_scenes(tmp_path, count=10, size=(96, 192), progress=lambda *_: pytest.fail("drawn twice")) == folder
    with pytest.raises(SpecError, match="count >= 1 and sides >= 32"):
        street_scenes(tmp_path, count=0)


def test_the_factory_draws_or_takes_a_folder(root, monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOTUNE_HOME", str(tmp_path / "home"))
    drawn = cityscapes(count=2, scene_size=[64, 96], size=[32, 48])
    assert (len(drawn), drawn[0][0].shape) == (2, (3, 32, 48))
    assert str(tmp_path / "home" / "data") in drawn.path_of(0)
    real = cityscapes(str(root), size=16, channels="last")
    assert (len(real), real[0][0].shape) == (6, (16, 16, 3))


def test_a_plain_loader_stacks_scenes(root):
    images, masks = next(iter(DataLoader(CityscapesDataset(root, size=16), batch_size=4)))
    assert (images.shape, masks.shape) == ((4, 3, 16, 16), (4, 16, 16))
