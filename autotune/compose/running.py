"""One run of a study, once its dataset and the machines were looked at: everything put together, to its decision."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from autotune.compose.places import Places, prepared_optuna_url
from autotune.compose.storytelling import show_in_dashboard
from autotune.errors import NoMachineError
from autotune.registry import Registry
from autotune.resolve.deployed import deployed_archives
from autotune.space import Space
from autotune.spec import Inspection, LoaderConfig, StudyListener, StudySpec, StudyStarted, StudySummary
from autotune.study.setting import Setting
from autotune.trial import TrialPool

_LOG = logging.getLogger(__name__)

_RUN_KEY = "autotune:run"
_RUN_ENDED = "autotune:ended"


def make_tracker(registry: Registry, at: Places) -> Any:
    """Give the listener that tells MLflow: one for each run, as it keeps what it tells."""
    from autotune.tracking.mlflow_listener import MlflowListener

    return MlflowListener(
        registry,
        tracking_uri=at.tracking_uri,
        artifact_root=at.home / "mlartifacts",
        evidence=registry,
        address=at.service_url,
    )


def warm_up(tracker: Any) -> None:
    """Do slow imports and make new schemas now, while nothing is timed."""
    tracker.warm_up()
    from autotune.study.dashboard import warm_up as warm_up_dashboard

    warm_up_dashboard()


def make_setting(
    spec: StudySpec,
    inspection: Inspection,
    *,
    pool: TrialPool,
    registry: Registry,
    at: Places,
    listeners: Sequence[StudyListener],
    payload_path: Path | None = None,
    known_since: datetime | None = None,
) -> Setting:
    """Put together what the phases of one run share.

    Args:
        spec: The study.
        inspection: What is known of dataset and machines.
        pool: Measures.
        registry: Keeps.
        at: Where everything is kept.
        listeners: Are told.
        payload_path: cloudpickle file of objects without a dotted path.
        known_since: What was measured before this time is measured again; None takes all of it as known.
    """
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


def settle_interrupted(spec: StudySpec, registry: Registry, at: Places) -> None:
    """Tell Optuna what became of trials that an interrupted run left, before any run of this study begins."""
    from autotune.study.optuna_store import open_storage, settle_stale, studies_of

    storage = open_storage(prepared_optuna_url(at))
    settled = sum(settle_stale(each, registry, spec) for each in studies_of(storage, spec.name))
    if settled:
        _LOG.warning("settled %d trials that an interrupted run left behind", settled)


def begin_run(setting: Setting, at: Places) -> tuple[Setting, Any]:
    """Open the Optuna study of a run, and tell everybody that it begins.

    Returns:
        The setting under the key of the run that goes on, where one was interrupted, and the Optuna study.
    """
    from autotune.study.earlier import interrupted_records
    from autotune.study.optuna_store import open_storage, open_study

    study = open_study(open_storage(prepared_optuna_url(at)), setting.spec, setting.space)
    if study.user_attrs.get(_RUN_KEY, _RUN_ENDED) != study.user_attrs.get(_RUN_ENDED, _RUN_ENDED):
        setting = replace(setting, run_key=study.user_attrs[_RUN_KEY])
    else:
        study.set_user_attr(_RUN_KEY, setting.run_key)
    resumed = len(interrupted_records(setting))
    setting.notify("on_start", StudyStarted(run_key=setting.run_key, spec=setting.spec, resumed=resumed))
    setting.notify("on_inspected", setting.inspection)
    return setting, study


def finish_run(setting: Setting, study: Any, at: Places) -> StudySummary:
    """Go through the phases of a run that has begun, to its decision.

    Args:
        setting: The run.
        study: Its Optuna study.
        at: Where everything is kept.
    """
    from autotune.study.run import run_study

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
    try:
        (record,) = setting.pool.submit([whole]).result()
    except NoMachineError as error:
        why = str(error)
    else:
        setting.store.save_record(record)
        why = record.failure.message if record.failure else ""
    if why:
        _LOG.warning(
            "the archive of the whole dataset was not built: %s; `autotune archive build` builds it without a time-out",
            why,
        )
