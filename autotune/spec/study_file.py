"""Study files: YAML text to a `StudySpec` and back, every problem with file, line, key, rule and way out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from autotune.errors import SpecError, StudyFileError
from autotune.spec.config import STORED_FORMS
from autotune.spec.study import SpaceSpec, StudySpec
from autotune.spec.study_document import Document, KeyPath, cut, key_text, load_document, shown, shown_key
from autotune.spec.study_show import show_spec
from autotune.units import MIB

__all__ = ["STUDY_FILE_MAX_BYTES", "parse_study", "place_of", "read_study", "show_spec", "spec_from_fields"]

STUDY_FILE_MAX_BYTES = MIB
"""Largest study file that is read; real ones have some hundred bytes."""
PROBLEMS_SHOWN_MAX = 50
"""Problems that one error lists."""
MESSAGE_MAX = 400
"""Characters of one problem."""

_KEYS: Mapping[KeyPath, tuple[str, ...]] = {
    (): tuple(StudySpec.model_fields),
    ("dataset",): ("factory", "arguments"),
    ("budget",): ("time", "trials"),
    ("consumer",): ("loader", "emulated", "step"),
    ("consumer", "emulated"): ("step_ms", "step_ms_per_sample"),
    ("consumer", "step"): ("factory", "arguments"),
    ("space",): tuple(SpaceSpec.model_fields),
}
"""Keys of each mapping of a study file, in the file's own words."""

_FILE_PATHS: Mapping[KeyPath, KeyPath] = {
    ("budget", "time_s"): ("budget", "time"),
    ("consumer", "step"): ("consumer", "step", "factory"),
    ("consumer", "step_arguments"): ("consumer", "step", "arguments"),
    ("consumer", "step_ms"): ("consumer", "emulated", "step_ms"),
    ("consumer", "step_ms_per_sample"): ("consumer", "emulated", "step_ms_per_sample"),
}
"""Where the fields stand in the file whose names differ there."""

_WAYS_OUT: Mapping[KeyPath, str] = {
    ("name",): "write 1 to 100 letters, digits, dots, dashes and underscores, such as forest_gaps",
    ("dataset",): "write a dotted factory such as my_package.data:make_dataset",
    ("dataset", "arguments"): "write a mapping such as {root: data/forest_gaps}",
    ("budget",): "write a time such as 2m, or {time: 2m, trials: 40}",
    ("budget", "trials"): "write a whole number such as 40, or leave it out",
    ("consumer",): "write loader, {emulated: {step_ms: 5}} or {step: my_package.train:make_step}",
    ("consumer", "emulated"): "write {step_ms: 5, step_ms_per_sample: 0.2}",
    ("consumer", "step", "arguments"): "write a mapping such as {model: unet}",
    ("device",): "write auto, cpu, cuda, cuda:1 or mps",
    ("memory_limit",): "write a share such as 80% or a size such as 20GiB",
    ("space",): "write a mapping such as {batch_size: [8, 16], num_workers: [0, 2]}",
    ("space", "batch_size"): "write whole numbers from 1 up, such as [8, 16, 32]",
    ("space", "num_workers"): "write whole numbers from 0 up, such as [0, 2, 4]",
    ("space", "prefetch_factor"): "write whole numbers from 1 up, such as [2, 4]",
    ("space", "pin_memory"): "write [false, true] or one of them",
    ("space", "cache"): "write some of [none, memory, disk, device]",
    ("space", "cache_fraction"): "write shares above 0 and at most 1, such as [0.5, 1.0]",
    ("space", "archive"): f"write some of [{', '.join(STORED_FORMS)}]",
    ("space", "stored"): "write some of [encoded, decoded]",
    ("space", "decoder"): "write names that the dataset offers, such as [pil, simplejpeg]",
    ("order",): "write map or streaming",
    ("inexact_decoders",): "write true or false",
    ("horizon_epochs",): "write a whole number such as 20, or null",
    ("subset",): "write a whole number of samples such as 500, or null",
    ("shuffle",): "write true or false",
    ("seed",): "write a whole number such as 0",
    ("time_cap_s",): "write seconds such as 2.0",
    ("confirm_time_cap_s",): "write seconds such as 3.0",
    ("trial_timeout_s",): "write seconds such as 300",
    ("promotion",): "write automatic or review",
}
"""What to write instead, by the nearest key."""

_RULES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda _: "is required, got nothing",
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "greater_than": lambda context: f"must be above {context['gt']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
    "less_than": lambda context: f"must be below {context['lt']}",
    "literal_error": lambda context: f"must be {context['expected']}",
    "string_pattern_mismatch": lambda _: "has a form that is not allowed",
    "string_too_long": lambda context: f"must have at most {context['max_length']} characters",
    "string_too_short": lambda context: f"must have at least {context['min_length']} characters",
    "too_short": lambda context: f"must list at least {context['min_length']} value",
    "string_type": lambda _: "must be text",
    "int_type": lambda _: "must be a whole number",
    "float_type": lambda _: "must be a number",
    "finite_number": lambda _: "must be a finite number",
    "bool_type": lambda _: "must be true or false",
    "tuple_type": lambda _: "must be a list",
    "dict_type": lambda _: "must be a mapping",
    "mapping_type": lambda _: "must be a mapping",
    "model_type": lambda _: "must be a mapping",
    "value_error": lambda context: str(context["error"]),
}
"""Rules by pydantic's name for their breach; an unknown one is told in pydantic's words."""


