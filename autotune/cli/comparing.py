"""What both comparison commands share: progress, the table's frame, plots, and exit codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autotune.cli.output import EXIT_FAILED, EXIT_NOTHING_FEASIBLE, error_console, print_json
from autotune.errors import SpecError
from autotune.loaders.comparisons import ComparedRow, Comparison, OnProgress, OnRun
from autotune.loaders.optimization_plots import check_plot
from autotune.spec import Preparing, TrialRecord
from autotune.tracking.console import ConsoleListener
from autotune.units import format_rate

_WIDE = 140
"""Columns of a table that is not written to a terminal."""
Cells = Callable[[ComparedRow], Sequence[str]]
"""Gives the cells of a measured row, its name left out."""


class Telling(NamedTuple):
    """Where a comparison reports to while it runs."""

    on_run: OnRun
    on_progress: OnProgress


@contextmanager
def telling_progress() -> Iterator[Telling]:
    """Show each run as a line on standard error, and slow preparations as they go."""
    console = error_console()
    listener = ConsoleListener(console, show_summary=False)

    def on_run(record: TrialRecord, done: int, total: int) -> None:
        listener.close()
        measured, failure = record.measurement, record.failure
        outcome = (
            format_rate(measured.samples_per_s) if measured else f"{failure.kind}: {failure.message}" if failure else ""
        )
        console.print(f"{done} of {total}  {record.config.label()}: {outcome}", highlight=False, markup=False)

    def on_progress(phase: str, done: int, total: int) -> None:
        listener.on_preparing(Preparing(phase=phase, done=done, total=total))

    try:
        yield Telling(on_run, on_progress)
    finally:
        listener.close()


def checked_plot(path: Path | None) -> Path | None:
    """Check, before anything is measured, that a plot can be written.

    Raises:
        SpecError: It is no PNG file, or its folder is not there.
    """
    if path is None:
        return None
    check_plot(path)
    if not path.absolute().parent.is_dir():
        raise SpecError(f"a plot is written into a folder that is there, got {path}; make {path.parent} first")
    return path


def show(comparison: Comparison, *, headings: Sequence[str], cells: Cells, plot: Path | None, as_json: bool) -> None:
    """Print a comparison as one JSON document or as a table, draw its plot, and exit as it came out.

    Measuring took minutes, so that a plot cannot be written is told after the figures, and exits with 1.

    Args:
        comparison: What was measured.
        headings: Headings of the columns after the name.
        cells: Gives the cells under them.
        plot: File of the plot; None draws none.
        as_json: Whether to print one JSON document.
    """
    if as_json:
        print_json(comparison.model_dump(mode="json"))
    else:
        _show_table(comparison, headings, cells)
    drawn = plot is None or _draw(comparison, plot, as_json=as_json)
    if not comparison.measured:
        failures = [row.failure for row in comparison.rows if row.failure is not None]
        infeasible = all(failure.infeasible for failure in failures)
        raise typer.Exit(EXIT_NOTHING_FEASIBLE if infeasible else EXIT_FAILED)
    if not drawn:
        raise typer.Exit(EXIT_FAILED)


def _draw(comparison: Comparison, plot: Path, *, as_json: bool) -> bool:
    from autotune.loaders.comparison_plots import save_plot

    try:
        save_plot(comparison, plot)
    except OSError as error:
        error_console().print(f"the plot was not written: {error}", style="red", markup=False, soft_wrap=True)
        return False
    if not as_json:
        Console(highlight=False).print(f"plot: {plot}", markup=False, soft_wrap=True)
    return True


def _show_table(comparison: Comparison, headings: Sequence[str], cells: Cells) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or pipe has no width that the table must keep to
        console.width = max(console.width, _WIDE)
    console.print(
        f"[bold]{comparison.study}[/]: {comparison.dataset.length} samples, batch size {comparison.batch_size}; "
        f"{comparison.machine.machine_class}; {comparison.blocks} runs of each in interleaved order",
        soft_wrap=True,
    )
    table = Table("", *headings)
    for heading in table.columns[1:]:
        heading.justify = "right"
    notes: list[str] = []
    for row in comparison.rows:
        marks = ",".join(str(_number(note, notes)) for note in _notes(row))
        shown = cells(row) if row.failure is None else ["-"] * len(headings)
        table.add_row(Text(f"{row.name} [{marks}]" if marks else row.name), *shown)
    console.print(table)
    for number, note in enumerate(notes, start=1):
        console.print(f"[{number}] {note}", markup=False, soft_wrap=True)


def _notes(row: ComparedRow) -> list[str]:
    notes = list(row.notes)
    if row.same_as is not None:
        notes.append(f"behaves here as {row.same_as}, whose runs these are")
    if row.failure is not None:
        notes.append(f"not measured, {row.failure.kind.replace('_', ' ')}: {row.failure.message}")
    return notes


def _number(note: str, notes: list[str]) -> int:
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1


def rate_cell(row: ComparedRow) -> str:
    """Write the rate with its spread over the runs, as `1,437 (1,402 to 1,466)`."""
    if row.samples_per_s is None or row.lowest is None or row.highest is None:
        return "-"
    spread = "" if row.runs < 2 else f" ({_figure(row.lowest)} to {_figure(row.highest)})"
    return f"{_figure(row.samples_per_s)}{spread}"


def memory_cell(row: ComparedRow) -> str:
    """Write the share of memory."""
    return "-" if row.memory_share is None else f"{row.memory_share:.1%}"


def ratio_cell(row: ComparedRow) -> str:
    """Write how many times as fast as the first row it is, with the 95 % interval."""
    if row.ratio is None:
        return "1" if row.same_as is None and row.runs else ""
    return f"{_figure(row.ratio.mean)} ({_figure(row.ratio.low)} to {_figure(row.ratio.high)})"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
