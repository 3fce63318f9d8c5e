"""What building an archive would bring: the ratio of measured rates, the size, and the way to build it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives.estimating import estimated_bytes
from autotune.data.archives.store import stored_form
from autotune.data.stages import apart
from autotune.resolve.resolution import Resolution
from autotune.units import format_bytes, format_rate


def worth_of_building(dataset: Dataset[Any], best: Resolution, served: Resolution) -> str:
    """Say what the archive of `best` would bring over what is served, as the end of a sentence.

    A few samples are read for the size; where that fails it is left out.
    """
    faster = _faster(best.served_samples_per_s, served.served_samples_per_s)
    size = _size(dataset, best)
    study = "STUDY.yaml" if best.study is None else f"with the file of study {best.study!r}"
    told = f"; `autotune archive build` {study}, or archive='build' here, builds it"
    return f"{told}{size}{faster}"


def _faster(best: float | None, served: float | None) -> str:
    if best is None or served is None or best <= served:
        return ""
    return (
        f", and loading would be {best / served:.2f} times as fast: {format_rate(best)} were measured with it, "
        f"{format_rate(served)} with what is served"
    )


def _size(dataset: Dataset[Any], best: Resolution) -> str:
    with suppress(Exception):  # the dataset's own code runs, and a warning is no place for its errors
        needed = estimated_bytes(apart(dataset), best.config.archive, stored_form(best.config))
        return f" (about {format_bytes(needed)})"
    return ""
