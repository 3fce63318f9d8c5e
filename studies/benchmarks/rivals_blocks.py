"""Runs of the neutral clock in randomised blocks: every pick once in each, each in an interpreter of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rivals_workloads import Task

from autotune.spec import LoaderConfig

_SCRIPT = Path(__file__).with_name("rivals_clock.py")
_TAIL_LINES = 3


class RunFailedError(Exception):
    """A process gave no answer; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is clocked: a loader's configuration, and what else a contender may turn.

    Attributes:
        config: The configuration, canonical.
        threads: Threads of torch in the training process; None is torch's own choice.
    """

    config: LoaderConfig
    threads: int | None = None

    def label(self) -> str:
        """Write it on one line."""
        anew = ", workers anew each epoch" if self.config.persistent_workers is False else ""
        return self.config.label() + anew + (f", {self.threads} threads" if self.threads else "")


def ask(script: Path, request: Mapping[str, Any], *, timeout_s: float, packages: Path | None = None) -> Any:
    """Run a script in a fresh interpreter, give it a request, and give its answer.

    Args:
        script: The script; it answers with one JSON document.
        request: What it reads on standard input.
        timeout_s: Seconds after which it is killed.
        packages: Folder of further packages that it may import.

    Raises:
        RunFailedError: It ended without an answer, or not in time.
    """
    paths = [str(packages)] if packages else []
    inherited = os.environ.get("PYTHONPATH")
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*paths, *([inherited] if inherited else [])]),
        "CUDA_VISIBLE_DEVICES": "",  # batches are taken on the CPU by everybody
    }
    try:
        done = subprocess.run(
            [sys.executable, str(script)],
            input=json.dumps(request),
            env=environ,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunFailedError(f"{script.name} gave no answer in {timeout_s:.0f} s") from None
    if done.returncode or not done.stdout:
        tail = " / ".join(done.stderr.strip().splitlines()[-_TAIL_LINES:])
        raise RunFailedError(f"{script.name} ended with {done.returncode}: {tail or 'it said nothing'}")
    return json.loads(done.stdout)


def draw(task: Task, *, timeout_s: float = 900.0) -> None:
    """Draw the files of a task where they are missing, so that no contender pays for it.

    Raises:
        RunFailedError: They cannot be drawn.
    """
    request = {"dataset": task.dataset, "config": LoaderConfig().model_dump(), "build": True}
    ask(_SCRIPT, request, timeout_s=timeout_s)


class Blocks:
    """The clocked runs of one task.

    Args:
        task: Workload and consumer.
        setups: What is compared, each once.
        home: Folder of the archives that are read.
        seconds: Least time of the clocked epochs of a run.
        timeout_s: Longest life of a run.
    """

    def __init__(
        self, task: Task, setups: Sequence[Setup], *, home: Path, seconds: float, timeout_s: float = 900.0
    ) -> None:
        self._task = task
        self._setups = list(dict.fromkeys(setups))
        self._home = home
        self._seconds = seconds
        self._timeout_s = timeout_s
        self.failed: dict[Setup, str] = {}

    def prepare(self) -> None:
        """Build every archive that is read."""
        for setup in self._setups:
            if setup.config.archive != "files":
                self._try(setup, {"build": True})

    def run(self, count: int, *, seed: int, done: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """Clock every setup once in each block, in an order of the block's own.

        A setup that fails is left out of what follows; `failed` says why.

        Args:
            count: Number of blocks.
            seed: Seed of the orders.
            done: Called after each run.
        """
        order = random.Random(seed)
        for block in range(count):
            for setup in order.sample(self._setups, len(self._setups)):
                found = self._try(setup, {"seed": block}) if setup not in self.failed else None
                done()
                if found is not None:
                    yield {"setup": setup, "block": block, **found}

    def _try(self, setup: Setup, more: Mapping[str, Any]) -> Any:
        request = {
            "dataset": self._task.dataset,
            "consumer": self._task.taking,
            "config": setup.config.model_dump(),
            "threads": setup.threads,
            "home": str(self._home),
            "seconds": self._seconds,
            **more,
        }
        try:
            return ask(_SCRIPT, request, timeout_s=self._timeout_s)
        except RunFailedError as error:
            self.failed[setup] = str(error)
            return None
