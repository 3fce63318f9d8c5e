"""The label table of Cityscapes as published, and its label ids turned into categories by one look-up.

Source: `cityscapesscripts/helpers/labels.py` of the Cityscapes team, github.com/mcordts/cityscapesScripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from autotune.errors import SampleError, SpecError

Target = Literal["category", "id", "train_id"]
"""What a pixel of a mask says: one of the 8 categories, one of the 34 label ids, or the id that is trained for."""


class CityscapesLabel(NamedTuple):
    """One row of the table.

    Attributes:
        name: Its name.
        id: The number in files `..._gtFine_labelIds.png`; -1 for what is never drawn into one.
        train_id: The number that the benchmark's 19 classes are trained for; 255 for the other labels, -1 for what
            is never drawn.
        category: Name of the category.
        category_id: Number of the category, 0 to 7.
        has_instances: Whether single objects are told apart.
        ignore_in_eval: Whether such pixels do not count in the benchmark.
        color: Red, green and blue that it is shown in.
    """

    name: str
    id: int
    train_id: int
    category: str
    category_id: int
    has_instances: bool
    ignore_in_eval: bool
    color: tuple[int, int, int]


LABELS: tuple[CityscapesLabel, ...] = (
    CityscapesLabel("unlabeled", 0, 255, "void", 0, False, True, (0, 0, 0)),
    CityscapesLabel("ego vehicle", 1, 255, "void", 0, False, True, (0, 0, 0)),
    CityscapesLabel("rectification border", 2, 255, "void", 0, False, True, (0, 0, 0)),
    CityscapesLabel("out of roi", 3, 255, "void", 0, False, True, (0, 0, 0)),
    CityscapesLabel("static", 4, 255, "void", 0, False, True, (0, 0, 0)),
    CityscapesLabel("dynamic", 5, 255, "void", 0, False, True, (111, 74, 0)),
    CityscapesLabel("ground", 6, 255, "void", 0, False, True, (81, 0, 81)),
    CityscapesLabel("road", 7, 0, "flat", 1, False, False, (128, 64, 128)),
    CityscapesLabel("sidewalk", 8, 1, "flat", 1, False, False, (244, 35, 232)),
    CityscapesLabel("parking", 9, 255, "flat", 1, False, True, (250, 170, 160)),
    CityscapesLabel("rail track", 10, 255, "flat", 1, False, True, (230, 150, 140)),
    CityscapesLabel("building", 11, 2, "construction", 2, False, False, (70, 70, 70)),
    CityscapesLabel("wall", 12, 3, "construction", 2, False, False, (102, 102, 156)),
    CityscapesLabel("fence", 13, 4, "construction", 2, False, False, (190, 153, 153)),
    CityscapesLabel("guard rail", 14, 255, "construction", 2, False, True, (180, 165, 180)),
    CityscapesLabel("bridge", 15, 255, "construction", 2, False, True, (150, 100, 100)),
    CityscapesLabel("tunnel", 16, 255, "construction", 2, False, True, (150, 120, 90)),
    CityscapesLabel("pole", 17, 5, "object", 3, False, False, (153, 153, 153)),
    CityscapesLabel("polegroup", 18, 255, "object", 3, False, True, (153, 153, 153)),
    CityscapesLabel("traffic light", 19, 6, "object", 3, False, False, (250, 170, 30)),
    CityscapesLabel("traffic sign", 20, 7, "object", 3, False, False, (220, 220, 0)),
    CityscapesLabel("vegetation", 21, 8, "nature", 4, False, False, (107, 142, 35)),
    CityscapesLabel("terrain", 22, 9, "nature", 4, False, False, (152, 251, 152)),
    CityscapesLabel("sky", 23, 10, "sky", 5, False, False, (70, 130, 180)),
    CityscapesLabel("person", 24, 11, "human", 6, True, False, (220, 20, 60)),
    CityscapesLabel("rider", 25, 12, "human", 6, True, False, (255, 0, 0)),
    CityscapesLabel("car", 26, 13, "vehicle", 7, True, False, (0, 0, 142)),
    CityscapesLabel("truck", 27, 14, "vehicle", 7, True, False, (0, 0, 70)),
    CityscapesLabel("bus", 28, 15, "vehicle", 7, True, False, (0, 60, 100)),
    CityscapesLabel("caravan", 29, 255, "vehicle", 7, True, True, (0, 0, 90)),
    CityscapesLabel("trailer", 30, 255, "vehicle", 7, True, True, (0, 0, 110)),
    CityscapesLabel("train", 31, 16, "vehicle", 7, True, False, (0, 80, 100)),
    CityscapesLabel("motorcycle", 32, 17, "vehicle", 7, True, False, (0, 0, 230)),
    CityscapesLabel("bicycle", 33, 18, "vehicle", 7, True, False, (119, 11, 32)),
    CityscapesLabel("license plate", -1, -1, "vehicle", 7, False, True, (0, 0, 142)),
)
"""All labels in the order of the published table."""

CATEGORIES: tuple[str, ...] = ("void", "flat", "construction", "object", "nature", "sky", "human", "vehicle")
"""Names of the categories by their numbers."""

LABEL_COUNT = 34
"""Label ids that a mask can hold: 0 to 33."""

IGNORED = 255
"""What pixels outside the 19 trained classes are as `train_id`."""

_SHOWN = 8
"""Unknown ids that a message names."""


def _table(values: Iterable[int]) -> npt.NDArray[np.uint8]:
    """Give the values of the label ids in order, with that of the licence plate at the end."""
    return np.array([value % 256 for value in values], np.uint8)


_TABLES: Mapping[Target, npt.NDArray[np.uint8]] = {
    "category": _table(label.category_id for label in LABELS),
    "id": _table(label.id for label in LABELS),
    "train_id": _table(label.train_id for label in LABELS),
}


def check_target(target: str) -> Target:
    """Give the target back where there is one of this name.

    Raises:
        SpecError: There is none.
    """
    for known in _TABLES:
        if target == known:
            return known
    raise SpecError(f"target must be one of {', '.join(_TABLES)}, got {target!r}")


def map_label_ids(ids: npt.NDArray[Any], target: Target = "category", *, path: str | None = None) -> npt.NDArray[Any]:
    """Turn label ids, as `..._gtFine_labelIds.png` has them, into categories or another target.

    Args:
        ids: Whole numbers of any shape. -1 is the licence plate, which no published file holds.
        target: What to give.
        path: The file that they are from, for the message.

    Returns:
        uint8 of the same shape. The licence plate is a vehicle; as `id` and `train_id` it is 255.

    Raises:
        SampleError: There are ids that Cityscapes does not have, or the array holds no whole numbers.
    """
    check_label_ids(ids, path=path)
    places = ids if ids.dtype == np.uint8 else ids.astype(np.int64)  # the last row of the table answers to -1
    return np.asarray(_TABLES[target][places])


def check_label_ids(ids: npt.NDArray[Any], *, path: str | None = None) -> None:
    """Refuse label ids that Cityscapes does not have.

    Args:
        ids: Whole numbers of any shape.
        path: The file that they are from, for the message.

    Raises:
        SampleError: There are some, and the message names them.
    """
    if ids.dtype.kind not in "iu":
        raise SampleError(f"label ids are whole numbers, got {ids.dtype}", path)
    lowest = 0 if ids.dtype.kind == "u" else LABELS[-1].id
    if not ids.size or (ids.max() < LABEL_COUNT and (lowest == 0 or ids.min() >= lowest)):
        return
    unknown = (ids < lowest) | (ids >= LABEL_COUNT)
    found = [int(value) for value in np.unique(ids[unknown])]
    shown = ", ".join(map(str, found[:_SHOWN])) + (", ..." if len(found) > _SHOWN else "")
    raise SampleError(
        f"label ids of Cityscapes are 0 to {LABEL_COUNT - 1}, got {shown} in {int(unknown.sum()):,} of "
        f"{ids.size:,} pixels; files named ..._labelIds.png hold them, ..._labelTrainIds.png and ..._color.png "
        "hold something else",
        path,
    )


def category_of(label_id: int) -> str:
    """Give the name of the category that a label id belongs to.

    Raises:
        SampleError: Cityscapes has no such id.
    """
    return CATEGORIES[int(map_label_ids(np.array([label_id], np.int64))[0])]


def category_colors() -> npt.NDArray[np.uint8]:
    """Give the colour that each category is shown in, `(8, 3)`: that of its first label with a colour."""
    colors = np.zeros((len(CATEGORIES), 3), np.uint8)
    for label in reversed(LABELS[:LABEL_COUNT]):
        if label.category_id:
            colors[label.category_id] = label.color
    return colors
