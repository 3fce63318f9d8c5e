"""Files that mean harm: tars that reach outside, bombs, pickles, study files."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import uuid
from functools import partial
from pathlib import Path

import numpy as np

from autotune.drill._base import promised, refusal
from autotune.errors import ArchiveError, StudyFileError
from autotune.loaders import IterableTarArchiveDataset, TarArchiveDataset
from autotune.spec.study_file import read_study
from autotune.units import MIB

_BOMB_BYTES = 200 * MIB
_LIMIT_BYTES = 10 * MIB

_MEMBERS = {
    "../": ("../outside.txt", tarfile.REGTYPE, ""),
    "absolute": (f"/tmp/autotune-drill-{uuid.uuid4().hex}.txt", tarfile.REGTYPE, ""),  # noqa: S108 - never written
    "symbolic link": ("link", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": ("link", tarfile.LNKTYPE, "../outside.txt"),
    "device": ("device", tarfile.CHRTYPE, ""),
    "long link": ("link", tarfile.SYMTYPE, "x" * 5000),
}
_STUDIES = {
    "!!python/object": ("seed: !!python/object/apply:pathlib.Path.touch [{canary}]", "tags are not read"),
    "unknown key": ("workers: 4", "workers: must be a known key"),
    "wrong unit": ("memory_limit: 2 lightyears", "memory_limit"),
    "negative size": ("memory_limit: -1GiB", "memory_limit"),
    "no factory": ("dataset: {arguments: {}}", "dataset"),
}
_START = {"name": "name: drill", "dataset": "dataset: my_package.data:make", "budget": "budget: 2m"}


def hostile_tar(folder: Path) -> str:
    """Open tars whose members lead outside, are links or devices (row 25)."""
    inner = folder / "deep" / "inner"
    inner.mkdir(parents=True)
    for case, (name, kind, link) in _MEMBERS.items():
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        path = _tar(inner / f"{case.replace('/', '')}.tar", member)
        for read in (TarArchiveDataset, IterableTarArchiveDataset):
            told = refusal(partial(read, path, cache_dir=inner / "cache"), ArchiveError)
    outside = [path for path in folder.rglob("*") if path.is_file() and inner not in path.parents]
    promised(not outside, f"something was written outside: {outside}")
    promised(not Path(_MEMBERS["absolute"][0]).exists(), "something was written to an absolute path")
    return f"all {len(_MEMBERS)} were refused, the last one because {told}"


def bomb(folder: Path) -> str:
    """Open 200 MB of zeros in 0.2 MB, and an array that declares a terabyte (row 26)."""
    member = tarfile.TarInfo("a.npy")
    member.size = _BOMB_BYTES
    with gzip.open(folder / "bomb.tar.gz", "wb") as file:
        file.write(member.tobuf())
        for _ in range(_BOMB_BYTES // MIB):
            file.write(bytes(MIB))
    stored = (folder / "bomb.tar.gz").stat().st_size
    told = refusal(
        lambda: TarArchiveDataset(folder / "bomb.tar.gz", cache_dir=folder / "cache", limit_bytes=_LIMIT_BYTES)[0],
        ArchiveError,
        "more than",
    )
    written = sum(path.stat().st_size for path in folder.glob("cache/*"))
    promised(written <= _LIMIT_BYTES, f"{written} bytes were written of {stored} that were stored")
    declared = _tar(folder / "declared.tar", tarfile.TarInfo("a.npy"), _declared((10**6, 10**6)))
    refusal(lambda: TarArchiveDataset(declared)[0], ArchiveError, "array")
    return f"{told}; the array was refused before memory was taken"


def pickled_data(folder: Path) -> str:
    """Open pickles as `.pkl`, `.pth` and arrays of objects, whose code would write a file (row 27)."""
    canary = folder / "canary"
    objects = io.BytesIO()
    np.save(objects, np.array([_Canary(canary)], dtype=object), allow_pickle=True)
    harmful = pickle.dumps(_Canary(canary))
    told = ""
    for name, data in {"a.pkl": harmful, "a.pth": harmful, "a.npy": objects.getvalue()}.items():
        path = _tar(folder / f"{name}.tar", tarfile.TarInfo(name), data)
        told = refusal(partial(TarArchiveDataset(path).__getitem__, 0), ArchiveError, "pickled")
        promised(not canary.exists(), f"the code of {name} was run")
    pickle.loads(harmful)  # noqa: S301 - our own, to show that its code works
    promised(canary.exists(), "the pickle does no harm even where it is read, so this drill shows nothing")
    return f"{told}; its code was not run"


def hostile_study(folder: Path) -> str:
    """Read study files with objects to build, unknown keys, wrong units, negative sizes, without a factory (row 28)."""
    canary, path, told = folder / "canary", folder / "study.yaml", ""
    for line, words in _STUDIES.values():
        lines = {**_START, line.partition(":")[0]: line.replace("{canary}", str(canary))}
        path.write_text("\n".join(lines.values()) + "\n")
        place = f"{path}:{1 + list(lines).index(line.partition(':')[0])}: "
        told = refusal(lambda: read_study(path), StudyFileError, words, place)
        promised(not canary.exists(), "code of a study file was run")
    return f"all {len(_STUDIES)} were refused with line and key, as in {told}"


class _Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def _tar(path: Path, member: tarfile.TarInfo, data: bytes = b"") -> Path:
    member.size = len(data)
    with tarfile.open(path, "w") as file:
        file.addfile(member, io.BytesIO(data))
    return path


def _declared(shape: tuple[int, ...]) -> bytes:
    """Write an array's header with a shape that its bytes do not fill."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(4, np.float32))
    return stream.getvalue().replace(b"(4,), }", f"{shape}, }}".encode())
