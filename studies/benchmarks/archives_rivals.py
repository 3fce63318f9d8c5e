"""Packages that need an environment of their own; run by `archives.py` with that environment's Python.

Reads one request a line (JSON) on standard input and answers one line each. Every request is done in a process
forked from this one, which has imported everything, as our own rows are. Nothing of autotune is imported, and
windows are timed in the same way: a warm-up (an epoch; without workers half a second of it), then whole epochs, at
least 0.25 s to a window, until the time is over; cold, the first epoch alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import litdata
import monai.data
import monai.transforms
import numpy as np
import torch
from torch.utils.data import DataLoader

_WINDOW_MIN_S = 0.25
_WARM_UP_S = 0.5
_CHUNK_BYTES = "64MB"


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the packages print is no answer
    for line in sys.stdin:
        answers.write(_in_fork(json.loads(line)) + "\n")
        answers.flush()


def _in_fork(request: dict[str, Any]) -> str:
    """Do a request in a process of its own and give its answer."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            answer = {"ok": DO[request["do"]](request)}
        except BaseException as error:  # noqa: BLE001 - the answer says it
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(writing, "w") as pipe:
            pipe.write(json.dumps(answer))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text or json.dumps({"error": "the process died"})


def _versions(_: dict[str, Any]) -> dict[str, str]:
    return {name: metadata.version(name) for name in ("litdata", "monai", "torch", "numpy")}


def _build(request: dict[str, Any]) -> dict[str, float]:
    """Let litdata write its chunks from decoded samples."""
    started_s = time.perf_counter()
    Path(request["directory"]).mkdir(parents=True, exist_ok=True)
    litdata.optimize(
        fn=partial(_read_row, request["leaves"]),
        inputs=list(range(request["samples"])),
        output_dir=request["directory"],
        chunk_bytes=_CHUNK_BYTES,
        num_workers=request["workers"],
        verbose=False,
    )
    return {"seconds": time.perf_counter() - started_s}


def _read_row(leaves: list[str], index: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.array(np.load(path, mmap_mode="r")[index])) for path in leaves)


class _ReadRow(monai.transforms.Transform):
    """The deterministic transform whose results MONAI caches."""

    def __init__(self, leaves: list[str]) -> None:
        self._leaves = leaves

    def __call__(self, index: int) -> tuple[torch.Tensor, ...]:
        return _read_row(self._leaves, index)


def _loader(request: dict[str, Any]) -> Iterable[Any]:
    workers, batch = request["workers"], request["batch"]
    shared = {"batch_size": batch, "num_workers": workers, "persistent_workers": workers > 0}
    if request["row"] == "litdata":
        dataset = litdata.StreamingDataset(request["directory"], shuffle=True, drop_last=False)
        return litdata.StreamingDataLoader(dataset, **shared)
    cached = monai.data.CacheDataset(
        list(range(request["samples"])), _ReadRow(request["leaves"]), progress=False, num_workers=0
    )
    if request["row"] == "monai":
        return DataLoader(cached, shuffle=True, **shared)
    return monai.data.ThreadDataLoader(cached, batch_size=batch, shuffle=True, num_workers=0)


def _check(request: dict[str, Any]) -> dict[str, int]:
    """Sum up what one epoch gives, whatever its order; as `archives_runs.digest` does."""
    count, total = 0, 0
    for batch in _loader(request):
        leaves = [leaf.numpy() for leaf in batch]
        for place in range(len(leaves[0])):
            checksum = 0
            for leaf in leaves:
                checksum = zlib.crc32(np.ascontiguousarray(leaf[place]).tobytes(), checksum)
            total += checksum
            count += 1
    return {"count": count, "digest": total}


def _measure(request: dict[str, Any]) -> dict[str, Any]:
    loader = _loader(request)
    if request["state"] == "cold":
        return {"windows": [_window(loader, 0.0)]}
    _warm_up(loader, request["workers"])
    windows: list[dict[str, float]] = []
    while not _enough(sum(window["seconds"] for window in windows), len(windows), request["seconds"]):
        windows.append(_window(loader, _WINDOW_MIN_S))
    return {"windows": windows}


def _warm_up(loader: Iterable[Any], workers: int) -> None:
    until_s = time.perf_counter() + _WARM_UP_S
    for _ in loader:
        if not workers and time.perf_counter() >= until_s:
            return


def _window(loader: Iterable[Any], least_s: float) -> dict[str, float]:
    samples, seconds, started_s = 0, 0.0, time.perf_counter()
    while True:
        samples += sum(map(len, _first_leaves(loader)))
        seconds = time.perf_counter() - started_s
        if seconds >= least_s:
            return {"seconds": seconds, "samples": samples}


def _first_leaves(loader: Iterable[Any]) -> Iterator[Any]:
    for batch in loader:
        yield batch[0]


def _enough(spent_s: float, windows: int, cap_s: float) -> bool:
    return windows > 0 and spent_s >= cap_s and (windows > 1 or spent_s >= 2 * cap_s)


DO = {"versions": _versions, "build": _build, "check": _check, "measure": _measure}


if __name__ == "__main__":
    main()
