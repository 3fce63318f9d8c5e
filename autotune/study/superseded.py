"""Optuna studies that nothing goes on with: a changed space, workload or dataset has led to another one since."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime

import optuna

from autotune.study.optuna_store import _IDENTITY, open_storage, studies_of


def remove_superseded(url: str, names: Iterable[str], *, before: datetime) -> int:
    """Remove the Optuna studies behind ours that were superseded, and that nothing was tried in since a time.

    Of each study and class of machine the one that was searched last stays, however long ago that was, and so does
    one without a trial, which somebody may have begun just now. The registry has all that was measured.

    Args:
        url: SQLAlchemy URL of Optuna's database.
        names: Names of our studies.
        before: Time in UTC.

    Returns:
        How many were removed.

    Raises:
        StorageMixedError: The database belongs to another program.
    """
    storage = open_storage(url)
    try:
        old = [study for name in names for study in _superseded(studies_of(storage, name), before=before)]
        for study in old:
            optuna.delete_study(study_name=study.study_name, storage=storage)
    finally:
        storage.engine.dispose()
    return len(old)


def _superseded(studies: Sequence[optuna.Study], *, before: datetime) -> list[optuna.Study]:
    """Choose among the Optuna studies behind one of ours."""
    if len(studies) < 2:  # spares reading all trials of most
        return []
    by_class: dict[str, list[tuple[datetime, optuna.Study]]] = {}
    for study in studies:
        last = _last_start(study)
        if last is not None:
            by_class.setdefault(_machine_class(study), []).append((last, study))
    newest = {machine: max(last for last, _ in alike) for machine, alike in by_class.items()}
    since = before.astimezone().replace(tzinfo=None)  # Optuna writes the time of the zone that it is in
    return [study for name, alike in by_class.items() for last, study in alike if last < min(newest[name], since)]


def _machine_class(study: optuna.Study) -> str:
    return str(json.loads(study.user_attrs.get(_IDENTITY, "{}")).get("machine", ""))


def _last_start(study: optuna.Study) -> datetime | None:
    trials = study.get_trials(deepcopy=False)
    return max((trial.datetime_start for trial in trials if trial.datetime_start is not None), default=None)
