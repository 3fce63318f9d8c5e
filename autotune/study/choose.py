"""From the race to one configuration: the cheapest of those that are as good as the leader."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from autotune.constants import DATA_WAIT_TARGET_SHARE
from autotune.spec import Consumer, LoaderConfig, Measurement, TrialRecord
from autotune.study.race import Raced
from autotune.units import MIB

_MEMORY_STEP_BYTES = 64 * MIB
"""Memory is compared in steps of this: less differs from run to run."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is confirmed.

    Attributes:
        config: The configuration.
        why: One sentence.
        others: Further ones in the order in which they would take its place.
    """

    config: LoaderConfig
    why: str
    others: tuple[LoaderConfig, ...] = ()


def choose(raced: Raced, consumer: Consumer) -> Choice | None:
    """Choose the cheapest among the equivalents: workers, then memory, then bytes of archive and cache.

    With a consumer, configurations of the leader's batch size that keep it waiting for less than the target share
    of its time, and are slower by no more than that, are equivalents, too: faster loading would buy nothing there.
    One that is slower by more takes from the step what it needs, as workers do on the CPUs of a step without an
    accelerator.

    Returns:
        The choice; None where nothing survived the race.
    """
    if not raced.survivors:
        return None
    first = raced.survivors[0]
    equal = list(raced.equivalent) or [first]
    fed = [] if consumer.kind == "loader" else _fed(raced, first)
    pool = list(dict.fromkeys([*equal, *fed]))
    config = min(pool, key=lambda one: cost(one, raced.of(one)))
    others = [one for one in [first, *equal, *raced.survivors] if one != config]
    return Choice(config=config, why=_why(config, first, equal=equal, fed=fed), others=tuple(dict.fromkeys(others)))


def cost(config: LoaderConfig, records: list[TrialRecord]) -> tuple[int, int, int, str]:
    """Give what a configuration costs, in the order of what matters: workers, memory, bytes on disk or in a cache."""
    measured = [record.measurement for record in records if record.measurement]
    memory = fmean([one.memory.host_pss_bytes or 0 for one in measured]) if measured else 0.0
    kept = max((_kept_bytes(one) for one in measured), default=0)
    return config.num_workers, round(memory / _MEMORY_STEP_BYTES), kept, config.label()


def _kept_bytes(measured: Measurement) -> int:
    archive = measured.archive.size_bytes if measured.archive else 0
    return archive + (measured.cache.size_bytes if measured.cache else 0)


def _fed(raced: Raced, first: LoaderConfig) -> list[LoaderConfig]:
    """Give the entrants of the leader's batch size that keep the consumer waiting for less than the target."""
    fed = []
    for config in raced.logs:
        waits = [record.measurement.data_wait_share for record in raced.of(config) if record.measurement]
        if config.batch_size != first.batch_size or not waits or fmean(waits) > DATA_WAIT_TARGET_SHARE:
            continue
        if _loss_share(raced, config, first) <= DATA_WAIT_TARGET_SHARE:
            fed.append(config)
    return fed


def _loss_share(raced: Raced, config: LoaderConfig, first: LoaderConfig) -> float:
    """Give how much slower than the leader a configuration ran in the blocks of both, as a share of its rate."""
    pairs = zip(raced.logs[config], raced.logs[first], strict=True)
    losses = [leader - own for own, leader in pairs if own is not None and leader is not None]
    return 1 - math.exp(-fmean(losses)) if losses else 1.0


def _why(config: LoaderConfig, first: LoaderConfig, *, equal: list[LoaderConfig], fed: list[LoaderConfig]) -> str:
    if config == first and len(equal) == 1:
        return "it led the race"
    if config in equal:
        return f"it is the cheapest of {len(equal)} that were shown to be within 2 % of the fastest"
    return (
        f"it keeps the consumer waiting for less than {DATA_WAIT_TARGET_SHARE:.0%} of its time, which faster loading "
        f"does not improve, and is the cheapest of {len(fed)} that do"
    )
