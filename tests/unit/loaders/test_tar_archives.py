"""Tars as datasets: written by us or by anybody, plain or compressed, by number or streamed."""

import gzip
import io
import lzma
import os
import pickle
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
import webdataset
import zstandard
from data_sets import (
    AugmentedDataset,
    BytesDataset,
    MixedDataset,
    RandomDataset,
    ShardedNumbers,
    SlowDataset,
    support_environment,
)
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset

import autotune.loaders
from autotune.data.archives.tar_file import index_beside, index_path
from autotune.data.archives.tar_index import TarIndex
from autotune.data.build import make_loader
from autotune.data.caches.folders import prune
from autotune.data.datasets.raster import GeoTiffPairDataset
from autotune.data.facts import samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.stages import read_stage
from autotune.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveMissingError,
    DatasetError,
    RandomSamplesError,
    SampleError,
    SpecError,
)
from autotune.loaders import (
    IterableTarArchiveDataset,
    TarArchiveDataset,
    WebShards,
    convert_dataset_to_tar,
    create_tar_archive,
)

COMPRESSIONS = [None, "gz", "xz", "zst"]


def all_of(dataset):
    return [dataset[index] for index in range(len(dataset))]


def path_for(folder, compression):
    return folder / ("data.tar" if compression is None else f"data.tar.{compression}")


@pytest.fixture(scope="module")
def pairs(real_data):
    """Paths of real images and masks."""
    folder = real_data / "tif_pairs" / "derived_fly_256_float32"
    return tuple(sorted((folder / side).glob("*.tif"))[:7] for side in ("edente", "dente"))


def as_float(pair):
    """Masks of this set are floats from 0 to 1, so the default type of masks would lose them."""
    return GeoTiffPairDataset((), (), mask_dtype="float32").decode(pair)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("beside", [True, False])
def test_converted_dataset_comes_back_bit_for_bit(compression, beside, tmp_path):
    dataset = MixedDataset(40)
    path = convert_dataset_to_tar(dataset, path_for(tmp_path, compression), compression, metadata={"a": [1, None]})
    if not beside:
        index_path(path).unlink()
    archive = TarArchiveDataset(path)
    assert len(archive) == 40
    assert samples_equal(all_of(archive), all_of(dataset))
    assert samples_equal(archive[-1], dataset[39])
    assert archive.metadata == {"a": [1, None]}
    assert archive.names(3) == tuple(f"00000003.{place}.npy" for place in range(5))
    archive.verify()
    for index in (40, -41):
        with pytest.raises(IndexError):
            archive[index]
        with pytest.raises(IndexError):
            archive.names(index)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_samples_without_arrays_survive_with_and_without_the_index(compression, tmp_path):
    samples = [None, (), {"a": None}, torch.zeros(3), [], None, 5, None]

    class Few(MixedDataset):
        def __getitem__(self, index):
            return samples[index]

    path = convert_dataset_to_tar(Few(len(samples)), path_for(tmp_path, compression), compression)
    assert samples_equal(all_of(TarArchiveDataset(path)), samples)
    index_path(path).unlink()
    assert samples_equal(all_of(TarArchiveDataset(path)), samples)
    assert samples_equal(list(IterableTarArchiveDataset(path, shuffle_buffer=0)), samples)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_original_bytes_are_kept_and_decoded_by_the_caller(compression, tmp_path):
    dataset = BytesDataset(30)
    path = convert_dataset_to_tar(dataset, path_for(tmp_path, compression), compression, stored="encoded", workers=2)
    assert all_of(TarArchiveDataset(path)) == [read_stage(dataset, index) for index in range(30)]
    assert samples_equal(all_of(TarArchiveDataset(path, decode=dataset.decode)), all_of(dataset))
    stream = IterableTarArchiveDataset(path, shuffle_buffer=0, decode=dataset.decode)
    assert samples_equal(list(stream), all_of(dataset))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("start", [None, "fork", pytest.param("spawn", marks=pytest.mark.long), "forkserver"])
