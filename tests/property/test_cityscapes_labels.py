"""The label table of Cityscapes, and what becomes of label ids."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from autotune.data.datasets.cityscapes_labels import (
    CATEGORIES,
    LABEL_COUNT,
    LABELS,
    category_colors,
    category_of,
    check_target,
    map_label_ids,
)
from autotune.errors import SampleError, SpecError

PLATE = LABELS[-1]
BY_ID = {label.id: label for label in LABELS}
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)


def test_the_table_is_the_published_one():
    assert [label.id for label in LABELS] == [*range(34), -1]
    assert len({label.name for label in LABELS}) == 35
    assert Counter(label.category for label in LABELS[:34]) == {
        "void": 7, "flat": 4, "construction": 6, "object": 4, "nature": 2, "sky": 1, "human": 2, "vehicle": 8,
    }  # fmt: skip
    assert [CATEGORIES[label.category_id] for label in LABELS] == [label.category for label in LABELS]
    assert sorted(label.train_id for label in LABELS if 0 <= label.train_id < 255) == list(range(19))
    assert all((label.train_id in (-1, 255)) == label.ignore_in_eval for label in LABELS)
    assert {label.name for label in LABELS if label.has_instances} == {
        "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
    }  # fmt: skip
    assert (PLATE.name, PLATE.train_id, PLATE.category) == ("license plate", -1, "vehicle")
    assert {name: BY_ID[number].color for name, number in (("road", 7), ("car", 26), ("sky", 23))} == {
        "road": (128, 64, 128),
        "car": (0, 0, 142),
        "sky": (70, 130, 180),
    }


@given(st.sampled_from(["uint8", "int8", "uint16", "int16", "int32", "int64", ">i4"]).flatmap(
    lambda dtype: arrays.arrays(dtype, SHAPES, elements=st.integers(0, LABEL_COUNT - 1))
))  # fmt: skip
def test_every_pixel_gets_what_its_row_of_the_table_says(ids):
    for target, field in (("category", "category_id"), ("id", "id"), ("train_id", "train_id")):
        mapped = map_label_ids(ids, target)
        assert (mapped.dtype, mapped.shape) == (np.uint8, ids.shape)
        assert mapped.ravel().tolist() == [getattr(BY_ID[int(number)], field) for number in ids.ravel()]


@given(arrays.arrays("int16", SHAPES, elements=st.integers(-1, LABEL_COUNT - 1)))
def test_licence_plates_are_vehicles_and_not_trained(ids):
    plates = ids == -1
    assert (map_label_ids(ids)[plates] == CATEGORIES.index("vehicle")).all()
    assert (map_label_ids(ids, "train_id")[plates] == 255).all()
    assert (map_label_ids(ids, "id")[~plates] == ids[~plates]).all()


@given(
    st.sampled_from(["uint8", "int32"]).flatmap(
        lambda dtype: arrays.arrays(dtype, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 40))
    )
)
def test_unknown_ids_are_named_with_their_file(ids):
    unknown = sorted({int(number) for number in ids.ravel()} - set(BY_ID))
    if not unknown:
        map_label_ids(ids, path="a.png")
        return
    with pytest.raises(SampleError) as caught:
        map_label_ids(ids, path="a.png")
    assert caught.value.path == "a.png"
    assert "a.png" in str(caught.value)
    assert f"got {', '.join(map(str, unknown))} in {sum(number not in BY_ID for number in ids.ravel())}" in str(
        caught.value
    )


def test_negative_ids_other_than_the_plate_are_unknown_and_long_lists_are_cut():
    with pytest.raises(SampleError, match="got -2 in 1 of 2 pixels"):
        map_label_ids(np.array([-2, -1]))
    with pytest.raises(SampleError, match=r"34, 35, 36, 37, 38, 39, 40, 41, \.\.\. in"):
        map_label_ids(np.arange(256, dtype=np.uint8))
    with pytest.raises(SampleError, match="whole numbers, got float32"):
        map_label_ids(np.zeros(2, np.float32))


def test_names_and_colors_of_categories():
    assert (category_of(7), category_of(33), category_of(-1), category_of(0)) == ("flat", "vehicle", "vehicle", "void")
    colors = category_colors()
    assert colors.shape == (8, 3)
    assert colors[0].tolist() == [0, 0, 0]
    assert colors[5].tolist() == [70, 130, 180]
    assert len({tuple(color) for color in colors.tolist()}) == 8


def test_a_target_that_does_not_exist_is_refused():
    assert check_target("id") == "id"
    with pytest.raises(SpecError, match="category, id, train_id, got 'colour'"):
        check_target("colour")
