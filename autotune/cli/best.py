"""`autotune best`: the configuration that a study deploys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autotune.cli.output import newest_decision, print_json
from autotune.compose import places
from autotune.machine import machine_facts
from autotune.registry import open_existing
from autotune.spec import Decision

NEEDS_ARGUMENTS = True
EXAMPLES = "Example: autotune best forest_gaps --json"


def command(
    name: Annotated[str, typer.Argument(help="Name of the study.")],
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Show the configuration that a study deploys, and how far it answers for this machine."""
    with open_existing(places(home).home) as registry:
        decision = newest_decision(registry, name)
    match, why = _match(decision)
    if as_json:
        config = decision.config.model_dump(mode="json")
        print_json({"config": config, "match": match, "why": why, "decision": decision.key})
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{decision.config.label()}[/]")
    for reason in why:
        console.print(f"- {reason}")


def _match(decision: Decision) -> tuple[str, list[str]]:
    """Say whether the decision was made on a machine like this one."""
    here = machine_facts(accelerator=decision.machine.has_accelerator)
    why = [decision.why, f"decided by {decision.decided_by} at {decision.decided_at:%Y-%m-%d %H:%M} UTC"]
    if here.machine_class == decision.machine.machine_class:
        return "exact", why
    elsewhere = (
        f"measured on another class of machine ({decision.machine.machine_class}; this one: {here.machine_class}), "
        "where best_loader would serve the PyTorch default"
    )
    return "default", [elsewhere, *why]
