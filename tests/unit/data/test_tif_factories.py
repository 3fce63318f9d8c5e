"""Datasets of TIF images that study files name, drawn or real, and what is drawn for them."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from autotune.data.datasets.sample_teeth import draw_jaw, tooth_images
from autotune.data.datasets.tif_factories import ldm_tif, vae_tif
from autotune.data.datasets.tif_images import TifImageDataset, TifPairDataset
from autotune.data.factory import build_dataset
from autotune.data.facts import samples_equal
from autotune.errors import DatasetError, SpecError
from autotune.spec.study_file import read_study

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
STUDIES = Path(__file__).parents[3] / "studies"
SMALL = {"count": 4, "size": 40, "patch_size": (16, 16)}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _own_home(home, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_HOME", str(home))


def test_images_are_drawn_once_into_the_home_folder(home):
    told = []
    dataset = vae_tif(**SMALL, progress=lambda done, total: told.append((done, total)))
    assert isinstance(dataset, TifImageDataset)
    assert (len(dataset), dataset[0].shape) == (4, (1, 16, 16))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert vae_tif(**SMALL, progress=lambda done, total: told.append((done, total)))[3].any()
    assert len(told) == 4
    assert Path(dataset.path_of(0)).is_relative_to(home / "data")


def test_pairs_are_the_same_jaws_without_and_with_teeth():
    dataset = ldm_tif(**SMALL)
    assert isinstance(dataset, TifPairDataset)
    target, condition = dataset[1]
    assert not torch.equal(target, condition)
    assert samples_equal(vae_tif(**SMALL, data_source="dente")[1], condition)
    assert samples_equal(vae_tif(**SMALL)[1], target)
    assert len(vae_tif(**SMALL, data_source="both")) == 8


def test_augmentation_is_a_choice():
    dataset = vae_tif(**SMALL, augment=True)
    assert dataset.augmentation is not None
    assert vae_tif(**SMALL).augmentation is None
    assert samples_equal(dataset.base_sample(0), vae_tif(**SMALL)[0])


def test_real_data_is_one_setting_away(real_data):
    root = str(real_data / "tif_pairs" / "derived_fly_256_float32")
    assert len(vae_tif(root)) == 18
    assert len(ldm_tif(root, target="dente", condition="edente")) == 18
    with pytest.raises(DatasetError, match="holds the folders dente, edente"):
        vae_tif(root, data_source="nothing")


@pytest.mark.parametrize("name", ["vae_tif", "ldm_tif"])
def test_the_study_file_names_a_dataset_that_can_be_made(name):
    spec = read_study(STUDIES / f"{name}.yaml")
    assert (spec.name, spec.budget.time_s) == (name, 120)
    arguments = {**dict(spec.dataset.arguments), "count": 4, "size": 40}
    dataset = build_dataset(spec.dataset.model_copy(update={"arguments": arguments}))
    assert len(dataset) == 4
    assert type(dataset).__name__ == ("TifImageDataset" if name == "vae_tif" else "TifPairDataset")


def test_drawing_is_by_seed_and_leaves_background_around_the_jaw(tmp_path):
    with_teeth, without = draw_jaw(64, 0, 3)
    again = draw_jaw(64, 0, 3)
    assert np.array_equal(with_teeth, again[0])
    assert np.array_equal(without, again[1])
    assert not np.array_equal(with_teeth, draw_jaw(64, 1, 3)[0])
    assert with_teeth.dtype == np.uint16
    assert 0 < with_teeth.max() <= 4095
    assert (with_teeth >= without).all(), "teeth are added"
    assert 0.3 < (without == 0).mean() < 0.95
    assert (with_teeth > without).any()
    folder = tooth_images(tmp_path, count=2, size=64)
    with rasterio.open(folder / "dente" / "image_0002.tif") as file:
        assert np.array_equal(file.read(1), draw_jaw(64, 0, 1)[0])
    assert not list(tmp_path.glob("*.drawing-*"))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": 8}])
def test_drawings_that_make_no_sense_are_refused(tmp_path, wrong):
    with pytest.raises(SpecError, match="count >= 1 and size >= 16"):
        tooth_images(tmp_path, **wrong)


def test_an_interrupted_drawing_leaves_nothing_and_is_drawn_again(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tooth_images(tmp_path, count=3, size=32, progress=stop)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert len(list((tooth_images(tmp_path, count=3, size=32) / "dente").iterdir())) == 3
