"""Two tables by measuring: common DataLoader configurations side by side, and the four loading modes.

Every figure comes from fresh processes in interleaved blocks, as everywhere else; rows that behave the same on this
machine are measured once, and say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Literal

from pydantic import Field

from autotune.compose import Places, inspect_dataset, single_request
from autotune.constants import CONFIRM_PAIRS_MIN
from autotune.loaders.comparison_rows import Contender, config_contenders, mode_contenders
from autotune.ratios import ratio_interval
from autotune.registry import Registry, open_registry
from autotune.resolve.deployed import deployed_archives
from autotune.resolve.lookup import Source, look_up
from autotune.resolve.pins import checked_pins
from autotune.resolve.question import Question
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.spec import (
    DatasetFacts,
    Failure,
    Inspection,
    Interval,
    LoaderConfig,
    MachineFacts,
    Measurement,
    StudySpec,
    TrialRecord,
    Value,
)
from autotune.study.lock import machine_lock
from autotune.study.pairs import Blocks
from autotune.trial import LocalRunner, TrialRunner

OnRun = Callable[[TrialRecord, int, int], None]
"""Told of each run, how many are done, and how many there will be at most."""
OnProgress = Callable[[str, int, int], None]
"""Told phase, samples done and all samples of slow preparations (archives, caches)."""


class StartUp(Value):
    """Seconds until a row gives its first batch, by what they go into.

    Attributes:
        build_s: Dataset, archive view and loader.
        archive_build_s: Building the archive, once for all training runs.
        cache_fill_s: Filling the cache before the first batch, in every training run.
        first_batch_s: From `iter()` to the first batch, start of worker processes included.
    """

    build_s: float = 0.0
    archive_build_s: float = 0.0
    cache_fill_s: float = 0.0
    first_batch_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All of them."""
        return self.build_s + self.archive_build_s + self.cache_fill_s + self.first_batch_s


class ComparedRow(Value):
    """One row of a table, measured or refused.

    Attributes:
        name: Name of the row.
        config: Its configuration in canonical form.
        same_as: The row whose runs these are, where both behave the same on this machine; else None.
        notes: What became of the row on this machine, a sentence each.
        runs: Fresh processes that were measured; fewer than `blocks` where some failed, which a note says.
        samples_per_s: Geometric mean of their rates over a full epoch; None without any.
        lowest: Rate of the slowest run.
        highest: Rate of the fastest run.
        interval: The mean with its 95 % interval; None with fewer than two runs.
        batches_per_s: The same rate in batches.
        ratio: Rate over that of the first row, paired by block, with its 95 % interval.
        memory_bytes: Most memory of the process tree, mean of the runs.
        memory_share: That as a share of what the machine (or the control group) allows.
        start_up: Seconds until the first batch, median of the runs.
        first_epoch_s: Seconds from nothing to the end of the first epoch, start-up included.
        failure: Why it was not measured; None where it was.
    """

    name: str
    config: LoaderConfig
    same_as: str | None = None
    notes: tuple[str, ...] = ()
    runs: int = Field(default=0, ge=0)
    samples_per_s: float | None = None
    lowest: float | None = None
    highest: float | None = None
    interval: Interval | None = None
    batches_per_s: float | None = None
    ratio: Interval | None = None
    memory_bytes: int | None = None
    memory_share: float | None = None
    start_up: StartUp | None = None
    first_epoch_s: float | None = None
    failure: Failure | None = None


class Comparison(Value):
    """A table with its circumstances.

    Attributes:
        kind: `configs` or `modes`.
        study: The study whose dataset and consumer were used.
        machine: Where.
        dataset: On what.
        batch_size: Samples in a batch, the same in every row.
        blocks: Runs of each row that was measured on its own.
        rows: The rows.
    """

    kind: Literal["configs", "modes"]
    study: str
    machine: MachineFacts
    dataset: DatasetFacts
    batch_size: int
    blocks: int
    rows: tuple[ComparedRow, ...]

    @property
    def measured(self) -> tuple[ComparedRow, ...]:
        """The rows with a rate."""
        return tuple(row for row in self.rows if row.samples_per_s is not None)


