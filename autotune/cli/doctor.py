"""`autotune doctor`: what this machine offers, what is in the way, and whether promises hold where things go wrong."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.cli.drilling import drill_machine
from autotune.cli.output import EXIT_FAILED, print_json
from autotune.compose import places
from autotune.errors import AutotuneError, SpecError
from autotune.machine import machine_facts
from autotune.registry import open_registry
from autotune.spec import MachineFacts
from autotune.study.lock import machine_lock
from autotune.units import GIB, MIB, format_bytes

NEEDS_ARGUMENTS = False
EXAMPLES = "Example: autotune doctor --drill --row 23"
SHM_COMFORTABLE_BYTES = 512 * MIB
"""Docker's default of 64 MiB holds a few batches only; with less than this, workers meet its end early."""
DISK_COMFORTABLE_BYTES = 2 * GIB


def command(
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    drill: Annotated[
        bool, typer.Option("--drill", help="Cause harmless faults in a temporary folder instead, for a minute or two.")
    ] = False,
    rows: Annotated[list[int] | None, typer.Option("--row", help="Drill only this fault; may be given again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Check what tuning needs on this machine, or drill what happens when things go wrong."""
    if drill:
        if home is not None:
            raise SpecError(f"--drill keeps to temporary folders, got --home {home} too; leave one of them out")
        drill_machine(rows or [], as_json=as_json)
        return
    if rows:
        raise SpecError(f"--row chooses among the faults of --drill, got --row {rows[0]} without it; add --drill")
    facts = machine_facts()
    checks = [*_facts(facts), *_checks(home, facts)]
    if as_json:
        document = [{"check": name, "state": state, "found": found} for name, state, found in checks]
        print_json({"machine": facts.model_dump(mode="json"), "checks": document})
    else:
        table = Table("check", "", "found")
        for name, state, found in checks:
            colour = {"ok": "green", "warn": "yellow", "fail": "red"}[state]
            table.add_row(name, f"[{colour}]{state}[/]", escape(found))
        Console().print(table)
    if any(state == "fail" for _, state, _ in checks):
        raise typer.Exit(EXIT_FAILED)


def _facts(facts: MachineFacts) -> Iterator[tuple[str, str, str]]:
    inputs = ", ".join(f"{name} {count:g}" for name, count in facts.cpu_inputs.items())
    yield "CPUs", "ok", f"{facts.cpu_count} ({inputs})"
    yield "memory", "ok", format_bytes(facts.memory_bytes)
    small = facts.shm_bytes is not None and facts.shm_bytes < SHM_COMFORTABLE_BYTES
    found = format_bytes(facts.shm_bytes) if facts.shm_bytes is not None else "none here"
    yield (
        "shared memory",
        "warn" if small else "ok",
        f"{found}; give the container more (--shm-size)" if small else found,
    )
    yield "accelerator", "ok", facts.accelerator or "none: measured on the CPU"
    yield "environment", "ok", facts.environment
    yield "versions", "ok", ", ".join(f"{name} {version}" for name, version in facts.versions.items())


def _checks(home: Path | None, facts: MachineFacts) -> Iterator[tuple[str, str, str]]:
    at = places(home)
    yield "home folder", "ok", str(at.home)
    free = shutil.disk_usage(at.home).free
    yield "disk", "ok" if free > DISK_COMFORTABLE_BYTES else "warn", f"{format_bytes(free)} free for archives"
    try:
        with open_registry(at.home, at.registry_url) as registry:
            yield "registry", "ok", f"{len(registry.studies())} studies in {registry.place}"
    except AutotuneError as error:
        yield "registry", "fail", str(error)
    try:
        # the folder mlflow/ of a checkout can be imported too, so only the installed version counts
        yield "MLflow", "ok", f"{importlib.metadata.version('mlflow')}, tracking to {at.tracking_uri}"
    except importlib.metadata.PackageNotFoundError:
        yield "MLflow", "warn", "not installed: results are kept and logged later"
    try:
        with machine_lock("doctor", path=at.lock):
            yield "machine", "ok", "free for measuring"
    except AutotuneError as error:
        yield "machine", "warn", str(error)
    if facts.system.startswith("Darwin"):
        yield "platform", "warn", "page cache and cgroups cannot be controlled here and are reported as unknown"
