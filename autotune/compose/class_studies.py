"""Studies of several classes of machines, side by side in one run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from autotune.compose.places import Places
from autotune.compose.running import begin_run, finish_run, make_setting, make_tracker, warm_up
from autotune.errors import AutotuneError
from autotune.registry import Registry
from autotune.spec import Inspection, StudyListener, StudySpec, StudySummary
from autotune.trial import TrialPool

_LOG = logging.getLogger(__name__)


class ClassesListener(Protocol):
    """Is told which machines measure, and gives who is told how the study of each class goes."""

    def on_machines(self, present: Mapping[str, int]) -> None:
        """So many machines of each class take part now."""

    def studying(self, machine_class: str) -> Sequence[StudyListener]:
        """Give listeners of the study of one class."""


def decided(studies: Mapping[str, Future[StudySummary]], study: str) -> dict[str, StudySummary]:
    """Wait for the studies of all classes; give how those ended that came to a decision, in their order.

    One class without machines costs the others nothing: what was not decided is logged with its class.

    Args:
        studies: The study of each class.
        study: Name of the study.

    Raises:
        AutotuneError: None was decided; it is the first one's error.
    """
    summaries: dict[str, StudySummary] = {}
    errors: dict[str, AutotuneError] = {}
    for name, future in studies.items():
        try:
            summaries[name] = future.result()
        except AutotuneError as error:
            errors[name] = error
    if not summaries:
        raise next(iter(errors.values()))
    for name, why in errors.items():
        _LOG.error("study %s is not decided for %s: %s", study, name, why)
    return summaries


class ClassStudies:
    """Decides for each class of machines; may be asked by several threads at once.

    Args:
        spec: The study.
        at: Where everything is kept.
        registry: The registry.
        listener: Is told how it goes.
    """

    def __init__(self, spec: StudySpec, *, at: Places, registry: Registry, listener: ClassesListener) -> None:
        self._spec = spec
        self._at = at
        self._registry = registry
        self._listener = listener
        self._beginning = threading.Lock()

    def decide(self, pool: TrialPool, inspection: Inspection) -> StudySummary:
        """Run the whole study on the machines of one class."""
        with self._beginning:  # two that make their schemas or studies at once would be in each other's way
            tracker = make_tracker(self._registry, self._at)
            warm_up(tracker)
            listeners = (*self._listener.studying(inspection.machine.machine_class), tracker)
            setting = make_setting(
                self._spec, inspection, pool=pool, registry=self._registry, at=self._at, listeners=listeners
            )
            setting, study = begin_run(setting, self._at)
        return finish_run(setting, study, self._at)
