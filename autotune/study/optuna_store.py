"""Optuna's storage and the Optuna study behind ours."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from typing import Any

import optuna
from optuna.trial import TrialState
from sqlalchemy import event

from autotune.errors import StorageMixedError
from autotune.space import Space
from autotune.spec import StudySpec
from autotune.study.ledger import Ledger
from autotune.study.setting import RecordStore
from autotune.study.verdict import CONSTRAINT

KEY = "autotune:key"
"""User attribute with the key of the trial's record, set when the trial is asked for."""
_IDENTITY = "autotune:identity"
_NAME = "autotune:name"


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open Optuna's own database, created where it is absent.

    Args:
        url: SQLAlchemy URL. It must not be the registry's nor MLflow's.

    Raises:
        StorageMixedError: The database belongs to another program.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=_engine_arguments(url))
    except RuntimeError as error:
        raise StorageMixedError(f"{url} is no database of Optuna ({error}); give Optuna one of its own") from error
    if storage.engine.dialect.name == "sqlite":
        # Optuna has no option for it, and its default journal takes 200 ms a trial instead of 50
        event.listen(storage.engine, "connect", _set_pragmas)
        storage.engine.dispose()
    return storage


def _engine_arguments(url: str) -> dict[str, Any]:
    return {"connect_args": {"timeout": 30}} if url.startswith("sqlite") else {"pool_pre_ping": True}


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def open_study(storage: optuna.storages.BaseStorage, spec: StudySpec, space: Space) -> optuna.Study:
    """Open the Optuna study of this workload and space, created where it is absent.

    Optuna refuses changed distributions, so a changed space or workload gets an Optuna study of its own,
    under the same name with a number.
    """
    identity = _identity(spec, space)
    summaries = optuna.study.get_all_study_summaries(storage, include_best_trial=False)
    for item in _of_name(summaries, spec.name):
        if item.user_attrs.get(_IDENTITY) == identity:
            return optuna.load_study(study_name=item.study_name, storage=storage, sampler=sampler(spec.seed))
    taken = {item.study_name for item in summaries}
    names = [spec.name, *(f"{spec.name} {number}" for number in range(2, len(taken) + 3))]
    study = optuna.create_study(
        storage=storage,
        sampler=sampler(spec.seed),
        study_name=next(name for name in names if name not in taken),
        direction="maximize",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(["samples/s"])
    study.set_user_attr(_NAME, spec.name)
    study.set_user_attr(_IDENTITY, identity)
    return study


def studies_of(storage: optuna.storages.BaseStorage, name: str) -> list[optuna.Study]:
    """Open every Optuna study behind one of ours: those of earlier spaces and workloads as well."""
    summaries = optuna.study.get_all_study_summaries(storage, include_best_trial=False)
    return [optuna.load_study(study_name=item.study_name, storage=storage) for item in _of_name(summaries, name)]


def _of_name(summaries: Iterable[optuna.study.StudySummary], name: str) -> list[optuna.study.StudySummary]:
    return [item for item in summaries if item.user_attrs.get(_NAME) == name]


def _identity(spec: StudySpec, space: Space) -> str:
    parts = {
        "workload": spec.workload.model_dump(mode="json"),
        "dataset": space.inspection.dataset.model_dump(mode="json"),
        "dimensions": space.dimensions.model_dump(mode="json"),
        "machine": space.inspection.machine.machine_class,
        "horizon": spec.horizon_epochs,
    }
    return json.dumps(parts, sort_keys=True)


def sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Give the sampler: TPE over groups, as prefetch exists only with workers and a share only with a cache."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def settle_stale(study: optuna.Study, store: RecordStore, spec: StudySpec) -> int:
    """Tell every trial that a killed tuner left running: from its record, or as abandoned.

    Optuna's heartbeat does not work under ask and tell.

    Returns:
        How many there were.
    """
    stale = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if not stale:
        return 0
    by_key = {record.key: record for record in store.records(spec.name)}
    for frozen in stale:
        record = by_key.get(frozen.user_attrs.get(KEY, ""))
        if record is None:
            study.tell(frozen.number, state=TrialState.FAIL)
            continue
        told = Ledger([record], horizon_epochs=spec.horizon_epochs).verdict(record)
        optuna.Trial(study, frozen._trial_id).set_constraint(CONSTRAINT, told.constraint)  # noqa: SLF001 (no other way to a trial that another process asked for)
        study.tell(frozen.number, told.value)
    return len(stale)
