"""Fidelity: every format, stored form, cache, worker count and start method gives the plain loader's batches."""

import multiprocessing
from functools import cache
from itertools import product
from pathlib import Path

import h5py
import pytest
import torch
from data_sets import AugmentedDataset, BytesDataset, MixedDataset, VaryingDataset, keep_list
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from autotune.data.apply import prepare
from autotune.data.archives import FORMATS
from autotune.data.build import make_loader
from autotune.data.datasets.gaps import GapMaskDataset
from autotune.data.datasets.images import ImageFilesDataset
from autotune.data.datasets.raster import GeoTiffPairDataset
from autotune.data.facts import samples_equal
from autotune.spec import STORED_FORMS, LoaderConfig

DATA = Path(__file__).parents[3] / "shared" / "data"
STORING = [(name, form) for name, forms in STORED_FORMS.items() for form in forms]
CACHES = ["none", "memory", "disk"]
# both ways of starting afresh are sent the same bytes: the one that starts slowly has one worker
STARTS = [(0, None), (1, "fork"), (3, "fork"), (3, "forkserver"), (1, "spawn")]
CPU = torch.device("cpu")


QUICK = {(0, None), (3, "fork")}
# a process that is not forked has the memory cache sent to it; the rest is opened there as anywhere
APART = {(cache, *start) for cache in ("none", "disk") for start in STARTS if start[1] not in {None, "fork"}}


def _marks(one):
    if one in APART:
        return [pytest.mark.long]
    return [] if one[1:] in QUICK or one == ("memory", 3, "forkserver") else [pytest.mark.slow]


LOADING = [pytest.param(*one, marks=_marks(one)) for one in ((cache, *start) for cache in CACHES for start in STARTS)]


@pytest.fixture(scope="session", autouse=True)
def _quick_forkserver():
    """Load torch once for all workers of the fork server."""
    multiprocessing.set_forkserver_preload(["torch", "autotune.data.apply", "data_sets"])


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    """One folder of archives, so that each is built once."""
    return tmp_path_factory.mktemp("archives")


def datasets_for(name, form):
    """Give what the format can hold in this form: fixed and varying, plain, staged and augmented."""
    if form == "encoded":
        return [AugmentedDataset(), BytesDataset()]
    return [MixedDataset()] if name == "npy" else [MixedDataset(), VaryingDataset()]


def prepared_for(dataset, name, form, archives, tmp_path, **settings):
    config = LoaderConfig(archive=name, stored=form, **{"batch_size": 5, **settings})
    prepared = prepare(dataset, config, archive_root=archives, cache_root=tmp_path, device=CPU)
    return prepared.dataset, prepared.arguments


def plain_loader(dataset, seed):
    return DataLoader(
        dataset, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(seed), collate_fn=keep_list
    )


def set_epoch(dataset, epoch):
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)


@pytest.mark.parametrize(("cache_name", "workers", "start"), LOADING)
@pytest.mark.parametrize(("name", "form"), STORING)
def test_loader_gives_the_batches_of_the_plain_loader(name, form, cache_name, workers, start, archives, tmp_path):
    every = datasets_for(name, form)
    # what a process that is not forked is sent differs by format and cache alone; it starts for seconds
    for dataset in every if start in (None, "fork") else every[-1:]:
        settings = {"num_workers": workers, "cache": cache_name}
        stored, arguments = prepared_for(dataset, name, form, archives, tmp_path, **settings)
        loader = make_loader(
            stored, arguments, shuffle=True, seed=3, collate_fn=keep_list, multiprocessing_context=start
        )
        plain = plain_loader(dataset, 3)
        for epoch in range(3):
            set_epoch(dataset, epoch)
            set_epoch(stored, epoch)
            got, wanted = [list(batch) for batch in loader], list(plain)
            assert samples_equal(got, wanted)
            assert sum(map(len, got)) == len(dataset)


@pytest.mark.parametrize("fraction", [1.0, 0.4])
@pytest.mark.parametrize(("name", "form"), [pair for pair in STORING if pair[1] == "decoded" or pair[0] == "files"])
def test_cache_on_a_device_gives_the_batches_of_the_plain_loader(name, form, fraction, archives, tmp_path):
    dataset = TensorsDataset()
    settings = {"cache": "device", "cache_fraction": fraction}
    stored, arguments = prepared_for(dataset, name, form, archives, tmp_path, **settings)
    loader = make_loader(stored, arguments, shuffle=True, seed=3)
    plain = DataLoader(dataset, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(3))
    for _ in range(2):
        assert samples_equal(list(loader), list(plain))


class TensorsDataset(Dataset):
    """Tensors and numbers alone, as a device holds them."""

    def __len__(self):
        return 23

    def fingerprint(self):
        return "tensors"

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {"image": torch.rand(3, 4, generator=generator), "label": index, "share": index / 7}


