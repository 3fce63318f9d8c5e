"""The contenders of the rivals benchmark, as a table: each picks a loader for a task in the same time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
from rivals_blocks import RunFailedError, Setup, ask
from rivals_searches import Trials, dpt_grid, one_axis, plain, random_search
from rivals_workloads import Task

from autotune.compose import Places, places, tune_study
from autotune.space.priors import PRIORS, REFERENCE_BATCH_SIZE
from autotune.spec import LoaderConfig, MachineFacts, StudySpec
from autotune.spec.study_file import spec_from_fields
from autotune.trial import LocalRunner

OURS = "ours"
_LOADTUNE_SCRIPT = Path(__file__).with_name("rivals_loadtune.py")
_LOADTUNE_PATIENCE = 3.0
"""How many times its time loadtune may take before it is killed: it has no clock of its own."""
_LOADTUNE_START_S = 60.0
"""Seconds more for its imports on a slow machine."""


class AbsentError(Exception):
    """A contender is not installed; the message says how to get it."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a contender is given.

    Attributes:
        task: Workload and consumer.
        spec: The study of the task: batch size fixed, everything else by default.
        home: Folder of its own, empty.
        seconds: Time in which it picks.
        machine: The machine.
        seed: Seed of what it draws.
        packages: Folder that loadtune was installed to; None is this environment.
    """

    task: Task
    spec: StudySpec
    home: Path
    seconds: float
    machine: MachineFacts
    seed: int
    packages: Path | None = None

    @property
    def places(self) -> Places:
        """Where it keeps everything."""
        return places_in(self.home)


@dataclass(frozen=True, kw_only=True)
class Pick:
    """What a contender came to.

    Attributes:
        setup: The loader that it recommends.
        processes: Processes that it measured in.
        note: How it came to it, as half a sentence.
        more: Further facts, for the record.
    """

    setup: Setup
    processes: int = 0
    note: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to come to a loader.

    Attributes:
        key: Key in the JSON document.
        title: Name in tables.
        source: Where it comes from.
        pick: Picks.
        own_storage: Whether it chooses among autotune's archives, caches and decoders too.
    """

    key: str
    title: str
    source: str
    pick: Callable[[Ground], Pick]
    own_storage: bool = False


def places_in(home: Path) -> Places:
    """Give the places of a folder, with nothing of the environment's; the machine is held by the whole benchmark."""
    return replace(places(home, environ={}), lock=home / "machine.lock")


def study_of(task: Task, seconds: float, seed: int) -> StudySpec:
    """Give the study of a task: what a user would write, with the batch size fixed and on the CPU."""
    return spec_from_fields({
        "name": f"rivals-{task.name}", "dataset": task.dataset, "consumer": task.taking, "device": "cpu",
        "budget": f"{seconds:g}s", "space": {"batch_size": [REFERENCE_BATCH_SIZE]}, "seed": seed,
    })  # fmt: skip


def timed(contender: Contender, ground: Ground) -> tuple[Pick, float]:
    """Let a contender pick, and give its seconds too.

    Raises:
        AbsentError: It is not installed.
        RunFailedError: It came to nothing.
    """
    started_s = monotonic()
    pick = contender.pick(ground)
    return pick, monotonic() - started_s


def _ours(ground: Ground) -> Pick:
    summary = tune_study(ground.spec, at=ground.places)
    ratio = summary.ratio.model_dump() if summary.ratio else None
    more = {
        "outcome": summary.outcome,
        "why": summary.why,
        "notes": summary.notes,
        "ratio_in_study": ratio,
        "wall_s_of_study": summary.wall_s,
    }
    return Pick(
        setup=Setup(config=summary.best),
        processes=summary.process_runs,
        note=f"{summary.outcome.replace('_', ' ')}; {summary.trials.total} of its runs searched",
        more=more,
    )


def _default(ground: Ground) -> Pick:  # noqa: ARG001 - every contender is asked in the same way
    return Pick(setup=Setup(config=plain(0)))


def _suggested(ground: Ground) -> Pick:  # noqa: ARG001
    """What the DataLoader's own warning calls the suggested most workers: the CPUs of this process."""
    return Pick(setup=Setup(config=plain(len(os.sched_getaffinity(0)))))


def _rule(ground: Ground, name: str) -> Pick:
    """Take the worker count of a rule of thumb; what it says of batch size and pinning has no place here."""
    prior = next(prior for prior in PRIORS if prior.name == name)
    suggested = prior.config(ground.machine, psutil.virtual_memory().available)
    return Pick(setup=Setup(config=plain(suggested.num_workers)))


