"""Tests of augmentation that draws from a given generator alone."""

import pickle
import random
import sys
import threading

import numpy as np
import pytest
import torch

from autotune.data.fingerprint import _describe
from autotune.data.transforms.augmentation import SeededAugmentation
from autotune.errors import MissingExtraError

A = pytest.importorskip("albumentations")


def flips():
    return [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.RandomRotate90(p=0.5)]


def seeded(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture
def image():
    return np.arange(64, dtype=np.float32).reshape(8, 8)


def test_the_same_seed_gives_the_same_result_and_others_differ(image):
    augmentation = SeededAugmentation(flips())
    results = [augmentation(seeded(number), image=image)["image"] for number in range(20)]
    again = [augmentation(seeded(number), image=image)["image"] for number in reversed(range(20))][::-1]
    assert all(np.array_equal(one, other) for one, other in zip(results, again, strict=True))
    assert len({result.tobytes() for result in results}) > 3


def test_every_target_gets_the_same_draw(image):
    augmentation = SeededAugmentation(flips())
    for number in range(20):
        result = augmentation(seeded(number), image=image, condition=image.copy(), third=image.copy())
        assert np.array_equal(result["image"], result["condition"])
        assert np.array_equal(result["image"], result["third"])


def test_a_mask_is_moved_with_its_image_and_keeps_its_values(image):
    moves = [A.Affine(translate_px=(-3, 3), interpolation=0, fill=0, fill_mask=0, p=1.0), A.HorizontalFlip(p=0.5)]
    augmentation = SeededAugmentation(moves)
    mask = (image > 20).astype(np.uint8)
    places = set()
    for number in range(10):
        made = augmentation(seeded(number), image=image, mask=mask)
        assert np.array_equal(made["mask"], (made["image"] > 20).astype(np.uint8))
        places.add(made["mask"].tobytes())
    assert len(places) > 3


@pytest.mark.parametrize(
    "colours",
    [A.RandomBrightnessContrast(p=1), A.GaussNoise(p=1), A.HueSaturationValue(p=1), A.Normalize(), A.GaussianBlur(p=1)],
    ids=lambda transform: type(transform).__name__,
)
@pytest.mark.parametrize("moves", [[], [A.HorizontalFlip(p=1.0)]], ids=["alone", "flipped"])
def test_a_mask_keeps_its_values_whatever_happens_to_colours(colours, moves):
    augmentation = SeededAugmentation([*moves, colours])
    picture, mask = np.full((8, 8, 3), 100, np.uint8), np.full((8, 8), 3, np.uint8)
    mask[:, :2] = 9
    picture[:, :2] = 30
    for number in range(4):
        made = augmentation(seeded(number), image=picture, mask=mask)
        assert np.array_equal(made["mask"], mask[:, ::-1] if moves else mask)
        assert not np.array_equal(made["image"], picture)


def test_a_name_that_the_transform_declares_to_be_a_mask_is_one(image):
    transform = A.Compose([A.RandomBrightnessContrast(p=1), A.HorizontalFlip(p=1)], additional_targets={"gaps": "mask"})
    gaps = np.arange(64, dtype=np.uint8).reshape(8, 8)
    made = SeededAugmentation(transform)(seeded(1), image=image / 64, gaps=gaps)
    assert np.array_equal(made["gaps"], gaps[:, ::-1])


def test_transforms_of_a_composition_draw_independently(image):
    augmentation = SeededAugmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    seen = {augmentation(seeded(number), image=image)["image"].tobytes() for number in range(64)}
    turned = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    assert seen == {np.ascontiguousarray(one).tobytes() for one in turned}


def test_global_generators_and_the_given_transform_stay_as_they_are(image):
    transform = A.Compose(flips(), seed=1)
    augmentation = SeededAugmentation(transform)
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()  # noqa: NPY002
    inner = transform.py_random.getstate(), transform.transforms[0].py_random.getstate()
    augmentation(seeded(1), image=image, condition=image)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tobytes() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    assert (transform.py_random.getstate(), transform.transforms[0].py_random.getstate()) == inner
    assert "condition" not in transform.available_keys


def test_a_pickled_copy_gives_the_same_and_has_the_same_description(image):
    augmentation = SeededAugmentation(flips())
    augmentation(seeded(3), image=image)
    copied = pickle.loads(pickle.dumps(augmentation))
    for number in range(5):
        one, other = augmentation(seeded(number), image=image), copied(seeded(number), image=image)
        assert np.array_equal(one["image"], other["image"])
    assert _describe(copied, 0) == _describe(augmentation, 0)


def test_the_description_tells_transforms_apart():
    assert _describe(SeededAugmentation(flips()), 0) == _describe(SeededAugmentation(flips()), 0)
    assert _describe(SeededAugmentation(flips()), 0) != _describe(SeededAugmentation(flips()[:2]), 0)
    assert _describe(SeededAugmentation(A.HorizontalFlip(p=0.1)), 0) != _describe(
        SeededAugmentation(A.HorizontalFlip(p=0.2)), 0
    )


def test_results_are_contiguous(image):
    augmentation = SeededAugmentation(A.Transpose(p=1.0))
    torch.from_numpy(augmentation(seeded(0), image=image)["image"])


def test_threads_do_not_disturb_each_other(image):
    augmentation = SeededAugmentation(flips())
    expected = [augmentation(seeded(number), image=image)["image"].tobytes() for number in range(50)]
    found = {}

    def work(name):
        found[name] = [augmentation(seeded(number), image=image)["image"].tobytes() for number in range(50)]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[name] == expected for name in range(4))


def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(MissingExtraError, match=r"augmentation needs the package 'albumentations'.*pip install"):
        SeededAugmentation([])
