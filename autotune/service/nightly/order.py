"""What a night is told: which studies, for how long, on which machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autotune.compose import Places
from autotune.constants import KEEP_DAYS
from autotune.errors import SpecError
from autotune.service.settings import STUDY_ENDINGS


@dataclass(frozen=True, kw_only=True)
class NightOrder:
    """What a night is told.

    Attributes:
        files: Study files by the name that they are asked for: that of the file without its ending.
        budget_s: Wall time in seconds.
        at: Where everything is kept.
        machine: Name of the machine's lease; two nights of one name exclude each other, wherever they run.
        keep_days: Days that trial records stay, and archives that nothing deploys.
    """

    files: Mapping[str, Path]
    budget_s: float
    at: Places
    machine: str = field(default_factory=lambda: platform.node() or "unknown")
    keep_days: int = KEEP_DAYS


def study_files(paths: Sequence[Path]) -> dict[str, Path]:
    """Give the study files of folders and files, by their names without the ending, in the order of the names.

    Raises:
        SpecError: A path is not there, a folder holds no study, or two files have one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for file in _files(path):
            if file.stem in found and found[file.stem] != file:
                raise SpecError(
                    f"studies of one night have files of different names, got {found[file.stem]} and {file}; rename one"
                )
            found[file.stem] = file
    return dict(sorted(found.items()))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SpecError(f"a study is a file, or lies in a folder, got {path}, which is not there; check the path")
    files = [file for file in path.iterdir() if file.suffix in STUDY_ENDINGS and file.is_file()]
    if not files:
        raise SpecError(f"a folder of studies holds files that end in .yaml, got {path} with none; check the path")
    return files
