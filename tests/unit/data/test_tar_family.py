"""Compressed tars: every block on its own, and the whole for any tool."""

import gzip
import io
import lzma
import os
import pickle
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from data_sets import BytesDataset, MixedDataset
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from autotune.data.archives import FORMATS
from autotune.data.archives.block_stream import inflate_pieces
from autotune.data.archives.compression import CODECS
from autotune.data.archives.npy_bytes import npy_array, npy_bytes
from autotune.data.archives.tar_index import TarIndex
from autotune.data.archives.tar_reader import ProcessFiles
from autotune.data.datasets.raster import GeoTiffPairDataset
from autotune.data.facts import samples_equal
from autotune.data.stages import read_stage
from autotune.errors import ArchiveDamagedError, ArchiveError

COMPRESSIONS = ["gz", "xz", "zst"]
FAMILY = ["tar", *(f"tar.{name}" for name in COMPRESSIONS)]


class TensorsOf(Dataset):
    """Tensors of given sizes."""

    def __init__(self, sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        return torch.arange(self.sizes[index], dtype=torch.float32)


def inflated(path):
    if path.suffix == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True) as stream:
            return stream.read()
    opener = {".gz": gzip.open, ".xz": lzma.open}[path.suffix]
    with opener(path) as stream:
        return stream.read()


def read_through(path):
    with path.open("rb") as file:
        return list(inflate_pieces(file, CODECS[path.suffix[1:]]))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("form", ["encoded", "decoded"])
def test_libraries_read_the_whole_file_and_find_the_members(compression, form, tmp_path):
    dataset = BytesDataset(40)
    FORMATS[f"tar.{compression}"].build(dataset, tmp_path, stored=form)
    whole = inflated(tmp_path / f"samples.tar.{compression}")
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}
    if form == "encoded":
        assert found == {f"{i:08d}.{part}.bin": dataset.read(i)[part] for i in range(40) for part in range(2)}
    else:
        first = np.load(io.BytesIO(found["00000007.0.npy"]), allow_pickle=False)
        assert samples_equal(torch.from_numpy(first), dataset[7][0])
        assert len(found) == 40 * 4


