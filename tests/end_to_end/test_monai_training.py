"""MONAI on this core: what is stored is bit-identical, what is random is seeded, and a model learns from it."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from registry_values import decision_here
from torch.utils.data import ConcatDataset, Subset

import autotune
from autotune.data.apply import apply
from autotune.data.build import make_loader
from autotune.data.caches import CachedDataset
from autotune.data.facts import dataset_facts
from autotune.data.fingerprint import source_fingerprint
from autotune.data.stages import augment_generator, has_augment
from autotune.data.transforms.local_normalization import ApplyLocalNormd, LocalNormalizeByMask, ToTuple
from autotune.errors import ArchiveError, MissingExtraError, SampleError, SpecError
from autotune.integrations.monai import StagedMonaiDataset, is_random, monai_loader
from autotune.registry import open_registry
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig

monai = pytest.importorskip("monai")
data, transforms = pytest.importorskip("monai.data"), pytest.importorskip("monai.transforms")

KEYS = ["image", "mask"]


def decoding(size=(32, 32)):
    return [
        transforms.LoadImaged(KEYS),
        transforms.EnsureChannelFirstd(KEYS),
        transforms.Resized(KEYS, size, mode=["area", "nearest"]),
        ApplyLocalNormd("image"),
    ]


def augmenting():
    return [
        transforms.RandFlipd(KEYS, prob=0.5, spatial_axis=0),
        transforms.RandRotate90d(KEYS, prob=0.5),
        transforms.RandGaussianNoised("image", prob=0.5),
    ]


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Bright discs on grain, and where they are."""
    folder = tmp_path_factory.mktemp("discs")
    rows, columns = np.mgrid[:40, :48]
    made = []
    for number in range(12):
        generator = np.random.default_rng(number)
        row, column = generator.integers(10, 30), generator.integers(10, 38)
        disc = (rows - row) ** 2 + (columns - column) ** 2 < 64
        image = generator.integers(1, 60, disc.shape) + 150 * disc
        image[:3] = 0
        item = {"image": folder / f"{number}.png", "mask": folder / f"{number}_mask.png"}
        Image.fromarray(image.astype(np.uint8)).save(item["image"])
        Image.fromarray(disc.astype(np.uint8)).save(item["mask"])
        made.append({key: str(path) for key, path in item.items()})
    return made


@pytest.fixture
def dataset(items):
    return StagedMonaiDataset(items, transforms.Compose([*decoding(), *augmenting()]), seed=5)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def epoch_of(loader):
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def test_the_first_random_transform_ends_what_is_stored(dataset):
    assert [type(one).__name__ for one in dataset.deterministic] == [
        "LoadImaged", "EnsureChannelFirstd", "Resized", "ApplyLocalNormd",
    ]  # fmt: skip
    assert has_augment(dataset)
    assert not any(is_random(one) for one in decoding())
    assert all(is_random(one) for one in augmenting())
    assert is_random(len), "a function of nobody knows what"
    assert not is_random(transforms.Compose(decoding()))
    assert is_random(transforms.Compose([transforms.Compose(augmenting())]))
    assert is_random(transforms.OneOf(decoding()))


def test_stored_samples_are_what_monai_gives_bit_for_bit(dataset, items):
    expected = data.Dataset(items, transforms.Compose(decoding()))
    for index in range(len(items)):
        sample = dataset.base_sample(index)
        assert equal(sample, {key: value.as_tensor() for key, value in expected[index].items()})
        assert all(type(value) is torch.Tensor for value in sample.values())


def test_random_transforms_are_those_of_monai_under_the_seed_of_sample_and_epoch(dataset):
    dataset.set_epoch(3)
    generator = augment_generator(5, 3, 7)
    seed = int(torch.randint(2**32, (), generator=generator))
    rest = transforms.Compose(augmenting()).set_random_state(seed=seed)
    expected = {key: value.as_tensor() for key, value in rest(dataset.base_sample(7)).items()}
    assert equal(dataset[7], expected)
    assert equal(dataset[7], dataset[7])