def test_loader_gives_every_sample_in_order_at_every_worker_count(compression, start, tmp_path):
    if (start, compression) in {(new, other) for new in ("spawn", "forkserver") for other in ("gz", "xz")}:
        pytest.skip("the same code as for zst, and each start takes seconds")
    dataset = MixedDataset(20)
    archive = TarArchiveDataset(convert_dataset_to_tar(dataset, path_for(tmp_path, compression), compression))
    archive[0]
    workers = 0 if start is None else 2
    loader = DataLoader(archive, batch_size=4, num_workers=workers, multiprocessing_context=start)
    assert samples_equal(list(loader), list(DataLoader(dataset, batch_size=4)))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_pairs_decode_as_from_their_files_and_keep_names_and_bytes(compression, pairs, tmp_path):
    images, masks = pairs
    seen = []
    path = create_tar_archive(
        images, masks, path_for(tmp_path, compression), compression, metadata={"site": "fly"}, workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(done, 7) for done in range(1, 8)]
    archive = TarArchiveDataset(path, decode=as_float)
    assert samples_equal(all_of(archive), all_of(GeoTiffPairDataset(images, masks, mask_dtype="float32")))
    assert archive.metadata == {"site": "fly"}
    assert archive.names(2) == (f"images/{images[2].name}", f"masks/{masks[2].name}")
    index_path(path).unlink()
    assert samples_equal(TarArchiveDataset(path, decode=as_float)[5], archive[5])
    if compression != "zst":
        with tarfile.open(path) as plain:
            assert plain.extractfile(f"masks/{masks[4].name}").read() == masks[4].read_bytes()


def test_pairs_without_a_decoder_are_tensors_of_float32_and_uint8(real_data, tmp_path):
    chm = sorted((real_data / "forest_gaps").rglob("*.tif"))[:3]
    masks = []
    for number, path in enumerate(chm):
        masks.append(tmp_path / f"{number}.png")
        size = GeoTiffPairDataset([path], [path], mask_dtype="float32")[0][0].shape[1:]
        Image.fromarray(np.full(tuple(size), number, np.uint8)).save(masks[-1])
    archive = TarArchiveDataset(create_tar_archive(chm, masks, tmp_path / "a.tar.gz", "gz"))
    assert samples_equal(all_of(archive), all_of(GeoTiffPairDataset(chm, masks)))
    assert [part.dtype for part in archive[0]] == [torch.float32, torch.uint8]
    stream = IterableTarArchiveDataset(tmp_path / "a.tar.gz", shuffle_buffer=0)
    assert samples_equal(list(stream), all_of(archive))


def test_files_of_one_name_from_several_folders_stay_apart(tmp_path):
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / "same.tif")
        paths[-1].write_bytes(folder.encode())
    archive = TarArchiveDataset(create_tar_archive(paths, paths, tmp_path / "p.tar"), decode=tuple)
    assert all_of(archive) == [(b"a", b"a"), (b"b", b"b")]
    assert archive.names(1) == ("images/00000001/same.tif", "masks/00000001/same.tif")


def test_long_names_are_kept(tmp_path):
    image, mask = tmp_path / f"{'x' * 200}.tif", tmp_path / f"{'ü' * 90}.tif"
    image.write_bytes(b"image")
    mask.write_bytes(b"mask")
    path = create_tar_archive([image], [mask], tmp_path / "p.tar")
    for _ in range(2):
        archive = TarArchiveDataset(path, decode=tuple)
        assert archive[0] == (b"image", b"mask")
        assert archive.names(0) == (f"images/{image.name}", f"masks/{mask.name}")
        index_path(path).unlink(missing_ok=True)


