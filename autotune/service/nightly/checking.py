"""A check: what is deployed, the PyTorch default and what was deployed before, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import fmean

from autotune.compose import Places, saved_runs
from autotune.constants import CHECK_PAIRS, CONFIRM_PAIRS_MIN, PROCESS_S
from autotune.registry import Registry
from autotune.service.nightly.judging import Figures
from autotune.spec import Decision, Failure, Interval, LoaderConfig, StudySpec, TrialRecord
from autotune.study.pairs import Blocks, Run
from autotune.study.race import disqualifies
from autotune.trial import TrialRunner

_PREPARING = ("archive", "cache")
"""Phases before the first batch: what goes wrong there, as a full disk, is no property of the configuration."""


def check(
    spec: StudySpec,
    deployed: Decision,
    before: Decision | None,
    *,
    at: Places,
    registry: Registry,
    runner: TrialRunner,
    allowed_s: float,
    on_run: Callable[[TrialRecord], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Figures:
    """Measure what is deployed again, in fresh interleaved runs.

    An archive that is absent is built by the first run that reads it, outside of its timed windows.

    Args:
        spec: The study.
        deployed: The decision that is deployed.
        before: The one before it, with another configuration; None without.
        at: Where everything is kept.
        registry: Where each run is saved.
        runner: Measures.
        allowed_s: Time after which no further block is begun: fewer pairs than an interval is published for show
            failures alone.
        on_run: Called after each run.
        clock: Monotonic seconds.
    """
    default = deployed.default
    configs = list(dict.fromkeys([deployed.config, default, *([before.config] if before else [])]))
    run = saved_runs(spec, at=at, registry=registry, runner=runner, on_run=on_run)
    blocks = Blocks(configs)
    failed = _measure(blocks, deployed.config, pairs=_pairs(spec, len(configs), allowed_s), until_s=clock() + allowed_s,
                      run=run, clock=clock)  # fmt: skip
    hindrance = next((one for one in failed if one.phase in _PREPARING), None)
    old = before.config if before is not None else None
    return Figures(
        against_default=_ratio(blocks, deployed.config, default),
        against_before=None if old is None else _ratio(blocks, deployed.config, old),
        before_against_default=None if old is None else _ratio(blocks, old, default),
        rates=blocks.rates(deployed.config),
        failure=_told(failed[-1]) if hindrance is None and len(failed) > 1 else None,
        hindered=None if hindrance is None else _told(hindrance),
        failed_once=_told(failed[0]) if hindrance is None and len(failed) == 1 else None,
        before_fails=old is not None and any(disqualifies(record) for record in blocks.records(old)),
        default_runs=bool(blocks.rates(default)),
        run_s=fmean(record.wall_s - _build_s(record) for config in configs for record in blocks.records(config)),
    )


def _measure(
    blocks: Blocks, config: LoaderConfig, *, pairs: int, until_s: float, run: Run, clock: Callable[[], float]
) -> list[Failure]:
    """Add blocks until there are enough, the time is over, or a configuration has failed for certain.

    A single failure may be that of the machine, so a configuration that failed runs once more at once.

    Returns:
        What became of each run of the configuration that failed.
    """
    failed: list[Failure] = []
    block_s = 0.0
    for number in range(pairs):
        began_s = clock()
        if number and began_s + block_s > until_s:
            break
        block = blocks.measure(run)
        record = block[config]
        if disqualifies(record) and not failed and _phase(record) not in _PREPARING:
            failed += _failures([record])
            record = run(config)
        failed += _failures([record])
        if len(failed) > 1 or _phase(record) in _PREPARING:
            break
        block_s = clock() - began_s - sum(map(_build_s, block.values()))
    return failed


def _failures(records: Sequence[TrialRecord]) -> list[Failure]:
    return [record.failure for record in records if record.failure is not None and disqualifies(record)]


def _build_s(record: TrialRecord) -> float:
    """Give what a run took to build an archive, which later ones find there."""
    return 0.0 if record.measurement is None else record.measurement.phases.archive_build_s


def _phase(record: TrialRecord) -> str | None:
    return None if record.failure is None else record.failure.phase


def _told(failure: Failure) -> str:
    return f"{failure.kind.replace('_', ' ')}, {failure.message}"


def _pairs(spec: StudySpec, configs: int, allowed_s: float) -> int:
    block_s = configs * (spec.confirm_time_cap_s + PROCESS_S)
    return max(CONFIRM_PAIRS_MIN, min(CHECK_PAIRS, int(allowed_s / block_s)))


def _ratio(blocks: Blocks, above: LoaderConfig, below: LoaderConfig) -> Interval | None:
    """Give a ratio; None for a configuration with itself, and with too few pairs to publish one."""
    if above == below or len(blocks.paired_rates(above, below)) < CONFIRM_PAIRS_MIN:
        return None
    return blocks.ratio(above, below)