def compare_configs(
    spec: StudySpec,
    *,
    at: Places,
    blocks: int = CONFIRM_PAIRS_MIN,
    batch_size: int | None = None,
    on_run: OnRun = lambda _record, _done, _total: None,
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Measure seed 4's four configurations side by side with what is resolved for the dataset.

    Args:
        spec: The study whose dataset and consumer are used.
        at: Where everything is kept.
        blocks: Runs of each row.
        batch_size: Samples in a batch, in every row; None is that of what the study deploys, else 32.
        on_run: Told of each run.
        on_progress: Told of slow preparations.

    Raises:
        MachineBusyError: Another tuning job holds this machine.
        DatasetError: The dataset cannot be read.
    """
    with (
        machine_lock(f"comparing configurations of {spec.name}", path=at.lock),
        open_registry(at.home, at.registry_url) as registry,
        LocalRunner(on_progress=on_progress) as runner,
    ):
        inspection = _inspect(runner, spec, at)
        question = Question(
            dataset=inspection.dataset,
            machine=inspection.machine,
            pins=checked_pins({"batch_size": batch_size or _deployed_batch_size(registry, spec.name)}),
            study=spec.name,
            loader_class=spec.loader_class,
        )
        contenders = config_contenders(inspection, look_up(question, Source(home=at.home, url=at.registry_url)))
        runs = _Runs(spec, at=at, runner=runner, registry=registry, on_run=on_run)
        rows = _measure(contenders, runs, blocks)
    return _table("configs", spec, inspection=inspection, rows=rows, blocks=blocks)


def compare_modes(
    spec: StudySpec,
    *,
    at: Places,
    blocks: int = CONFIRM_PAIRS_MIN,
    batch_size: int = REFERENCE_BATCH_SIZE,
    num_workers: int = 0,
    archive: str = "tar",
    on_run: OnRun = lambda _record, _done, _total: None,
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Measure the four loading modes side by side: start-up, memory and rate.

    Args:
        spec: The study whose dataset and consumer are used.
        at: Where everything is kept; the archive of the streaming mode is built there where it is missing.
        blocks: Runs of each row.
        batch_size: Samples in a batch, in every row.
        num_workers: Worker processes, in every row; at most one for each core.
        archive: Format that the streaming mode reads.
        on_run: Told of each run.
        on_progress: Told of slow preparations.

    Raises:
        MachineBusyError: Another tuning job holds this machine.
        DatasetError: The dataset cannot be read.
    """
    with (
        machine_lock(f"comparing loading modes of {spec.name}", path=at.lock),
        open_registry(at.home, at.registry_url) as registry,
        LocalRunner(on_progress=on_progress) as runner,
    ):
        inspection = _inspect(runner, spec, at)
        contenders = mode_contenders(inspection, batch_size=batch_size, num_workers=num_workers, archive=archive)
        runs = _Runs(spec, at=at, runner=runner, registry=registry, on_run=on_run)
        rows = _filled_on_the_way(contenders, _measure(contenders, runs, blocks))
    return _table("modes", spec, inspection=inspection, rows=rows, blocks=blocks)


class _Runs:
    """Measures configurations in fresh processes and keeps the records.

    What failed is run again in the next block only where it may go well there.
    """

    def __init__(self, spec: StudySpec, *, at: Places, runner: TrialRunner, registry: Registry, on_run: OnRun) -> None:
        self._spec, self._at, self._runner, self._registry, self._on_run = spec, at, runner, registry, on_run
        self._kept = tuple(deployed_archives(registry))
        self._failed: dict[LoaderConfig, TrialRecord] = {}
        self._done = 0
        self.expected = 0

    def __call__(self, config: LoaderConfig) -> TrialRecord:
        """Measure one configuration."""
        if config in self._failed:
            self.expected -= 1
            return self._failed[config]
        request = single_request(self._spec, config, at=self._at, kept_archives=self._kept)
        record = self._runner.run(request.replace(phase="compare"))
        self._registry.save_record(record)
        failure = record.failure
        if failure is not None and not failure.retryable and failure.kind != "senseless":
            self._failed[config] = record
        self._done += 1
        self._on_run(record, self._done, self.expected)
        return record


def _deployed_batch_size(registry: Registry, study: str) -> int | None:
    found = registry.decisions(study, limit=1)
    return found[0].config.batch_size if found else None


def _inspect(runner: TrialRunner, spec: StudySpec, at: Places) -> Inspection:
    """Look at the dataset; a study on the CPU leaves an accelerator alone."""
    found = inspect_dataset(runner, spec, at=at)
    if spec.device == "cpu":
        alone = {"accelerator": None, "accelerator_count": 0, "accelerator_memory_bytes": None}
        return found.replace(machine=found.machine.replace(**alone))
    return found


def _measure(contenders: Sequence[Contender], runs: _Runs, blocks: int) -> list[ComparedRow]:
    distinct = list(dict.fromkeys(row.config for row in contenders if row.refused is None))
    runs.expected = blocks * len(distinct)
    measured = Blocks(distinct)
    for _ in range(blocks if distinct else 0):
        measured.measure(runs)
    rows: list[ComparedRow] = []
    for row in contenders:
        first = next((each.name for each in rows if each.config == row.config and each.same_as is None), None)
        if row.refused is not None:
            failure = Failure(kind="invalid", phase="predict", message=row.refused)
            rows.append(ComparedRow(name=row.name, config=row.config, notes=row.notes, failure=failure))
        else:
            rows.append(_row(row, measured, base=contenders[0].config, same_as=first))
    return rows


def _row(row: Contender, blocks: Blocks, *, base: LoaderConfig, same_as: str | None) -> ComparedRow:
    """Put together what the runs of a configuration say."""
    records = blocks.records(row.config)
    found = [record.measurement for record in records if record.measurement is not None]
    failures = [record.failure for record in records if record.failure is not None]
    shown = ComparedRow(name=row.name, config=row.config, same_as=same_as, notes=row.notes)
    if not found:
        return shown.replace(failure=failures[0])
    rates = [measured.samples_per_s for measured in found]
    rate = math.exp(fmean(math.log(each) for each in rates))
    start_up = _start_up(found)
    samples = found[0].epoch_samples
    if failures:
        shown = shown.replace(notes=(*shown.notes, _partly(records)))
    return shown.replace(
        runs=len(found),
        samples_per_s=rate,
        lowest=min(rates),
        highest=max(rates),
        interval=ratio_interval(rates, [1.0] * len(rates)),
        batches_per_s=rate * math.ceil(samples / row.config.batch_size) / samples,
        ratio=None if row.config == base else blocks.ratio(row.config, base),
        **_memory(found),
        start_up=start_up,
        first_epoch_s=start_up.total_s + samples / rate,
    )


def _partly(records: Sequence[TrialRecord]) -> str:
    """Tell how many of a row's runs failed; one that stands for blocks in which nothing was tried is one."""
    failed = {record.key: record.failure for record in records if record.failure is not None}
    untried = sum(record.failure is not None for record in records) - len(failed)
    last = list(failed.values())[-1]
    told = f"{len(failed)} of {len(records)} runs failed" + (f" and {untried} were not tried after" if untried else "")
    return f"{told}: {last.kind.replace('_', ' ')}: {last.message}"


def _memory(found: Sequence[Measurement]) -> dict[str, float | int | None]:
    sizes = [measured.memory.host_pss_bytes for measured in found]
    known = [size for size in sizes if size is not None]
    limit = found[0].memory.host_limit_bytes
    if not known:
        return {"memory_bytes": None, "memory_share": None}
    used = round(fmean(known))
    return {"memory_bytes": used, "memory_share": used / limit if limit else None}


def _start_up(found: Sequence[Measurement]) -> StartUp:
    return StartUp(
        build_s=median(measured.phases.build_s for measured in found),
        archive_build_s=max(measured.archive.build_s if measured.archive else 0.0 for measured in found),
        cache_fill_s=median(measured.phases.cache_fill_s for measured in found),
        first_batch_s=median(measured.phases.first_batch_s for measured in found),
    )


def _filled_on_the_way(contenders: Sequence[Contender], rows: Sequence[ComparedRow]) -> list[ComparedRow]:
    """Correct the row whose cache is filled by the first epoch: it starts, and reads that epoch, as the lazy one does.

    From the second epoch on it is the same loader as that with a filled cache, whose runs it shares. Where the lazy
    one was not measured, nobody knows how it starts.
    """
    lazy, corrected = rows[0], list(rows)
    for place, contender in enumerate(contenders):
        row = rows[place]
        if not contender.fills_on_the_way or row.start_up is None:
            continue
        if lazy.start_up is None or lazy.first_epoch_s is None:
            note = f"its start and first epoch are those of {lazy.name}, which was not measured"
            corrected[place] = row.replace(notes=(*row.notes, note), start_up=None, first_epoch_s=None)
            continue
        start_up = row.start_up.replace(cache_fill_s=0.0, first_batch_s=lazy.start_up.first_batch_s)
        epoch_s = lazy.first_epoch_s - lazy.start_up.total_s
        note = f"rate and memory from the second epoch on; the first one is read as by {lazy.name}, and then kept"
        corrected[place] = row.replace(
            notes=(*row.notes, note), start_up=start_up, first_epoch_s=start_up.total_s + epoch_s
        )
    return corrected


def _table(
    kind: Literal["configs", "modes"],
    spec: StudySpec,
    *,
    inspection: Inspection,
    rows: Sequence[ComparedRow],
    blocks: int,
) -> Comparison:
    return Comparison(
        kind=kind,
        study=spec.name,
        machine=inspection.machine,
        dataset=inspection.dataset,
        batch_size=rows[0].config.batch_size,
        blocks=blocks,
        rows=tuple(rows),
    )
