"""The choice of decoder that a dataset offers, through `Subset` and `ConcatDataset`.

A dataset that offers one has `decoders: tuple[str, ...]` (its own first), `exact_decoders` (those that it
declares to give the same samples as its own, bit for bit), `decoder` (the one in use) and
`with_decoder(name)`, which gives a shallow copy. Where its own decoder reads by path, and so another one takes
its place on stored bytes, `own_decoder_on_bytes` names that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import ConcatDataset, Dataset, Subset

from autotune.data.facts import type_name
from autotune.data.stages import leaves_of
from autotune.errors import SpecError


def offered_decoders(dataset: Any) -> tuple[str, ...]:
    """Give the decoders that every part of a dataset offers, its own first; none where there is no choice.

    Parts whose own decoders differ offer none together.
    """
    own = {_decoders_of(leaf)[:1] for leaf in leaves_of(dataset)}
    return _in_all_parts(dataset, "decoders") if len(own) == 1 else ()


def declared_exact_decoders(dataset: Any) -> tuple[str, ...]:
    """Give the decoders that are declared to give what the dataset's own does, bit for bit, and its own."""
    offered = offered_decoders(dataset)
    exact = {*_in_all_parts(dataset, "exact_decoders"), *offered[:1]}
    return tuple(name for name in offered if name in exact)


def own_decoder_on_bytes(dataset: Any) -> str | None:
    """Give what the dataset's own decoder is called where it decodes stored bytes; None where it is the same one."""
    names = {getattr(leaf, "own_decoder_on_bytes", None) for leaf in leaves_of(dataset)}
    return names.pop() if len(names) == 1 else None


def with_decoder(dataset: Dataset[Any], name: str) -> Dataset[Any]:
    """Give the dataset with another decoder; the given one is left as it is.

    Raises:
        SpecError: The dataset does not offer it.
    """
    offered = offered_decoders(dataset)
    if name not in offered:
        shown = ", ".join(offered) or "none at all"
        raise SpecError(
            f"decoder must be one that the dataset offers ({shown}), got {name!r} for {type_name(dataset)}; "
            "decoder=None is its own"
        )
    return _each_part(dataset, lambda part: part.with_decoder(name))


def with_own_decoder(dataset: Dataset[Any]) -> Dataset[Any]:
    """Give the dataset with its own decoder; the same object where it has no other.

    Encoded archives are one for all decoders, so this is what they are looked up by and built from. Decoded ones
    hold what the decoder in use makes of the bytes, and are looked up by the dataset as it is.
    """
    if not any(_decoders_of(leaf) and leaf.decoder != _decoders_of(leaf)[0] for leaf in leaves_of(dataset)):
        return dataset
    return _each_part(dataset, lambda part: part.with_decoder(part.decoders[0]) if _decoders_of(part) else part)


def _in_all_parts(dataset: Any, attribute: str) -> tuple[str, ...]:
    parts = [tuple(getattr(leaf, attribute, ())) for leaf in leaves_of(dataset)]
    return tuple(name for name in parts[0] if all(name in part for part in parts)) if parts else ()


def _decoders_of(leaf: Any) -> tuple[str, ...]:
    return tuple(getattr(leaf, "decoders", ()))


def _each_part(dataset: Dataset[Any], change: Callable[[Any], Any]) -> Dataset[Any]:
    if type(dataset) is Subset:
        return Subset(_each_part(dataset.dataset, change), dataset.indices)
    if type(dataset) is ConcatDataset:
        return ConcatDataset([_each_part(part, change) for part in dataset.datasets])
    changed: Dataset[Any] = change(dataset)
    return changed
