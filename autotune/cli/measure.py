"""`autotune measure`: one configuration, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from autotune.cli.output import EXIT_FAILED, naming_the_factory, parse_config, print_json
from autotune.compose import measure, places
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.spec import LoaderConfig, Measurement, TrialRecord
from autotune.spec.study_file import read_study
from autotune.units import format_bytes, format_rate, format_seconds

NEEDS_ARGUMENTS = True
EXAMPLES = """Example: autotune measure studies/forest_gaps.yaml --set archive=npy --set num_workers=2

One run varies by several per cent from the next; use compare to tell two configurations apart."""


def command(
    study: Annotated[Path, typer.Argument(help="Study file (YAML).")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value; the rest is the default.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Measure one configuration in a fresh process."""
    config = parse_config(settings or [], LoaderConfig.torch_default(REFERENCE_BATCH_SIZE))
    with naming_the_factory(study):
        record = measure(read_study(study), config, at=places(home))
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        _show(record)
    if record.measurement is None:
        raise typer.Exit(EXIT_FAILED)


def _show(record: TrialRecord) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{record.config.label()}[/]")
    if record.failure is not None:
        console.print(f"{record.failure.kind} in phase {record.failure.phase}: {record.failure.message}", markup=False)
    if record.measurement is not None:
        table = Table(show_header=False)
        for name, value in _rows(record.measurement):
            table.add_row(name, value)
        console.print(table)


def _rows(measured: Measurement) -> list[tuple[str, str]]:
    steady, memory, phases = measured.steady, measured.memory, measured.phases
    kind = "whole epochs" if measured.whole_epochs else "interior windows"
    rows = [
        ("full epoch", format_rate(measured.samples_per_s)),
        ("steady", f"{format_rate(steady.mean)} (95 % interval {steady.low:,.0f} to {steady.high:,.0f})"),
        ("windows", f"{len(measured.windows)} {kind}, stopped: {measured.stopped}"),
        ("waiting for data", f"{measured.data_wait_share:.0%} of the time"),
        ("first batch after", format_seconds(phases.first_batch_s)),
        ("build, archive, cache", " · ".join(
            format_seconds(part) for part in (phases.build_s, phases.archive_build_s, phases.cache_fill_s)
        )),
        ("page cache", measured.page_cache),
    ]  # fmt: skip
    if measured.archive is not None:
        size, took = format_bytes(measured.archive.size_bytes), format_seconds(measured.archive.build_s)
        rows.append(("archive", f"{size}, built in {took}"))
    if measured.cache is not None:
        cache = measured.cache
        held = f"{cache.fraction:.0%} of the samples have a place, {cache.filled:,} are held in"
        rows.append(("cache", f"{held} {format_bytes(cache.size_bytes)}; {cache.hits:,} hits, {cache.misses:,} misses"))
    if memory.device_peak_bytes is not None and memory.device_limit_bytes is not None:
        limit = format_bytes(memory.device_limit_bytes)
        rows.append(("device memory", f"{format_bytes(memory.device_peak_bytes)} of {limit} ({memory.instrument})"))
    if measured.unsteady:
        rows.append(("unsteady", "first and second half differ by over 5 %"))
    return rows
