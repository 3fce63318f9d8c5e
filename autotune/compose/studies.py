"""A study from start to decision: study, runner, registry and tracking put together."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from autotune.compose.driving import driven
from autotune.compose.places import Places, places
from autotune.compose.ray_studies import tune_on_ray
from autotune.compose.running import begin_run, finish_run, make_setting, make_tracker, settle_interrupted, warm_up
from autotune.compose.runs import inspect_dataset
from autotune.registry import check_separate, registry_address
from autotune.spec import Lease, MemoryLimit, Preparing, StudyListener, StudySpec, StudySummary
from autotune.spec.study_file import spec_from_fields
from autotune.study.lock import machine_lock
from autotune.study.setting import notify
from autotune.trial import LocalRunner, SinglePool
from autotune.trial.payload import payload_file, sent_source


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
    ray: str | None = None,
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
        ray: Ray cluster whose nodes measure, as `auto` or `host:port`; None measures on this machine.
        progress: Show progress on standard error.
        environ: Environment, which may name the places of results.
        **settings: Further keys of a study file (`space`, `device`, `page_cache`, `seed` ...).

    Returns:
        The outcome; `autotune.best_loader(dataset)` uses it from now on. Of a cluster with several classes of machines
        it is that of the class with most of them.

    Raises:
        SpecError: An argument breaks a rule.
        DatasetError: The dataset cannot be read.
        MachineBusyError: Another tuning job holds this machine, or every node of the cluster, or another one drives a
            study of this name.
        NoMachineError: There is no such cluster, or no node that can measure.
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
    spec, at = spec_from_fields(fields), places(home, environ=environ)
    if ray is not None:
        each = _ConsoleForEach(shown=progress)
        own_home = None if home is None else at.home
        return next(iter(tune_on_ray(spec, ray, at=at, listener=each, own_home=own_home, payload=payload).values()))
    with _console() if progress else nullcontext() as console:
        listeners = () if console is None else (console,)
        return tune_study(spec, at=at, payload=payload, listeners=listeners)


class _ConsoleForEach:
    """Shows on standard error how the study of each class of machines goes, a line for each trial."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown

    def on_machines(self, present: Mapping[str, int]) -> None:
        """Say nothing: each study names its class."""

    def studying(self, machine_class: str) -> Sequence[StudyListener]:  # noqa: ARG002 - it says its class itself
        """Give a display for the study of one class."""
        if not self._shown:
            return ()
        from rich.console import Console

        from autotune.tracking.console import ConsoleListener

        return (ConsoleListener(Console(stderr=True, force_terminal=False)),)


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

    Raises:
        MachineBusyError: Another job holds this machine, or another process drives the study.
        DatasetError: The dataset cannot be read.
    """
    check_separate(registry_address(at.home, at.registry_url), at.optuna_url, at.tracking_uri)
    with (
        machine_lock(f"study {spec.name}", path=at.lock) if lease is None else nullcontext(),
        driven(spec.name, at, lease=lease) as registry,
        payload_file(payload, at.home) as payload_path,
        LocalRunner(on_progress=_progress_of(listeners)) as runner,
        ThreadPoolExecutor(max_workers=1) as background,
    ):
        tracker = make_tracker(registry, at)
        warm = background.submit(warm_up, tracker)
        inspection = inspect_dataset(runner, spec, at=at, payload_path=payload_path)
        warm.result()
        setting = make_setting(
            spec, inspection, pool=SinglePool(runner), registry=registry, at=at, payload_path=payload_path,
            listeners=(*listeners, tracker), known_since=known_since,
        )  # fmt: skip
        settle_interrupted(spec, registry, at)
        setting, study = begin_run(setting, at)
        return finish_run(setting, study, at)


def _progress_of(listeners: Sequence[StudyListener]) -> Callable[[str, int, int], None]:
    def tell(phase: str, done: int, total: int) -> None:
        notify(listeners, "on_preparing", Preparing(phase=phase, done=done, total=total))

    return tell