def test_transform_is_applied_and_the_source_is_fingerprinted(tmp_path):
    path = convert_dataset_to_tar(MixedDataset(5), tmp_path / "a.tar")
    archive = TarArchiveDataset(path, transform=type)
    assert archive[0] is dict
    assert list(IterableTarArchiveDataset(path, transform=type)) == [dict] * 5
    before = source_fingerprint(TarArchiveDataset(path))
    assert before == source_fingerprint(TarArchiveDataset(path))
    os.utime(path, ns=(1, 1))
    assert source_fingerprint(TarArchiveDataset(path)) != before


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_streamed_tar_is_divided_over_ranks_and_workers(compression, tmp_path):
    path = convert_dataset_to_tar(BytesDataset(31), path_for(tmp_path, compression), compression)
    seen = []
    for rank in range(2):
        stream = IterableTarArchiveDataset(path, shuffle_buffer=6, seed=2, rank=rank, world_size=2)
        for epoch in range(2):
            stream.set_epoch(epoch)
            found = [sample[2] for sample in DataLoader(stream, batch_size=None, num_workers=2)]
            assert len(found) == len(stream)
            seen.append(found)
    assert sorted(seen[0] + seen[2]) == sorted(seen[1] + seen[3]) == [40 + 7 * index for index in range(31)]
    assert seen[0] != seen[1]
    again = IterableTarArchiveDataset(path, shuffle_buffer=6, seed=2, rank=0, world_size=2)
    assert [sample[2] for sample in DataLoader(again, batch_size=None, num_workers=2)] == seen[0]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_any_tool_reads_what_was_written(compression, tmp_path):
    path = convert_dataset_to_tar(MixedDataset(3), path_for(tmp_path, compression), compression)
    if shutil.which("tar") is None:
        pytest.skip("tar is not installed")
    listed = subprocess.run(["tar", "tf", path], capture_output=True, check=True).stdout.decode().split()
    assert listed[0] == "__autotune__/archive.json"
    assert listed[1:-1] == [f"{number:08d}.{place}.npy" for number in range(3) for place in range(5)]


