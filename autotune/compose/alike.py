"""Which machines may measure for the same study: those of one class that would come to the same results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from autotune.errors import ConflictError
from autotune.registry import Registry
from autotune.space import Space
from autotune.spec import Inspection, StudySpec
from autotune.study.earlier import other_majors

CLOCK_AHEAD_MAX_S = 5.0
"""Seconds by which clocks of machines may differ: what was measured before a decision has to look so."""


def check_clock(registry: Registry, now: Callable[[], float] = time.time) -> None:
    """Refuse a machine whose clock differs from the database's.

    Args:
        registry: The registry that a study is shared through.
        now: Seconds since the epoch, by this machine's clock.

    Raises:
        ConflictError: It does, by so many seconds.
    """
    ahead_s = registry.clock_ahead_s(now)
    if abs(ahead_s) > CLOCK_AHEAD_MAX_S:
        raise ConflictError(
            f"clocks of machines that share a study differ by {CLOCK_AHEAD_MAX_S:g} s at most, as trials are put in "
            f"order by them, but this machine's is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the "
            "database's; have both set by NTP, as by `timedatectl set-ntp true`"
        )


def check_alike(spec: StudySpec, first: Inspection, other: Inspection) -> None:
    """Refuse a machine whose results would not answer for those of its class.

    Libraries that only one of them has matter as far as the study's space needs them.

    Args:
        spec: The study.
        first: What the first machine of the class found out.
        other: What another one found out.

    Raises:
        ConflictError: They are unlike; the message names the first thing that differs.
        SpecError: The other one can measure no configuration at all.
    """
    for what, known, found in _differences(spec, first, other):
        raise ConflictError(
            f"machines of one class measure the same for study {spec.name!r}, but {other.machine.host} has {found} "
            f"as {what}, and {first.machine.host} {known}; bring both to the same state"
        )


def _differences(spec: StudySpec, first: Inspection, other: Inspection) -> Iterator[tuple[str, object, object]]:
    """Give what differs, with its value on the first machine and on the other."""
    there, here = first.dataset.model_dump(), other.dataset.model_dump()
    for name in there:
        if there[name] != here[name]:
            yield f"the dataset's {name}", there[name], here[name]
    if first.sample_structure != other.sample_structure:
        yield "structure of its samples", first.sample_structure, other.sample_structure
    if other_majors(first.machine, other.machine):
        yield "versions", _shown(first.machine.versions), _shown(other.machine.versions)
    known, found = (Space.of_study(spec, each).points for each in (first, other))
    if missing := sorted(config.label() for config in known - found):
        what = f"the number of configurations that its packages and files allow ({missing[0]} is none)"
        yield what, len(known), len(found)


def _shown(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
