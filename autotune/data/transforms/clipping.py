"""Noticing transforms of Albumentations that lose values of images: clipped to 0 to 1, or made NaN or infinite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from autotune.errors import SpecError

_OVERSHOOT = 0.2
"""How far outside 0 to 1 an image may lie that is meant to be inside: cubic interpolation overshoots edges so."""
_LOSSLESS = ("Normalize.apply", "ChannelDropout.apply")
"""What may bring an image to 0 to 1 by other means than clipping."""
_WATCHED = "_autotune_watches_clipping"
_WAY_OUT = (
    "take images from 0 to 1 (normalization='min_max'), or leave {name} out: flips, turns and shifts keep any values"
)


def watch_clipping(transform: Any) -> None:
    """Make a composition refuse to lose values of images outside 0 to 1, from its next call on.

    Watched are the transforms of Albumentations inside that change values and leave pixels at their places: those
    that move pixels do not clip, and what a transform of the caller's own gives is taken as it is.

    Args:
        transform: A composition that is the caller's own; it is changed.
    """
    if getattr(transform, _WATCHED, False):
        return
    for leaf in _leaves(transform):
        if _may_clip(leaf):
            leaf.apply_with_params = _watched(type(leaf).__name__, leaf.apply_with_params)
    setattr(transform, _WATCHED, True)


def _leaves(transform: Any) -> Iterator[Any]:
    inner = getattr(transform, "transforms", None)
    if inner is None:
        yield transform
    else:
        for part in inner:
            yield from _leaves(part)


def _may_clip(leaf: Any) -> bool:
    apply = type(leaf).apply
    by_albumentations = apply.__module__.partition(".")[0] == "albumentations"
    return by_albumentations and not hasattr(leaf, "apply_to_mask") and apply.__qualname__ not in _LOSSLESS


def _watched(name: str, apply: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def applied(params: dict[str, Any], *args: Any, **targets: Any) -> dict[str, Any]:
        before = {target: _values(given) for target, given in targets.items()}  # now: it may work in place
        made = apply(params, *args, **targets)
        for target, given in before.items():
            if given is not None:
                _check_kept(name, target, given, _values(made[target]))
        return made

    return applied


class _Values(NamedTuple):
    """What the values of a float image are like."""

    low: float
    high: float
    unfinite: float
    """Share of them that are NaN or infinite."""

    def are_outside(self, by: float) -> bool:
        return self.low < -by or self.high > 1 + by


def _values(pixels: Any) -> _Values | None:
    """Look at a float image; None of anything else."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype.kind != "f" or not pixels.size:
        return None
    low, high = np.fmin.reduce(pixels, axis=None), np.fmax.reduce(pixels, axis=None)  # these pass over NaN
    return _Values(float(low), float(high), np.count_nonzero(~np.isfinite(pixels)) / pixels.size)


def _check_kept(name: str, target: str, given: _Values, made: _Values | None) -> None:
    if made is None:
        return
    told = f"values of {target} go from {given.low:g} to {given.high:g}"
    if made.unfinite > given.unfinite:
        raise SpecError(
            f"{name} of Albumentations makes NaN or infinity of some values, and {told}; {_WAY_OUT.format(name=name)}"
        )
    if given.are_outside(_OVERSHOOT) and not made.are_outside(0):
        raise SpecError(
            f"{name} of Albumentations clips float images to 0 to 1, and {told}, which would be lost; "
            f"{_WAY_OUT.format(name=name)}"
        )


__all__ = ["watch_clipping"]
