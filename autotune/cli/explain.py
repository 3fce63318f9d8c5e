"""`autotune explain`: why a configuration was chosen, and how far to trust it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autotune.cli.output import print_json
from autotune.compose import places
from autotune.resolve.explain import Explanation, explain

NEEDS_ARGUMENTS = True
EXAMPLES = "Example: autotune explain forest_gaps"


def command(
    name: Annotated[str, typer.Argument(help="Name of the study.")],
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Say why a study chose its configuration, what smaller machine would do, and how far that may be trusted."""
    found = explain(name, home=places(home).home)
    if as_json:
        _print(found)
    else:
        Console(soft_wrap=True, highlight=False).print(str(found), markup=False)


def _print(found: Explanation) -> None:
    smaller = None if found.decision is None else found.decision.smaller
    print_json(
        {
            "config": found.resolution.config.model_dump(mode="json"),
            "match": found.resolution.match,
            "decision": found.resolution.decision_key,
            "smaller": None if smaller is None else smaller.model_dump(mode="json"),
            "lines": found.lines,
        }
    )
