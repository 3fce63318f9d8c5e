"""Faults of archives: damaged, half built, stale, or of random samples."""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path

from autotune.data.archives.checking import verify
from autotune.data.archives.listing import list_archives
from autotune.data.archives.store import open_or_build
from autotune.data.facts import samples_equal
from autotune.drill._base import NotHereError, promised, refusal
from autotune.drill.builders import KilledBuilders
from autotune.drill.datasets import Augmented, Files, Numbers
from autotune.drill.registries import deploy, served
from autotune.errors import ArchiveDamagedError, ArchiveStaleError, RandomSamplesError
from autotune.spec import LoaderConfig

_NPY = LoaderConfig(archive="npy", stored="decoded")
_BUILDERS = 5
_COUNT = 200
"""Samples whose archive takes the better part of a second to build."""


def damaged_archive(folder: Path) -> str:
    """Flip a byte of an archive, cut its file, remove it (row 23)."""
    dataset, told = Numbers(), ""
    deploy(folder, dataset, _NPY)
    for damage in (_flip, _cut, Path.unlink):
        opened = open_or_build(dataset, _NPY, folder / "archives")
        promised(opened.directory is not None, "no archive was built")
        del opened
        file = max(folder.rglob("*.npy"), key=lambda path: path.stat().st_size)
        damage(file)
        told = refusal(
            lambda: open_or_build(dataset, _NPY, folder / "archives", build=False), ArchiveDamagedError, file.name
        )
        loader, warning = served(dataset, folder)
        promised("archive=files" in warning, f"it was to warn that files are read instead, got {warning!r}")
        read = [sample for batch in loader for sample in batch]
        right = samples_equal(read, [dataset[index] for index in range(len(dataset))])
        promised(right, "the loader gave other samples than the dataset")
    return f"{told}; best_loader read the files instead, three times"


def killed_builder(folder: Path) -> str:
    """Kill a process that builds an archive, at five random points (row 24)."""
    if not hasattr(os, "fork"):
        raise NotHereError("builders are forked, which this system does not do")
    whole = 0
    with KilledBuilders("autotune.drill.datasets:SlowNumbers") as builders:
        whole_s = builders.whole_s("npy", "decoded", folder / "whole", workers=0, count=_COUNT)
        for number in range(_BUILDERS):
            root = folder / str(number)
            after_s = random.uniform(0.0, 1.1 * whole_s)  # noqa: S311 - no secret
            builders.kill_one("npy", "decoded", root, workers=0, count=_COUNT, after_s=after_s)
            for entry in list_archives(root):
                verify(root / entry.name, full=True)
                whole += 1
    return f"of {_BUILDERS} archives {whole} were whole and {_BUILDERS - whole} absent, none was half"


def stale_archive(folder: Path) -> str:
    """Touch, add and remove a file of a dataset under its archive (row 32)."""
    paths = [folder / f"{number}.bin" for number in range(8)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number, 1, 2, 3]))
    deploy(folder, Files(paths), _NPY)
    root, told = folder / "archives", ""
    for change, changed in (("touched", paths), ("added", [*paths, folder / "more.bin"]), ("removed", paths[:-1])):
        open_or_build(Files(paths), _NPY, root)
        if change == "touched":
            os.utime(paths[2], ns=(1, 1))
        (folder / "more.bin").write_bytes(b"more")
        dataset = Files(changed)
        told = refusal(partial(open_or_build, dataset, _NPY, root, build=False), ArchiveStaleError)
        loader, warning = served(dataset, folder)
        promised(loader.dataset is dataset, f"a file was {change}, and the archive is read all the same")
        promised(bool(warning), f"a file was {change}, and nothing is said of it")
    return f"{told}; best_loader read the files instead, three times"


def random_samples(folder: Path) -> str:
    """Archive a dataset that draws at random in `__getitem__` (row 33)."""
    told = refusal(
        lambda: open_or_build(Augmented(), _NPY, folder), RandomSamplesError, "augment(sample, generator)", "decode"
    )
    promised(not list(folder.rglob("manifest.json")), "an archive of random samples is there")
    return told


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
