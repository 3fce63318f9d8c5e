"""A study written out in the file's own words, every default filled in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import yaml

from autotune.errors import SpecError
from autotune.spec.study import Budget, StudySpec
from autotune.spec.workload import Consumer, DatasetSource, MemoryLimit
from autotune.units import GIB, KIB, MIB

_EXACT_MAX = 2**53
"""Whole numbers below this survive the way through a float, as texts with a unit take it."""


class _Dumper(yaml.SafeDumper):
    """Writes every value out; aliases are not read back."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  (the base class hands the value over)
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # unquoted and in single quotes, PyYAML breaks lines at characters that it does not join again
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def show_spec(spec: StudySpec) -> str:
    """Write the complete study file of a study; reading it gives an equal value.

    Raises:
        SpecError: The dataset or the step was given as an object, which no file can name.
    """
    document: dict[str, Any] = {}
    for name in StudySpec.model_fields:
        value = getattr(spec, name)
        document[name] = _WRITERS[name](value) if name in _WRITERS else value
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _write_dataset(dataset: DatasetSource) -> Any:
    if dataset.factory is None:
        raise SpecError(
            f"a study file names its dataset by a dotted factory, got an object of type {dataset.type_name}; "
            "write a function that makes it and name that"
        )
    if not dataset.arguments:
        return dataset.factory
    return {"factory": dataset.factory, "arguments": dict(dataset.arguments)}


def _write_budget(budget: Budget) -> Any:
    time = _write_seconds(budget.time_s)
    return time if budget.trials is None else {"time": time, "trials": budget.trials}


def _write_seconds(seconds: float) -> str:
    if seconds.is_integer() and seconds < _EXACT_MAX:
        for unit, factor in (("h", 3600), ("m", 60)):
            if seconds % factor == 0:
                return f"{int(seconds) // factor}{unit}"
        return f"{int(seconds)}s"
    return f"{Decimal(repr(seconds)):f}s"


def _write_consumer(consumer: Consumer) -> Any:
    if consumer.kind == "loader":
        return "loader"
    if consumer.kind == "emulated":
        times = {"step_ms": consumer.step_ms, "step_ms_per_sample": consumer.step_ms_per_sample}
        return {"emulated": times}
    if consumer.step is None:
        raise SpecError(
            "a study file names its step by a dotted factory, got an object; "
            "write a function that makes it and name that"
        )
    if not consumer.step_arguments:
        return {"step": consumer.step}
    return {"step": {"factory": consumer.step, "arguments": dict(consumer.step_arguments)}}


def _write_limit(limit: MemoryLimit) -> Any:
    if limit.share is not None:
        percent = f"{Decimal(repr(limit.share)) * 100:f}"
        percent = percent.rstrip("0").rstrip(".") if "." in percent else percent
        return f"{percent}%" if float(percent) / 100 == limit.share else limit.share
    size = limit.size_bytes or 0
    if size >= _EXACT_MAX:
        return size
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def _write_space(space: Any) -> Any:
    return {
        name: None if (values := getattr(space, name)) is None else list(values) for name in type(space).model_fields
    }


_WRITERS: dict[str, Any] = {
    "dataset": _write_dataset,
    "budget": _write_budget,
    "consumer": _write_consumer,
    "memory_limit": _write_limit,
    "space": _write_space,
}
