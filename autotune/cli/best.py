"""`autotune best`: the configuration that a study deploys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autotune.cli.output import print_json
from autotune.compose import places
from autotune.resolve.explain import best_of_study

NEEDS_ARGUMENTS = True
EXAMPLES = "Example: autotune best forest_gaps --json"


def command(
    name: Annotated[str, typer.Argument(help="Name of the study.")],
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Show the configuration that a study deploys, and how far it answers for this machine."""
    found = best_of_study(name, home=places(home).home)
    if as_json:
        config = found.config.model_dump(mode="json")
        print_json({"config": config, "match": found.match, "why": found.why, "decision": found.decision_key})
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{found.config.label()}[/] ({found.match})")
    for reason in found.why:
        console.print(f"- {reason}", markup=False)
