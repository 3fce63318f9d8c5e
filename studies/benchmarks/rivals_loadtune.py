"""Lets the package loadtune tune a loader; run by `rivals.py` in a process of its own, as loadtune measures in its own.

Reads one request (JSON) on standard input and answers with one document: the knobs that it recommends. Dataset and
consumer are those of the other contenders, put in as loadtune's dataset and training step. Everything is its default
but the steps of a trial, which are cut where its usual ones would take longer than the time that all contenders get.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import loadtune
import torch
from rivals_clock import make_consumer, make_dataset

_STEPS, _WARM_UP_STEPS = 100, 10
"""Its own defaults."""
_STEPS_MIN = 20
_LOOK_STEPS = 10
_RUNS = 4
"""Runs to plan the time for: its baseline, and a trial for each worker count of a small machine."""


def main() -> None:
    """Answer one request."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    found = tune(json.load(sys.stdin))
    with answers:
        json.dump(found, answers)


def tune(request: Mapping[str, Any]) -> dict[str, Any]:
    """Let loadtune tune, and give what it recommends."""
    workload = _workload(request)
    steps = _affordable_steps(workload, request)
    found = loadtune.tune(workload, steps=steps, warmup=_WARM_UP_STEPS, verbose=False)
    if found.baseline.error:
        raise SystemExit(f"loadtune's baseline failed: {found.baseline.error}")
    best = found.best
    # its own command line recommends the baseline where no trial was faster
    better = best is not None and best.throughput > found.baseline.throughput
    return {
        "knobs": best.knobs.to_dict() if better else loadtune.Knobs().to_dict(),
        "trials": len(found.trials),
        "steps": steps,
        "speedup_it_reports": found.speedup,
        "diagnosis": found.diagnosis,
    }


def _affordable_steps(workload: Any, request: Mapping[str, Any]) -> int:
    """Give the steps of a trial that the time allows, by a short look at the rate without workers."""
    look = loadtune.profile(workload, steps=_LOOK_STEPS, warmup=2)
    if not look.throughput:
        return _STEPS_MIN
    step_s = request["batch_size"] / look.throughput
    return max(_STEPS_MIN, min(_STEPS, int(request["seconds"] / _RUNS / step_s) - _WARM_UP_STEPS))


def _workload(request: Mapping[str, Any]) -> Any:
    """Describe dataset and consumer as loadtune wants them; the model is a stub, as the consumer has its own."""
    take = make_consumer(request["consumer"])
    return loadtune.Workload(
        name="rivals",
        make_dataset=lambda: make_dataset(request["dataset"]),
        make_model=lambda: torch.nn.Linear(1, 1),
        train_step=lambda _model, _optimizer, batch, _device: take(batch),
        make_optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.01),
        default_batch_size=request["batch_size"],
    )


if __name__ == "__main__":
    main()
