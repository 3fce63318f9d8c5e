"""A study from start to decision: study, runner, registry and tracking put together."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from autotune.compose.places import Places, places, prepared_optuna_url
from autotune.compose.runs import inspect_dataset
from autotune.compose.storytelling import show_in_dashboard
from autotune.registry import Registry, check_separate, open_registry, registry_address
from autotune.resolve.deployed import deployed_archives
from autotune.space import Space
from autotune.spec import (
    Inspection,
    Lease,
    LoaderConfig,
    MemoryLimit,
    Preparing,
    StudyListener,
    StudySpec,
    StudyStarted,
    StudySummary,
)
from autotune.spec.study_file import spec_from_fields
from autotune.study.lock import machine_lock
from autotune.study.setting import Setting, notify
from autotune.trial import LocalRunner, SinglePool, TrialPool
from autotune.trial.payload import payload_file, sent_source

_LOG = logging.getLogger(__name__)

_RUN_KEY = "autotune:run"
_RUN_ENDED = "autotune:ended"


def tune(
    dataset: Any,
    budget: str = "60s",
    *,
    step: Callable[[Any], object] | None = None,
    memory_limit: str | float | None = None,
    name: str | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    trials: int | None = None,
    home: str | Path | None = None,
    progress: bool = True,
    environ: Mapping[str, str] = os.environ,
    **settings: Any,
) -> StudySummary:
    """Tune the loading of a dataset object: what `autotune tune` does, from a script or notebook.

    The dataset, step and collate function are sent to the measuring processes by cloudpickle, classes of
    the script included; the script itself is never imported there and needs no `__main__` guard.

    Args:
        dataset: Map-style or iterable dataset.
        budget: Wall time with a unit (`60s`, `5m`).
        step: Called with each batch on the device: the training step. Without it only loading is measured,
            and the tuned batch size is not handed out.
        memory_limit: Device memory as share (`80%`, 0.8) or size (`20GiB`); None is 80 %.
        name: Name of the study; None is the dataset's class.
        collate_fn: The loader's collate function.
        trials: Most trials of the search.
        home: Folder for results; None is the usual one.
        progress: Show progress on standard error.
        environ: Environment, which may name the places of results.
        **settings: Further keys of a study file (`space`, `device`, `page_cache`, `seed` ...).

    Returns:
        The outcome; `autotune.best_loader(dataset)` uses it from now on.

    Raises:
        SpecError: An argument breaks a rule.
        DatasetError: The dataset cannot be read.
        MachineBusyError: Another tuning job holds this machine.
    """
    fields: dict[str, Any] = {
        "name": name or type(dataset).__name__.strip("_"),
        "budget": {"time": budget, "trials": trials},
        "memory_limit": MemoryLimit.parse(memory_limit if memory_limit is not None else 0.8).model_dump(),
        **settings,
    }
    payload: dict[str, Any] = {"dataset": dataset}
    if step is not None:
        payload["step"] = step
        fields["consumer"] = {"kind": "step"}
    if collate_fn is not None:
        payload["collate_fn"] = collate_fn
    fields["dataset"] = sent_source(payload).model_dump()
    with _console() if progress else nullcontext() as console:
        listeners = () if console is None else (console,)
        at = places(home, environ=environ)
        return tune_study(spec_from_fields(fields), at=at, payload=payload, listeners=listeners)


def _console() -> AbstractContextManager[StudyListener]:
    from rich.console import Console

    from autotune.tracking.console import ConsoleListener

    return closing(ConsoleListener(Console(stderr=True)))


def tune_study(
    spec: StudySpec,
    *,
    at: Places,
    payload: Mapping[str, Any] | None = None,
    listeners: Sequence[StudyListener] = (),
    lease: Lease | None = None,
    known_since: datetime | None = None,
) -> StudySummary:
    """Run a study from start, or from where a killed run left it, to its decision.

    Args:
        spec: The study.
        at: Where everything is kept.
        payload: Objects without a dotted path: `dataset`, `step`, `collate_fn`.
        listeners: Told beside MLflow.
        lease: Under which the caller holds the machine already, and without which nothing is written; None takes the
            machine's lock for this study alone.
        known_since: What was measured before this time is measured again; None takes all of it as known.
    """
    check_separate(registry_address(at.home, at.registry_url), at.optuna_url, at.tracking_uri)
    with (
        machine_lock(f"study {spec.name}", path=at.lock) if lease is None else nullcontext(),
        open_registry(at.home, at.registry_url, fence=lease) as registry,
        payload_file(payload, at.home) as payload_path,
        LocalRunner(on_progress=_progress_of(listeners)) as runner,
        ThreadPoolExecutor(max_workers=1) as background,
    ):
        tracker = _tracker(registry, at)
        warm = background.submit(_warm_up, tracker)  # slow imports and new schemas, while nothing is timed
        inspection = inspect_dataset(runner, spec, at=at, payload_path=payload_path)
        warm.result()
        setting = _setting(
            spec, inspection, pool=SinglePool(runner), registry=registry, at=at, payload_path=payload_path,
            listeners=(*listeners, tracker), known_since=known_since,
        )  # fmt: skip
        return _run(setting, at)


def _progress_of(listeners: Sequence[StudyListener]) -> Callable[[str, int, int], None]:
    def tell(phase: str, done: int, total: int) -> None:
        notify(listeners, "on_preparing", Preparing(phase=phase, done=done, total=total))

    return tell


def _warm_up(tracker: Any) -> None:
    tracker.warm_up()
    from autotune.study.dashboard import warm_up

    warm_up()


def _tracker(registry: Registry, at: Places) -> Any:
    from autotune.tracking.mlflow_listener import MlflowListener

    return MlflowListener(
        registry,
        tracking_uri=at.tracking_uri,
        artifact_root=at.home / "mlartifacts",
        evidence=registry,
        address=at.service_url,
    )


def _setting(
    spec: StudySpec,
    inspection: Inspection,
    *,
    pool: TrialPool,
    registry: Registry,
    at: Places,
    payload_path: Path | None,
    listeners: Sequence[StudyListener],
    known_since: datetime | None,
) -> Setting:
    return Setting(
        run_key=uuid4().hex,
        spec=spec,
        inspection=inspection,
        space=Space.of_study(spec, inspection),
        pool=pool,
        store=registry,
        listeners=listeners,
        payload_path=payload_path,
        known_since=known_since,
        archive_root=at.archive_root,
        cache_root=at.cache_root,
        archive_limit_bytes=at.archive_limit_bytes,
        cache_limit_bytes=at.cache_limit_bytes,
        kept_archives=tuple(deployed_archives(registry)),
    )


def _run(setting: Setting, at: Places) -> StudySummary:
    from autotune.study.earlier import interrupted_records
    from autotune.study.optuna_store import open_storage, open_study, settle_stale, studies_of
    from autotune.study.run import run_study

    storage = open_storage(prepared_optuna_url(at))
    study = open_study(storage, setting.spec, setting.space)
    settled = sum(settle_stale(each, setting.store, setting.spec) for each in studies_of(storage, setting.spec.name))
    if settled:
        _LOG.warning("settled %d trials that an interrupted run left behind", settled)
    if study.user_attrs.get(_RUN_KEY, _RUN_ENDED) != study.user_attrs.get(_RUN_ENDED, _RUN_ENDED):
        setting = replace(setting, run_key=study.user_attrs[_RUN_KEY])
    else:
        study.set_user_attr(_RUN_KEY, setting.run_key)
    resumed = len(interrupted_records(setting))
    setting.notify("on_start", StudyStarted(run_key=setting.run_key, spec=setting.spec, resumed=resumed))
    setting.notify("on_inspected", setting.inspection)
    summary = run_study(setting, study)
    if setting.spec.subset is not None and summary.best.archive != "files":
        _build_whole_archive(setting, summary.best)
    study.set_user_attr(_RUN_ENDED, setting.run_key)
    show_in_dashboard(study, summary, setting=setting, service_url=at.service_url)
    return summary


def _build_whole_archive(setting: Setting, config: LoaderConfig) -> None:
    """Build the chosen archive for the whole dataset: the study measured on a part of it."""
    request = setting.request(config, phase="measure")
    whole = request.replace(workload=request.workload.replace(subset=None))
    (record,) = setting.pool.submit([whole]).result()
    setting.store.save_record(record)
    if record.failure is not None:
        _LOG.warning(
            "the archive of the whole dataset was not built: %s; `autotune archive build` builds it without a time-out",
            record.failure.message,
        )
