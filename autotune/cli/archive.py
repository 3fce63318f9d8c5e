"""`autotune archive`: the archives of samples, listed, built, checked and removed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from autotune.cli import archive_builders, archive_choice
from autotune.cli.output import EXIT_FAILED, error_console, naming_the_factory, print_json
from autotune.cli.progress import counting
from autotune.compose import Places, places
from autotune.errors import ArchiveError, RegistryError, SpecError
from autotune.home import archive_limit_bytes
from autotune.spec.study_file import read_study
from autotune.study.lock import machine_shared
from autotune.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from autotune.data.archives.listing import ArchiveEntry
    from autotune.data.archives.store import OpenedArchive

app = typer.Typer(
    help="Lists, builds, checks and removes archives of samples.",
    epilog="Example: autotune archive build studies/forest_gaps.yaml",
    no_args_is_help=True,
)

_PACKAGES = re.compile(r"\w+\.")
_HOME = typer.Option(help="Folder of results.")
_JSON = typer.Option("--json", help="Print one JSON document on standard output.")


@app.command("list", epilog="Example: autotune archive list --json")
def list_command(
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Show all archives, those used last first, and what is deployed."""
    from autotune.data.archives.listing import list_archives
    from autotune.data.archives.shard_listing import list_unfinished

    at = places(home)
    begun = list_unfinished(at.archive_root)
    entries, deployed = list_archives(at.archive_root), _deployed_as_far_as_known(at)
    limit, used = archive_limit_bytes(at.home), sum(entry.size_bytes for entry in entries)
    if as_json:
        shown = [{**entry.model_dump(mode="json"), "deployed_by": deployed.get(entry.name, ())} for entry in entries]
        print_json({
            "root": str(at.archive_root), "size_bytes": used, "limit_bytes": limit, "archives": shown,
            "unfinished": [one.model_dump(mode="json") for one in begun],
        })  # fmt: skip
        return
    console = Console(soft_wrap=True, highlight=False)
    if entries:
        console.print(_table(entries, deployed))
    archive_builders.tell_unfinished(begun, console)
    console.print(f"{_counted(entries)}, {format_bytes(used)} of at most {format_bytes(limit)} in {at.archive_root}")


