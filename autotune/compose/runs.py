"""Runs outside a study: one look at a dataset, one measurement, two configurations side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autotune.compose.places import Places
from autotune.constants import CONFIRM_PAIRS_MIN
from autotune.errors import DatasetError, FactoryError, SpecError
from autotune.registry import Registry, open_registry
from autotune.resolve.deployed import deployed_archives
from autotune.spec import Failure, Inspection, LoaderConfig, StudySpec, TrialRecord, TrialRequest
from autotune.study.lock import machine_lock
from autotune.study.pairs import Blocks, Run
from autotune.trial import LocalRunner, TrialRunner


def inspect_dataset(
    runner: TrialRunner, spec: StudySpec, *, at: Places, payload_path: Path | None = None
) -> Inspection:
    """Look at a study's dataset in a process of its own.

    Raises:
        FactoryError: There is no such factory.
        DatasetError: It cannot be built or read; the message says why.
    """
    found = runner.inspect(single_request(spec, LoaderConfig.torch_default(1), at=at, payload_path=payload_path))
    if isinstance(found, Failure):
        if found.kind == "invalid" and found.phase == "build":
            raise FactoryError(found.message)
        raise DatasetError(f"the dataset of study {spec.name!r} cannot be used: {found.message}")
    return found


def single_request(
    spec: StudySpec,
    config: LoaderConfig,
    *,
    at: Places,
    payload_path: Path | None = None,
    kept_archives: tuple[str, ...] = (),
) -> TrialRequest:
    """Write the request for one run outside a study; the archives that are kept never make room for its own."""
    return TrialRequest(
        study=spec.name,
        phase="measure",
        workload=spec.workload,
        config=config,
        payload_path=str(payload_path) if payload_path else None,
        archive_root=str(at.archive_root),
        cache_root=str(at.cache_root),
        archive_limit_bytes=at.archive_limit_bytes,
        cache_limit_bytes=at.cache_limit_bytes,
        kept_archives=kept_archives,
        time_cap_s=spec.confirm_time_cap_s,
        timeout_s=spec.trial_timeout_s,
    )


def measure(spec: StudySpec, config: LoaderConfig, *, at: Places) -> TrialRecord:
    """Measure one configuration of a study once, in a fresh process, and save the record."""
    with machine_lock(f"measuring {spec.name}", path=at.lock), open_registry(at.home, at.registry_url) as registry:
        with LocalRunner() as runner:
            inspection = inspect_dataset(runner, spec, at=at)
            canonical = config.canonical(has_accelerator=inspection.machine.has_accelerator)
            kept = tuple(deployed_archives(registry))
            record = runner.run(single_request(spec, canonical, at=at, kept_archives=kept))
        registry.save_record(record)
    return record


def compare(
    spec: StudySpec,
    rivals: tuple[LoaderConfig, LoaderConfig],
    *,
    at: Places,
    pairs: int = CONFIRM_PAIRS_MIN,
    on_run: Callable[[TrialRecord], None] = lambda _: None,
) -> tuple[Blocks, tuple[LoaderConfig, LoaderConfig]]:
    """Compare two configurations by fresh interleaved runs.

    Args:
        spec: The study whose dataset and consumer are used.
        rivals: The two.
        at: Where everything is kept.
        pairs: Runs of each.
        on_run: Called after each run.

    Returns:
        The runs, and the two configurations in canonical form.

    Raises:
        SpecError: Both behave the same on this machine.
    """
    with (
        machine_lock(f"comparing in {spec.name}", path=at.lock),
        open_registry(at.home, at.registry_url) as registry,
        LocalRunner() as runner,
    ):
        accelerated = inspect_dataset(runner, spec, at=at).machine.has_accelerator
        first, second = (config.canonical(has_accelerator=accelerated) for config in rivals)
        if first == second:
            raise SpecError(f"two configurations are compared, got {first.label()} twice; change one of them")

        run = saved_runs(spec, at=at, registry=registry, runner=runner, on_run=on_run)
        blocks = Blocks((first, second))
        for _ in range(pairs):
            blocks.measure(run)
    return blocks, (first, second)


def saved_runs(
    spec: StudySpec,
    *,
    at: Places,
    registry: Registry,
    runner: TrialRunner,
    on_run: Callable[[TrialRecord], None] = lambda _: None,
) -> Run:
    """Give what measures a configuration in a fresh run and saves the record, on a machine that the caller holds.

    Args:
        spec: The study whose dataset and consumer are used.
        at: Where everything is kept.
        registry: Where each run is saved.
        runner: Measures.
        on_run: Called after each run.
    """
    kept = tuple(deployed_archives(registry))

    def run(config: LoaderConfig) -> TrialRecord:
        request = single_request(spec, config, at=at, kept_archives=kept)
        record = runner.run(request.replace(phase="compare"))
        registry.save_record(record)
        on_run(record)
        return record

    return run
