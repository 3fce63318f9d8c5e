"""Generated data that is drawn once: its folder appears only when everything is in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

Progress = Callable[[int, int], None]
"""Told how many are drawn, and of how many."""


def drawn_once(root: Path, name: str, draw: Callable[[Path], None]) -> Path:
    """Give a folder of generated data; two processes that ask at once draw it once.

    What a process that died left behind is removed, and nothing is left of a drawing that fails.

    Args:
        root: Folder for generated data.
        name: Name of the folder in it: kind, version and settings of the drawing.
        draw: Draws into the empty folder that it is given.
    """
    folder = root / name
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        for leftover in root.glob(f"{name}.drawing-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        drawing = root / f"{name}.drawing-{os.getpid()}"
        try:
            drawing.mkdir()
            draw(drawing)
            drawing.rename(folder)
        except BaseException:
            shutil.rmtree(drawing, ignore_errors=True)
            raise
    return folder


__all__ = ["Progress", "drawn_once"]
