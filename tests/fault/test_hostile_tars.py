"""Tars that mean harm or are damaged: refused with a reason, nothing written outside, no memory taken, no code run."""

import io
import json
import lzma
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
import zstandard
from data_sets import BytesDataset, MixedDataset, support_environment

from autotune.data.archives.tar_file import index_path
from autotune.data.archives.tar_index import TarIndex
from autotune.data.archives.tar_scan import TarLimits
from autotune.data.archives.web_shards import WebShards
from autotune.errors import ArchiveDamagedError, ArchiveError, CapacityError
from autotune.loaders import IterableTarArchiveDataset, TarArchiveDataset, convert_dataset_to_tar

pytestmark = pytest.mark.fault
COMPRESSIONS = [None, "gz", "xz", "zst"]
PACKERS = {
    None: bytes,
    "gz": lambda data: zlib.compress(data, wbits=31),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def header(name, size=0, kind=tarfile.REGTYPE, *, link="", form=tarfile.GNU_FORMAT):
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, link
    return member.tobuf(form)


def member(name, data=b"x", kind=tarfile.REGTYPE):
    return header(name, len(data), kind) + data + bytes(-len(data) % 512)


def pax(kind=b"x", **records):
    """Write an extended header."""
    data = b""
    for key, value in records.items():
        body = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        data += str(length).encode() + body
    return member("pax", data, kind)


def with_size(block, size):
    """Put a size into a header that tarfile would not write."""
    changed = bytearray(block)
    changed[124:136] = b"\x80" + size.to_bytes(11, "big")
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed[:512])
    return bytes(changed)


HOSTILE = {
    "parent": (member("../outside.txt"), "outside the archive"),
    "parent inside": (member("a/../../outside.txt"), "outside the archive"),
    "absolute": (member("/tmp/outside.txt"), "outside the archive"),
    "backslash": (member("..\\outside.txt"), "outside the archive"),
    "drive": (member("C:\\outside.txt"), "outside the archive"),
    "long parent": (member("x/" * 80 + "../" * 90 + "outside.txt"), "outside the archive"),
    "pax parent": (pax(path="../outside.txt") + member("a.txt"), "outside the archive"),
    "symbolic link": (header("a.txt", kind=tarfile.SYMTYPE, link="/etc/passwd"), "symbolic link"),
    "hard link": (header("a.txt", kind=tarfile.LNKTYPE, link="../b"), "hard link"),
    "device": (header("a.txt", kind=tarfile.CHRTYPE), "device"),
    "block device": (header("a.txt", kind=tarfile.BLKTYPE), "device"),
    "pipe": (header("a.txt", kind=tarfile.FIFOTYPE), "pipe"),
    "sparse": (header("a.txt", kind=tarfile.GNUTYPE_SPARSE), "sparse"),
    "pax sparse": (pax(GNU__sparse__major="1") + member("a.txt"), "sparse"),
    "long link": (header("a.txt", kind=tarfile.SYMTYPE, link="x" * 5000), "link with a long name"),
    "pax link": (pax(linkpath="/etc/passwd") + member("a.txt"), "link"),
    "unknown kind": (header("a.txt", kind=b"Q"), "unknown kind"),
    "twice": (member("a.txt", b"1") + member("a.txt", b"2"), "comes twice"),
    "twice in disguise": (member("a.txt", b"1") + member("./a.txt", b"2"), "comes twice"),
    "endless name": (member("L", b"a" * 100_000, tarfile.GNUTYPE_LONGNAME) + member("a.txt"), "more than 4096"),
    "endless pax": (pax(comment="a" * 100_000) + member("a.txt"), "more than 65536"),
    "name for all": (pax(b"g", path="a.txt") + member("a.txt"), "all members"),
    "no name": (member(""), "outside the archive"),
    "broken pax": (member("pax", b"99 path=a", b"x") + member("a.txt"), "broken"),
    "pax that stands still": (member("pax", b"0 path=a\n", b"x") + member("a.txt"), "broken"),
    "size beyond the end": (header("a.txt", 10_000), "ends before"),
    "huge size": (with_size(header("a.txt"), 2**80), "ends before"),
    "pax size": (pax(size="99999999999999999999") + member("a.txt"), "ends before"),
    "negative pax size": (pax(size="-512") + member("a.txt"), "ends before"),
    "wrong checksum": (b"b" + member("a.txt")[1:], "header"),
    "cut off": (member("a.txt", b"x" * 2000)[:1000], "ends before"),
    "cut header": (member("a.txt")[:300], "header"),
}