@pytest.mark.parametrize("cache_name", CACHES)
@pytest.mark.parametrize(("name", "form"), STORING)
def test_early_break_and_two_iterators_at_once_change_nothing(name, form, cache_name, archives, tmp_path):
    for dataset in datasets_for(name, form):
        stored, arguments = prepared_for(dataset, name, form, archives, tmp_path, cache=cache_name)
        loader = make_loader(stored, arguments, collate_fn=keep_list)
        plain = DataLoader(dataset, batch_size=5, collate_fn=keep_list)
        set_epoch(stored, 0)
        next(iter(loader))
        for ours, theirs in zip(zip(loader, loader, strict=True), zip(plain, plain, strict=True), strict=True):
            assert samples_equal([list(batch) for batch in ours], list(theirs))


@pytest.mark.parametrize(("name", "form"), STORING)
def test_subset_gives_its_samples_in_its_order(name, form, archives, tmp_path):
    for dataset in datasets_for(name, form):
        subset = Subset(dataset, [4, 1, 13, 1])
        stored, _ = prepared_for(subset, name, form, archives, tmp_path)
        assert samples_equal([stored[place] for place in range(4)], [subset[place] for place in range(4)])
        chosen = Subset(prepared_for(dataset, name, form, archives, tmp_path)[0], [7, 0])
        assert samples_equal([chosen[place] for place in range(2)], [dataset[7], dataset[0]])


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize(("name", "form"), STORING)
def test_ranks_get_the_samples_of_the_plain_loader(name, form, ranks, archives, tmp_path):
    for dataset in datasets_for(name, form):
        stored, arguments = prepared_for(dataset, name, form, archives, tmp_path)
        for rank in range(ranks):
            sampler = DistributedSampler(dataset, ranks, rank, seed=5)
            sampler.set_epoch(2)
            loader = make_loader(stored, arguments, sampler=sampler, collate_fn=keep_list)
            plain = DataLoader(dataset, batch_size=5, sampler=sampler, collate_fn=keep_list)
            assert samples_equal([list(batch) for batch in loader], list(plain))


class RadarDataset(Dataset):
    """Images of real HDF5 files, opened once in each process."""

    def __init__(self, paths):
        self.paths = [str(path) for path in paths]

    def __len__(self):
        return 3 * len(self.paths)

    def source_paths(self):
        return self.paths

    def __getitem__(self, index):
        with h5py.File(self.paths[index // 3], "r") as file:
            return torch.from_numpy(file[f"dataset1/data{index % 3 + 1}/data"][()])


@cache
def real_dataset(kind):
    """Give a part of the real data; skips where it is absent."""
    if not DATA.is_dir():
        pytest.skip("the real data is not here")
    if kind == "forest_gaps":
        found = GapMaskDataset.from_folder(DATA / "forest_gaps", "**/*[cC][hH][mM]*.tif", window=64, stride=32)
    elif kind == "tif_pairs":
        images = sorted((DATA / "tif_pairs" / "derived_fly_256_float32").rglob("*.tif"))
        found = GeoTiffPairDataset(images, images, mask_dtype="float32")
    elif kind == "street_scenes":
        found = ImageFilesDataset(sorted((DATA / "street_scenes" / "leftImg8bit").rglob("*.png")), size=(90, 120))
    elif kind == "images":
        found = ImageFilesDataset.from_folder(DATA / "images" / "pets")
    else:
        found = RadarDataset(sorted((DATA / "hdf5" / "radar").glob("*.h5")))
    return Subset(found, list(range(0, len(found), max(1, len(found) // 24)))[:24])


STAGED = {"tif_pairs", "street_scenes", "images"}
VARYING = {"images"}
REAL = [
    # one kind is enough of the format that takes longest to build
    pytest.param(name, form, kind, marks=[pytest.mark.long] if name == "tar.xz" and kind != "tif_pairs" else [])
    for (name, form), kind in product(STORING, ["forest_gaps", "hdf5", *sorted(STAGED)])
    if (form == "decoded" or name == "files" or kind in STAGED) and not (name == "npy" and kind in VARYING)
]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "form", "kind"), REAL)
def test_real_data_comes_back_bit_for_bit(name, form, kind, workers, archives, tmp_path):
    dataset = real_dataset(kind)
    wanted = [dataset[place] for place in range(len(dataset))]
    for cache_name in ("none", "memory"):
        settings = {"num_workers": workers, "cache": cache_name}
        stored, arguments = prepared_for(dataset, name, form, archives, tmp_path, **settings)
        loader = make_loader(stored, arguments, collate_fn=keep_list)
        for _ in range(2):
            assert samples_equal([sample for batch in loader for sample in batch], wanted)


def test_every_format_of_the_table_is_held_to_this():
    assert {name for name, _ in STORING} == set(FORMATS)
