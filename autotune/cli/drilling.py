"""`autotune doctor --drill`: faults are caused on this machine, and a table says whether what is promised holds."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.cli.output import EXIT_FAILED, error_console, print_json
from autotune.drill import Drill, DrillResult
from autotune.errors import SpecError
from autotune.home import lock_file
from autotune.study.lock import machine_lock

_COLOURS = {"held": "green", "broken": "red", "not here": "yellow"}


def drill_machine(rows: Collection[int], *, as_json: bool) -> None:
    """Run drills one after another while nobody measures here, and show what became of them.

    Args:
        rows: Rows of the faults; none is all that can be drilled.
        as_json: Whether one JSON document is printed instead of a table.

    Raises:
        SpecError: A row has no drill.
        MachineBusyError: A tuning job holds this machine.
        typer.Exit: A promise does not hold.
    """
    drills = _chosen(rows)
    with machine_lock("fault drill", path=lock_file(os.environ)):
        results = _run(drills)
    broken = [result for result in results if result.state == "broken"]
    if as_json:
        print_json({"drills": [asdict(result) for result in results], "held": not broken})
    else:
        _show(results)
    if broken:
        raise typer.Exit(EXIT_FAILED)


def _chosen(rows: Collection[int]) -> list[Drill]:
    from autotune.drill.table import DRILLS

    known = [drill.row for drill in DRILLS]
    for row in rows:
        if row not in known:
            raise SpecError(f"a fault that can be drilled here has row {', '.join(map(str, known))}, got --row {row}")
    return [drill for drill in DRILLS if not rows or drill.row in rows]


def _run(drills: list[Drill]) -> list[DrillResult]:
    """Run drills under a line that says which one it is; what they log is what they are there to cause."""
    from autotune.drill.running import run_drill

    results = []
    logger = logging.getLogger("autotune")
    before, level = logger.level, logging.INFO if logging.getLogger().isEnabledFor(logging.INFO) else logging.CRITICAL
    logger.setLevel(level)
    try:
        with error_console().status("") as status:
            for number, drill in enumerate(drills, start=1):
                status.update(f"{number} of {len(drills)}: {escape(drill.cause)}")
                results.append(run_drill(drill))
    finally:
        logger.setLevel(before)
    return results


def _show(results: list[DrillResult]) -> None:
    table = Table("row", "fault", "what was done", "", "what happened", "s")
    for result in results:
        state = f"[{_COLOURS[result.state]}]{result.state}[/]"
        told = (result.fault, result.cause, result.happened)
        fault, cause, happened = map(escape, told)
        table.add_row(str(result.row), fault, cause, state, happened, f"{result.seconds:.1f}")
    console = Console()
    console.print(table)
    held = sum(result.state == "held" for result in results)
    console.print(f"{held} of {len(results)} promises held.", highlight=False)
