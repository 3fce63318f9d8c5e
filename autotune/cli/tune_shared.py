"""What is shown of a study that many machines measure for: lines while it runs, a table for each class of machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer
from rich.console import Console

from autotune.cli.output import EXIT_NOTHING_FEASIBLE, print_json
from autotune.spec import StudyListener, StudySummary
from autotune.tracking.console import ConsoleListener, summary_table


class SharedProgress:
    """Shows on standard error which machines measure, and what; a `autotune.compose.SharedListener`.

    Args:
        console: Where to write: a line for each trial, as several of them end at once.
    """

    def __init__(self, console: Console) -> None:
        self._console = Console(file=console.file, force_terminal=False)

    def on_machines(self, present: Mapping[str, int]) -> None:
        """Show how many machines of each class take part now."""
        shown = "; ".join(f"{count} of {name}" for name, count in sorted(present.items()))
        self._console.print(f"machines: {shown or 'none yet'}", markup=False, highlight=False, soft_wrap=True)

    def studying(self, machine_class: str) -> Sequence[StudyListener]:  # noqa: ARG002 - it says its class itself
        """Give a display for the study of one class."""
        return [ConsoleListener(self._console, show_summary=False)]


def tell_classes(summaries: Mapping[str, StudySummary], as_json: bool) -> None:
    """Print how a study ended for each class of machines; the JSON document is that of the first, with all of them.

    Raises:
        Exit: Nothing was feasible on any of them.
    """
    ended = [{"machine_class": name, **one.model_dump(mode="json")} for name, one in summaries.items()]
    if as_json:
        print_json({**ended[0], "classes": ended})
    else:
        console = Console()
        for name, summary in summaries.items():
            console.print(name, markup=False, highlight=False, soft_wrap=True)
            console.print(summary_table(summary))
    if all(one.outcome == "nothing_feasible" for one in summaries.values()):
        raise typer.Exit(EXIT_NOTHING_FEASIBLE)