@pytest.mark.parametrize(("compression", "tool"), [("gz", "gzip"), ("xz", "xz"), ("zst", "zstd")])
def test_command_line_tools_read_the_whole_file(compression, tool, tmp_path):
    if shutil.which(tool) is None or shutil.which("tar") is None:
        pytest.skip(f"{tool} is not installed")
    FORMATS[f"tar.{compression}"].build(BytesDataset(40), tmp_path, stored="encoded")
    path = tmp_path / f"samples.tar.{compression}"
    plain = subprocess.run([tool, "-dc", path], capture_output=True, check=True)
    assert plain.stdout == inflated(path)
    listed = subprocess.run(["tar", "tf", path], capture_output=True, check=True)
    assert len(listed.stdout.splitlines()) == 80
    assert not plain.stderr
    assert not listed.stderr


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("form", ["encoded", "decoded"])
def test_bytes_are_the_same_for_every_number_of_processes(name, form, tmp_path):
    files = []
    for workers in (0, 1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        files.append(FORMATS[name].build(BytesDataset(70), folder, stored=form, workers=workers).files)
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("form", ["encoded", "decoded"])
def test_ranges_read_from_front_to_back_equal_single_samples(name, form, tmp_path):
    dataset = BytesDataset(70) if form == "encoded" else MixedDataset(70)
    FORMATS[name].build(dataset, tmp_path, stored=form)
    opened = FORMATS[name].open(tmp_path)
    expected = [read_stage(dataset, i) if form == "encoded" else dataset[i] for i in range(70)]
    for first, stop in [(0, 70), (3, 4), (17, 49), (69, 70), (5, 5)]:
        assert samples_equal(list(opened.stream(first, stop)), expected[first:stop])
        assert samples_equal([opened[i] for i in range(first, stop)], expected[first:stop])


def test_tiny_samples_share_blocks_and_large_ones_do_not(tmp_path):
    for folder, sizes in (("tiny", [10] * 100), ("large", [5000] * 20), ("mixed", [10] * 5 + [50_000] + [10] * 30)):
        (tmp_path / folder).mkdir()
        FORMATS["tar.gz"].build(TensorsOf(sizes), tmp_path / folder)
    tiny, large, mixed = (FORMATS["tar.gz"].open(tmp_path / name).index for name in ("tiny", "large", "mixed"))
    assert len(tiny.blocks) < 100 / 8
    assert len(large.blocks) == 20
    assert mixed.blocks[:, 3].max() < 16 * 1024 + 4 * 50_000 + 2048
    opened = FORMATS["tar.gz"].open(tmp_path / "mixed")
    assert [len(opened[i]) for i in (5, 4, 6, 35)] == [50_000, 10, 10, 10]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_samples_may_be_changed_and_keep_no_neighbour(compression, tmp_path):
    FORMATS[f"tar.{compression}"].build(TensorsOf([10, 3000, 10]), tmp_path)
    opened = FORMATS[f"tar.{compression}"].open(tmp_path)
    opened[1].add_(1)
    for sample in opened.stream(0, 3):
        assert sample.untyped_storage().nbytes() == sample.nbytes
        sample.add_(1)
    assert samples_equal(opened[1], torch.arange(3000, dtype=torch.float32))


@given(st.binary(max_size=5000), st.sampled_from(COMPRESSIONS))
def test_block_inflates_to_what_was_compressed(data, compression):
    codec = CODECS[compression]
    block = codec.compress(data)
    assert codec.compress(data) == block
    assert codec.inflate(memoryview(block), len(data)) == data


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_block_never_inflates_beyond_its_known_size(compression):
    codec = CODECS[compression]
    bomb = codec.compress(bytes(50_000_000))
    for size in (0, 100, 49_999_999, 50_000_001):
        with pytest.raises(ArchiveDamagedError):
            codec.inflate(bomb, size)


def test_zstd_block_that_does_not_declare_its_size_is_bounded_all_the_same():
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    block = packer.compress(bytes(5_000_000)) + packer.flush()
    assert CODECS["zst"].inflate(block, 5_000_000) == bytes(5_000_000)
    with pytest.raises(ArchiveDamagedError):
        CODECS["zst"].inflate(block, 1000)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_flipped_byte_in_a_block_is_found_when_it_is_read(compression):
    data = np.random.default_rng(0).bytes(3000)
    block = bytearray(CODECS[compression].compress(data))
    block[len(block) // 2] ^= 1
    with pytest.raises(ArchiveDamagedError):
        CODECS[compression].inflate(bytes(block), len(data))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_stream_of_blocks_tells_where_each_ends(compression, tmp_path):
    pieces = [b"a" * 10, b"", np.random.default_rng(1).bytes(3_000_000), bytes(5_000_000)]
    blocks = [CODECS[compression].compress(piece) for piece in pieces]
    path = tmp_path / f"all.{compression}"
    path.write_bytes(b"".join(blocks) + bytes(8))
    found, whole, ends = [], b"", []
    for piece in read_through(path):
        whole += piece.data
        assert len(piece.data) <= 33 * 1024**2
        if piece.ends_block:
            found.append(whole)
            ends.append(piece.stored_end)
            whole = b""
    assert found == pieces
    assert ends == np.cumsum([len(block) for block in blocks]).tolist()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("damage", ["cut", "flip", "garbage"])
def test_damaged_stream_is_refused(compression, damage, tmp_path):
    block = bytearray(CODECS[compression].compress(np.random.default_rng(2).bytes(100_000)))
    if damage == "cut":
        del block[-20:]
    elif damage == "flip":
        block[len(block) // 2] ^= 1
    else:
        block += b"garbage that is no block"
    path = tmp_path / f"bad.{compression}"
    path.write_bytes(block)
    with pytest.raises(ArchiveDamagedError):
        read_through(path)


def test_pickled_reader_opens_the_folder_again_and_carries_no_index(tmp_path):
    FORMATS["tar.zst"].build(MixedDataset(200), tmp_path)
    opened = FORMATS["tar.zst"].open(tmp_path)
    opened[3]
    data = pickle.dumps(opened)
    assert len(data) < 1000
    assert samples_equal(pickle.loads(data)[150], MixedDataset(200)[150])


def test_index_that_contradicts_itself_is_refused(tmp_path):
    FORMATS["tar"].build(MixedDataset(9), tmp_path)
    path = tmp_path / "samples.index"
    whole = TarIndex.from_file(path)
    for table, place, value in [
        ("samples", (3, 0), 10**6), ("samples", (3, 1), 1), ("samples", (8, 3), 99), ("samples", (2, 2), 7),
        ("members", (4, 1), 10**9), ("members", (4, 0), -1), ("samples", (3, 3), 0),
    ]:  # fmt: skip
        tables = {name: getattr(whole, name).copy() for name in ("blocks", "members", "samples")}
        tables[table][place] = value
        path.write_bytes(TarIndex(**tables, skeletons=whole.skeletons, notes={}).to_bytes())
        with pytest.raises(ArchiveDamagedError, match=r"samples\.index"):
            TarIndex.from_file(path)
    path.write_bytes(whole.to_bytes()[:-1])
    with pytest.raises(ArchiveDamagedError):
        TarIndex.from_file(path)
    with pytest.raises(ArchiveDamagedError, match="outside"):
        whole.check_files([10])


def test_few_files_stay_open_however_many_there_are(tmp_path):
    paths = []
    for number in range(60):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(bytes([number]) * 10)
    files = ProcessFiles(paths)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert [bytes(files.read(number, 3, 2)) for number in range(60)] == [bytes([number]) * 2 for number in range(60)]
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 17
    with pytest.raises(ArchiveDamagedError, match="ends before byte 11"):
        files.read(0, 9, 2)


def test_forked_child_reads_by_handles_of_its_own(tmp_path):
    FORMATS["tar"].build(MixedDataset(5), tmp_path)
    opened = FORMATS["tar"].open(tmp_path)
    opened[0]
    inherited = opened._files._open[0]
    child = os.fork()
    if not child:
        same = samples_equal(opened[1], MixedDataset(5)[1]) and opened._files._open[0] is not inherited
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("array", [
    np.arange(24).reshape(2, 3, 4), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.zeros((0, 3)), np.array(5),
    np.array(["a", "bcd"]), np.array(["", ""], dtype="U0"), np.arange(3, dtype=">i4"), np.array([True, False]),
])  # fmt: skip
def test_npy_bytes_give_the_array_back(array):
    assert samples_equal(npy_array(memoryview(npy_bytes(array))), np.ascontiguousarray(array).reshape(array.shape))
    stream = io.BytesIO()
    np.save(stream, array)
    again = npy_array(memoryview(bytearray(stream.getvalue())))
    assert np.array_equal(again, array)
    assert again.dtype == array.dtype
    assert again.flags.writeable


def test_array_of_objects_is_refused():
    stream = io.BytesIO()
    np.save(stream, np.array([object()]), allow_pickle=True)
    with pytest.raises(ArchiveError, match="pickled"):
        npy_array(memoryview(stream.getvalue()))


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("form", ["encoded", "decoded"])
def test_real_pairs_come_back_bit_for_bit(name, form, real_data, tmp_path):
    folder = real_data / "tif_pairs" / "derived_fly_256_float32"
    images, masks = (sorted((folder / side).glob("*.tif"))[:6] for side in ("edente", "dente"))
    dataset = GeoTiffPairDataset(images, masks, mask_dtype="float32")
    FORMATS[name].build(dataset, tmp_path, stored=form)
    opened = FORMATS[name].open(tmp_path)
    for index in range(6):
        sample = dataset.decode(opened[index]) if form == "encoded" else opened[index]
        assert samples_equal(sample, dataset[index])
