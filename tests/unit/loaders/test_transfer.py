"""Batches ahead of their use: nothing that was loaded is lost, and the first one does not wait for the second."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autotune.loaders.transfer import Transfer, one_ahead


def started_and_given(count, fails_at=None):
    """Run through items; give what happened in its order."""
    happened = []

    def note(what, number):
        happened.append((what, number))

    def items():
        for number in range(count):
            if number == fails_at:
                raise ValueError(f"item {number}")
            note("loaded", number)
            yield number

    def start(number):
        note("started", number)
        return number

    error = None
    try:
        for number in one_ahead(items(), start, lambda number: number):
            note("given", number)
    except ValueError as raised:
        error = str(raised)
    return happened, error


def test_an_error_comes_after_every_item_before_it():
    happened, error = started_and_given(6, fails_at=3)
    assert [number for what, number in happened if what == "given"] == [0, 1, 2]
    assert error == "item 3"


def test_the_first_item_is_given_before_the_second_is_loaded():
    happened, _ = started_and_given(4)
    assert happened.index(("given", 0)) < happened.index(("loaded", 1))


def test_later_items_are_started_before_the_one_before_them_is_given():
    happened, _ = started_and_given(5)
    for number in range(1, 4):
        assert happened.index(("started", number + 1)) < happened.index(("given", number))


@given(st.integers(0, 9), st.integers(0, 9))
def test_all_items_come_once_and_in_order(count, fails_at):
    happened, error = started_and_given(count, fails_at)
    assert [number for what, number in happened if what == "given"] == list(range(min(count, fails_at)))
    assert (error is None) == (fails_at >= count)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_arrive_on_the_device_before_the_error_of_the_next():
    def batches():
        for number in range(3):
            yield torch.full((1000,), float(number)).pin_memory()
        raise ValueError("broken")

    coming = Transfer(torch.device("cuda"), non_blocking=True).over(batches())
    assert [float(next(coming).mean()) for _ in range(3)] == [0.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="broken"):
        next(coming)
