"""`autotune compare-configs`: common DataLoader configurations and ours, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.comparing import checked_plot, memory_cell, rate_cell, ratio_cell, show, telling_progress
from autotune.cli.output import naming_the_factory
from autotune.compose import places
from autotune.constants import CONFIRM_PAIRS_MIN
from autotune.loaders.comparisons import ComparedRow, compare_configs
from autotune.spec.study_file import read_study

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples:

autotune compare-configs studies/forest_gaps.yaml

autotune compare-configs studies/forest_gaps.yaml --blocks 5 --plot configs.png

autotune compare-configs studies/forest_gaps.yaml --batch-size 64 --json > configs.json

The rows: Single Process (0 workers), Multi-Process (4), Optimized (8) and Memory Efficient (2), the last three with
pinned memory and persistent workers, and what the study deploys. Workers are at most one for each core. Run
`autotune tune` first: without it the last row is PyTorch's default."""
_HEADINGS = ("workers", "pin", "persistent", "batches/s", "samples/s", "memory", "times the first")


def command(
    study: Annotated[Path, typer.Argument(help="Study file (YAML).")],
    blocks: Annotated[int, typer.Option(help="Runs of each row.", min=1)] = CONFIRM_PAIRS_MIN,
    batch_size: Annotated[
        int | None, typer.Option(help="Batch size of every row; what the study deploys, else 32.", min=1)
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the table as a PNG file.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Measure four common configurations beside the resolved one."""
    spec, image = read_study(study), checked_plot(plot)
    with naming_the_factory(study), telling_progress() as told:
        comparison = compare_configs(
            spec,
            at=places(home),
            blocks=blocks,
            batch_size=batch_size,
            on_run=told.on_run,
            on_progress=told.on_progress,
        )
    show(comparison, headings=_HEADINGS, cells=_cells, plot=image, as_json=as_json)


def _cells(row: ComparedRow) -> list[str]:
    config = row.config
    return [
        str(config.num_workers),
        "yes" if config.pin_memory else "no",
        "yes" if config.persistent_workers else "no",
        "-" if row.batches_per_s is None else f"{row.batches_per_s:,.3g}",
        rate_cell(row),
        memory_cell(row),
        ratio_cell(row),
    ]
