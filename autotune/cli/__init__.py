"""The command line: one module a command; the only package that prints."""

from __future__ import annotations

import functools
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    nightly,
    report,
    review,
    serve,
    tokens,
    tune,
    worker,
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
"""Flags with which they measure nothing that could be kept."""


def _going_on(command: Callable[..., None]) -> Callable[..., None]:
    """Tell, when the command is interrupted, that nothing is lost; Typer would exit without a word."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            with _terminated_as_interrupted():
                command(*args, **options)
        except KeyboardInterrupt:
            if not any(options.get(flag) for flag in _WITHOUT_TRIALS):
                Console(stderr=True, soft_wrap=True).print(_GOES_ON, highlight=False)
            raise typer.Exit(_EXIT_INTERRUPTED) from None

    return run


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Have SIGTERM end the block as ^C does, so that what is held is let go and the next to come need not wait.

    As the first process of a container a program would not even get that signal without saying what is done for it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_COMMANDS: dict[Any, Callable[..., None]] = {
    tune: _going_on(tune.command),
    nightly: _going_on(nightly.command),
    worker: _going_on(worker.command),
}
"""What a command runs, where that is not as its module has it: these go on from where they were stopped."""
for _module in (
    tune,
    best,
    explain,
    measure,
    compare,
    compare_configs,
    compare_modes,
    doctor,
    dashboard,
    nightly,
    report,
    serve,
    worker,
):
    _name = _module.__name__.rpartition(".")[2].replace("_", "-")
    app.command(_name, epilog=_module.EXAMPLES, no_args_is_help=_module.NEEDS_ARGUMENTS)(
        _COMMANDS.get(_module, _module.command)
    )
app.add_typer(archive.app, name="archive")
app.add_typer(review.app, name="review")
app.add_typer(tokens.app, name="token")


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
