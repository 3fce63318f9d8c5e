"""What takes the batches while a loader is measured: nothing, an emulated step, or the user's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from autotune.errors import SpecError
from autotune.measure.batches import SampleCounter, move_batch
from autotune.spec import Consumer


class StepFailedError(Exception):
    """The user's step raised; the cause is what it raised."""


class DeviceTransformFailedError(Exception):
    """The dataset's `device_transform` raised; the cause is what it raised."""


BatchTaker = Callable[[Any], object]
"""Takes one batch as the loader gave it."""
Arrive = Callable[[Any], Any]
"""Brings a batch to the device and gives it as training takes it."""


def make_consumer(
    spec: Consumer,
    *,
    device: torch.device,
    batch_size: int,
    load: Callable[[str], Any],
    payload: Mapping[str, Any] | None = None,
    device_transform: Callable[[Any], Any] | None = None,
) -> BatchTaker:
    """Make what takes the batches.

    Args:
        spec: Its description.
        device: Where batches are moved to first.
        batch_size: Size asked for, to count the samples of odd batches.
        load: Finds an object by its dotted path.
        payload: Objects that were sent; `step` is used where the description has no path.
        device_transform: What the dataset does to every batch after the transfer; None is nothing.

    Raises:
        SpecError: A step was asked for, and there is neither path nor object, or it cannot be called.
    """
    arrive = arrival(device, device_transform)
    if spec.kind == "loader":
        return _drop if device.type == "cpu" and device_transform is None else arrive
    if spec.kind == "emulated":
        return emulated_consumer(
            arrive,
            batch_size=batch_size,
            step_s=spec.step_ms / 1000,
            step_per_sample_s=spec.step_ms_per_sample / 1000,
        )
    # every torch optimizer imports it with its first update: its seconds and its memory are not the first batch's
    import_module("torch._dynamo")
    step = load(spec.step)(**spec.step_arguments) if spec.step else (payload or {}).get("step")
    if not callable(step):
        raise SpecError(
            f"the consumer 'step' needs a callable step(batch), got {type(step).__name__}; "
            "give the dotted path of a factory that returns one"
        )
    return StepConsumer(arrive, step)


def arrival(device: torch.device, device_transform: Callable[[Any], Any] | None = None) -> Arrive:
    """Give the function that moves batches to the device and runs the dataset's transform on them there."""
    if device_transform is None:
        return lambda batch: move_batch(batch, device)

    def arrive(batch: Any) -> Any:
        moved = move_batch(batch, device)
        try:
            return device_transform(moved)
        except Exception as error:
            raise DeviceTransformFailedError(
                f"device_transform of the dataset raised {type(error).__name__}: {error}"
            ) from error

    return arrive


def emulated_consumer(arrive: Arrive, *, batch_size: int, step_s: float, step_per_sample_s: float) -> BatchTaker:
    """Let batches arrive, then sleep as long as a step would take, without burning CPU."""
    counter = SampleCounter(batch_size)

    def take(batch: Any) -> None:
        arrive(batch)
        time.sleep(step_s + step_per_sample_s * counter.or_full(batch))

    return take


class StepConsumer:
    """Lets batches arrive, then runs the user's step on them.

    Args:
        arrive: Moves a batch to the device, and runs the dataset's transform on it.
        step: Takes a batch on the device. Where it has a method `evaluate(batch)`, that is an evaluation pass's step.
    """

    def __init__(self, arrive: Arrive, step: Callable[[Any], object]) -> None:
        self._arrive = arrive
        self._step = step

    def __call__(self, batch: Any) -> None:
        """Take one batch."""
        self._run(self._step, batch)

    def evaluate(self, batch: Any) -> None:
        """Take one batch as an evaluation pass does, without gradients; nothing where the step has no such method."""
        evaluate = getattr(self._step, "evaluate", None)
        if callable(evaluate):
            with torch.no_grad():
                self._run(evaluate, batch)

    def _run(self, step: Callable[[Any], object], batch: Any) -> None:
        moved = self._arrive(batch)
        try:
            step(moved)
        except Exception as error:
            raise StepFailedError(f"the step raised {type(error).__name__}: {error}") from error


def _drop(batch: Any) -> None:
    """Let go of a batch."""
