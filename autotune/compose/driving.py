"""Driving a study: one process at a time, whatever machine it is on, fenced off where it was taken for dead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from autotune.compose.holding import lease_held
from autotune.compose.places import Places
from autotune.registry import Registry, driving_lease, open_registry
from autotune.spec import Lease


@contextmanager
def driven(study: str, at: Places, *, lease: Lease | None = None) -> Iterator[Registry]:
    """Drive a study while the block runs.

    Whoever begins tells Optuna that trials without a record were abandoned: those of a driver that lives would be
    among them, and its records would count as those of an interrupted run.

    Args:
        study: Name of the study.
        at: Where everything is kept.
        lease: Under which the caller holds the machine already, and without which nothing is written either.

    Yields:
        The registry, to which nothing is written once another process drives the study.

    Raises:
        MachineBusyError: Another process drives the study; the message names it.
    """
    held = () if lease is None else (lease,)
    with (
        open_registry(at.home, at.registry_url, fences=held) as opened,
        lease_held(opened, driving_lease(study), "driving it") as driving,
        open_registry(at.home, at.registry_url, fences=(*held, driving)) as registry,
    ):
        yield registry
