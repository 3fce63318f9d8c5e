"""`autotune nightly`: all studies of a folder, checked and where needed searched anew, under one budget."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from autotune.cli.output import EXIT_FAILED, error_console, print_json
from autotune.compose import places
from autotune.constants import KEEP_DAYS
from autotune.errors import SpecError
from autotune.registry import open_existing
from autotune.service.nightly import NightOrder, preview, run_night, study_files, summary_line, written_report
from autotune.spec import StudyListener, StudyNight, TrialRecord
from autotune.tracking.console import ConsoleListener
from autotune.units import format_rate, format_seconds, parse_seconds

NEEDS_ARGUMENTS = False
EXAMPLES = """Examples:

autotune nightly studies/ --budget 2h

autotune nightly studies/ --budget 2h --dry-run

What is deployed is measured again first, for every study. Where it is a loss it is taken back; where it has \
drifted, or dataset, driver or versions have changed, the study is searched anew, by need, as far as the budget goes. \
A night that was killed goes on when the same command is given again.

Exit codes: 0 done (decisions may wait for a person), 1 something failed, 2 wrong use, 3 a study has nothing \
feasible, 4 another job holds the machine, 130 interrupted."""


def command(
    studies: Annotated[list[Path] | None, typer.Argument(help="Study files, or folders of them.")] = None,
    budget: Annotated[str, typer.Option(help="Wall time of the whole night, as 90m or 2h.")] = "2h",
    machine: Annotated[
        str | None, typer.Option(help="Name of the machine, where the host name is not that of the hardware.")
    ] = None,
    keep_days: Annotated[int, typer.Option(help="Days that old trials, archives and reports stay.", min=1)] = KEEP_DAYS,
    report: Annotated[Path | None, typer.Option(help="The HTML report; else one in the home folder.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would run and why, and stop.")] = False,
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Check all studies, search anew where that is needed, take back what is a loss, and write a report."""
    order = NightOrder(
        files=study_files(studies or [Path("studies")]),
        budget_s=parse_seconds(budget),
        at=places(home),
        machine=machine or platform.node() or "unknown",
        keep_days=keep_days,
    )
    _check_report(report)
    if dry_run:
        _show_preview(preview(order), as_json=as_json)
        return
    done = run_night(order, _Progress(error_console()))
    if not as_json:  # whatever becomes of the report
        print(summary_line(done))
    with open_existing(order.at.home, order.at.registry_url) as registry:
        page = written_report(done, registry, at=order.at, path=report)
    if as_json:
        print_json({**done.model_dump(mode="json"), "report": str(page)})
    error_console().print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    if done.exit_code:
        raise typer.Exit(done.exit_code)


def _check_report(path: Path | None) -> None:
    """Find out before the night whether its report can be written."""
    if path is None:
        return
    if path.is_dir():
        raise SpecError(f"--report must be a file, got the folder {path}; name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"--report must lie in a folder that can be made, got {path} ({error.strerror})") from error
    if not os.access(path.parent, os.W_OK):
        raise SpecError(f"--report must lie in a folder that can be written, got {path}; name another one")


class _Progress:
    """Shows on standard error how a night goes; a `autotune.service.nightly.NightListener`."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_study(self, name: str, what: str) -> None:
        """Show what is begun."""
        self._print(f"{name}: {what}")

    def on_run(self, record: TrialRecord) -> None:
        """Show a run of a check."""
        failure = record.failure
        rate = "" if record.measurement is None else format_rate(record.measurement.samples_per_s)
        self._print(f"  {record.config.label()}: {rate if failure is None else failure.kind.replace('_', ' ')}")

    def on_done(self, night: StudyNight) -> None:
        """Show what became of a study."""
        self._print(f"{night.study}: {night.outcome.replace('_', ' ')}{'; '.join(['', *night.told])}")

    def searching(self) -> Sequence[StudyListener]:
        """Give a display for one search."""
        return [ConsoleListener(self._console, show_summary=False)]

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _show_preview(nights: Sequence[StudyNight], *, as_json: bool) -> None:
    shown = {"study", "file", "task", "why", "outcome", "told"}
    if as_json:
        told = [{**one.model_dump(mode="json", include=shown), "budget_s": one.wall_s} for one in nights]
        print_json({"studies": told})
    else:
        table = Table("study", "task", "time", "why")
        for one in nights:
            table.add_row(one.study, one.task, _given(one), "; ".join([one.why, *one.told]))
        Console().print(table)
    if any(one.outcome == "failed" for one in nights):
        raise typer.Exit(EXIT_FAILED)


def _given(night: StudyNight) -> str:
    """Say how long a study would take of the night."""
    if night.outcome == "failed":
        return "cannot be run"
    if night.task == "check":
        return "a few runs"
    return format_seconds(night.wall_s) if night.wall_s else "another night"
