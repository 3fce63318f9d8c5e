"""`autotune explain`: why a configuration was chosen, and how far to trust it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autotune.compose import places
from autotune.resolve.explain import explain

NEEDS_ARGUMENTS = True
EXAMPLES = "Example: autotune explain forest_gaps"


def command(
    name: Annotated[str, typer.Argument(help="Name of the study.")],
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
) -> None:
    """Say why a study chose its configuration, what else was tried, and how far that may be trusted."""
    Console(soft_wrap=True, highlight=False).print(str(explain(name, home=places(home).home)), markup=False)
