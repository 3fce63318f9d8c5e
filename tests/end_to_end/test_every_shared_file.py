"""Every file of real data by the loader meant for it, and files of every kind by every other loader."""

import gzip
import itertools
import re
import zipfile
from collections import defaultdict

import h5py
import numpy as np
import pytest

from autotune.data.datasets.cityscapes import CityscapesDataset
from autotune.data.datasets.gaps import GapMaskDataset
from autotune.data.datasets.images import ImageFilesDataset
from autotune.data.datasets.labelled_arrays import LabelledArraysDataset
from autotune.data.datasets.npy_files import NpyDataset
from autotune.data.datasets.raster import GeoTiffPairDataset
from autotune.data.datasets.tif_images import TifImageDataset, TifPairDataset
from autotune.data.facts import describe_sample
from autotune.errors import AutotuneError, SampleError
from autotune.loaders import (
    HDF5Dataset,
    ImageDataset,
    IterableTarArchiveDataset,
    MemoryEfficientDataset,
    TarArchiveDataset,
    TextDataset,
    create_dataset,
    create_ldm_dataloaders,
    create_vae_dataloaders,
)

WAY_OUT = re.compile(r"; |\(\.\w+, |must|no member is named")
"""What a message offers: advice behind a semicolon, the ends of names that are read, or the rule itself."""