@pytest.mark.fault(25)
@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("compression", [None, "gz"])
def test_hostile_member_is_refused_and_nothing_is_written_outside(case, compression, tmp_path):
    inner = tmp_path / "deep" / "inner"
    inner.mkdir(parents=True)
    data, reason = HOSTILE[case]
    path = inner / "a.tar"
    end = b"" if "cut" in case else bytes(1024)
    path.write_bytes(PACKERS[compression](member("good.txt") + data + end))
    for read in (TarArchiveDataset, IterableTarArchiveDataset, WebShards):
        with pytest.raises(ArchiveError, match=reason):
            read(path, cache_dir=inner / "cache")
    written = {file.relative_to(tmp_path).parts[:3] for file in tmp_path.rglob("*") if file.is_file()}
    assert written <= {("deep", "inner", "a.tar"), ("deep", "inner", "cache")}
    assert not list(inner.glob("cache/*building*"))


@pytest.mark.fault(25)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("case", ["parent", "symbolic link", "pipe", "twice", "sparse"])
def test_hostile_member_in_an_archive_like_ours_is_refused(compression, case, tmp_path):
    path = convert_dataset_to_tar(MixedDataset(30), tmp_path / "a.tar", compression)
    index_path(path).unlink()
    whole = path.read_bytes()
    first = PACKERS[compression](HOSTILE[case][0])
    header_bytes = 1024 if compression is None else whole_first_block(whole, compression)
    path.write_bytes(whole[:header_bytes] + first + whole[header_bytes:])
    with pytest.raises(ArchiveError, match=HOSTILE[case][1]):
        TarArchiveDataset(path)


def whole_first_block(whole, compression):
    from autotune.data.archives.block_stream import inflate_pieces
    from autotune.data.archives.compression import CODECS

    return next(
        piece.stored_end for piece in inflate_pieces(io.BytesIO(whole), CODECS[compression]) if piece.ends_block
    )


BOMB_BYTES = 10 * 10**9
READER = """
import resource, sys
from pathlib import Path
import torch
from autotune.errors import ArchiveError
from autotune.loaders import TarArchiveDataset, IterableTarArchiveDataset
from autotune.data.archives.web_shards import WebShards
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
folder = Path(sys.argv[1])
try:
    dataset = TarArchiveDataset(folder / "bomb", cache_dir=folder / "cache")
    dataset[0]
except ArchiveError as error:
    print("refused", error, file=sys.stderr)
else:
    sys.exit("not refused")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown)
"""


def refused_in_a_process_of_its_own(folder):
    """Read the bomb elsewhere, and give the message and the memory that it took in KiB."""
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder)],
        env=support_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr, int(done.stdout)


