"""`autotune review`: what waits for a person, and what persons decide about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autotune.cli import review_choice
from autotune.cli.output import print_json
from autotune.cli.person import login_name
from autotune.cli.review_show import (
    deployment_document,
    deployments_table,
    event_document,
    event_line,
    waiting_document,
    waiting_lines,
)
from autotune.compose import places
from autotune.errors import SpecError
from autotune.registry import AUTOMATIC_ACTOR, open_existing
from autotune.spec import DecisionEvent

app = typer.Typer(
    help="Shows what waits for a person; approves, rejects, pins and rolls back what is deployed.",
    epilog="""Examples:

autotune review list

autotune review approve 1f0c9a3e

A decision is meant by the start of its key, or by its study and the version that list shows, so that \
nobody decides about what somebody else has changed meanwhile.

Exit codes: 0 done, 1 somebody else decided first or the registry cannot be used, 2 wrong use.""",
    no_args_is_help=True,
)

_HOME = typer.Option(help="Folder of results.")
_JSON = typer.Option("--json", help="Print one JSON document on standard output.")
_REASON = typer.Option(help="Why, for those who ask later.")
_BY = typer.Option("--by", help="Who decides; your login name where it is left out.")
_VERSION = typer.Option(
    "--version", help="Version that list shows; where it is another one by now, nothing is changed."
)
_WAITING = typer.Argument(
    metavar="DECISION", help="Start of the key of a decision that waits, or with --version its study."
)
_DEPLOYED = typer.Argument(
    metavar="DEPLOYED", help="Start of the key of a decision that is deployed, or with --version its study."
)
_SERVED = typer.Argument(
    metavar="DEPLOYED",
    help="Start of the key that list shows beside what is deployed or PyTorch's default, or with --version its study.",
)


@app.command("list", epilog="Example: autotune review list --study forest_gaps --history 20")
def list_command(
    study: Annotated[str | None, typer.Option(help="Only this study.")] = None,
    history: Annotated[int, typer.Option(help="Most events of the history.", min=0)] = 5,
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Show the decisions that wait, what is deployed, and the last that was decided."""
    at = places(home)
    with open_existing(at.home, at.registry_url) as registry:
        if study is not None and study not in registry.studies():
            known = ", ".join(registry.studies()) or "none yet"
            raise SpecError(f"--study is a study of the registry, got {study!r}; it has these: {known}")
        waiting, deployed = registry.waiting(study), registry.deployments(study)
        stand_ins = review_choice.stand_ins(registry, deployed)
        events = registry.events(study, limit=history) if history else []
    if as_json:
        print_json(
            {
                "waiting": [waiting_document(one) for one in waiting],
                "deployments": [
                    {**deployment_document(one), "stands_for_default": stand_ins.get(one.group)} for one in deployed
                ],
                "events": [event_document(one) for one in events],
            }
        )
        return
    console = Console(soft_wrap=True, highlight=False)
    for line in waiting_lines(waiting):
        console.print(line, markup=False)
    if deployed:
        console.print(deployments_table(deployed, stand_ins))
    for event in events:
        console.print(event_line(event), markup=False)


@app.command("approve", epilog="Example: autotune review approve 1f0c9a3e", no_args_is_help=True)
def approve_command(
    decision: Annotated[str, _WAITING],
    version: Annotated[int | None, _VERSION] = None,
    reason: Annotated[str, _REASON] = "",
    by: Annotated[str | None, _BY] = None,
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Deploy a decision that waits."""
    at = places(home)
    with open_existing(at.home, at.registry_url, access="write") as registry:
        key, seen = review_choice.waiting(registry, decision, version)
        event = registry.approve(key, actor=_actor(by), reason=reason, expected_version=seen)
    _tell(event, as_json=as_json)


@app.command(
    "reject", epilog="Example: autotune review reject 1f0c9a3e --reason 'needs 8 workers'", no_args_is_help=True
)
def reject_command(
    decision: Annotated[str, _WAITING],
    version: Annotated[int | None, _VERSION] = None,
    reason: Annotated[str, _REASON] = "",
    by: Annotated[str | None, _BY] = None,
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Have what is deployed stay, rather than a decision that waits; needs a reason."""
    at = places(home)
    with open_existing(at.home, at.registry_url, access="write") as registry:
        key, seen = review_choice.waiting(registry, decision, version)
        event = registry.reject(key, actor=_actor(by), reason=reason, expected_version=seen)
    _tell(event, as_json=as_json)


@app.command(
    "pin",
    epilog="Example: autotune review pin forest_gaps --version 4 --reason 'the paper is measured'",
    no_args_is_help=True,
)
def pin_command(
    deployed: Annotated[str, _SERVED],
    version: Annotated[int | None, _VERSION] = None,
    reason: Annotated[str, _REASON] = "",
    by: Annotated[str | None, _BY] = None,
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Have what is deployed stay, PyTorch's default too, whatever later studies find; needs a reason."""
    at = places(home)
    with open_existing(at.home, at.registry_url, access="write") as registry:
        key, seen = review_choice.served(registry, deployed, version)
        event = registry.pin(key, actor=_actor(by), reason=reason, expected_version=seen)
    _tell(event, as_json=as_json)


@app.command("unpin", epilog="Example: autotune review unpin 1f0c9a3e", no_args_is_help=True)
def unpin_command(
    deployed: Annotated[str, _SERVED],
    version: Annotated[int | None, _VERSION] = None,
    reason: Annotated[str, _REASON] = "",
    by: Annotated[str | None, _BY] = None,
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Let later studies change what is deployed again."""
    at = places(home)
    with open_existing(at.home, at.registry_url, access="write") as registry:
        key, seen = review_choice.served(registry, deployed, version)
        event = registry.unpin(key, actor=_actor(by), reason=reason, expected_version=seen)
    _tell(event, as_json=as_json)


@app.command(
    "rollback",
    epilog="""Examples:

autotune review rollback 1f0c9a3e --reason 'training stalls since Tuesday'

autotune review rollback forest_gaps --version 4 --to default --reason 'runs out of memory beside the other job'""",
    no_args_is_help=True,
)
def rollback_command(
    deployed: Annotated[str, _DEPLOYED],
    to: Annotated[str | None, typer.Option(help="Key of an earlier decision, or default; else the one before.")] = None,
    version: Annotated[int | None, _VERSION] = None,
    reason: Annotated[str, _REASON] = "",
    by: Annotated[str | None, _BY] = None,
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Deploy what was deployed before, an earlier decision, or PyTorch's default; needs a reason."""
    at = places(home)
    with open_existing(at.home, at.registry_url, access="write") as registry:
        key, seen = review_choice.deployed(registry, deployed, version)
        target = None if to is None else review_choice.earlier(registry, key, to)
        event = registry.roll_back(key, to=target, actor=_actor(by), reason=reason, expected_version=seen)
    _tell(event, as_json=as_json)


def _actor(by: str | None) -> str:
    """Give who decides.

    Raises:
        SpecError: Nobody says, and this user has no name; or it is the name of what no person decided.
    """
    name = login_name() if by is None else by
    if name is None:
        raise SpecError("a decision needs to know who takes it, and this user has no login name; give --by")
    if name == AUTOMATIC_ACTOR:
        raise SpecError(
            f"{name!r} stands for what no person decided, and nights change that; give --by with the name of a person"
        )
    return name


def _tell(event: DecisionEvent, *, as_json: bool) -> None:
    if as_json:
        print_json(event_document(event))
    else:
        Console(soft_wrap=True, highlight=False).print(event_line(event), markup=False)
