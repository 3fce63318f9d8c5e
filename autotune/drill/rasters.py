"""Rasters as they come: without a measurement, rotated, 12 bits deep, of terabytes by their own word (row 34).

They are read by a process of its own, whose memory is limited: run as `python -m autotune.drill.rasters <folder>`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.drill._base import NotHereError, promised
from autotune.drill.tiffs import CMYK, write_tiff
from autotune.units import MIB

_ROOM_BYTES = 512 * MIB
"""What reading may take: far less than what the last raster claims."""
_WITHIN_S = 120.0
_VAST = 1_000_000
"""Pixels on a side, of float32 values: 3.6 TiB."""
_FILL = -1.0
_TURNED = (1.0, 0.5, 0.0, 10.0, 0.5, -1.0, 0.0, 20.0, *[0.0] * 7, 1.0)


@dataclass(frozen=True)
class _Odd:
    """A raster, and the values that are to come of it, band by band."""

    pixels: NDArray[Any]
    values: NDArray[Any]
    settings: dict[str, Any] = field(default_factory=dict)


def _odd() -> dict[str, _Odd]:
    ground = np.array([[0, 3], [9, 0]], np.float32)
    lost = np.array([[1, np.nan], [np.inf, 2]], np.float32)
    line = np.arange(37, dtype=np.float32)[None]
    deep = np.full((4, 4), 4095, np.uint16)
    inks = np.zeros((4, 4, 4), np.uint8)
    inks[..., 0] = 255
    shown = np.stack([np.full((4, 4), value, np.float32) for value in (0, 255, 255, 255)])
    return {
        "all nodata": _Odd(np.full((3, 5), -9999, np.float32), np.full((3, 5), _FILL), {"nodata": "-9999"}),
        "NaN": _Odd(lost, np.array([[1, _FILL], [_FILL, 2]])),
        "nodata of 0": _Odd(ground, ground, {"nodata": "0"}),
        "odd size": _Odd(line, line),
        "rotated": _Odd(ground, ground, {"transform": _TURNED}),
        "12-bit": _Odd(deep, deep, {"bits": 12}),
        "CMYK": _Odd(inks, shown, {"colours": CMYK}),
    }


def odd_rasters(folder: Path) -> str:
    """Read rasters that are odd, and one that claims 3.6 TiB, with 512 MiB of memory (row 34)."""
    if sys.platform != "linux":
        raise NotHereError("the memory of a process is limited on Linux alone")
    run = subprocess.run(
        [sys.executable, "-m", __name__, str(folder)], capture_output=True, text=True, timeout=_WITHIN_S, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    told = (run.stdout or run.stderr).strip().splitlines() or ["nothing was said"]
    promised(run.returncode == 0, f"reading ended with {run.returncode}: {told[-1]}")
    return told[-1]


def _read_all(folder: Path) -> str:
    """Read them all, and say what came of it.

    Raises:
        SystemExit: One of them was not read as it is, or not refused.
    """
    from autotune.data.datasets.raster import GeoTiffPairDataset
    from autotune.errors import SampleError

    def read(path: Path) -> NDArray[Any]:
        mask = path.with_suffix(".mask")
        pixels: NDArray[Any] = GeoTiffPairDataset([path], [mask], fill=_FILL)[0][0].numpy()
        return pixels

    odd, paths = _odd(), _write_all(folder)
    read(paths["odd size"])  # what reading imports is not counted
    _limit_memory()
    for name, one in odd.items():
        values = read(paths[name])
        if not np.array_equal(values, one.values.reshape(values.shape)):
            raise SystemExit(f"{name} was read as {values.flatten()[:8].tolist()}")
    try:
        read(paths["vast"])
    except SampleError as error:
        if str(paths["vast"]) in str(error):
            return f"{len(odd)} odd rasters were read as they are; {error}"
        raise SystemExit(f"the error does not name {paths['vast']}: {error}") from error
    raise SystemExit("a raster of 3.6 TiB was read")


def _write_all(folder: Path) -> dict[str, Path]:
    paths = {}
    for name, odd in _odd().items():
        paths[name] = write_tiff(folder / f"{name}.tif", odd.pixels, **odd.settings)
        write_tiff(folder / f"{name}.mask", np.zeros(odd.pixels.shape[:2], np.uint8))
    claimed = {256: _VAST, 257: _VAST, 278: 1}
    for suffix in (".mask", ".tif"):
        paths["vast"] = write_tiff(folder / f"vast{suffix}", np.zeros((1, 25), np.float32), claimed=claimed)
    return paths


def _limit_memory() -> None:
    """Leave this process so much memory beyond what it has."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    sys.stdout.write(_read_all(Path(sys.argv[1])) + "\n")