@pytest.mark.fault(26)
@pytest.mark.parametrize("compression", ["gz", pytest.param("xz", marks=pytest.mark.long), "zst"])
@pytest.mark.parametrize("marked", [pytest.param(False, marks=pytest.mark.long), True])
def test_bomb_of_zeros_is_stopped_before_memory_or_disk_are_taken(compression, marked, tmp_path):
    piece = PACKERS[compression](bytes(10_000_000))
    start = header("a.npy", BOMB_BYTES)
    if marked:  # as our own archives begin
        about = json.dumps({"version": 1, "kind": "decoded", "compression": compression, "metadata": {}}).encode()
        # one block that does not end
        start = member("__autotune__/archive.json", about) + start
    with (tmp_path / "bomb").open("wb") as file:
        file.write(PACKERS[compression](start))
        for _ in range(BOMB_BYTES // 10_000_000):
            file.write(piece)
    assert (tmp_path / "bomb").stat().st_size < 20_000_000
    message, grown_kib = refused_in_a_process_of_its_own(tmp_path)
    assert ("ends before" if marked else "inflate to more than") in message
    assert grown_kib < 200_000
    assert sum(file.stat().st_size for file in tmp_path.glob("cache/*")) == 0


@pytest.mark.fault(26)
@pytest.mark.parametrize("compression", ["gz", "xz", "zst"])
def test_endless_block_in_an_archive_like_ours_is_stopped(compression, tmp_path):
    about = json.dumps({"version": 1, "kind": "decoded", "compression": compression, "metadata": {}}).encode()
    path = tmp_path / "a.tar"
    block = header("00000000.0.npy", 60_000_000) + bytes(60_000_000)
    path.write_bytes(PACKERS[compression](member("__autotune__/archive.json", about)) + PACKERS[compression](block))
    with pytest.raises(ArchiveError, match="more than"):
        TarArchiveDataset(path, sample_limit_bytes=50_000_000)


@pytest.mark.fault(26)
@pytest.mark.parametrize("compression", ["gz", "xz", "zst"])
def test_limits_of_bytes_and_ratio_can_be_set(compression, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(PACKERS[compression](member("a.npy", bytes(3_000_000)) + bytes(1024)))
    with pytest.raises(ArchiveError, match="limit_bytes"):
        TarArchiveDataset(path, cache_dir=tmp_path / "c", limit_bytes=1_000_000)
    with pytest.raises(ArchiveError, match="at most"):
        TarArchiveDataset(path, cache_dir=tmp_path / "c", sample_limit_bytes=1_000_000)
    with pytest.raises(ArchiveError, match="limit_ratio"):
        WebShards(path, cache_dir=tmp_path / "d", limits=TarLimits(free_bytes=1000, ratio=5))
    assert not list((tmp_path / "d").glob("*.tar"))
    assert len(TarArchiveDataset(path, cache_dir=tmp_path / "c")) == 1


@pytest.mark.fault(10)
def test_disk_that_is_too_small_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(PACKERS["gz"](member("a.npy", bytes(3_000_000)) + bytes(1024)))
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=1_000_000))
    with pytest.raises(CapacityError) as caught:
        TarArchiveDataset(path, cache_dir=tmp_path / "c")
    assert caught.value.needed_bytes > caught.value.available_bytes
    assert not list((tmp_path / "c").glob("*.tar*[!k]"))


@pytest.mark.fault(26)
@pytest.mark.parametrize("compression", [None, "zst"])
@pytest.mark.parametrize(
    "claim",
    [("blocks", 3, 2**39), ("members", 1, 2**39), ("blocks", 2, 2**39), ("blocks", 1, 2**50), ("samples", 1, 2**35)],
)
def test_index_that_claims_huge_sizes_is_not_believed(compression, claim, tmp_path):
    table, column, value = claim
    path = convert_dataset_to_tar(MixedDataset(5), tmp_path / "a.tar", compression)
    index = TarIndex.from_file(index_path(path))
    tables = {name: getattr(index, name).copy() for name in ("blocks", "members", "samples")}
    tables[table][:, column] = value
    if table == "members":
        tables["blocks"][:, 3] = 2**40
    hostile = TarIndex(**tables, skeletons=index.skeletons, notes=index.notes)
    index_path(path).write_bytes(hostile.to_bytes())
    try:
        dataset = TarArchiveDataset(path)
    except ArchiveError:
        return
    assert samples_of(dataset) == samples_of(MixedDataset(5))


def samples_of(dataset):
    return [pickle.dumps([part.numpy().tobytes() for part in dataset[index].values() if torch.is_tensor(part)])
            for index in range(len(dataset))]  # fmt: skip


