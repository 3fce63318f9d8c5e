"""What a loader was resolved to: said by the loader itself, with the trial that measured it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from autotune.errors import RegistryError, SpecError
from autotune.home import home_folder
from autotune.registry import open_existing
from autotune.resolve.lookup import storage_url
from autotune.resolve.resolution import Resolution
from autotune.spec import Decision, TrialRecord

_LOG = logging.getLogger(__name__)

_ATTRIBUTE = "autotune_resolution"


def note_resolution(loader: Any, resolution: Resolution) -> None:
    """Note on a loader what it was resolved to; classes that take no further attributes go without."""
    with suppress(AttributeError, TypeError, ValueError):
        setattr(loader, _ATTRIBUTE, resolution)


def resolution_of(loader: Any) -> Resolution | None:
    """Give what a loader of `best_loader` was resolved to; None for every other loader."""
    found = getattr(loader, _ATTRIBUTE, None)
    return found if isinstance(found, Resolution) else None


def trial_of(
    resolution: Resolution, *, home: str | Path | None = None, environ: Mapping[str, str] = os.environ
) -> str | None:
    """Give the key of the trial that last measured what is served.

    Args:
        resolution: What a loader was resolved to.
        home: Home folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        environ: Environment.

    Returns:
        None where the configuration that is served was not measured as it is, under the circumstances of the decision,
        or the registry cannot tell.
    """
    if resolution.decision_key is None or resolution.study is None:
        return None
    try:
        with open_existing(home_folder(home, environ), storage_url(environ)) as registry:
            decision = registry.decision(resolution.decision_key)
            records = registry.records(resolution.study)
    except (RegistryError, SpecError) as error:
        _LOG.info("the trial behind the loader is not known: %s", error)
        return None
    if decision is None:
        return None
    accelerated = decision.machine.has_accelerator
    served = resolution.config.canonical(has_accelerator=accelerated)
    measured = [
        record
        for record in records
        if _is_alike(record, decision) and record.config.canonical(has_accelerator=accelerated) == served
    ]
    return max(measured, key=lambda record: record.started_at).key if measured else None


def _is_alike(record: TrialRecord, decision: Decision) -> bool:
    """Tell whether a trial measured something under the circumstances that a decision rests on.

    A study of one name may have run on several machines, on data that grew, and with other steps.
    """
    return (
        record.measurement is not None
        and record.machine is not None
        and record.machine.machine_class == decision.machine.machine_class
        and record.workload.digest() == decision.workload.digest()
        and record.dataset is not None
        and record.dataset.digest() == decision.dataset.digest()
    )


__all__ = ["note_resolution", "resolution_of", "trial_of"]
