"""`autotune tune`: the main job."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from autotune.cli.output import EXIT_NOTHING_FEASIBLE, error_console, naming_the_factory, print_json
from autotune.cli.tune_shared import SharedProgress, tell_classes
from autotune.compose import Places, inspect_dataset, places, tune_on_ray, tune_shared, tune_study
from autotune.errors import SpecError
from autotune.space import PRIORS, Space
from autotune.spec import StudySpec, StudySummary
from autotune.spec.study_file import read_study, spec_from_fields
from autotune.spec.study_show import show_spec
from autotune.tracking.console import ConsoleListener, summary_table
from autotune.trial import LocalRunner

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples:

autotune tune studies/forest_gaps.yaml

autotune tune studies/forest_gaps.yaml --budget 30s --json > result.json

autotune tune studies/forest_gaps.yaml --dry-run

AUTOTUNE_STORAGE=postgresql://user@host/database autotune tune studies/forest_gaps.yaml --shared

autotune tune studies/forest_gaps.yaml --ray auto

A study file needs three lines: name, dataset (package.module:factory) and budget. A killed study goes on
where it was when the same command is given again.

With --shared other machines measure too, one trial at a time each: `autotune worker --study NAME` there joins at any \
time. Machines of another class get a study of their own in the same run.

With --ray every node of a Ray cluster measures likewise, one of each host. The package, the dataset and this version \
of autotune have to be there on all of them."""


def command(
    study: Annotated[Path, typer.Argument(help="Study file (YAML).")],
    budget: Annotated[str | None, typer.Option(help="Wall time instead of the file's, as 30s or 5m.")] = None,
    trials: Annotated[int | None, typer.Option(help="Most trials of the search.", min=1)] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for results instead of the usual one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
    show: Annotated[bool, typer.Option("--show-spec", help="Print the study with all defaults, and stop.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Say what would be tried, and stop.")] = False,
    shared: Annotated[bool, typer.Option("--shared", help="Let workers on other machines measure too.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="With --shared: measure on this machine too, or drive only.")
    ] = True,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Measure on a Ray cluster: auto or host:port."),
    ] = None,
) -> None:
    """Search, measure and confirm the fastest configuration of a study."""
    spec = _overridden(read_study(study), budget, trials)
    if show:
        print(show_spec(spec), end="")
        return
    if ray is not None and shared:
        raise SpecError("--ray and --shared are two ways to reach other machines, got both; give one of them")
    if not measure and not shared:
        raise SpecError("--no-measure belongs to --shared, as nobody else would measure; add --shared, or leave it out")
    at = places(home)
    if dry_run:
        with naming_the_factory(study):
            _describe(spec, at)
        return
    if ray is not None or shared:
        told = SharedProgress(error_console())
        ended: Mapping[str, StudySummary]
        # Ray writes what it hears of nodes to standard output, which is for the result alone
        with naming_the_factory(study), redirect_stdout(sys.stderr):
            if ray is not None:
                ended = tune_on_ray(spec, ray, at=at, listener=told, own_home=None if home is None else at.home)
            else:
                ended = tune_shared(spec, at=at, listener=told, measures=measure)
        tell_classes(ended, as_json)
        return
    with naming_the_factory(study), closing(ConsoleListener(error_console(), show_summary=as_json)) as progress:
        summary = tune_study(spec, at=at, listeners=[progress])
    if as_json:
        print_json(summary.model_dump(mode="json"))
    else:
        console = Console()
        console.print(summary_table(summary))
        console.print(
            f"Results are in {at.home}. Next: autotune explain {spec.name} · autotune dashboard · "
            f"MLflow: mlflow ui --backend-store-uri {at.tracking_uri}",
            soft_wrap=True,
            highlight=False,
        )
    if summary.outcome == "nothing_feasible":
        raise typer.Exit(EXIT_NOTHING_FEASIBLE)


def _overridden(spec: StudySpec, budget: str | None, trials: int | None) -> StudySpec:
    if budget is None and trials is None:
        return spec
    wanted: dict[str, object] = {"trials": trials if trials is not None else spec.budget.trials}
    wanted |= {"time": budget} if budget is not None else {"time_s": spec.budget.time_s}
    return spec_from_fields({**spec.model_dump(), "budget": wanted})


def _describe(spec: StudySpec, at: Places) -> None:
    """Print the space and what is tried first, without measuring."""
    with LocalRunner() as runner:
        inspection = inspect_dataset(runner, spec, at=at)
    space = Space.of_study(spec, inspection)
    console = Console()
    console.print(f"[bold]{spec.name}[/]: {inspection.dataset.type_name}, {inspection.dataset.length} samples of")
    console.print(f"  {inspection.sample_structure}", highlight=False)
    console.print(f"on {inspection.machine.machine_class}; {len(space.points)} possible configurations:")
    table = Table("dimension", "choices")
    for name, choices in space.dimensions.model_dump().items():
        table.add_row(name, ", ".join(str(choice) for choice in choices))
    console.print(table)
    first = Table("tried first", "because of", "source")
    for prior in PRIORS:
        point = space.nearest(prior.config(inspection.machine, inspection.machine.memory_bytes))
        first.add_row(point.label(), prior.name, prior.source)
    console.print(first)
