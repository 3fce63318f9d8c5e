"""Shards that the webdataset package reads, and its own that we read."""

import io
import json
import pickle

import numpy as np
import pytest
import torch
import webdataset
from data_sets import BytesDataset, MixedDataset, write_raster
from PIL import Image
from torch.utils.data import Dataset

from autotune.data.archives import FORMATS
from autotune.data.archives.web_shards import WebShards
from autotune.data.facts import samples_equal
from autotune.data.samples import take_apart
from autotune.data.stages import read_stage
from autotune.errors import ArchiveError


class LargeDataset(Dataset):
    """Samples of 300 kB, so that there are several shards."""

    def __init__(self, count=24):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"pixels": torch.full((75_000,), float(index)), "number": index}


def theirs(paths):
    return list(webdataset.WebDataset([str(path) for path in paths], shardshuffle=False).decode())


def shards_of(folder):
    return sorted(folder.glob("shard-*.tar"))


def test_their_reader_gives_equal_arrays_of_decoded_samples(tmp_path):
    dataset = MixedDataset(30)
    FORMATS["webdataset"].build(dataset, tmp_path)
    samples = theirs(shards_of(tmp_path))
    assert [sample["__key__"] for sample in samples] == [f"{number:08d}" for number in range(30)]
    for number, sample in enumerate(samples):
        leaves = take_apart(dataset[number])[1]
        assert samples_equal([sample[f"{place}.npy"] for place in range(len(leaves))], leaves)


def test_their_reader_gives_the_parts_of_encoded_samples(tmp_path):
    dataset = BytesDataset(12)
    FORMATS["webdataset"].build(dataset, tmp_path, stored="encoded")
    samples = theirs(shards_of(tmp_path))
    assert [(sample["0.bin"], sample["1.bin"]) for sample in samples] == [read_stage(dataset, i) for i in range(12)]


def test_samples_are_dealt_out_to_shards_whole_and_in_order(tmp_path):
    FORMATS["webdataset"].build(LargeDataset(), tmp_path, workers=2)
    shards = shards_of(tmp_path)
    assert len(shards) > 4
    assert [path.name for path in shards] == [f"shard-{number:06d}.tar" for number in range(len(shards))]
    assert [int(sample["1.npy"]) for sample in theirs(shards)] == list(range(24))
    opened = FORMATS["webdataset"].open(tmp_path)
    assert samples_equal([opened[i] for i in range(24)], [LargeDataset()[i] for i in range(24)])
    assert samples_equal(list(opened.stream(2, 23)), [LargeDataset()[i] for i in range(2, 23)])


def test_shards_are_the_same_for_every_number_of_processes(tmp_path):
    files = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        files.append(FORMATS["webdataset"].build(LargeDataset(), folder, workers=workers).files)
    assert files[0] == files[1]


class OddNames(BytesDataset):
    """Declares names that would collide or lead elsewhere inside a shard."""

    def __init__(self, part_names):
        super().__init__(3)
        self.part_names = part_names


@pytest.mark.parametrize("names", [("a.TIF", "a.tif"), ("../x", "y"), ("a/b", "c"), ("a",), ("", "b")])
def test_part_names_that_do_not_fit_are_numbered(names, tmp_path):
    FORMATS["webdataset"].build(OddNames(names), tmp_path, stored="encoded")
    assert set(theirs(shards_of(tmp_path))[0]) == {"__key__", "__url__", "__local_path__", "0.bin", "1.bin"}