def every_file(folder):
    """Give all files below a folder, in the order of their paths."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def first_sample(dataset):
    """Give the first sample of a dataset, which has the structure that the dataset declares."""
    sample = dataset[0] if hasattr(dataset, "__getitem__") else next(iter(dataset))
    declare = getattr(dataset, "sample_structure", None)
    declared = None if declare is None else declare()
    assert declared is None or describe_sample(sample) == declared
    return sample


def as_scene(path, folder):
    """Lay a file out as the image and the mask of one street scene."""
    for kind, suffix in (("leftImg8bit", "leftImg8bit.png"), ("gtFine", "gtFine_labelIds.png")):
        city = folder / kind / "train" / "a"
        city.mkdir(parents=True)
        (city / f"a_000000_000000_{suffix}").symlink_to(path)
    return CityscapesDataset(folder, size=(24, 32))


def as_labelled_array(path, folder):
    """Lay a file out as the array of one id."""
    folder.mkdir(parents=True)
    (folder / "a.npy").symlink_to(path)
    return LabelledArraysDataset(["a"], {"a": 0}, folder=folder, dim=(4, 4), n_channels=1, n_classes=2)


LOADERS = {
    "canopy heights": lambda path, _: create_dataset([path], window=64),
    "canopy heights, normalised": lambda path, _: create_dataset([path], normalization="min_max"),
    "forest gaps": lambda path, _: create_dataset([path], [path], window=64),
    "forest gaps, normalised": lambda path, _: create_dataset([path], [path], normalization="z_score"),
    "gap masks": lambda path, _: GapMaskDataset([path]),
    "raster pairs": lambda path, _: GeoTiffPairDataset([path], [path], metadata=True),
    "raster pairs of bytes": lambda path, _: GeoTiffPairDataset([path], [path]).with_decoder("rasterio_bytes"),
    "raster pairs by tifffile": lambda path, _: GeoTiffPairDataset([path], [path]).with_decoder("tifffile"),
    "TIF images": lambda path, _: TifImageDataset([path], patch_size=(32, 32)),
    "TIF images by tifffile": lambda path, _: TifImageDataset([path], patch_size=(32, 32)).with_decoder("tifffile"),
    "TIF pairs": lambda path, _: TifPairDataset([path], [path], patch_size=(32, 32)),
    "image files": lambda path, _: ImageFilesDataset([path]),
    "images": lambda path, _: ImageDataset(path, (24, 32)),
    "street scenes": as_scene,
    "HDF5": lambda path, _: HDF5Dataset(path),
    "HDF5, another name": lambda path, _: HDF5Dataset(path, "nothing/here", "labels"),
    "lines": lambda path, _: TextDataset(path, max_length=16),
    "texts": lambda path, _: TextDataset(path, max_length=16, unit="file"),
    "arrays": lambda path, _: NpyDataset(path),
    "labelled arrays": as_labelled_array,
    "any kind": lambda path, _: MemoryEfficientDataset(path),
    "tar": lambda path, folder: TarArchiveDataset(path, cache_dir=folder),
    "tar from front to back": lambda path, folder: IterableTarArchiveDataset(path, cache_dir=folder),
}


def problems_of(name, paths, folder):
    """Give the files that a loader answers neither by a sample nor by a clear error."""
    problems, read = [], 0
    for number, path in enumerate(paths):
        place = folder / str(number)
        try:
            first_sample(LOADERS[name](path, place))
            read += 1
        except AutotuneError as error:
            told = str(error)
            if not ((str(path) in told or str(place) in told) and WAY_OUT.search(told)):
                problems.append(f"{path.name}: unclear: {told}")
        except Exception as error:  # noqa: BLE001  # whatever leaks is what is looked for
            problems.append(f"{path.name}: {type(error).__name__}: {error}")
    return problems, read


def own_loader(path):
    """Name the loader that a file of the real data is meant for; street scenes and HDF5 have tests of their own."""
    area, suffix = path.parts[0], path.suffix.lower()
    if suffix == ".tif":
        return "canopy heights" if area == "forest_gaps" else "TIF images"
    if suffix in (".jpg", ".png"):
        return "images"
    return "lines" if suffix == ".txt" else "any kind"


@pytest.mark.parametrize("area", ["forest_gaps", "images", "tif_pairs", "text", "."])
def test_every_file_gives_a_sample_by_the_loader_that_is_meant_for_it(real_data, tmp_path, area):
    root = real_data / area
    paths = [path for path in root.iterdir() if path.is_file()] if area == "." else every_file(root)
    assert paths
    by_loader = defaultdict(list)
    for path in paths:
        by_loader[own_loader(path.relative_to(real_data))].append(path)
    for name, own in by_loader.items():
        assert problems_of(name, own, tmp_path / name) == ([], len(own))


def test_every_area_of_the_real_data_is_read_by_some_test(real_data):
    assert {path.relative_to(real_data).parts[0] for path in every_file(real_data) if path.parent != real_data} == {
        "forest_gaps", "hdf5", "images", "street_scenes", "text", "tif_pairs",
    }  # fmt: skip


def test_every_street_scene_is_read_with_its_labels(real_data):
    root = real_data / "street_scenes"
    splits = [CityscapesDataset(root, split, size=(24, 32)) for split in ("train", "val")]
    found = itertools.chain.from_iterable(split.source_paths() for split in splits)
    assert sorted(found) == [str(path) for path in every_file(root)]
    for split in splits:
        structures = {describe_sample(split[index]) for index in range(len(split))}
        assert structures == {split.sample_structure()}


def test_every_tif_pair_is_served_by_both_forms_of_loaders(real_data):
    root = real_data / "tif_pairs" / "derived_fly_256_float32"
    count = len(every_file(root))
    images = create_vae_dataloaders(root, 1, (32, 32), data_source="both", num_workers=0)
    assert [describe_sample(batch) for loader in images for batch in loader] == ["float32[1,1,32,32]"] * count
    pairs = create_ldm_dataloaders(root, 1, (32, 32), num_workers=0)
    assert sum(len(target) == len(condition) == 1 for loader in pairs for target, condition in loader) == count // 2


def test_every_dataset_of_every_hdf5_file_gives_rows_or_says_why_not(real_data):
    paths = every_file(real_data / "hdf5")
    assert paths
    for path in paths:
        names = []
        with h5py.File(path) as file:
            file.visititems(lambda name, found, names=names: names.append(name) if hasattr(found, "shape") else None)
        read = 0
        for name in names:
            try:
                first_sample(HDF5Dataset(path, name))
                read += 1
            except AutotuneError as error:
                assert str(path) in str(error)  # noqa: PT017  # the other outcome is a sample
                assert name in str(error)  # noqa: PT017
        assert read


@pytest.fixture(scope="session")
def odd_files(tmp_path_factory):
    """Files that nothing here is made for: other formats, empty ones, and files that end too early."""
    folder = tmp_path_factory.mktemp("odd")
    noise = np.random.default_rng(0).bytes(5000)
    np.savez(folder / "several.npz", a=np.zeros((2, 4)), b=np.zeros(3))
    np.save(folder / "objects.npy", np.array([{}, 1], dtype=object))
    np.save(folder / "words.npy", np.array(["a", "b"]))
    np.save(folder / "whole.npy", np.zeros((4, 4, 1)))
    with h5py.File(folder / "bare.h5", "w") as file:
        file["data"] = 3
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        file.writestr("inside.txt", "text")
    contents = {
        "README": b"Read me.\n",
        "table.csv": b"a,b\n1,2\n",
        "plain.json": b'{"a": 1}',
        "latin.txt": "gr\xfc\xdfe".encode("latin-1"),
        "noise.bin": noise,
        "zeros.tar": bytes(10_240),
        "other.gz": gzip.compress(b"no tar"),
        **{f"empty{end}": b"" for end in (".bin", ".h5", ".jpg", ".npy", ".tar", ".tif", ".txt", ".zip")},
        **{f"short{size}.npy": (folder / "whole.npy").read_bytes()[:size] for size in (3, 8, 20, 100, 150)},
        "short.npz": (folder / "several.npz").read_bytes()[:200],
        "short.zip": (folder / "a.zip").read_bytes()[:60],
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return every_file(folder)


def shared_of_every_kind(real_data):
    """Give the first and the last file of each folder and ending."""
    groups = defaultdict(list)
    for path in every_file(real_data):
        groups[path.parent, path.suffix].append(path)
    return sorted({path for group in groups.values() for path in (group[0], group[-1])})


@pytest.mark.fault(34)
@pytest.mark.parametrize("name", sorted(LOADERS))
def test_any_loader_gives_a_sample_or_a_clear_error_of_any_shared_file(real_data, tmp_path, name):
    paths = shared_of_every_kind(real_data)
    assert len({path.suffix.lower() for path in paths}) >= 6
    problems, read = problems_of(name, paths, tmp_path)
    assert problems == []
    assert read < len(paths)  # no loader is made for everything


@pytest.mark.fault(34)
@pytest.mark.parametrize("name", sorted(LOADERS))
def test_any_loader_gives_a_sample_or_a_clear_error_of_an_odd_file(odd_files, tmp_path, name):
    problems, read = problems_of(name, odd_files, tmp_path)
    assert problems == []
    assert read < len(odd_files)


@pytest.mark.fault(12)
@pytest.mark.parametrize("size", [3, 9, 40, 200, 0.5])
def test_any_loader_gives_a_sample_or_a_clear_error_of_a_file_that_ends_early(real_data, tmp_path, size):
    made = []
    for path in shared_of_every_kind(real_data)[::3]:
        data = path.read_bytes()
        made.append(tmp_path / f"{len(made)}{path.suffix}")
        made[-1].write_bytes(data[: int(size * len(data)) if size < 1 else size])
    found = {name: problems_of(name, made, tmp_path / name)[0] for name in LOADERS}
    assert {name: problems for name, problems in found.items() if problems} == {}


BANDS = {
    "path": lambda path, bands: GeoTiffPairDataset([path], [path], bands=bands),
    "bytes": lambda path, bands: GeoTiffPairDataset([path], [path], bands=bands).with_decoder("rasterio_bytes"),
    "tifffile": lambda path, bands: GeoTiffPairDataset([path], [path], bands=bands).with_decoder("tifffile"),
    "window": lambda path, bands: GeoTiffPairDataset([path], [path], bands=bands, window=8),
    "forest gaps": lambda path, bands: create_dataset([path], [path], bands=bands),
}


@pytest.mark.fault
@pytest.mark.parametrize("bands", [(9,), (0,), (1, 2), ()])
@pytest.mark.parametrize("way", sorted(BANDS))
def test_a_band_that_a_raster_does_not_have_is_an_error_with_its_path_however_it_is_read(real_data, way, bands):
    path = real_data / "forest_gaps" / "pycrown" / "CHM.tif"
    with pytest.raises(AutotuneError, match=r"counted from 1, and .* has 1, got bands=\(") as caught:
        BANDS[way](path, bands)[0]
    assert str(path) in str(caught.value)


@pytest.mark.fault
def test_an_iteration_does_not_end_at_a_raster_without_the_band(real_data):
    path = real_data / "forest_gaps" / "pycrown" / "CHM.tif"
    with pytest.raises(SampleError, match="counted from 1"):
        list(GeoTiffPairDataset([path], [path], bands=(2,)))