def test_nothing_random_is_drawn_from_global_generators(dataset):
    before = np.random.get_state()[1].tobytes(), torch.get_rng_state()  # noqa: NPY002
    dataset[0]
    assert np.random.get_state()[1].tobytes() == before[0]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(
    "config",
    [
        LoaderConfig(batch_size=4, cache="memory"),
        LoaderConfig(batch_size=4, archive="npy", num_workers=2),
        LoaderConfig(batch_size=4, archive="tar", stored="decoded", cache="memory", cache_fraction=0.5),
    ],
    ids=LoaderConfig.label,
)
def test_stores_give_the_samples_of_the_dataset(dataset, tmp_path, config):
    served, arguments = apply(dataset, config, archive_root=tmp_path)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        loaded = epoch_of(make_loader(served, arguments, seed=0))
        for index in range(len(dataset)):
            assert equal({key: value[index] for key, value in loaded.items()}, dataset[index])


def test_samples_with_meta_are_monais_and_are_not_stored(items):
    dataset = StagedMonaiDataset(items, decoding(), keep_meta=True)
    sample = dataset[0]
    assert isinstance(sample["image"], data.MetaTensor)
    assert sample["image"].meta["filename_or_obj"] == items[0]["image"]
    with pytest.raises(ArchiveError, match="MetaTensor"):
        apply(dataset, LoaderConfig(cache="memory"))


def test_the_fingerprint_follows_what_is_stored(items, dataset):
    print_of = source_fingerprint(dataset)
    assert print_of is not None
    assert source_fingerprint(StagedMonaiDataset(items, decoding())) == print_of
    assert source_fingerprint(StagedMonaiDataset(items, decoding((32, 33)))) != print_of
    assert source_fingerprint(StagedMonaiDataset(items[1:], decoding())) != print_of
    own, other = (dataset_facts(StagedMonaiDataset(items, decoding(size))).structure for size in ((32, 32), (9, 9)))
    assert own != other


@pytest.mark.parametrize("loader_class", [None, data.ThreadDataLoader])
@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")
def test_monais_loaders_augment_and_shuffle_anew_at_every_worker_count(dataset, loader_class, cache):
    def loader(num_workers):
        return monai_loader(
            dataset, batch_size=5, shuffle=True, loader_class=loader_class, num_workers=num_workers, cache=cache
        )

    made = loader(0)
    assert type(made) is (loader_class or data.DataLoader)
    assert isinstance(made.dataset, CachedDataset) == (cache == "memory")
    epochs = [epoch_of(made) for _ in range(2)]
    assert epochs[0]["image"].shape == (12, 1, 32, 32)
    assert not equal(*epochs)
    again = loader(2)
    assert all(equal(epoch_of(again), epoch) for epoch in epochs)


@pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")
def test_monais_own_datasets_and_parts_of_them_are_taken(items):
    plain = data.Dataset(items, transforms.Compose(decoding()))
    cached = data.CacheDataset(items, transforms.Compose(decoding()), progress=False)
    expected = epoch_of(data.DataLoader(plain, batch_size=4))
    for one in (plain, cached, ConcatDataset([Subset(plain, range(5)), Subset(cached, range(5, 12))])):
        loaded = epoch_of(monai_loader(one, batch_size=4, num_workers=0))
        assert all(torch.equal(loaded[key], expected[key].as_tensor()) for key in KEYS)
    with pytest.raises(SpecError, match=r"got TensorDataset; autotune\.best_loader takes any other"):
        monai_loader(torch.utils.data.TensorDataset(torch.ones(2)))


def numbered(count=8):
    return [{"x": float(number)} for number in range(count)]


def values(loader):
    return [value for batch in loader for value in batch["x"].tolist()]


RANKS = {
    "told": {"rank": 1, "world_size": 2},
    "torchrun": {"environ": {"TORCHELASTIC_RUN_ID": "run", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}},
}


@pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")
@pytest.mark.parametrize("told", RANKS.values(), ids=RANKS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_samples_are_divided_among_ranks_without_a_process_group(told, shuffle):
    dataset = StagedMonaiDataset(numbered(), None, seed=3)
    second = values(monai_loader(dataset, batch_size=4, shuffle=shuffle, **told))
    first = values(monai_loader(dataset, batch_size=4, shuffle=shuffle, rank=0, world_size=2))
    assert len(first) == len(second) == 4
    assert {*first, *second} == set(range(8))


class Shifted(data.Dataset):
    """Makes its samples in a way of its own."""

    def _transform(self, index):
        return {"x": self.data[index]["x"] + 100}


def test_a_dataset_that_makes_its_samples_in_its_own_way_is_served_as_it_is():
    with pytest.warns(AutotuneWarning, match=r"samples of Shifted are not its items.*StagedMonaiDataset\("):
        loader = monai_loader(Shifted(numbered(), None), batch_size=4, num_workers=0)
    assert values(loader) == [100.0 + number for number in range(8)]
    zipped = data.ZipDataset([numbered(), numbered()])
    with pytest.warns(AutotuneWarning, match="samples of ZipDataset"):
        loader = monai_loader(zipped, batch_size=2, shuffle=True, num_workers=0, collate_fn=list)
    pairs = [sample for batch in loader for sample in batch]
    assert sorted(one["x"] for one, _ in pairs) == list(range(8))
    assert all(one == other for one, other in pairs)
    for own in (Shifted(numbered(), None), zipped):
        with pytest.raises(SpecError, match="are not its items, transformed"):
            StagedMonaiDataset.of(own)


def test_classes_that_only_keep_what_a_dataset_gives_are_staged(tmp_path):
    class Own(data.CacheDataset):
        """Adds nothing to how samples are made."""

    made = [
        data.Dataset(numbered(), None),
        data.PersistentDataset(numbered(), [len], tmp_path),
        data.CacheNTransDataset(numbered(), [len], 1, tmp_path),
        Own(numbered(), None, progress=False),
        data.DatasetFunc(numbered(), list),
    ]
    assert all(StagedMonaiDataset.of(one).data == numbered() for one in made)
    smart = data.SmartCacheDataset(numbered(), None, cache_num=4, progress=False)
    with pytest.raises(SpecError, match="samples of SmartCacheDataset"):  # it has four of them at a time
        StagedMonaiDataset.of(smart)


def noise(_):
    return {"x": np.random.random() + random.random() + torch.rand(()).item()}  # noqa: NPY002  # what users' functions do


def test_functions_that_draw_from_global_generators_go_by_sample_and_epoch():
    one, same = (StagedMonaiDataset(numbered(), noise, seed=4) for _ in range(2))
    random.seed(1)
    first = [one[index]["x"] for index in range(8)]
    random.seed(2)
    assert [same[index]["x"] for index in range(8)] == first
    assert len(set(first)) == 8
    same.set_epoch(1)
    assert all(same[index]["x"] != first[index] for index in range(8))


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A working folder with folders in it."""
    for name in ("liver/1.dcm", "liver/deep/2.dcm", "other/3.dcm", "plain.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sources(*items):
    return list(StagedMonaiDataset(items).source_paths())


def test_sources_are_the_files_that_items_name_and_those_in_folders(tree):
    assert sources({"image": "plain.nii", "mask": ["other/3.dcm", None, 3]}) == ["plain.nii", "other/3.dcm"]
    in_liver = [str(tree / "liver" / name) for name in ("1.dcm", "deep/2.dcm")]
    assert sources({"image": tree / "liver"}, {"image": f"{tree}/liver"}) == in_liver, "each folder once"
    assert sources({"image": "./liver"}) == sources({"image": Path("liver")}) == ["liver/1.dcm", "liver/deep/2.dcm"]


@pytest.mark.parametrize("word", ["", ".", "./", "/", "liver", "no such file", "\0", "x" * 5000, Path()])
def test_text_that_is_no_path_and_folders_of_that_name_are_not_walked(tree, word):
    assert sources({"image": "plain.nii", "organ": word}) == ["plain.nii"]
    assert StagedMonaiDataset([{"organ": word}]).path_of(0) is None


def test_an_item_that_is_a_folder_is_named_by_it(tree):
    assert StagedMonaiDataset([{"image": tree / "liver"}]).path_of(0) == str(tree / "liver")


@pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_several_crops_of_an_item_are_one_batch_as_in_monai(items, cache):
    crops = transforms.RandSpatialCropSamplesd(KEYS, (8, 8), num_samples=3, random_size=False)
    dataset = StagedMonaiDataset(items, [*decoding(), crops])
    batch = next(iter(monai_loader(dataset, batch_size=4, num_workers=0, cache=cache)))
    assert batch["image"].shape == (12, 1, 8, 8)


def test_the_best_configuration_is_served(dataset, tmp_path):
    config = LoaderConfig(batch_size=3, num_workers=1, prefetch_factor=4, cache="memory")
    with open_registry(tmp_path) as registry:
        registry.save_decision(decision_here(dataset, config.canonical(has_accelerator=False)))
    loader = monai_loader(dataset, batch_size=3, home=tmp_path)
    assert (loader.num_workers, loader.prefetch_factor) == (1, 4)
    assert isinstance(loader.dataset, CachedDataset)


@pytest.fixture
def _one_thread():
    """Keep torch's threads from waiting for each other where other tests take the CPUs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")
def test_a_unet_learns_from_it(dataset):
    torch.manual_seed(0)
    model = monai.networks.nets.UNet(
        spatial_dims=2, in_channels=1, out_channels=1, channels=(8, 16), strides=(2,), num_res_units=1
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    criterion = monai.losses.DiceLoss(sigmoid=True)
    loader = monai_loader(dataset, batch_size=4, shuffle=True, num_workers=1, cache="memory")
    losses = []
    for _ in range(8):
        for batch in loader:
            optimizer.zero_grad()
            loss = criterion(model(batch["image"]), batch["mask"])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_local_normalisation_works_inside_monais_pipelines(items):
    loaded = transforms.Compose(decoding()[:3])(items[0])
    image = loaded["image"]
    normal = LocalNormalizeByMask()(image)
    assert isinstance(normal, data.MetaTensor)
    assert normal.meta["filename_or_obj"] == items[0]["image"]
    assert [one["class"] for one in normal.applied_operations] == [one["class"] for one in image.applied_operations]
    assert torch.equal(normal.as_tensor(), LocalNormalizeByMask()(image.as_tensor()))
    both = transforms.Compose([*decoding()[:3], ApplyLocalNormd(keys=KEYS), ToTuple(keys=KEYS)])(items[0])
    assert isinstance(both, tuple)
    assert torch.equal(both[0].as_tensor(), normal.as_tensor())


@pytest.mark.fault(12)
def test_a_broken_file_is_named(items, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    dataset = StagedMonaiDataset([*items, {"image": str(broken), "mask": items[0]["mask"]}], decoding())
    with pytest.raises(SampleError, match="MONAI's transforms fail") as caught:
        dataset[12]
    assert caught.value.path == str(broken)


def test_without_monai_the_way_to_install_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'monai'.*pip install"):
        StagedMonaiDataset([])


@pytest.mark.long
def test_a_dataset_of_monai_is_tuned_and_served(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_HOME", str(tmp_path))
    summary = autotune.tune(
        dataset,
        "5s",
        trials=2,
        time_cap_s=0.2,
        confirm_time_cap_s=0.2,
        collate_fn=data.list_data_collate,
        home=tmp_path,
        progress=False,
        space={"batch_size": 4, "num_workers": [0, 1], "archive": ["files", "npy"]},
    )
    assert summary.outcome in ("gain", "nothing_to_gain", "undecided")
    loader = monai_loader(dataset, batch_size=4, home=tmp_path)
    assert epoch_of(loader)["image"].shape == (12, 1, 32, 32)
