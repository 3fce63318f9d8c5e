"""Noticing samples that are random, and refusing to store them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from autotune.data.facts import samples_equal
from autotune.data.stages import Augmentation, base_sample, has_augment, is_staged, locate
from autotune.errors import ArchiveError, RandomSamplesError

PROBES = 4
"""Samples that are read twice; a random transform that fires one time in two escapes with 1 in 16 or less."""

STAGED_ADVICE = (
    "give the dataset read(index) -> bytes, decode(raw) -> sample and augment(sample, generator) -> sample: "
    "then the first two are stored, and augment runs on what comes out, anew after each set_epoch(epoch)"
)


def refuse_random(dataset: Dataset[Any], what: str) -> None:
    """Refuse a dataset whose deterministic part is not deterministic.

    Args:
        dataset: A map-style dataset.
        what: What was about to be done, as the message says it (`archived`, `cached`).

    Raises:
        RandomSamplesError: Two reads of one sample differ.
    """
    for index in probe_places(len(dataset), PROBES, seed=0):  # type: ignore[arg-type]  # map-style
        if is_random(dataset, index):
            raise RandomSamplesError(
                f"two reads of sample {index} of {type(dataset).__qualname__} differ, so being {what} would freeze "
                f"its randomness; {STAGED_ADVICE}"
            )


def refuse_unlike_stages(dataset: Dataset[Any]) -> None:
    """Refuse a dataset whose stages do not make up its samples, as stored stages would give other ones.

    Args:
        dataset: A map-style dataset.

    Raises:
        ArchiveError: `read`, `decode` and `augment` of a sample give something else than its index does.
    """
    for index in probe_places(len(dataset), PROBES, seed=0):  # type: ignore[arg-type]  # map-style
        leaf, place = locate(dataset, index)
        if _stages_differ(leaf, place):
            name = type(leaf).__qualname__
            raise ArchiveError(
                f"decode(read({place})) of {name}, augmented where it has augment, must be what {name}[{place}] is, "
                "and it differs, so storing it would change samples; return the whole sample from decode, draw only "
                "from augment's generator, or set staged = False to store samples as the index gives them"
            )


def _stages_differ(leaf: Any, place: int) -> bool:
    if not is_staged(leaf) and not hasattr(leaf, "base_sample"):
        return False
    if has_augment(leaf) and not hasattr(leaf, "augment_sample"):
        return False  # it draws its own random numbers in __getitem__
    return not samples_equal(Augmentation().apply(leaf, base_sample(leaf, place), place), leaf[place])


def is_random(dataset: Dataset[Any], index: int) -> bool:
    """Tell whether two reads of what would be stored differ, with differently seeded generators."""
    with seeded(1):
        first = base_sample(dataset, index)
    with seeded(2):
        second = base_sample(dataset, index)
    return not samples_equal(first, second)


def probe_places(count: int, probes: int, seed: int) -> list[int]:
    """Draw different indices at random, in order."""
    return sorted(np.random.default_rng(seed).choice(count, size=min(probes, count), replace=False).tolist())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of random, numpy and torch, and put them back afterwards."""
    # The generators that datasets really use are the global ones, of numpy too.
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
