"""Files in folders, where the folders at the top are the classes."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autotune.errors import DatasetError


def visible_files(root: Path, suffixes: Collection[str]) -> list[Path]:
    """Give the files under a folder by the ends of their names (in small letters), in the order of their paths.

    Hidden files and what is in hidden folders are left out: previews, checkpoints and the `._` files of other systems
    have the names of samples and are none.
    """
    found: list[Path] = []
    for folder, inside, names in os.walk(root):
        inside[:] = [name for name in inside if not name.startswith(".")]
        paths = (Path(folder, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in suffixes and path.is_file()]
    return sorted(found)


def class_numbers(
    files: Sequence[Path], root: Path, *, kind: str, way_out: str = "move it elsewhere"
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Number the folders of `root` that files lie in, in the order of their names.

    Args:
        files: Files at any depth under `root`; or `root` itself, which has no class.
        root: The folder.
        kind: What the files are, for errors.
        way_out: What can be done where some lie beside the folders.

    Returns:
        The names of the classes, none where all files lie in `root` itself; and the number of each file's class.

    Raises:
        DatasetError: Some files lie in class folders and some in `root` itself.
    """
    groups = ["" if root in (path, path.parent) else path.relative_to(root).parts[0] for path in files]
    classes = sorted(set(groups))
    if len(classes) > 1 and classes[0] == "":
        raise DatasetError(
            f"{kind} lie either all in class folders or all in {root} itself, got {files[groups.index('')].name} "
            f"beside the folder {classes[1]}; {way_out}"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return tuple(name for name in classes if name), np.array([numbers[group] for group in groups], dtype=np.int64)


__all__ = ["class_numbers", "visible_files"]