def read_study(path: Path) -> StudySpec:
    """Read a study file.

    Raises:
        StudyFileError: It cannot be read, is too large, or breaks rules; every problem is one line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(STUDY_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise StudyFileError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    try:
        return parse_study(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StudyFileError(f"{path}:{line}: must be UTF-8 text, got byte {content[error.start]:#x}") from error


def place_of(path: Path, key: KeyPath) -> str:
    """Give `file:line: key` of a key of a study file that was read before."""
    line = load_document(path.read_text("utf-8-sig")).line_of(key)
    return f"{path}:{line}: {key_text(key)}"


def parse_study(text: str, source: str) -> StudySpec:
    """Read the text of a study file.

    Args:
        text: The YAML document.
        source: Name of the file, for messages.

    Raises:
        StudyFileError: The text is too large or breaks rules; every problem is one line, in file order.
    """
    if len(text) > STUDY_FILE_MAX_BYTES or len(text.encode(errors="replace")) > STUDY_FILE_MAX_BYTES:
        raise StudyFileError(f"{source}:1: must be at most {STUDY_FILE_MAX_BYTES} bytes; is this a study file?")
    document = load_document(text)
    if document.problems and not document.values:
        raise _error(document, source)
    values = _without_unknown_keys(document.values, (), document)
    spec: StudySpec | None = None
    try:
        spec = StudySpec.model_validate(values)
    except ValidationError as error:
        for details in error.errors():
            _refuse(document, details)
    if spec is None or document.problems:
        raise _error(document, source)
    return spec


def spec_from_fields(fields: Mapping[str, Any]) -> StudySpec:
    """Make a study from arguments of a call, told in the words of a study file where one breaks a rule.

    Raises:
        SpecError: Arguments break rules; every problem is one line.
    """
    document = Document(values=dict(fields))
    _place(fields, (), document)
    try:
        return StudySpec.model_validate(document.values)
    except ValidationError as error:
        for details in error.errors():
            _refuse(document, details)
    lines = (f"{problem.key}: {problem.message}" for problem in document.problems)
    raise SpecError("\n".join(lines))


def _place(values: Any, path: KeyPath, document: Document) -> None:
    """Note the paths of values that have no file."""
    document.lines[path] = 1
    if isinstance(values, Mapping):
        for key, value in values.items():
            _place(value, (*path, str(key)), document)


def _without_unknown_keys(values: Any, path: KeyPath, document: Document) -> Any:
    """Drop keys that the file's mappings do not have, noting each with the nearest known one."""
    known = _KEYS.get(path)
    if known is None or not isinstance(values, dict):
        return values
    kept = {}
    for key, value in values.items():
        if key in known:
            kept[key] = _without_unknown_keys(value, (*path, key), document)
            continue
        document.refuse((*path, key), _unknown_key((*path, key)))
    return kept


def _unknown_key(path: KeyPath) -> str:
    key, known = str(path[-1]), _KEYS.get(path[:-1], ())
    near = difflib.get_close_matches(key[:100], known, n=1, cutoff=0.5)
    way_out = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(known)}"
    return f"must be a known key, got {shown_key(key)}; {way_out}"


def _refuse(document: Document, details: ErrorDetails) -> None:
    """Turn one complaint of pydantic into a problem, unless the key was refused already."""
    path = _file_path(tuple(details["loc"]))
    if details["type"] != "missing":
        while path and path not in document.lines:
            path = path[:-1]
    if any(problem.key == key_text(path) and problem.line == document.line_of(path) for problem in document.problems):
        return
    message = _message(path, details)
    if " got " not in message:
        message = f"{message}, got {shown(details['input'])}"
    if ";" not in message:
        message = f"{message}; {_way_out(path)}"
    document.refuse(path, cut(" ".join(message.split()), MESSAGE_MAX))


def _message(path: KeyPath, details: ErrorDetails) -> str:
    if details["type"] == "extra_forbidden":
        return _unknown_key(path)
    rule = _RULES.get(details["type"])
    return rule(details.get("ctx", {})) if rule else details["msg"]


def _file_path(loc: KeyPath) -> KeyPath:
    for field, place in _FILE_PATHS.items():
        if loc[: len(field)] == field:
            return (*place, *loc[len(field) :])
    return loc


def _way_out(path: KeyPath) -> str:
    names = tuple(part for part in path if isinstance(part, str))
    while names and names not in _WAYS_OUT:
        names = names[:-1]
    return _WAYS_OUT.get(names, "see the study file of the documentation")


def _error(document: Document, source: str) -> StudyFileError:
    problems = sorted(document.problems)
    lines = [
        f"{source}:{problem.line}: {problem.key + ': ' if problem.key else ''}{problem.message}"
        for problem in problems[:PROBLEMS_SHOWN_MAX]
    ]
    if len(problems) > PROBLEMS_SHOWN_MAX:
        lines.append(f"{source}: and {len(problems) - PROBLEMS_SHOWN_MAX} further problems")
    return StudyFileError("\n".join(lines))