def test_webdataset_and_web_shards_read_what_was_written(tmp_path):
    path = convert_dataset_to_tar(BytesDataset(4), tmp_path / "a.tar", stored="encoded")
    samples = list(webdataset.WebDataset([str(path)], shardshuffle=False))
    assert [sample["0.bin"] for sample in samples] == [BytesDataset().read(index)[0] for index in range(4)]
    assert [sample["0.bin"] for sample in map(WebShards(path).__getitem__, range(4))] == [
        sample["0.bin"] for sample in samples
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_writing_is_the_same_for_every_number_of_processes(workers, tmp_path):
    one = convert_dataset_to_tar(BytesDataset(60), tmp_path / "a.tar.zst", "zst").read_bytes()
    assert convert_dataset_to_tar(BytesDataset(60), tmp_path / "b.tar.zst", "zst", workers=workers).read_bytes() == one


def test_random_and_shapeless_datasets_are_refused_and_leave_nothing(tmp_path):
    with pytest.raises(RandomSamplesError, match="augment"):
        convert_dataset_to_tar(RandomDataset(), tmp_path / "a.tar")
    with pytest.raises(ArchiveError, match="length"):
        convert_dataset_to_tar(ShardedNumbers(), tmp_path / "a.tar")
    with pytest.raises(ArchiveError, match="read"):
        convert_dataset_to_tar(MixedDataset(), tmp_path / "a.tar", stored="encoded")
    with pytest.raises(SpecError, match="bz2"):
        convert_dataset_to_tar(MixedDataset(), tmp_path / "a.tar", "bz2")
    with pytest.raises(ArchiveError, match="JSON"):
        convert_dataset_to_tar(MixedDataset(), tmp_path / "a.tar", metadata={"a": object()})
    with pytest.raises(DatasetError, match="one mask"):
        create_tar_archive(["a"], [], tmp_path / "a.tar")
    with pytest.raises(SampleError, match=r"absent\.tif"):
        create_tar_archive(["absent.tif"], ["absent.tif"], tmp_path / "a.tar")
    assert not list(tmp_path.iterdir())


class FailsLate(MixedDataset):
    """Cannot be read to its end."""

    def __getitem__(self, index):
        if index == 18:
            raise SampleError("unreadable", "somewhere")
        return super().__getitem__(index)


def test_failing_build_leaves_the_old_archive_whole(tmp_path):
    path = convert_dataset_to_tar(MixedDataset(5), tmp_path / "a.tar.gz", "gz")
    before = path.read_bytes()
    with pytest.raises(SampleError):
        convert_dataset_to_tar(FailsLate(23), path, "gz")
    assert path.read_bytes() == before
    assert len(TarArchiveDataset(path)) == 5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tar.gz", "a.tar.gz.index"]


def test_archive_replaced_behind_its_index_is_read_anew(tmp_path):
    path = convert_dataset_to_tar(MixedDataset(5), tmp_path / "a.tar.zst", "zst")
    other = convert_dataset_to_tar(BytesDataset(9), tmp_path / "b.tar.zst", "zst")
    path.write_bytes(other.read_bytes())
    assert samples_equal(all_of(TarArchiveDataset(path)), all_of(BytesDataset(9)))


def test_augmentation_is_left_out(tmp_path):
    dataset = AugmentedDataset(5)
    archive = TarArchiveDataset(convert_dataset_to_tar(dataset, tmp_path / "a.tar"))
    assert samples_equal(all_of(archive), [dataset.base_sample(index) for index in range(5)])


def test_subset_is_stored_on_its_own(tmp_path):
    subset = Subset(SlowDataset(9), [3, 1])
    archive = TarArchiveDataset(convert_dataset_to_tar(subset, tmp_path / "a.tar.xz", "xz"))
    assert samples_equal(all_of(archive), all_of(subset))


def packed(whole, compression):
    if compression == "zst":
        return zstandard.ZstdCompressor().compress(whole)
    return {None: bytes, "gz": gzip.compress, "xz": lzma.compress}[compression](whole)


def foreign_tar(members, kind=tarfile.PAX_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            if data is None:
                member.type = tarfile.DIRTYPE
            member.size = len(data or b"")
            archive.addfile(member, io.BytesIO(data or b""))
    return stream.getvalue()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", ["folders", "suffixes"])
def test_foreign_pairs_are_found_by_their_names(compression, layout, pairs, tmp_path):
    images, masks = pairs
    if layout == "folders":
        members = [("set", None), *((f"set/images/{path.name}", path.read_bytes()) for path in images)]
        members += [(f"set/masks/{path.name}", path.read_bytes()) for path in masks]
    else:
        both = zip(images, masks, strict=True)
        members = [
            (f"{image.stem}.{part}.tif", path.read_bytes())
            for image, mask in both
            for part, path in (("mask", mask), ("image", image))
        ]
    path = path_for(tmp_path, compression)
    path.write_bytes(packed(foreign_tar(members), compression))
    archive = TarArchiveDataset(path, cache_dir=tmp_path / "cache")
    assert len(archive) == 7
    names = ("images.tif", "masks.tif") if layout == "folders" else ("mask.tif", "image.tif")
    assert archive.names(0) == names
    plain = GeoTiffPairDataset(images, images, mask_dtype="float32")
    ordered = (lambda pair: as_float(pair)[0]) if layout == "folders" else (lambda pair: as_float(pair[::-1])[0])
    with_decoder = TarArchiveDataset(path, decode=ordered, cache_dir=tmp_path / "cache")
    assert samples_equal(all_of(with_decoder), [sample[0] for sample in all_of(plain)])
    stream = IterableTarArchiveDataset(path, shuffle_buffer=0, decode=ordered, cache_dir=tmp_path / "cache")
    assert samples_equal(list(stream), all_of(with_decoder))
    assert len(list(tmp_path.glob("cache/*.tar"))) == (compression is not None)


def test_foreign_pair_of_an_image_and_a_named_mask_is_decoded(tmp_path):
    def png(value):
        stream = io.BytesIO()
        Image.fromarray(np.full((4, 5), value, np.uint8)).save(stream, "png")
        return stream.getvalue()

    members = [
        (f"{number}.{part}.png", png(number + shift)) for number in range(3) for part, shift in (("gt", 0), ("img", 9))
    ]
    (tmp_path / "a.tar").write_bytes(foreign_tar(members))
    for number, (image, mask) in enumerate(all_of(TarArchiveDataset(tmp_path / "a.tar"))):
        assert samples_equal(image, torch.full((1, 4, 5), number + 9.0))
        assert samples_equal(mask, torch.full((1, 4, 5), number, dtype=torch.uint8))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_foreign_groups_are_dicts_of_decoded_members(kind, tmp_path):
    long = "deep/" * 30 if kind != tarfile.USTAR_FORMAT else "deep/" * 20
    members = [(f"./{long}{number}.{part}", data) for number in range(3)
               for part, data in (("cls", str(number).encode()), ("json", b'{"a": 1}'))]  # fmt: skip
    (tmp_path / "a.tar").write_bytes(foreign_tar([*members, ("README", b"no sample")], kind))
    archive = TarArchiveDataset(tmp_path / "a.tar")
    assert all_of(archive) == [{"__key__": f"{long}{number}", "cls": number, "json": {"a": 1}} for number in range(3)]
    assert list(IterableTarArchiveDataset(tmp_path / "a.tar", shuffle_buffer=0)) == all_of(archive)
    archive.verify()
    assert samples_equal(pickle.loads(pickle.dumps(archive))[1], archive[1])


@pytest.mark.parametrize("compression", ["gz", "xz", "zst"])
def test_foreign_compressed_tar_is_inflated_once_and_anew_when_it_changes(compression, tmp_path):
    path = path_for(tmp_path, compression)
    path.write_bytes(packed(foreign_tar([("a.cls", b"1"), ("b.cls", b"2")]), compression))
    for _ in range(2):
        assert [sample["cls"] for sample in all_of(TarArchiveDataset(path, cache_dir=tmp_path / "c"))] == [1, 2]
    copies = list((tmp_path / "c").glob("*.tar"))
    assert len(copies) == 1
    path.write_bytes(packed(foreign_tar([("a.cls", b"3")]), compression))
    os.utime(path, ns=(1, 1))
    assert [sample["cls"] for sample in all_of(TarArchiveDataset(path, cache_dir=tmp_path / "c"))] == [3]
    assert not list((tmp_path / "c").glob("*building*"))


def test_inflated_copies_lie_under_the_home_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_HOME", str(tmp_path / "home"))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(foreign_tar([("a.cls", b"1")])))
    assert TarArchiveDataset(tmp_path / "a.tar.gz")[0]["cls"] == 1
    assert len(list((tmp_path / "home" / "cache" / "tars").glob("*.tar"))) == 1


def test_inflated_copies_in_use_are_not_removed_with_old_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_HOME", str(tmp_path / "home"))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(foreign_tar([("a.cls", b"1")])))
    dataset = TarArchiveDataset(tmp_path / "a.tar.gz")
    assert prune(tmp_path / "home" / "cache", 0) == ()
    assert pickle.loads(pickle.dumps(dataset))[0]["cls"] == 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tar_is_recognised_before_and_after_reading_and_in_another_process(compression, tmp_path):
    path = convert_dataset_to_tar(MixedDataset(5), path_for(tmp_path, compression), compression)
    dataset = TarArchiveDataset(path)
    fresh = source_fingerprint(dataset)
    all_of(dataset)
    assert source_fingerprint(dataset) == fresh
    code = (
        "from autotune.loaders import TarArchiveDataset\nfrom autotune.data.fingerprint import source_fingerprint\n"
        f"print(source_fingerprint(TarArchiveDataset({str(path)!r})))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == fresh
    assert source_fingerprint(TarArchiveDataset(path, decode=tuple)) != fresh


def test_shards_are_recognised_before_and_after_reading(tmp_path):
    (tmp_path / "a.tar").write_bytes(foreign_tar([("a.cls", b"1"), ("b.cls", b"2")]))
    shards = WebShards(tmp_path / "a.tar")
    fresh = source_fingerprint(shards)
    assert shards["b"]["cls"] == 2
    assert source_fingerprint(shards) == fresh


def test_order_that_the_caller_set_is_kept_by_a_loader_of_ours(tmp_path):
    path = convert_dataset_to_tar(TensorDataset(torch.arange(40)), tmp_path / "a.tar")
    expected = [int(number) for (number,) in IterableTarArchiveDataset(path, shuffle_buffer=16, seed=5)]
    assert expected != sorted(expected)
    for shuffle in (False, True):
        stream = IterableTarArchiveDataset(path, shuffle_buffer=16, seed=5)
        loader = make_loader(stream, {"batch_size": None}, shuffle=shuffle, seed=9)
        assert [int(number) for (number,) in loader] == expected


@pytest.mark.parametrize("read", [TarArchiveDataset, WebShards])
def test_broken_member_is_named_with_its_file_and_sample(read, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(foreign_tar([("good.cls", b"1"), ("bad.npy", b"broken")]))
    with pytest.raises(ArchiveError, match=r"a\.tar: sample 'bad': member 'npy'"):
        read(path)[1]


def test_image_on_which_its_library_stumbles_is_an_error_of_the_archive(tmp_path):
    held = io.BytesIO()
    Image.new("RGB", (4, 4)).save(held, "DDS")
    broken = bytearray(held.getvalue())
    broken[80:84] = b"\0\0\0\x80"  # flags of pixels that nobody knows
    path = tmp_path / "a.tar"
    path.write_bytes(foreign_tar([("a.png", bytes(broken)), ("a.cls", b"1")]))
    with pytest.raises(ArchiveError, match="broken or a bomb"):
        TarArchiveDataset(path)[0]


@pytest.mark.parametrize("swapped", [(0, 1), (1, 0)])
def test_index_whose_members_lie_in_another_order_is_not_believed(swapped, tmp_path):
    dataset = TensorDataset(torch.arange(8), torch.arange(8) * 3)
    path = convert_dataset_to_tar(dataset, tmp_path / "a.tar")
    index = TarIndex.from_file(index_path(path))
    index.members[:2] = index.members[list(swapped)]
    index_path(path).write_bytes(index.to_bytes())
    assert (index_beside(path) is None) == (swapped == (1, 0))
    assert samples_equal(all_of(TarArchiveDataset(path)), all_of(dataset))


def test_next_build_removes_what_a_killed_one_left(tmp_path):
    path = tmp_path / "[a].tar"
    code = (
        "import os, signal\nfrom data_sets import MixedDataset\nfrom autotune.loaders import convert_dataset_to_tar\n"
        "end = lambda done, _: done == 9 and os.kill(os.getpid(), signal.SIGKILL)\n"
        f"convert_dataset_to_tar(MixedDataset(), {str(path)!r}, progress=end)"
    )
    killed = subprocess.run([sys.executable, "-c", code], env=support_environment(), check=False)
    assert killed.returncode == -9
    assert [found.name.split("-")[0] for found in tmp_path.iterdir()] == [".[a].tar.building"]
    convert_dataset_to_tar(MixedDataset(), path)
    assert {found.name for found in tmp_path.iterdir()} == {"[a].tar", "[a].tar.index"}


def test_tar_that_was_removed_is_said_to_be_missing(tmp_path):
    path = convert_dataset_to_tar(MixedDataset(5), tmp_path / "a.tar")
    dataset = TarArchiveDataset(path)
    path.unlink()
    with pytest.raises(ArchiveMissingError, match="removed since"):
        dataset[0]


def test_what_is_no_tar_is_said(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"not a tar " * 1000)
    with pytest.raises(ArchiveDamagedError, match="header"):
        TarArchiveDataset(tmp_path / "a.tar")
    with pytest.raises(ArchiveError, match="cannot be read"):
        TarArchiveDataset(tmp_path / "absent.tar")
    (tmp_path / "a.tar.bz2").write_bytes(b"BZh91AY")
    with pytest.raises(ArchiveError, match="bzip2"):
        TarArchiveDataset(tmp_path / "a.tar.bz2")


def test_public_names_are_loaded_on_first_use():
    assert set(autotune.loaders.__all__) <= set(dir(autotune.loaders))
    for name in autotune.loaders.__all__:
        assert getattr(autotune.loaders, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = autotune.loaders.nothing_of_this_name
