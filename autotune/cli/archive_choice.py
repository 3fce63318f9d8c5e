"""Which archives a command means, which are deployed, and how one is built."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from autotune.cli.archive_builders import usual_workers
from autotune.cli.output import deployed_decision, parse_config
from autotune.cli.progress import counting
from autotune.compose import Places
from autotune.errors import RegistryError, SpecError
from autotune.home import archive_limit_bytes
from autotune.machine import machine_facts
from autotune.registry import open_existing
from autotune.resolve.deployed import deployed_archives
from autotune.spec import LoaderConfig, StudySpec

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from autotune.data.archives.listing import ArchiveEntry
    from autotune.data.archives.shard_plan import Sharding
    from autotune.data.archives.store import OpenedArchive


def deployed(at: Places) -> Mapping[str, tuple[str, ...]]:
    """Give the studies that deploy each archive; none where there is no registry yet.

    Raises:
        RegistryError: There is one, and it cannot be read: then nobody knows what is deployed.
    """
    if at.registry_url is None and not (at.home / "registry.db").exists():
        return {}
    with open_existing(at.home, at.registry_url) as registry:
        return deployed_archives(registry)


def chosen(at: Places, names: Sequence[str]) -> list[ArchiveEntry]:
    """Give the archives of these names, or all.

    Raises:
        SpecError: One is unknown.
    """
    from autotune.data.archives.listing import list_archives, matching

    entries = list_archives(at.archive_root)
    if not names:
        return list(entries)
    found = [entry for word in names for entry in matching(entries, word)]
    return list(dict.fromkeys(found))


def of_study(at: Places, study: str) -> list[ArchiveEntry]:
    """Give the archives of every state of a study's dataset that was decided on.

    Raises:
        RegistryError: The registry cannot be read.
        SpecError: The study has no decision.
    """
    with open_existing(at.home, at.registry_url) as registry:
        decisions = registry.decisions(study)
        if not decisions:
            deployed_decision(registry, study)
        fingerprints = {decision.fingerprint for decision in decisions}
    return [entry for entry in chosen(at, ()) if entry.name.partition("/")[0] in fingerprints]


def single(at: Places, names: Sequence[str]) -> list[ArchiveEntry]:
    """Give the archives of these names, each of which must mean one.

    Raises:
        SpecError: One is unknown, or means several.
    """
    found = []
    for word in names:
        meant = chosen(at, [word])
        if len(meant) > 1:
            raise SpecError(f"{word!r} must mean one archive, got {', '.join(entry.name for entry in meant)}")
        found += meant
    return list(dict.fromkeys(found))


def check_not_deployed(entries: Sequence[ArchiveEntry], at: Places) -> None:
    """Refuse to remove what a study deploys.

    Raises:
        SpecError: One of them is deployed.
    """
    studies = deployed(at)
    told = [f"{entry.name} ({', '.join(studies[entry.name])})" for entry in entries if entry.name in studies]
    if told:
        raise SpecError(f"a deployed archive is removed with --force only, got {'; '.join(told)}; nothing was removed")


def config_to_build(spec: StudySpec, at: Places, format_name: str | None, stored: str | None) -> LoaderConfig:
    """Give a configuration that names the archive: the one that the study deploys, unless another one is named.

    Raises:
        SpecError: There is no such format or form, or the study has no decision.
    """
    words = [f"{key}={value}" for key, value in (("archive", format_name), ("stored", stored)) if value]
    if format_name is not None:
        return parse_config(words, LoaderConfig())
    try:
        with open_existing(at.home, at.registry_url) as registry:
            config = deployed_decision(registry, spec.name).config
    except RegistryError as error:
        raise SpecError(f"{error}; name an archive by --format, or run `autotune tune` first") from error
    return parse_config(words, config)


def build(
    spec: StudySpec, config: LoaderConfig, at: Places, *, workers: int | None, sharding: Sharding, console: Console
) -> OpenedArchive:
    """Build the archive for the whole dataset of a study, showing how far it is."""
    from autotune.data.archives.store import open_or_build

    dataset = whole_dataset(spec, console)
    if workers is None:
        workers = usual_workers(machine_facts(environ=os.environ).cpu_count, environ=os.environ)
    with counting(console, f"building {config.archive}") as progress:
        return open_or_build(
            dataset,
            config,
            at.archive_root,
            progress=progress,
            workers=workers,
            limit_bytes=archive_limit_bytes(at.home),
            keep=_kept(at),
            sharding=sharding,
        )


def whole_dataset(spec: StudySpec, console: Console) -> Dataset[Any]:
    """Build the dataset of a study, showing how far what it has to generate is."""
    from autotune.data.factory import build_dataset

    with counting(console, "generating the dataset") as progress:
        return build_dataset(spec.workload.dataset, progress=progress)


def _kept(at: Places) -> list[str]:
    """Name the deployed archives; all there are, where the registry cannot tell which those are."""
    try:
        return list(deployed(at))
    except RegistryError:
        return [entry.name for entry in chosen(at, ())]