def png_of(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def foreign(tmp_path):
    """Shards written by the package, with their content."""
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    raster = write_raster(tmp_path / "a.tif", pixels[..., 0]).read_bytes()
    content = []
    with webdataset.ShardWriter(str(tmp_path / "theirs-%06d.tar"), maxcount=4, verbose=0) as writer:
        for number in range(10):
            sample = {
                "__key__": f"part/{number:03d}",
                "npy": np.arange(number + 1, dtype=np.float32),
                "json": {"number": number, "names": ["a", "b"]},
                "cls": number,
                "txt": f"text {number} ü",
                "tif": raster,
                "seg.png": png_of(pixels),
                "bin": bytes([number]),
            }
            writer.write(sample)
            content.append({**sample, "tif": pixels[None, ..., 0], "seg.png": pixels})
    return tmp_path, content


def test_samples_of_their_shards_are_decoded_by_number_and_key(foreign):
    folder, content = foreign
    shards = WebShards(folder / "theirs-*.tar")
    assert len(shards) == 10
    assert shards.keys() == tuple(sample["__key__"] for sample in content)
    for number, sample in enumerate(content):
        for found in (shards[number], shards[sample["__key__"]], shards[number - 10]):
            assert samples_equal({name: found[name] for name in sample}, sample)
            assert len(found) == len(sample)
    with pytest.raises(KeyError, match="part/999"):
        _ = shards["part/999"]
    with pytest.raises(IndexError):
        _ = shards[10]


def test_samples_of_their_shards_are_bytes_when_asked(foreign):
    folder, _ = foreign
    raw = WebShards(sorted(folder.glob("theirs-*.tar")), decode=False)
    plain = list(webdataset.WebDataset([str(path) for path in sorted(folder.glob("theirs-*.tar"))], shardshuffle=False))
    for number, sample in enumerate(plain):
        expected = {name: value for name, value in sample.items() if not name.startswith("__")}
        assert {name: value for name, value in raw[number].items() if name != "__key__"} == expected


def test_their_shards_travel_to_workers(foreign):
    folder, content = foreign
    copy = pickle.loads(pickle.dumps(WebShards(folder / "theirs-*.tar")))
    assert copy[9]["json"] == content[9]["json"]
    loader = torch.utils.data.DataLoader(copy, batch_size=None, num_workers=2)
    assert [sample["cls"] for sample in loader] == list(range(10))


def test_key_of_several_samples_is_not_guessed(tmp_path):
    for number in range(2):
        with webdataset.TarWriter(str(tmp_path / f"{number}.tar")) as writer:
            writer.write({"__key__": "same", "cls": number})
    shards = WebShards(tmp_path / "*.tar")
    assert [shards[number]["cls"] for number in range(2)] == [0, 1]
    with pytest.raises(ArchiveError, match="2 samples"):
        _ = shards["same"]


def test_compressed_shards_are_inflated_once(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "a.tar.gz")) as writer:
        for number in range(5):
            writer.write({"__key__": str(number), "json": {"number": number}})
    for _ in range(2):
        shards = WebShards(tmp_path / "a.tar.gz", cache_dir=tmp_path / "cache")
        assert [shards[number]["json"]["number"] for number in range(5)] == list(range(5))
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 1


def test_absent_shards_and_shards_without_samples_are_said(tmp_path):
    with pytest.raises(ArchiveError, match="no shard"):
        WebShards(tmp_path / "none-*.tar")
    with pytest.raises(ArchiveError, match="cannot be read"):
        WebShards(tmp_path / "none.tar")
    (tmp_path / "empty.tar").write_bytes(bytes(1024))
    with pytest.raises(ArchiveError, match="no samples"):
        WebShards(tmp_path / "empty.tar")


@pytest.mark.parametrize(("name", "data"), [("json", b"{"), ("npy", b"none"), ("tif", b"II*\0"), ("png", b"\x89PNG"),
                                            ("cls", b"x"), ("txt", b"\xff"), ("json", b"[" * 100_000)])  # fmt: skip
def test_broken_member_is_named(name, data, tmp_path):
    with webdataset.TarWriter(str(tmp_path / "a.tar"), encoder=False) as writer:
        writer.write({"__key__": "0", name: data})
    with pytest.raises(ArchiveError, match=name):
        _ = WebShards(tmp_path / "a.tar")[0]


def test_metadata_members_are_no_samples(tmp_path):
    FORMATS["webdataset"].build(MixedDataset(3), tmp_path)
    whole = shards_of(tmp_path)[0]
    with webdataset.TarWriter(str(tmp_path / "b.tar"), encoder=False) as writer:
        writer.write({"__key__": "__meta__/a", "json": json.dumps({}).encode()})
        writer.write({"__key__": "a", "json": b"{}"})
    assert WebShards(tmp_path / "b.tar").keys() == ("a",)
    assert WebShards(whole).keys() == ("00000000", "00000001", "00000002")