def npy_of(descr, shape, data=b"", fortran=False):
    text = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    "data",
    [
        npy_of("<f4", (10**12,)),
        npy_of("<f4", (2**40, 2**40)),
        npy_of("<f4", (-5,), b"1234"),
        npy_of("<f4", (2**64,), b"1234"),
        npy_of("<U4000000000", (1,), b"1234"),
        npy_of("<f4", (2,), b"1234"),
        npy_of("<f4", "x", b"1234"),
        npy_of("nonsense", (1,), b"1234"),
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{",
        b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16,
        b"\x93NUMPY\x01\x00\x00\x40" + b"(" * 0x4000,
        b"",
    ],
)
@pytest.mark.parametrize("compression", [None, "gz"])
def test_array_that_declares_what_it_is_not_is_refused(data, compression, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(PACKERS[compression](member("a.npy", data) + bytes(1024)))
    for dataset in (TarArchiveDataset(path, cache_dir=tmp_path / "c"), WebShards(path, cache_dir=tmp_path / "c")):
        with pytest.raises(ArchiveError, match="array"):
            dataset[0]


@pytest.mark.fault(27)
@pytest.mark.parametrize("name", ["a.pkl", "a.pth", "a.pyd", "a.pickle", "a.pt", "a.npy", "a.PKL", "a.b.pth"])
def test_pickles_are_refused_and_their_canary_does_not_run(name, tmp_path):
    canary = tmp_path / "canary"
    stream = io.BytesIO()
    if name.endswith("npy"):
        np.save(stream, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    elif name.endswith(("pth", "pt")):
        torch.save(Canary(canary), stream)
    else:
        pickle.dump(Canary(canary), stream)
    path = tmp_path / "a.tar"
    path.write_bytes(member(name, stream.getvalue()) + bytes(1024))
    for dataset in (TarArchiveDataset(path), WebShards(path)):
        with pytest.raises(ArchiveError, match="pickled"):
            dataset[0]
    assert WebShards(path, decode=False)[0][name.partition(".")[2]] == stream.getvalue()
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists()


@pytest.mark.fault(27)
def test_pickles_written_by_the_webdataset_package_are_refused(tmp_path):
    canary = tmp_path / "canary"
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        writer.write({"__key__": "a", "pyd": Canary(canary), "cls": 3})
    with pytest.raises(ArchiveError, match="pickled"):
        _ = WebShards(tmp_path / "a.tar")[0]
    assert not canary.exists()


@pytest.mark.fault(27)
def test_array_of_objects_in_an_archive_of_ours_is_refused(tmp_path):
    canary = tmp_path / "canary"
    path = convert_dataset_to_tar(MixedDataset(2), tmp_path / "a.tar")
    stream = io.BytesIO()
    np.save(stream, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    whole = path.read_bytes()
    extent = TarIndex.from_file(index_path(path))
    offset = int(extent.blocks[0, 1] + extent.members[0, 0])
    room = int(extent.members[0, 1])
    evil = stream.getvalue()[:room].ljust(room, b"\0")
    path.write_bytes(whole[:offset] + evil + whole[offset + room :])
    with pytest.raises(ArchiveError, match=r"pickled|array"):
        TarArchiveDataset(path)[0]
    assert not canary.exists()


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    "skeleton", ['["nonsense"]', '["dict", [1]]', '["list", 5]', '["bigint", "x"]', '["tensor"]', '["list", [["int"]]]']
)
def test_structure_that_is_nonsense_is_refused(skeleton, tmp_path):
    path = convert_dataset_to_tar(MixedDataset(3), tmp_path / "a.tar")
    index = TarIndex.from_file(index_path(path))
    hostile = TarIndex(index.blocks, index.members, index.samples, (skeleton,), index.notes)
    index_path(path).write_bytes(hostile.to_bytes())
    with pytest.raises(ArchiveDamagedError, match="structure"):
        TarArchiveDataset(path)[0]


@pytest.mark.fault(25)
@pytest.mark.parametrize("skeleton", ['["list", [["list", ', "5", "[" * 100_000, '"__class__"'])
def test_index_with_a_structure_that_is_none_is_not_believed(skeleton, tmp_path):
    path = convert_dataset_to_tar(MixedDataset(3), tmp_path / "a.tar")
    index = TarIndex.from_file(index_path(path))
    hostile = TarIndex(index.blocks, index.members, index.samples, (skeleton,), index.notes)
    index_path(path).write_bytes(hostile.to_bytes())
    assert samples_of(TarArchiveDataset(path)) == samples_of(MixedDataset(3))


@pytest.mark.fault(26)
@pytest.mark.parametrize("change", [
    {"runs": [[0, 5, 10**12]], "count": 10**12}, {"runs": [[0, 0, 10**12]], "count": 10**12},
    {"runs": [[9, 5, 3]]}, {"runs": [[0, 5, 4]], "count": 4}, {"runs": 5}, {"runs": [[0, 5, 2]], "count": 2},
    {"runs": [[0, -5, 3]]}, {"skeletons": 5}, {"count": "x"}, {"runs": [["a", "b", "c"]]},
])  # fmt: skip
def test_footer_that_lies_is_refused(change, tmp_path):
    path = convert_dataset_to_tar(MixedDataset(3), tmp_path / "a.tar")
    index = TarIndex.from_file(index_path(path))
    index_path(path).unlink()
    footer = {"count": 3, "skeletons": list(index.skeletons), "runs": [[0, 5, 3]], "sha256": "", **change}
    start = path.read_bytes()[: index.notes["tail_offset"]]
    path.write_bytes(start + member("__autotune__/index.json", json.dumps(footer).encode()) + bytes(1024))
    with pytest.raises(ArchiveDamagedError):
        TarArchiveDataset(path)


@pytest.mark.fault(23)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("damage", ["cut tail", "cut half", "drop"])
def test_damaged_archive_is_found_when_it_is_opened(compression, beside, damage, tmp_path):
    path = convert_dataset_to_tar(BytesDataset(40), tmp_path / "a.tar", compression)
    index = TarIndex.from_file(index_path(path))
    if not beside:
        index_path(path).unlink()
    whole = path.read_bytes()
    if damage == "cut tail":
        path.write_bytes(whole[: index.notes["tail_offset"]])
    elif damage == "cut half":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        _, offset, size, _ = index.blocks[1].tolist()
        path.write_bytes(whole[:offset] + whole[offset + size :])
    with pytest.raises(ArchiveDamagedError, match=r"a\.tar|block"):
        TarArchiveDataset(path)


@pytest.mark.fault(23)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_flipped_byte_is_found_by_its_checksum(compression, tmp_path):
    path = convert_dataset_to_tar(BytesDataset(40), tmp_path / "a.tar", compression)
    index = TarIndex.from_file(index_path(path))
    _, offset, size, _ = index.blocks[len(index.blocks) // 2].tolist()
    whole = bytearray(path.read_bytes())
    whole[offset + size // 2] ^= 4
    path.write_bytes(whole)
    archive = TarArchiveDataset(path)
    with pytest.raises(ArchiveDamagedError, match="checksum"):
        archive.verify()
    if compression is not None:
        with pytest.raises(ArchiveDamagedError, match=r"a\.tar.*anew"):
            [archive[index] for index in range(40)]


@pytest.mark.fault(23)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_archive_of_another_version_is_refused(compression, tmp_path):
    about = json.dumps({"version": 99, "kind": "decoded", "compression": compression, "metadata": {}}).encode()
    footer = json.dumps({"count": 0, "skeletons": [], "runs": []}).encode()
    blocks = [member("__autotune__/archive.json", about), member("__autotune__/index.json", footer), bytes(1024)]
    (tmp_path / "a.tar").write_bytes(b"".join(PACKERS[compression](block) for block in blocks))
    with pytest.raises(ArchiveError, match="version 1"):
        TarArchiveDataset(tmp_path / "a.tar")


@pytest.mark.fault(26)
def test_picture_that_declares_more_pixels_than_it_has_is_refused(tmp_path):
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    idat = b"IDAT" + zlib.compress(bytes(100))
    data += struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
    (tmp_path / "a.tar").write_bytes(member("a.png", data) + bytes(1024))
    with pytest.raises(ArchiveError, match="bomb"):
        _ = WebShards(tmp_path / "a.tar")[0]
