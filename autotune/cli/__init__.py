"""The command line: one module a command; the only package that prints."""

from __future__ import annotations

import logging
import sys

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from autotune import __version__
from autotune.cli import (
    archive,
    best,
    compare,
    compare_configs,
    compare_modes,
    dashboard,
    doctor,
    explain,
    measure,
    tune,
)
from autotune.cli.output import exit_code
from autotune.errors import AutotuneError

app = typer.Typer(
    name="autotune",
    help="Measures data loader configurations on this machine and hands out the fastest one.",
    epilog="Example: autotune tune studies/forest_gaps.yaml --budget 2m",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _module in (tune, best, explain, measure, compare, compare_configs, compare_modes, doctor, dashboard):
    _name = _module.__name__.rpartition(".")[2].replace("_", "-")
    app.command(_name, epilog=_module.EXAMPLES, no_args_is_help=_module.NEEDS_ARGUMENTS)(_module.command)
app.add_typer(archive.app, name="archive")


def _show_version(value: bool) -> None:
    if value:
        print(f"autotune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Show what is logged, not only warnings."),
) -> None:
    console = Console(stderr=True)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=verbose, show_time=verbose)],
    )


def main() -> None:
    """Run the command line; errors that we raise on purpose become one line and an exit code."""
    try:
        app()
    except AutotuneError as error:
        Console(stderr=True, soft_wrap=True).print("[bold red]error:[/]", escape(str(error)), highlight=False)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; finished trials are kept, the same command goes on from here")
        sys.exit(130)
