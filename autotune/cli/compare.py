"""`autotune compare`: two configurations, interleaved, with an interval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autotune.cli.output import (
    BEST_WORD,
    DEFAULT_WORD,
    EXIT_FAILED,
    deployed_decision,
    error_console,
    naming_the_factory,
    parse_config,
    print_json,
)
from autotune.compose import Places, compare, places
from autotune.errors import SpecError
from autotune.registry import open_existing
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.spec import Interval, LoaderConfig, TrialRecord
from autotune.spec.study_file import read_study
from autotune.units import format_rate

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples:

autotune compare studies/forest_gaps.yaml best default

autotune compare studies/forest_gaps.yaml archive=npy archive=tar,num_workers=2 --pairs 10

A configuration is `default` (PyTorch's, at the other one's batch size), `best` (what the study deploys), or
key=value pairs with commas between them."""


def command(
    study: Annotated[Path, typer.Argument(help="Study file (YAML).")],
    a: Annotated[str, typer.Argument(metavar="A", help="default, best, or key=value,...")],
    b: Annotated[str, typer.Argument(metavar="B", help="default, best, or key=value,...")],
    pairs: Annotated[int, typer.Option(help="Runs of each.", min=2)] = 5,
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Compare two configurations by fresh runs in alternating order."""
    spec, at = read_study(study), places(home)
    rivals = _rivals(a, b, spec.name, at)
    console = error_console()

    def report(record: TrialRecord) -> None:
        result = record.measurement
        failure = record.failure
        failed = "" if failure is None else f"failed, {failure.kind.replace('_', ' ')}: {failure.message}"
        outcome = failed if result is None else format_rate(result.samples_per_s)
        console.print(f"{record.config.label()}: {outcome}", highlight=False, markup=False)

    with naming_the_factory(study):
        blocks, (first, second) = compare(spec, rivals, at=at, pairs=pairs, on_run=report)
    ratio, measured = blocks.ratio(first, second), len(blocks.paired_rates(first, second))
    if as_json:
        dumped = {"a": first.model_dump(mode="json"), "b": second.model_dump(mode="json")}
        told = (
            {"ratio": None, "verdict": None}
            if ratio is None
            else {"ratio": ratio.model_dump(), "verdict": verdict(ratio)}
        )
        print_json({**dumped, **told, "pairs": measured})
    if ratio is None:
        console.print(f"only {measured} of {pairs} pairs could be measured: no interval", style="red")
        raise typer.Exit(EXIT_FAILED)
    if as_json:
        return
    out = Console(soft_wrap=True, highlight=False)
    out.print(f"A: {first.label()}\nB: {second.label()}")
    out.print(
        f"A is {ratio.mean:.3f} times B, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}, {measured} pairs: "
        f"[bold]{_words(ratio)}[/]"
    )


def verdict(ratio: Interval) -> str:
    """Name the faster one, or `tied` where the interval holds 1."""
    if ratio.low > 1:
        return "a"
    return "b" if ratio.high < 1 else "tied"


def _words(ratio: Interval) -> str:
    return {"a": "A is faster", "b": "B is faster", "tied": "tied"}[verdict(ratio)]


def _rivals(a: str, b: str, study: str, at: Places) -> tuple[LoaderConfig, LoaderConfig]:
    """Turn two words into configurations; `default` takes the batch size of the other one."""
    named = {word: _named(word, study, at) for word in (a, b)}
    known = [config for config in named.values() if config is not None]
    batch_size = known[0].batch_size if known else REFERENCE_BATCH_SIZE
    default = LoaderConfig.torch_default(batch_size)
    return named[a] or default, named[b] or default


def _named(word: str, study: str, at: Places) -> LoaderConfig | None:
    if word == DEFAULT_WORD:
        return None
    if word == BEST_WORD:
        with open_existing(at.home, at.registry_url) as registry:
            return deployed_decision(registry, study).config
    if "=" not in word:
        raise SpecError(f"a configuration is default, best or key=value,..., got {word!r}")
    return parse_config(word.split(","), LoaderConfig.torch_default(REFERENCE_BATCH_SIZE))
