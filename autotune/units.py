"""Bytes, seconds and samples/s, and their text forms (`20GiB`, `5m`, `1,437 samples/s`)."""

from __future__ import annotations

import re

from autotune.errors import SpecError

KIB = 1024
MIB = 1024**2
GIB = 1024**3
TIB = 1024**4

_BYTE_UNITS = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB,
}  # fmt: skip
_SECOND_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")
_SECONDS_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def parse_bytes(text: str) -> int:
    """Turn text such as `20GiB`, `512 MB` or `1.5GiB` into bytes.

    Raises:
        SpecError: The text has no unit, an unknown unit, or is not above zero.
    """
    found = _BYTES.fullmatch(text)
    if not found or found[2] not in _BYTE_UNITS:
        units = ", ".join(_BYTE_UNITS)
        raise SpecError(f"a size is a number and one of the units {units}, got {text!r}; write 20GiB")
    size = int(float(found[1]) * _BYTE_UNITS[found[2]])
    if size <= 0:
        raise SpecError(f"a size must be at least one byte, got {text!r}")
    return size


def parse_seconds(text: str) -> float:
    """Turn text such as `90s`, `5m`, `1h 30m` or `250ms` into seconds.

    Raises:
        SpecError: The text has no unit, an unknown unit, or is not above zero.
    """
    rest, total, parts = text.strip(), 0.0, 0
    while rest:
        found = _SECONDS_PART.match(rest)
        if not found or found[2] not in _SECOND_UNITS:
            units = ", ".join(_SECOND_UNITS)
            raise SpecError(f"a duration is a number and one of the units {units}, got {text!r}; write 90s or 5m")
        total += float(found[1]) * _SECOND_UNITS[found[2]]
        rest = rest[found.end() :]
        parts += 1
    if not parts or total <= 0:
        raise SpecError(f"a duration must be above zero, got {text!r}; write 90s or 5m")
    return total


def format_bytes(size: float) -> str:
    """Write bytes with a binary unit and three significant digits, as `1.46 GiB`."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(size) >= factor:
            return f"{size / factor:.3g} {unit}" if abs(size) < 1000 * factor else f"{size / factor:,.0f} {unit}"
    return f"{size:.0f} B"


def format_seconds(seconds: float) -> str:
    """Write a duration as people read it: `240 ms`, `12.4 s`, `3 m 20 s`, `2 h 5 m`."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest} s" if rest else f"{minutes} m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if minutes else f"{hours} h"


def format_rate(samples_per_s: float) -> str:
    """Write a rate as `1,437 samples/s`, with decimals only below 10."""
    return f"{samples_per_s:,.0f} samples/s" if samples_per_s >= 10 else f"{samples_per_s:.2g} samples/s"


def format_difference(share: float) -> str:
    """Write how far two rates are apart as `3.1 %`, or as `a factor of 20` where that says more."""
    return f"{share * 100:.2g} %" if share < 1 else f"a factor of {1 + share:.3g}"
