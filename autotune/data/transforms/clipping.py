"""Noticing transforms of Albumentations that clip images to 0 to 1, where their values lie outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from autotune.errors import SpecError

_OVERSHOOT = 0.2
"""How far outside 0 to 1 an image may lie that is meant to be inside: cubic interpolation overshoots edges so."""
_LOSSLESS = ("Normalize.apply", "ChannelDropout.apply")
"""What may bring an image to 0 to 1 by other means than clipping."""
_WATCHED = "_autotune_watches_clipping"


def watch_clipping(transform: Any) -> None:
    """Make a composition refuse to clip images whose values lie outside 0 to 1, from its next call on.

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
        ranges = {target: _range(given) for target, given in targets.items()}  # before: it may work in place
        made = apply(params, *args, **targets)
        for target, found in ranges.items():
            if found is not None and _is_outside(found, _OVERSHOOT) and not _is_outside(_range(made[target]), 0):
                raise SpecError(
                    f"{name} of Albumentations clips float images to 0 to 1, and values of {target} go from "
                    f"{found[0]:g} to {found[1]:g}, which would be lost; take images from 0 to 1 "
                    f"(normalization='min_max'), or leave {name} out: flips, turns and shifts keep any values"
                )
        return made

    return applied


def _range(pixels: Any) -> tuple[float, float] | None:
    """Give the smallest and the largest value of a float image; None of anything else."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype.kind != "f" or not pixels.size:
        return None
    # these pass over NaN
    return float(np.fmin.reduce(pixels, axis=None)), float(np.fmax.reduce(pixels, axis=None))


def _is_outside(found: tuple[float, float] | None, by: float) -> bool:
    return found is None or found[0] < -by or found[1] > 1 + by


__all__ = ["watch_clipping"]
