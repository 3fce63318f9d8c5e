"""What all commands share: exit codes, the one JSON document, and the words for a configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from autotune.errors import AutotuneError, FactoryError, MachineBusyError, SpecError, StudyFileError
from autotune.registry import Registry
from autotune.spec import SCHEMA_VERSION, Decision, LoaderConfig
from autotune.spec.base import first_message
from autotune.spec.study_file import place_of

EXIT_FAILED, EXIT_WRONG_USE, EXIT_NOTHING_FEASIBLE, EXIT_BUSY = 1, 2, 3, 4
DEFAULT_WORD, BEST_WORD = "default", "best"


def exit_code(error: AutotuneError) -> int:
    """Give the exit code of an error: 2 wrong use, 4 machine busy, else 1."""
    if isinstance(error, MachineBusyError):
        return EXIT_BUSY
    return EXIT_WRONG_USE if isinstance(error, SpecError) else EXIT_FAILED


@contextmanager
def naming_the_factory(study: Path) -> Iterator[None]:
    """Tell of a missing dataset factory with file, line and key of the study that names it."""
    try:
        yield
    except FactoryError as error:
        raise StudyFileError(f"{place_of(study, ('dataset',))}: {error}") from error


def print_json(document: Mapping[str, Any]) -> None:
    """Print exactly one JSON document on standard output."""
    print(json.dumps({"schema_version": SCHEMA_VERSION, **document}, allow_nan=False))


def error_console() -> Console:
    """Give the console for everything that is not the result."""
    return Console(stderr=True)


def parse_config(words: list[str], base: LoaderConfig) -> LoaderConfig:
    """Change a configuration by `key=value` words.

    Raises:
        SpecError: A word has another form, a key is unknown, or a value breaks a rule.
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or key not in LoaderConfig.model_fields:
            known = ", ".join(LoaderConfig.model_fields)
            raise SpecError(f"a setting has the form key=value with one of the keys {known}, got {word!r}")
        changes[key] = None if value == "none" and key != "cache" else value
    if changes.get("archive") and "stored" not in changes:
        changes["stored"] = None
    if str(changes.get("num_workers", "")) == "0":
        changes.setdefault("prefetch_factor", None)
        changes.setdefault("persistent_workers", None)
    try:
        return base.replace(**changes)
    except ValidationError as error:
        raise SpecError(f"configuration {' '.join(words)!r}: {first_message(error)}") from error


def deployed_decision(registry: Registry, study: str) -> Decision:
    """Give the newest decision of a study that is deployed.

    Raises:
        SpecError: There is none; the message names the studies that have one.
    """
    found = registry.deployed_decisions(study)
    if found:
        return found[0]
    if registry.waiting(study):
        raise SpecError(f"study {study!r} deploys nothing yet, as a decision waits; `autotune review list` shows it")
    known = ", ".join(sorted({deployment.study for deployment in registry.deployments()})) or "none yet"
    raise SpecError(f"no decision about a study {study!r}, known are: {known}; run `autotune tune` first")