@app.command(
    "build",
    epilog="""Examples:

autotune archive build studies/forest_gaps.yaml

autotune archive build studies/forest_gaps.yaml --format npy --stored decoded --workers 8

srun autotune archive build studies/forest_gaps.yaml --format webdataset --home /shared/autotune

autotune archive build studies/forest_gaps.yaml --format webdataset --home /shared/autotune --ray auto""",
    no_args_is_help=True,
)
def build_command(
    study: Annotated[Path, typer.Argument(help="Study file (YAML).")],
    format_name: Annotated[str | None, typer.Option("--format", help="Another format than the deployed one.")] = None,
    stored: Annotated[str | None, typer.Option(help="Form of the samples: encoded or decoded.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read samples; as many as CPUs.", min=0)] = None,
    shard_size: Annotated[int | None, typer.Option(help="Samples in a shard, where there are shards.", min=1)] = None,
    rank: Annotated[int | None, typer.Option(help="Number of this builder; torchrun's or Slurm's.", min=0)] = None,
    world_size: Annotated[int | None, typer.Option(help="Builders of one archive in a shared folder.", min=1)] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Build on all nodes of a Ray cluster: auto or host:port.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be built.")] = False,
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Build the archive that a study deploys, or the one that is named, for the whole dataset.

    Where it is there and whole, nothing is done. Older archives make room for it, as far as the limit asks.

    An archive in shards (webdataset) is built by all who run this with the same folder of results, on any number of
    machines. Shards that are finished are kept when a builder is killed, and those of a damaged archive that are whole.

    With --ray every node of a cluster runs this: nodes that share the folder named by --home build one archive
    together, others one each.
    """
    if ray is not None and (dry_run or (rank, world_size) != (None, None)):
        raise SpecError(
            "--ray gives nodes their ranks and builds there, got --rank, --world-size or --dry-run too; leave it out"
        )
    spec, at = read_study(study), places(home)
    config = archive_choice.config_to_build(spec, at, format_name, stored)
    if config.archive == "files":
        if as_json:
            print_json({"name": None, "built": False})
        else:
            print(f"study {spec.name} deploys plain files: nothing to build; name an archive by --format")
        return
    if ray is not None:
        options = {"--workers": workers, "--shard-size": shard_size, "--home": home and home.resolve()}
        with naming_the_factory(study):
            failed = archive_builders.build_over_ray(spec, config, ray, options=options, as_json=as_json)
        if failed:
            raise typer.Exit(EXIT_FAILED)
        return
    part = archive_builders.sharding(shard_size, rank, world_size, environ=os.environ)
    if rank is not None:
        from autotune.data.archives.shard_plan import check_sharded

        check_sharded(config.archive)
    with naming_the_factory(study), machine_shared(f"building an archive of {spec.name}", path=at.lock):
        if dry_run:
            from autotune.data.archives.build_preview import preview

            dataset = archive_choice.whole_dataset(spec, error_console())
            archive_builders.tell_preview(preview(dataset, config, at.archive_root, part), part, as_json=as_json)
            return
        opened = archive_choice.build(spec, config, at, workers=workers, sharding=part, console=error_console())
    _tell_built(opened, as_json=as_json)


@app.command("verify", epilog="Example: autotune archive verify")
def verify_command(
    names: Annotated[list[str] | None, typer.Argument(help="Names as `list` shows them.")] = None,
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Read every byte of the named archives, or of all, and compare it with its checksum."""
    at = places(home)
    found = {entry.name: _verified(at, entry) for entry in archive_choice.chosen(at, names or [])}
    damaged = {name: told for name, told in found.items() if told is not None}
    if as_json:
        print_json({
            "archives": [
                {"name": name, "state": "ok" if told is None else "damaged", "told": told}
                for name, told in found.items()
            ]
        })  # fmt: skip
    else:
        console = Console(soft_wrap=True, highlight=False)
        for name, told in found.items():
            console.print(f"{name}: {'ok' if told is None else escape(told)}", style="" if told is None else "red")
    if damaged:
        error_console().print(f"damaged: {', '.join(damaged)}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED)


@app.command(
    "remove",
    epilog="""Examples:

autotune archive remove 3f2a90c1/npy-decoded

autotune archive remove --study forest_gaps --force""",
    no_args_is_help=True,
)
def remove_command(
    names: Annotated[list[str] | None, typer.Argument(help="Names as `list` shows them.")] = None,
    study: Annotated[str | None, typer.Option(help="All archives of this study's dataset.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All archives.")] = False,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Shards that nobody goes on with.")] = False,
    force: Annotated[bool, typer.Option(help="Deployed ones too.")] = False,
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Remove archives; never one that a process has open, and a deployed one only with --force."""
    from autotune.data.archives.pruning import remove_archive, sweep

    if sum((bool(names), study is not None, everything, unfinished)) != 1:
        raise SpecError("what is removed is named by names, by --study, --all or --unfinished, exactly one of them")
    at = places(home)
    if unfinished:
        archive_builders.remove_unfinished(at.archive_root, as_json=as_json)
        return
    if study is not None:
        chosen = archive_choice.of_study(at, study)
    else:
        chosen = archive_choice.single(at, names) if names else archive_choice.chosen(at, ())
    if not force:
        archive_choice.check_not_deployed(chosen, at)
    removed: list[ArchiveEntry] = []
    refused: dict[str, str] = {}
    for entry in chosen:
        try:
            remove_archive(at.archive_root, entry.name)
            removed.append(entry)
        except ArchiveError as error:
            refused[entry.name] = str(error)
    sweep(at.archive_root)
    _tell_removed(removed, refused, as_json=as_json)
    if refused:
        raise typer.Exit(EXIT_FAILED)


def _deployed_as_far_as_known(at: Places) -> Mapping[str, Sequence[str]]:
    try:
        return archive_choice.deployed(at)
    except RegistryError as error:
        error_console().print(f"what is deployed is not known: {error}", style="yellow", markup=False, soft_wrap=True)
        return {}


def _verified(at: Places, entry: ArchiveEntry) -> str | None:
    """Compare every checksum of an archive; give what is wrong with it, else None."""
    from autotune.data.archives.checking import verify

    with counting(error_console(), f"reading {entry.short_name}", in_bytes=True) as progress:
        try:
            verify(at.archive_root / entry.name, full=True, progress=progress)
        except ArchiveError as error:
            return str(error)
    return None


def _table(entries: Sequence[ArchiveEntry], deployed: Mapping[str, Sequence[str]]) -> Table:
    table = Table(Column("name", no_wrap=True), "samples", "size", "dataset", "built", "used", "state", "deployed by")
    colours = {"ok": "green", "damaged": "red", "unknown": "yellow"}
    for entry in entries:
        state = f"[{colours[entry.state]}]{entry.state}[/]{' (open)' if entry.in_use else ''}"
        table.add_row(
            entry.short_name,
            "?" if entry.count is None else f"{entry.count:,}",
            format_bytes(entry.size_bytes),
            escape(_PACKAGES.sub("", entry.type_name)),
            "?" if entry.created_at is None else f"{entry.created_at:%Y-%m-%d %H:%M}",
            f"{entry.used_at:%Y-%m-%d %H:%M}",
            state,
            escape(", ".join(deployed.get(entry.name, ()))),
        )
    return table


def _tell_built(opened: OpenedArchive, *, as_json: bool) -> None:
    manifest, directory = opened.manifest, opened.directory
    if manifest is None or directory is None:
        return
    name = f"{directory.parent.name}/{directory.name}"
    if as_json:
        print_json({
            "name": name, "built": opened.build_s > 0, "build_s": opened.build_s, "samples": manifest.count,
            "size_bytes": opened.size_bytes, "directory": str(directory),
        })  # fmt: skip
        return
    done = f"built in {format_seconds(opened.build_s)}" if opened.build_s else "was there already, and is whole"
    Console(soft_wrap=True, highlight=False).print(
        f"{name}: {manifest.count:,} samples, {format_bytes(opened.size_bytes)}, {done}", markup=False
    )


def _counted(archives: Sequence[object]) -> str:
    return "1 archive" if len(archives) == 1 else f"{len(archives)} archives"


def _tell_removed(removed: Sequence[ArchiveEntry], refused: Mapping[str, str], *, as_json: bool) -> None:
    freed = sum(entry.size_bytes for entry in removed)
    if as_json:
        print_json({"removed": [entry.name for entry in removed], "freed_bytes": freed, "refused": dict(refused)})
    else:
        print(f"removed {_counted(removed)}, {format_bytes(freed)} freed")
    for told in refused.values():
        error_console().print(told, style="red", markup=False, highlight=False, soft_wrap=True)
