"""Looking at a study before anything is measured: its file, its dataset, and what the registry knows."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from autotune.compose import Places, inspect_dataset
from autotune.registry import Registry
from autotune.service.nightly.planning import Known, Plan, plan
from autotune.spec import Inspection, StudySpec
from autotune.trial import TrialRunner


def known_of(registry: Registry, study: str) -> Known:
    """Give what the registry knows of a study."""
    return Known(
        deployments=registry.deployments(study),
        waiting=registry.waiting(study),
        decisions=registry.decisions(study),
        events=registry.events(study),
    )


def look(
    spec: StudySpec,
    file: Path,
    *,
    at: Places,
    registry: Registry | None,
    runner: TrialRunner,
    began: datetime,
    asked_by: str | None = None,
) -> tuple[Plan, Inspection]:
    """Look at a study's dataset, and say what the study needs.

    Args:
        spec: The study.
        file: Its file.
        at: Where everything is kept.
        registry: What is known; None where there is no registry yet.
        runner: Looks at the dataset in a process of its own.
        began: When the night began.
        asked_by: Who asked for a search; None where nobody did.

    Raises:
        DatasetError: The dataset cannot be built or read.
        FactoryError: There is no such factory.
    """
    inspection = inspect_dataset(runner, spec, at=at)
    known = Known() if registry is None else known_of(registry, spec.name)
    return plan(spec, file, inspection, known, began=began, asked_by=asked_by), inspection
