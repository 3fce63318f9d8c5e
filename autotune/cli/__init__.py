"""The command line: one module a command; the only package that prints."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

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
_EXIT_INTERRUPTED = 130
_GOES_ON = "stopped; finished trials are kept, the same command goes on from here"
_WITHOUT_TRIALS = ("show", "dry_run")
"""Flags of `tune` with which it measures nothing that could be kept."""


def _going_on(command: Callable[..., None]) -> Callable[..., None]:
    """Tell, when the command is interrupted, that nothing is lost; Typer would exit without a word."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except KeyboardInterrupt:
            if not any(options.get(flag) for flag in _WITHOUT_TRIALS):
                Console(stderr=True, soft_wrap=True).print(_GOES_ON, highlight=False)
            raise typer.Exit(_EXIT_INTERRUPTED) from None

    return run


_COMMANDS: dict[Any, Callable[..., None]] = {tune: _going_on(tune.command)}
"""What a command runs, where that is not as its module has it: `tune` alone goes on from where it was stopped."""
for _module in (tune, best, explain, measure, compare, compare_configs, compare_modes, doctor, dashboard):
    _name = _module.__name__.rpartition(".")[2].replace("_", "-")
    app.command(_name, epilog=_module.EXAMPLES, no_args_is_help=_module.NEEDS_ARGUMENTS)(
        _COMMANDS.get(_module, _module.command)
    )
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