def _four_workers(ground: Ground) -> Pick:  # noqa: ARG001
    return Pick(setup=Setup(config=plain(4)))


def _searched(ground: Ground, search: Callable[[Trials], str]) -> Pick:
    """Let a rival search with our runner; the highest single run wins."""
    with LocalRunner() as runner:
        trials = Trials(runner, ground.spec, at=ground.places, seconds=ground.seconds)
        note = search(trials)
    if trials.best is None:
        raise RunFailedError(f"none of {trials.processes} runs was measured")
    failed = f", {trials.failures} failed" if trials.failures else ""
    return Pick(setup=Setup(config=trials.best), processes=trials.processes, note=note + failed)


def _loadtune(ground: Ground) -> Pick:
    version = loadtune_version(ground.packages)
    if version is None:
        raise AbsentError(
            "loadtune is not installed; pip install --no-deps --target FOLDER 'loadtune==0.3.*' and --loadtune FOLDER"
        )
    request = {
        "dataset": ground.task.dataset,
        "consumer": ground.task.taking,
        "batch_size": REFERENCE_BATCH_SIZE,
        "seconds": ground.seconds,
    }
    patience_s = _LOADTUNE_START_S + _LOADTUNE_PATIENCE * ground.seconds
    found = ask(_LOADTUNE_SCRIPT, request, timeout_s=patience_s, packages=ground.packages)
    knobs = found["knobs"]
    config = LoaderConfig(
        batch_size=REFERENCE_BATCH_SIZE,
        num_workers=knobs["num_workers"],
        prefetch_factor=knobs["prefetch_factor"] if knobs["num_workers"] else None,
        persistent_workers=knobs["persistent_workers"] if knobs["num_workers"] else None,
    )
    return Pick(
        setup=Setup(config=config.canonical(has_accelerator=False), threads=knobs["num_threads"]),
        processes=1,
        note=f"loadtune {version}, {found['trials']} trials of {found['steps']} steps beside its baseline",
        more=found,
    )


def loadtune_version(packages: Path | None) -> str | None:
    """Give the version of loadtune, or None where it is absent."""
    where = {"path": [str(packages)]} if packages else {}
    return next((found.version for found in metadata.distributions(name="loadtune", **where)), None)


CONTENDERS: tuple[Contender, ...] = (
    Contender(key=OURS, title="autotune", source="autotune.compose.tune_study", pick=_ours, own_storage=True),
    Contender(key="pytorch_default", title="PyTorch default", source="DataLoader(num_workers=0)", pick=_default),
    Contender(
        key="pytorch_suggested",
        title="PyTorch's suggested workers",
        source="the DataLoader's warning: CPUs of the process",
        pick=_suggested,
    ),
    Contender(
        key="rule_75_percent",
        title="rule: 75 % of cores",
        source="seed 4, Optimal Worker Configuration",
        pick=partial(_rule, name="75 % of cores"),
    ),
    Contender(
        key="rule_four_per_gpu",
        title="rule: min(4 x GPUs, cores // 2)",
        source="seed 3, practical rules",
        pick=partial(_rule, name="4 per GPU, at most half the cores"),
    ),
    Contender(
        key="rule_four_workers",
        title="rule: 4 workers",
        source="seed 3, Shared Performance Parameters (there with batches of 8)",
        pick=_four_workers,
    ),
    Contender(
        key="one_axis",
        title="one axis at a time",
        source="seed 0, optimization.py: the batch size (fixed here), then workers, then prefetch",
        pick=lambda ground: _searched(ground, lambda trials: one_axis(trials, ground.machine.cpu_count)),
    ),
    Contender(
        key="dpt_grid",
        title="DPT grid",
        source="Dataloader Parameter Tuner, arXiv 2210.05244",
        pick=lambda ground: _searched(
            ground, lambda trials: dpt_grid(trials, ground.machine.cpu_count, max(1, ground.machine.accelerator_count))
        ),
    ),
    Contender(key="loadtune", title="loadtune", source="loadtune 0.3, loadtune.tune", pick=_loadtune),
    Contender(
        key="random_search",
        title="random search",
        source="Optuna's RandomSampler over autotune's space",
        pick=lambda ground: _searched(ground, lambda trials: random_search(trials, ground.seed)),
        own_storage=True,
    ),
)
"""All contenders, ours first; those that choose by a rule take no time."""
