"""`autotune compare-modes`: the four loading modes, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.comparing import checked_plot, memory_cell, rate_cell, ratio_cell, show, telling_progress
from autotune.cli.output import naming_the_factory
from autotune.compose import places
from autotune.constants import CONFIRM_PAIRS_MIN
from autotune.errors import SpecError
from autotune.loaders.comparisons import ComparedRow, compare_modes
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.spec.config import STREAMING_FORMATS
from autotune.spec.study_file import read_study
from autotune.units import format_bytes, format_seconds

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples:

autotune compare-modes studies/forest_gaps.yaml

autotune compare-modes studies/forest_gaps.yaml --workers 2 --archive webdataset --plot modes.png

The rows: Lazy (read when asked for), Eager (all read into memory first), Streaming (an archive from front to back)
and Cached (kept in memory once read). Start-up is the time to the first batch, with the build of the archive and the
filling of the cache; the first epoch includes it."""
_HEADINGS = ("start-up", "of it archive", "of it cache", "memory", "samples/s", "first epoch", "times the first")


def command(
    study: Annotated[Path, typer.Argument(help="Study file (YAML).")],
    blocks: Annotated[int, typer.Option(help="Runs of each row.", min=1)] = CONFIRM_PAIRS_MIN,
    batch_size: Annotated[int, typer.Option(help="Batch size of every row.", min=1)] = REFERENCE_BATCH_SIZE,
    workers: Annotated[int, typer.Option(help="Worker processes of every row.", min=0)] = 0,
    archive: Annotated[str, typer.Option(help="Format that is streamed.")] = STREAMING_FORMATS[0],
    plot: Annotated[Path | None, typer.Option(help="Draw the table as a PNG file.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Measure the four loading modes: start-up, memory and rate."""
    if archive not in STREAMING_FORMATS:
        raise SpecError(f"--archive is one of {', '.join(STREAMING_FORMATS)}, got {archive!r}")
    spec, image = read_study(study), checked_plot(plot)
    with naming_the_factory(study), telling_progress() as told:
        comparison = compare_modes(
            spec,
            at=places(home),
            blocks=blocks,
            batch_size=batch_size,
            num_workers=workers,
            archive=archive,
            on_run=told.on_run,
            on_progress=told.on_progress,
        )
    show(comparison, headings=_HEADINGS, cells=_cells, plot=image, as_json=as_json)


def _cells(row: ComparedRow) -> list[str]:
    start = row.start_up
    return [
        "-" if start is None else format_seconds(start.total_s),
        format_seconds(start.archive_build_s) if start is not None and start.archive_build_s else "",
        format_seconds(start.cache_fill_s) if start is not None and start.cache_fill_s else "",
        "-" if row.memory_bytes is None else f"{format_bytes(row.memory_bytes)}, {memory_cell(row)}",
        rate_cell(row),
        "-" if row.first_epoch_s is None else format_seconds(row.first_epoch_s),
        ratio_cell(row),
    ]
