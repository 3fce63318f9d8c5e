"""`autotune dashboard`: optuna-dashboard on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.output import error_console
from autotune.compose import places, prepared_optuna_url
from autotune.study.dashboard import serve

NEEDS_ARGUMENTS = False
EXAMPLES = "Example: autotune dashboard --port 8080"


def command(
    port: Annotated[int, typer.Option(help="Port on loopback.", min=1, max=65535)] = 8080,
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
) -> None:
    """Show all studies in optuna-dashboard, on this machine only, until interrupted."""
    at = places(home)
    console = error_console()
    console.print(f"optuna-dashboard: http://127.0.0.1:{port}/ (no login, so on loopback only; Ctrl+C ends it)")
    console.print(f"MLflow: mlflow ui --backend-store-uri {at.tracking_uri}", soft_wrap=True)
    serve(prepared_optuna_url(at), host="127.0.0.1", port=port)
