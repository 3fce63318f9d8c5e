"""What the rivals benchmark loads and what takes the batches; imported by every process that makes a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archives_workloads import REAL_DATA, WORKLOADS, Place
from torch.utils.data import Dataset

LETTERS = ("A", "I", "C")
"""Workloads that take part."""
SAMPLES: Mapping[str, int] = {"A": 400, "C": 6000}
"""Samples of the workloads that are drawn, unless asked otherwise: those of the recorded landscapes."""
_IMAGE_SIDE = 160
_TILE_SIDE = 256
_STEP_TILE_SIDE = 64
"""Pixels a side of the tiles that a training step takes: with 256, a batch of 32 keeps two cores busy for seconds, and
nobody could measure anything in a minute."""

CONSUMERS: Mapping[str, Mapping[str, Any]] = {
    "loader": {"kind": "loader"},
    "emulated": {"kind": "emulated", "step_ms": 2.0, "step_ms_per_sample": 0.2},
    "step": {"kind": "step", "step": "autotune.data.datasets.reference_step:small_unet_step"},
}
"""By name, as a study file describes them."""
CONSUMER_TITLES: Mapping[str, str] = {
    "loader": "nothing but loading",
    "emulated": "an emulated step of 2 ms and 0.2 ms a sample",
    "step": "a training step of a small U-Net",
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One workload with one consumer.

    Attributes:
        workload: Letter of the workload.
        consumer: Name of the consumer.
        title: What is loaded, for people to read.
        dataset: Factory and arguments, as a study file names them.
    """

    workload: str
    consumer: str
    title: str
    dataset: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the task, of its study and of its folders."""
        return f"{self.workload}-{self.consumer}"

    @property
    def taking(self) -> Mapping[str, Any]:
        """The consumer, as a study file describes it."""
        return CONSUMERS[self.consumer]


def small_arrays(folder: str, count: int) -> Dataset[Any]:
    """Give small uint8 arrays, each in a file of its own, drawn where they are missing."""
    return WORKLOADS["C"].make(Place(work=Path(folder), real=REAL_DATA), count)


def tasks(
    workloads: Sequence[str], consumers: Sequence[str], *, samples: Mapping[str, int], data: Path
) -> Iterator[Task]:
    """Give every combination that makes sense: the step is made for pairs of image and mask.

    Args:
        workloads: Letters of the workloads.
        consumers: Names of the consumers.
        samples: Samples by workload, where they are not the usual ones.
        data: Folder of what is drawn.
    """
    for letter in workloads:
        count = samples.get(letter) or SAMPLES.get(letter, 0)
        for consumer in consumers:
            if consumer != "step" or letter == "A":
                side = _STEP_TILE_SIDE if consumer == "step" else _TILE_SIDE
                title, dataset = _source(letter, count, side, data)
                yield Task(workload=letter, consumer=consumer, title=title, dataset=dataset)


def _source(letter: str, count: int, side: int, data: Path) -> tuple[str, Mapping[str, Any]]:
    if letter == "A":
        factory, arguments = "forest_gaps", {"root": str(data / "tiles"), "count": count, "size": side}
        title = f"{count:,} pairs of {side} x {side} GeoTIFF"
    elif letter == "I":
        factory, folder = "image_folder", REAL_DATA / "images" / "pets"
        arguments = {"folder": str(folder), "size": _IMAGE_SIDE}
        title = f"{len(list(folder.rglob('*.jpg'))):,} JPEG photos to {_IMAGE_SIDE} x {_IMAGE_SIDE}"
    else:
        arguments = {"folder": str(data), "count": count}
        return f"{count:,} {WORKLOADS['C'].title}", {"factory": "rivals_workloads:small_arrays", "arguments": arguments}
    return title, {"factory": f"autotune.data.datasets.factories:{factory}", "arguments": arguments}
