"""A drill runs in a folder of its own and has to leave nothing behind."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

import psutil

from autotune.drill._base import Drill, DrillResult, NotHereError, PromiseBrokenError, State
from autotune.drill.faults import FAULTS

_GONE_WITHIN_S = 10.0
"""How long processes that were told to end may take."""


def run_drill(drill: Drill) -> DrillResult:
    """Run one drill in a temporary folder.

    Processes, limits and files are those of the drill alone: neither the clock nor anything in autotune's own folders
    is touched. Any error is a broken promise, as is a process that is left.

    Args:
        drill: One of `autotune.drill.table.DRILLS`, or another.
    """
    started_s = time.monotonic()
    before = set(psutil.Process().children(recursive=True))
    with tempfile.TemporaryDirectory(prefix="autotune-drill-") as folder:
        state, happened = _outcome(drill, Path(folder))
        happened = happened.replace(f"{folder}/", "")
    left = _left_since(before)
    if left and state == "held":
        state, happened = "broken", f"processes are left: {', '.join(map(str, left))}"
    fault = FAULTS[drill.row]
    return DrillResult(
        row=drill.row,
        fault=fault.name,
        cause=drill.cause,
        promise=fault.promise,
        state=state,
        happened=happened,
        seconds=time.monotonic() - started_s,
    )


def _outcome(drill: Drill, folder: Path) -> tuple[State, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is to warn is caught where that is promised
            return "held", drill.run(folder)
    except NotHereError as error:
        return "not here", str(error)
    except PromiseBrokenError as error:
        return "broken", str(error)
    except Exception as error:  # noqa: BLE001 - a drill is there to find what nobody thought of
        return "broken", f"{type(error).__name__}: {error}"


def _left_since(before: set[psutil.Process]) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=_GONE_WITHIN_S)
    return alive
