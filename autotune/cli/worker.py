"""`autotune worker`: this machine measures for a study that another one drives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autotune.cli.output import error_console, print_json
from autotune.compose import places, work
from autotune.errors import SpecError
from autotune.service.nightly import study_files
from autotune.spec import OrderAnswer, StudyMachine, StudySpec, TrialClaim
from autotune.spec.study_file import read_study
from autotune.tracking.console import trial_text
from autotune.units import parse_seconds

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples, with AUTOTUNE_STORAGE=postgresql://user@host/database on every machine:

autotune tune studies/forest_gaps.yaml --shared     # on one machine: it drives, and measures too

autotune worker --study forest_gaps                 # on as many others as you like, before or after

autotune worker --study forest_gaps --studies my_project/studies --idle 30m

A worker measures what its own study file says and nothing else: where the driver's differs, it ends with code 2. \
It ends when the study is decided. One that is stopped or lost costs a trial at most, which another machine measures \
again. studies/schedules/ has templates for Slurm and Kubernetes.

Exit codes: 0 the study is decided, or nothing was to do for --idle, 1 the work failed, 2 wrong use, 4 another job \
holds this machine, 130 interrupted."""

_ENDS = {
    "decided": "study {study} is decided",
    "idle": "nothing was to do for study {study} for {idle}",
    "once": "one order of study {study} is measured",
    "stopped": "stopped",
}


def command(
    study: Annotated[str, typer.Option(help="Name of the study, as its file has it.")],
    studies: Annotated[Path, typer.Option(help="Folder with the study file, or the file.")] = Path("studies"),
    idle: Annotated[str, typer.Option(help="End after so long without anything to measure.")] = "10m",
    once: Annotated[bool, typer.Option("--once", help="End after one order.")] = False,
    home: Annotated[Path | None, typer.Option(help="Folder for archives and caches of this machine.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Measure on this machine for a study that another one drives."""
    idle_s = parse_seconds(idle)
    progress = _Progress(error_console())
    end = work(_own_study(study, studies), at=places(home), listener=progress, idle_s=idle_s, once=once)
    if as_json:
        print_json(
            {
                "study": study,
                "end": end,
                "machine_class": progress.machine_class,
                "trials": progress.trials,
                "refused": progress.refused,
            }
        )
    else:
        print(f"{_ENDS[end].format(study=study, idle=idle)}; {progress.trials} trials were measured here")


def _own_study(name: str, folder: Path) -> StudySpec:
    """Find the study of a name among the files of this machine.

    Raises:
        SpecError: None has it; the message names those that are there.
    """
    files = study_files([folder])
    if name in files:  # tried first: another file that breaks a rule is of no concern then
        spec = read_study(files[name])
        if spec.name == name:
            return spec
    found = [read_study(file) for file in files.values()]
    for spec in found:
        if spec.name == name:
            return spec
    known = ", ".join(sorted(spec.name for spec in found))
    raise SpecError(
        f"a worker measures what its own study files say, and {folder} has no study {name!r}, only {known}; "
        "name another folder with --studies"
    )


class _Progress:
    """Shows on standard error how a worker goes; a `autotune.compose.WorkerListener`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.machine_class: str | None = None
        self.trials = 0
        self.refused = 0

    def on_waiting(self, why: str) -> None:
        """Show what is waited for."""
        self._print(f"waiting: {why}")

    def on_joined(self, machine: StudyMachine) -> None:
        """Show as what the machine takes part."""
        self.machine_class = machine.machine_class
        self._print(f"measuring for study {machine.study} as {machine.machine_class}")

    def on_answered(self, answer: OrderAnswer) -> None:
        """Show what was measured."""
        self.trials += len(answer.records)
        for record in answer.records:
            self._print(f"{trial_text(record)} [{self.trials} measured here]")

    def on_refused(self, claim: TrialClaim) -> None:
        """Show that something was measured in vain."""
        self.refused += 1
        self._print(f"order {claim.order.key[:8]} was taken over meanwhile, so what was measured is not kept")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
