"""`create_vae_dataloaders` and `create_ldm_dataloaders`: every documented parameter has its effect."""

import inspect
import logging
import os

import numpy as np
import pytest
import rasterio
import torch
from registry_values import decision_here

from autotune.data.caches import CachedDataset
from autotune.data.datasets.tif_images import TifImageDataset, TifPairDataset
from autotune.errors import CapacityError, DatasetError, SampleError, SpecError
from autotune.loaders.tif_pairs import create_ldm_dataloaders, create_vae_dataloaders
from autotune.registry import open_registry
from autotune.spec import LoaderConfig

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SIZE = (16, 16)
COUNT = 20
BOTH_FORMS = pytest.mark.parametrize("create", [create_vae_dataloaders, create_ldm_dataloaders])


def write_images(folder, names, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        image = np.random.default_rng((seed, number)).integers(1, 4095, (20, 24)).astype(np.uint16)
        image[:4] = 0
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", count=1, height=20, width=24, dtype="uint16"
        ) as file:
            file.write(image, 1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    names = [f"image_{number:03d}" for number in range(COUNT)]
    write_images(folder / "edente", names, seed=1)
    write_images(folder / "dente", names, seed=2)
    return folder


def made(create, base, **more):
    return create(**{"data_base_dir": str(base), "batch_size": 4, "patch_size": SIZE, "num_workers": 0, **more})


def leaf_of(loader):
    return getattr(loader.dataset, "source", loader.dataset)


def names_of(loader):
    leaf = leaf_of(loader)
    return [os.path.basename(leaf.path_of(index)) for index in range(len(leaf))]  # noqa: PTH119


def images_of(loader):
    batches = list(loader)
    return torch.cat([batch if isinstance(batch, torch.Tensor) else batch[0] for batch in batches])


def as_set(images):
    return {image.numpy().tobytes() for image in images}


@BOTH_FORMS
def test_documented_parameters_and_defaults_are_those_of_the_seed(create):
    documented = {
        "augment": False, "rank": 0, "train_split": 0.9, "num_workers": 4, "seed": 42, "subset_size": None,
        "cache_rate": 0.0, "distributed": False, "world_size": 1, "val_dir": None,
    }  # fmt: skip
    own = {"data_source": "edente"} if create is create_vae_dataloaders else {"target": "edente", "condition": "dente"}
    parameters = inspect.signature(create).parameters
    assert list(parameters)[:3] == ["data_base_dir", "batch_size", "patch_size"]
    for name, default in {**documented, **own}.items():
        assert parameters[name].default == default


def test_vae_batches_are_images(base):
    train, val = made(create_vae_dataloaders, base)
    assert [batch.shape for batch in train] == [(4, 1, 16, 16)] * 4 + [(2, 1, 16, 16)]
    assert [batch.shape for batch in val] == [(2, 1, 16, 16)]
    assert next(iter(train)).dtype == torch.float32


def test_ldm_batches_are_pairs_of_target_and_condition(base):
    train, val = made(create_ldm_dataloaders, base, target="dente", condition="edente")
    expected = TifPairDataset(
        [base / "dente" / name for name in names_of(val)],
        [base / "edente" / name for name in names_of(val)],
        patch_size=SIZE,
    )
    ((targets, conditions),) = val
    assert torch.equal(targets, torch.stack([pair[0] for pair in expected]))
    assert torch.equal(conditions, torch.stack([pair[1] for pair in expected]))
    for target, condition in train:
        assert target.shape == condition.shape
        assert target.shape[1:] == (1, 16, 16)


@BOTH_FORMS
def test_the_split_is_a_partition_by_seed_and_share(create, base):
    train, val = made(create, base, train_split=0.85)
    assert (len(names_of(train)), len(names_of(val))) == (17, 3)
    assert sorted(names_of(train) + names_of(val)) == [f"image_{number:03d}.tif" for number in range(COUNT)]
    assert names_of(made(create, base, train_split=0.85)[1]) == names_of(val)
    others = {tuple(names_of(made(create, base, train_split=0.85, seed=seed)[1])) for seed in range(5)}
    assert len(others) > 1


def test_both_kinds_of_loaders_split_alike(base):
    assert names_of(made(create_vae_dataloaders, base)[1]) == names_of(made(create_ldm_dataloaders, base)[1])


@BOTH_FORMS
def test_training_is_shuffled_by_seed_and_anew_in_each_epoch(create, base):
    train, _ = made(create, base)
    first, second = images_of(train), images_of(train)
    assert as_set(first) == as_set(second)
    assert not torch.equal(first, second)
    again, _ = made(create, base, num_workers=2)
    assert torch.equal(images_of(again), first), "workers do not change the order"
    assert torch.equal(images_of(again), second), "neither do those that live on"
    other, _ = made(create, base, seed=43, train_split=0.9)
    assert not torch.equal(images_of(other), first)


@BOTH_FORMS
def test_validation_is_in_the_order_of_names_and_never_augmented(create, base):
    _, val = made(create, base, train_split=0.5, augment=True)
    _, plain = made(create, base, train_split=0.5)
    assert names_of(val) == sorted(names_of(val))
    assert torch.equal(images_of(val), images_of(plain))
    assert torch.equal(images_of(val), images_of(val))
    leaf = leaf_of(val)
    assert torch.equal(images_of(val)[0], leaf[0] if isinstance(leaf[0], torch.Tensor) else leaf[0][0])


@BOTH_FORMS
@pytest.mark.parametrize("cache_rate", [0.0, 0.5])
def test_augmentation_differs_from_epoch_to_epoch_also_behind_a_cache(create, base, cache_rate):
    train, _ = made(create, base, augment=True, cache_rate=cache_rate)
    plain, _ = made(create, base)
    original = as_set(images_of(plain))
    epochs = [as_set(images_of(train)) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(epoch - original for epoch in epochs)
    again, _ = made(create, base, augment=True, num_workers=2)
    assert [as_set(images_of(again)) for _ in range(3)] == epochs


def test_an_augmentation_of_the_caller_takes_the_place_of_the_default(base):
    A = pytest.importorskip("albumentations")  # noqa: N806  # as everybody calls it
    train, _ = made(create_vae_dataloaders, base, augment=True, augmentation=A.VerticalFlip(p=1.0))
    plain, _ = made(create_vae_dataloaders, base)
    assert torch.equal(images_of(train), images_of(plain).flip(2))
    with pytest.raises(SpecError, match="augment=True alone"):
        made(create_vae_dataloaders, base, augmentation=A.VerticalFlip(p=1.0))


def test_data_source_chooses_the_folder_and_both_doubles(base):
    edente, _ = made(create_vae_dataloaders, base, data_source="edente")
    dente, _ = made(create_vae_dataloaders, base, data_source="dente")
    both, val = made(create_vae_dataloaders, base, data_source="both")
    assert len(names_of(both)) + len(names_of(val)) == 2 * COUNT
    assert as_set(images_of(both)) == as_set(images_of(edente)) | as_set(images_of(dente))
    assert not set(names_of(both)) & set(names_of(val)), "a name is on one side with both of its images"


@BOTH_FORMS
def test_a_subset_takes_the_first_by_name(create, base):
    train, val = made(create, base, subset_size=6)
    assert sorted(names_of(train) + names_of(val)) == [f"image_{number:03d}.tif" for number in range(6)]
    whole = made(create, base, subset_size=1000)
    assert sum(len(names_of(loader)) for loader in whole) == COUNT
    both = made(create_vae_dataloaders, base, data_source="both", subset_size=6)
    assert sorted(names_of(both[0]) + names_of(both[1])) == sorted(f"image_{n:03d}.tif" for n in (0, 0, 1, 1, 2, 2))


@BOTH_FORMS
def test_external_validation_leaves_all_of_the_base_for_training(create, base, tmp_path):
    write_images(tmp_path / "edente", ["x", "y", "z"], seed=3)
    write_images(tmp_path / "dente", ["x", "y", "z"], seed=4)
    train, val = made(create, base, val_dir=tmp_path, train_split=0.5)
    assert len(names_of(train)) == COUNT
    assert names_of(val) == ["x.tif", "y.tif", "z.tif"]
    with pytest.raises(DatasetError, match="are in both"):
        made(create, base, val_dir=base)


def test_external_validation_may_be_one_folder_of_images(base, tmp_path):
    write_images(tmp_path / "val", ["x", "y"])
    _, val = made(create_vae_dataloaders, base, val_dir=tmp_path / "val")
    assert names_of(val) == ["x.tif", "y.tif"]
    with pytest.raises(DatasetError, match="must exist"):
        made(create_ldm_dataloaders, base, val_dir=tmp_path / "val")
    with pytest.raises(DatasetError, match="must exist"):
        made(create_vae_dataloaders, base, val_dir=tmp_path / "nowhere")


@BOTH_FORMS
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_cache_keeps_its_share_of_training_and_all_of_validation(create, base, num_workers):
    train, val = made(create, base, cache_rate=0.5, num_workers=num_workers)
    plain_train, plain_val = made(create, base)
    for _ in range(2):
        assert torch.equal(images_of(train), images_of(plain_train))
        assert torch.equal(images_of(val), images_of(plain_val))
    assert isinstance(train.dataset, CachedDataset)
    assert (train.dataset.filled, val.dataset.filled) == (9, 2)
    assert (val.dataset.fraction, val.dataset.hits) == (1.0, 2)


@BOTH_FORMS
def test_without_a_cache_there_is_none(create, base):
    train, val = made(create, base, cache_rate=0)
    assert type(train.dataset) is type(val.dataset)
    assert isinstance(val.dataset, TifImageDataset)


def test_a_cache_that_does_not_fit_is_told_with_the_way_out(base, monkeypatch):
    monkeypatch.setattr("autotune.data.caches.planning.backing_free_bytes", lambda: 0)
    with pytest.raises(CapacityError, match=r"cache_rate=0.5 keeps 50% of the samples: .*lower cache_rate"):
        made(create_vae_dataloaders, base, cache_rate=0.5)


@BOTH_FORMS
def test_ranks_divide_training_and_validation(create, base):
    ranks = [made(create, base, distributed=True, world_size=2, rank=rank, train_split=0.8) for rank in range(2)]
    alone, alone_val = made(create, base, train_split=0.8)
    shares = [as_set(images_of(train)) for train, _ in ranks]
    assert not shares[0] & shares[1]
    assert shares[0] | shares[1] == as_set(images_of(alone))
    assert [len(images_of(train)) for train, _ in ranks] == [8, 8]
    assert as_set(images_of(ranks[0][1])) | as_set(images_of(ranks[1][1])) == as_set(images_of(alone_val))


def test_the_sampler_of_ranks_takes_epochs_of_the_caller(base):
    train, _ = made(create_vae_dataloaders, base, distributed=True, world_size=2, rank=1)
    train.sampler.set_epoch(5)
    fifth, sixth = images_of(train), images_of(train)
    assert not torch.equal(sixth, fifth), "passes go on from the epoch"
    train.sampler.set_epoch(6)
    assert torch.equal(images_of(train), sixth)


@BOTH_FORMS
def test_none_takes_what_was_measured_best(create, base, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_HOME", str(tmp_path))
    plain, plain_val = made(create, base)
    config = LoaderConfig(batch_size=4, num_workers=1, prefetch_factor=3, cache="memory", cache_fraction=0.5)
    with open_registry(tmp_path) as registry:
        registry.save_decision(decision_here(leaf_of(plain), config.canonical(has_accelerator=False)))
    train, val = made(create, base, num_workers=None, cache_rate=None)
    assert (train.num_workers, train.prefetch_factor) == (1, 3)
    assert isinstance(train.dataset, CachedDataset)
    assert round(train.dataset.fraction, 1) == 0.5
    assert val.dataset.fraction == 1.0
    assert torch.equal(images_of(train), images_of(plain))
    assert torch.equal(images_of(val), images_of(plain_val))
    train, val = made(create, base, num_workers=None)
    assert (train.num_workers, isinstance(train.dataset, CachedDataset)) == (1, False)
    train, val = made(create, base, num_workers=0, cache_rate=None)
    assert (train.num_workers, isinstance(train.dataset, CachedDataset)) == (0, True)


@pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")
def test_none_serves_the_default_where_nothing_was_measured(base, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_HOME", str(tmp_path))
    train, val = made(create_vae_dataloaders, base, num_workers=None, cache_rate=None)
    assert (train.num_workers, val.num_workers) == (0, 0)
    assert len(images_of(train)) == 18


def test_without_a_seed_one_is_drawn(base):
    torch.manual_seed(0)
    orders = [images_of(made(create_vae_dataloaders, base, seed=None)[0]) for _ in range(2)]
    assert not torch.equal(*orders)
    torch.manual_seed(0)
    assert torch.equal(images_of(made(create_vae_dataloaders, base, seed=None)[0]), orders[0])


def test_names_that_do_not_match_are_listed(base, tmp_path):
    write_images(tmp_path / "edente", [f"n{number}" for number in range(9)] + ["same"])
    write_images(tmp_path / "dente", ["same", "only_here"])
    with pytest.raises(DatasetError) as caught:
        made(create_ldm_dataloaders, tmp_path)
    message = str(caught.value)
    assert f"9 files of {tmp_path / 'edente'} are not in {tmp_path / 'dente'}" in message
    assert "n0.tif, n1.tif, n2.tif, n3.tif, n4.tif and 4 more" in message
    assert f"1 file of {tmp_path / 'dente'} is not in {tmp_path / 'edente'}: only_here.tif" in message


@pytest.mark.parametrize(
    ("argument", "value", "told"),
    [
        ("batch_size", 0, "batch_size must be a whole number from 1 on, got 0"),
        ("patch_size", (16,), "patch_size is height and width"),
        ("patch_size", (0, 16), "patch_size is height and width"),
        ("train_split", 0.0, "train_split must be above 0 and below 1"),
        ("train_split", 1.0, "train_split must be above 0 and below 1"),
        ("num_workers", -1, "num_workers must be a whole number from 0 on, got -1"),
        ("subset_size", 0, "subset_size must be at least 1, got 0"),
        ("subset_size", -3, "subset_size must be at least 1, got -3"),
        ("cache_rate", -0.1, "cache_rate must be from 0"),
        ("cache_rate", 1.1, "cache_rate must be from 0"),
        ("cache_rate", float("nan"), "cache_rate must be from 0"),
        ("world_size", 0, "world_size must be a whole number from 1 on"),
        ("rank", -1, "rank must be a whole number from 0 on"),
    ],
)
@BOTH_FORMS
def test_an_argument_that_breaks_its_rule_is_refused(create, base, argument, value, told):
    with pytest.raises(SpecError, match=told):
        made(create, base, **{argument: value})


@BOTH_FORMS
def test_arguments_that_contradict_each_other_are_refused(create, base):
    with pytest.raises(SpecError, match="rank is under world_size, got rank=2 with world_size=2"):
        made(create, base, distributed=True, world_size=2, rank=2)
    with pytest.raises(SpecError, match="one seed for all processes"):
        made(create, base, distributed=True, world_size=2, seed=None)
    with pytest.raises(SpecError, match="two folders, got 'dente' for both"):
        made(create_ldm_dataloaders, base, target="dente")


@BOTH_FORMS
def test_folders_without_enough_images_are_refused(create, base, tmp_path):
    with pytest.raises(DatasetError, match=r"must exist, got .*nowhere"):
        made(create, tmp_path / "nowhere")
    (tmp_path / "edente").mkdir()
    (tmp_path / "dente").mkdir()
    with pytest.raises(DatasetError, match="got none in"):
        made(create, tmp_path)
    with pytest.raises(DatasetError, match="at least 2 names, got 1"):
        made(create, base, subset_size=1)


@BOTH_FORMS
@pytest.mark.fault(12)
def test_a_corrupt_image_in_an_epoch_is_named(create, tmp_path):
    names = [f"{number}" for number in range(8)]
    write_images(tmp_path / "edente", names)
    write_images(tmp_path / "dente", names)
    loaders = made(create, tmp_path, num_workers=1)
    broken = tmp_path / "edente" / names_of(loaders[0])[3]
    broken.write_bytes(b"II*\0 and nothing more")
    with pytest.raises(SampleError) as caught:
        list(loaders[0])
    assert str(broken) in str(caught.value)


@BOTH_FORMS
def test_statistics_are_logged_once_by_the_first_rank(create, base, caplog):
    with caplog.at_level(logging.INFO, logger="autotune.loaders.tif_statistics"):
        made(create, base, rank=1)
        assert not caplog.records
        made(create, base)
    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    source = "edente" if create is create_vae_dataloaders else "edente (target), dente (condition)"
    assert lines[:8] == [
        "=" * 60, "Dataset Statistics", "=" * 60, f"Data source: {source}", "Train samples: 18", "Val samples: 2",
        "Total: 20", "Split ratio: 90.0% / 10.0%",
    ]  # fmt: skip
    assert "properties (from 16 of 18 train samples):" in lines[9]
    assert lines[10:12] == ["  Shape: torch.Size([1, 16, 16])", "  Dtype: torch.float32"]
    assert [line.split(":")[0].strip() for line in lines[12:15]] == ["Range", "Mean", "Std"]
    assert lines[-1] == "=" * 60


def test_statistics_do_not_stop_training_where_a_sample_is_broken(tmp_path, caplog):
    write_images(tmp_path / "edente", ["a", "b", "c"])
    for name in "abc":
        (tmp_path / "edente" / f"{name}.tif").write_bytes(b"no image")
    with caplog.at_level(logging.INFO, logger="autotune.loaders.tif_statistics"):
        made(create_vae_dataloaders, tmp_path)
    assert "no statistics of the data" in caplog.text


@BOTH_FORMS
def test_real_pairs_load(create, real_data):
    train, val = made(create, real_data / "tif_pairs" / "derived_fly_256_float32", patch_size=(64, 64), augment=True)
    assert images_of(train).shape == (16, 1, 64, 64)
    assert images_of(val).shape == (2, 1, 64, 64)
    assert torch.isfinite(images_of(train)).all()
