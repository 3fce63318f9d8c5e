"""The composition root: puts study, runner, registry and tracking together; home of `autotune.tune`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from autotune.constants import CONFIRM_PAIRS_MIN
from autotune.errors import DatasetError, FactoryError, SpecError
from autotune.home import archive_limit_bytes, disk_cache_limit_bytes, home_folder, lock_file
from autotune.registry import Registry, check_separate, open_registry
from autotune.resolve.deployed import deployed_archives
from autotune.resolve.lookup import storage_url
from autotune.space import Space
from autotune.spec import (
    Failure,
    Inspection,
    LoaderConfig,
    MemoryLimit,
    Preparing,
    StudyListener,
    StudySpec,
    StudyStarted,
    StudySummary,
    TrialRecord,
    TrialRequest,
)
from autotune.spec.study_file import spec_from_fields
from autotune.study.lock import machine_lock
from autotune.study.pairs import Blocks
from autotune.study.setting import Setting, notify
from autotune.trial import LocalRunner, TrialRunner
from autotune.trial.payload import payload_file, sent_source

_LOG = logging.getLogger(__name__)

_RUN_KEY = "autotune:run"
_RUN_ENDED = "autotune:ended"


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where everything is kept.

    Attributes:
        home: Folder of registry, archives and caches.
        registry_url: SQLAlchemy URL of the registry; None is a file in `home`.
        tracking_uri: MLflow's tracking URI.
        lock: File whose lock holds the machine.
        archive_limit_bytes: Most bytes of all archives together; None is no limit.
        cache_limit_bytes: Most bytes of all disk caches together; None is no limit.
    """

    home: Path
    registry_url: str | None = None
    tracking_uri: str
    lock: Path
    archive_limit_bytes: int | None = None
    cache_limit_bytes: int | None = None

    @property
    def optuna_url(self) -> str:
        """SQLAlchemy URL of Optuna's own database."""
        return f"sqlite:///{self.home / 'optuna.db'}"

    @property
    def archive_root(self) -> Path:
        """Folder of archives."""
        return self.home / "archives"

    @property
    def cache_root(self) -> Path:
        """Folder of disk caches."""
        return self.home / "cache"


def places(home: str | Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Places:
    """Find out where everything is kept, and make the folder.

    Args:
        home: Folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        environ: Environment; `MLFLOW_TRACKING_URI` and `AUTOTUNE_STORAGE` in it win over databases in the folder.
    """
    from autotune.tracking.mlflow_listener import default_tracking_uri

    folder = home_folder(home, environ)
    folder.mkdir(parents=True, exist_ok=True)
    tracking_uri = environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(folder)
    return Places(
        home=folder,
        registry_url=storage_url(environ),
        tracking_uri=tracking_uri,
        lock=lock_file(environ),
        archive_limit_bytes=archive_limit_bytes(folder, environ),
        cache_limit_bytes=disk_cache_limit_bytes(folder, environ),
    )


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
) -> StudySummary:
    """Run a study from start, or from where a killed run left it, to its decision.

    Args:
        spec: The study.
        at: Where everything is kept.
        payload: Objects without a dotted path: `dataset`, `step`, `collate_fn`.
        listeners: Told beside MLflow.
    """
    check_separate(at.registry_url or f"sqlite:///{at.home / 'registry.db'}", at.optuna_url, at.tracking_uri)
    with (
        machine_lock(f"study {spec.name}", path=at.lock),
        open_registry(at.home, at.registry_url) as registry,
        payload_file(payload, at.home) as payload_path,
        LocalRunner(on_progress=_progress_of(listeners)) as runner,
        ThreadPoolExecutor(max_workers=1) as background,
    ):
        tracker = _tracker(registry, at)
        warm = background.submit(_warm_up, tracker)  # slow imports and new schemas, while nothing is timed
        inspection = inspect_dataset(runner, spec, at=at, payload_path=payload_path)
        warm.result()
        setting = _setting(
            spec, inspection, runner=runner, registry=registry, at=at, payload_path=payload_path,
            listeners=(*listeners, tracker),
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
        registry, tracking_uri=at.tracking_uri, artifact_root=at.home / "mlartifacts", records=registry.records
    )


def _setting(
    spec: StudySpec,
    inspection: Inspection,
    *,
    runner: TrialRunner,
    registry: Registry,
    at: Places,
    payload_path: Path | None,
    listeners: Sequence[StudyListener],
) -> Setting:
    return Setting(
        run_key=uuid4().hex,
        spec=spec,
        inspection=inspection,
        space=Space.of_study(spec, inspection),
        runner=runner,
        store=registry,
        listeners=listeners,
        payload_path=payload_path,
        archive_root=at.archive_root,
        cache_root=at.cache_root,
        archive_limit_bytes=at.archive_limit_bytes,
        cache_limit_bytes=at.cache_limit_bytes,
        kept_archives=tuple(deployed_archives(registry)),
    )


def _run(setting: Setting, at: Places) -> StudySummary:
    from autotune.study.dashboard import tell_story
    from autotune.study.earlier import interrupted_records
    from autotune.study.optuna_store import open_storage, open_study, settle_stale, studies_of
    from autotune.study.run import run_study
    from autotune.tracking.figures import study_figures

    storage = open_storage(at.optuna_url)
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
    records = [record for record in setting.store.records(setting.spec.name) if record.phase == "search"]
    chosen = [record.key for record in records if record.config == summary.best]
    tell_story(study, summary, best_key=chosen[-1] if chosen else None, figures=study_figures(records))
    return summary


def _build_whole_archive(setting: Setting, config: LoaderConfig) -> None:
    """Build the chosen archive for the whole dataset: the study measured on a part of it."""
    request = setting.request(config, phase="measure")
    record = setting.runner.run(request.replace(workload=request.workload.replace(subset=None)))
    setting.store.save_record(record)
    if record.failure is not None:
        _LOG.warning(
            "the archive of the whole dataset was not built: %s; `autotune archive build` builds it without a time-out",
            record.failure.message,
        )


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

        kept = tuple(deployed_archives(registry))

        def run(config: LoaderConfig) -> TrialRecord:
            request = single_request(spec, config, at=at, kept_archives=kept)
            record = runner.run(request.replace(phase="compare"))
            registry.save_record(record)
            on_run(record)
            return record

        blocks = Blocks([first, second], run)
        for _ in range(pairs):
            blocks.add()
    return blocks, (first, second)
