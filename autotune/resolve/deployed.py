"""Names of archives, and which of them are deployed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from autotune.registry import Registry
from autotune.spec import STORED_FORMS, Decision, LoaderConfig


def form_name(config: LoaderConfig) -> str:
    """Name the archive that a configuration reads, as `<format>-<form>`: that of its folder."""
    return f"{config.archive}-{config.stored or STORED_FORMS[config.archive][-1]}"


def form_fields(name: str) -> dict[str, str]:
    """Give the fields of a canonical configuration that reads the archive of this name."""
    archive, _, stored = name.rpartition("-")
    return {"archive": archive, "stored": stored}


def is_available(config: LoaderConfig, forms: Collection[str] | None) -> bool:
    """Tell whether a configuration reads plain files or one of these archives; None is any."""
    return forms is None or config.archive == "files" or form_name(config) in forms


def deployed_archives(registry: Registry) -> Mapping[str, tuple[str, ...]]:
    """Give the studies that deploy each archive, by its name `<fingerprint>/<format>-<form>`.

    A study deploys one configuration for each dataset and class of machine.
    """
    found: dict[str, set[str]] = {}
    for decision in registry.deployed_decisions():
        name = archive_of(decision)
        if name is not None:
            found.setdefault(name, set()).add(decision.study)
    return {name: tuple(sorted(studies)) for name, studies in found.items()}


def archive_of(decision: Decision) -> str | None:
    """Give the name of the archive that a decision deploys; None for plain files."""
    config = decision.config
    if config.archive == "files" or decision.fingerprint is None or decision.outcome == "nothing_feasible":
        return None
    return f"{decision.fingerprint}/{form_name(config)}"
