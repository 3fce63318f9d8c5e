"""What a machine measures for others: nothing but what its own study file names."""

from __future__ import annotations

from autotune.compose.places import Places
from autotune.errors import SpecError
from autotune.registry import optuna_url
from autotune.spec import StudySpec, TrialRequest


def check_shareable(spec: StudySpec) -> None:
    """Refuse a study that other machines cannot build from its file.

    Raises:
        SpecError: Its dataset is an object, which would have to travel as code.
    """
    if spec.dataset.factory is None:
        raise SpecError(
            f"a study is shared by dotted paths alone, as no code goes through the database, but {spec.name!r} has the "
            f"object {spec.dataset.type_name}; write a factory that makes it, and name that in a study file"
        )


def check_storage(at: Places) -> None:
    """Refuse a registry that other machines cannot reach.

    Raises:
        SpecError: It is no PostgreSQL database.
    """
    if at.registry_url is None or optuna_url(at.registry_url) is None:
        raise SpecError(
            f"a study is shared through a PostgreSQL database, got the file {at.registry_url or at.home}; name a "
            "database that all machines reach with AUTOTUNE_STORAGE=postgresql://user@host/database"
        )


def check_same(own: StudySpec, shared: StudySpec) -> None:
    """Refuse to measure for a study that is not the one of the own file; budgets may differ.

    Raises:
        SpecError: Something else differs; the message names it.
    """
    fields = [name for name in StudySpec.model_fields if name != "budget"]
    other = [name for name in fields if getattr(own, name) != getattr(shared, name)]
    if other:
        raise SpecError(
            f"a machine measures what its own study file says, and for {own.name!r} the driver's differs in "
            f"{', '.join(other)}; bring both to the same state"
        )


def accepted(request: TrialRequest, spec: StudySpec, at: Places) -> TrialRequest:
    """Give a request as this machine measures it: with its own folders, and its own study's limits.

    Args:
        request: What came out of the database.
        spec: The study of the own file.
        at: Where everything is kept here.

    Raises:
        SpecError: It would run or load something that the own study file does not name.
    """
    # the archive of the whole dataset is built at the end of a study on a part of it
    same = request.workload.replace(subset=None) == spec.workload.replace(subset=None)
    if request.study != spec.name or not same or request.payload_path is not None:
        raise SpecError(
            f"a machine measures what its own study file says, but order {request.key[:8]} asks for another workload "
            f"than study {spec.name!r} has; find out who writes to the registry"
        )
    return request.replace(
        archive_root=str(at.archive_root),
        cache_root=str(at.cache_root),
        archive_limit_bytes=at.archive_limit_bytes,
        cache_limit_bytes=at.cache_limit_bytes,
        timeout_s=min(request.timeout_s, spec.trial_timeout_s),
    )
