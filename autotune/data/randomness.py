"""Noticing samples that are random, and refusing to store them."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset

from autotune.data.facts import samples_equal
from autotune.data.kept_state import MODULES, KeptState
from autotune.data.stages import Augmentation, apart, base_sample, has_augment, is_staged, locate
from autotune.errors import ArchiveError, RandomSamplesError

PROBES = 8
"""Samples that are read twice; a random transform that fires one time in two escapes with 1 in 256 or less.

Those that fire rarely are noticed by the generator that they ask each time, whatever it answers.
"""
_MOST_PARTS = 16
"""Parts of a `ConcatDataset` that are probed each, so that none is missed among many others."""

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
        RandomSamplesError: See `why_random`.
    """
    reason = why_random(dataset)
    if reason is not None:
        raise RandomSamplesError(f"{reason}; being {what} would freeze whatever is random there: {STAGED_ADVICE}")


def why_random(dataset: Dataset[Any]) -> str | None:
    """Tell what shows that samples are random, as part of a sentence; None where nothing does.

    Looked at is what would be stored: `decode(read(index))` of a staged dataset, else the whole sample. It is
    random where two reads under different seeds differ, where reading moves a global generator of Python,
    NumPy or torch, and where it changes the dataset itself, as a generator of its own does. The dataset is
    probed apart and the global generators are put back. What asks the system for randomness each time (an
    unseeded `default_rng()` inside `__getitem__`) shows only where the two reads happen to differ.

    Args:
        dataset: A map-style dataset.
    """
    probed = apart(dataset)
    places = _places(probed)
    leaves = _warmed_up(probed, places)
    before = {number: KeptState.of(leaf) for number, leaf in leaves.items()}
    reason = _differing_reads(probed, places)
    if reason is not None:
        return reason
    for number, leaf in leaves.items():
        changed = before[number].changed_in(KeptState.of(leaf))
        if changed:
            return _changing(type(leaf).__qualname__, changed)
    return None


def _warmed_up(probed: Any, places: Sequence[int]) -> dict[int, Any]:
    """Read one sample of each part, so that what is opened or imported once is no change later on."""
    leaves: dict[int, Any] = {}
    for index in places:
        leaf, _ = locate(probed, index)
        if id(leaf) not in leaves:
            leaves[id(leaf)] = leaf
            with seeded(0):
                base_sample(probed, index)
    return leaves


def refuse_unlike_stages(dataset: Dataset[Any]) -> None:
    """Refuse a dataset whose stages do not make up its samples, as stored stages would give other ones.

    Args:
        dataset: A map-style dataset.

    Raises:
        ArchiveError: `read`, `decode` and `augment` of a sample give something else than its index does.
    """
    probed = apart(dataset)
    for index in _places(probed):
        leaf, place = locate(probed, index)
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
    if _is_base_augmented(leaf, place):
        return False
    return not samples_equal(Augmentation().apply(leaf, base_sample(leaf, place), place), leaf[place])


def _is_base_augmented(leaf: Any, place: int) -> bool:
    """Tell whether a sample is what `augment_sample` makes of the base sample, whatever that is.

    Where it is, stored samples go through the very same method, so transforms may have generators of their own,
    and comparing what they draw would tell nothing.
    """
    made: list[Any] = []

    def kept(sample: Any, index: int) -> Any:  # noqa: ARG001  # called as augment_sample is
        made.append(sample)
        return sample

    if not has_augment(leaf) or not hasattr(leaf, "__dict__"):
        return False
    with _in_place_of(leaf, "augment_sample", kept):
        sample = leaf[place]
    return len(made) == 1 and sample is made[0] and samples_equal(base_sample(leaf, place), sample)


@contextmanager
def _in_place_of(leaf: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Give one object another method for a while."""
    absent = object()
    before = vars(leaf).get(name, absent)
    vars(leaf)[name] = function
    try:
        yield
    finally:
        if before is absent:
            del vars(leaf)[name]
        else:
            vars(leaf)[name] = before


def _differing_reads(probed: Any, places: Sequence[int]) -> str | None:
    for index in places:
        first, one = _read_from(probed, index, 1)
        second, other = _read_from(probed, index, 2)
        if not samples_equal(first, second):
            return f"two reads of sample {index} of {type(locate(probed, index)[0]).__qualname__} differ"
        moved = one.moved or other.moved
        if moved is not None:
            return _moving(probed, index, moved, reseeded=one.after[moved] == other.after[moved])
    return None


def _moving(probed: Any, index: int, moved: str, *, reseeded: bool) -> str:
    name = type(locate(probed, index)[0]).__qualname__
    if reseeded:
        return (
            f"reading sample {index} of {name} seeds {moved}, which a stored sample would not; numbers that belong to "
            "an index come from a generator made for it, as torch.Generator().manual_seed(index) or "
            "numpy.random.default_rng(index)"
        )
    return f"reading sample {index} of {name} draws from {moved}"


def _changing(name: str, changed: Sequence[str]) -> str:
    reason = f"reading samples of {name} changes its {', '.join(changed)}, so a later sample may depend on earlier ones"
    own = tuple(part for part in changed if not part.startswith(MODULES))
    if not own:
        return reason
    return f"{reason} (what is only a handle or a memo is named in the class, as unfingerprinted = {own!r})"


def _places(probed: Any) -> list[int]:
    """Choose the samples that are probed, some of each part of a `ConcatDataset`."""
    if type(probed) is not ConcatDataset or not 1 < len(probed.cumulative_sizes) <= _MOST_PARTS:
        return probe_places(len(probed), PROBES, seed=0)
    starts = [0, *probed.cumulative_sizes[:-1]]
    each = max(2, PROBES // len(starts))
    return [
        start + place
        for start, end in zip(starts, probed.cumulative_sizes, strict=True)
        for place in probe_places(end - start, each, seed=0)
    ]


def probe_places(count: int, probes: int, seed: int) -> list[int]:
    """Draw different indices at random, in order."""
    return sorted(np.random.default_rng(seed).choice(count, size=min(probes, count), replace=False).tolist())


class _Left(NamedTuple):
    """What a read left of the global generators: the one that moved, and the states of all."""

    moved: str | None
    after: dict[str, bytes]


def _read_from(probed: Any, index: int, seed: int) -> tuple[Any, _Left]:
    with seeded(seed):
        before = _states()
        sample = base_sample(probed, index)
        after = _states()
    moved = next((name for name in before if before[name] != after[name]), None)
    return sample, _Left(moved, after)


def _states() -> dict[str, bytes]:
    """Give the states of the global generators as bytes."""
    _, words, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  # those that datasets really use
    return {
        "Python's global generator (random)": repr(random.getstate()).encode(),
        "NumPy's global generator (numpy.random)": np.asarray(words).tobytes() + repr(rest).encode(),
        "torch's global generator": torch.get_rng_state().numpy().tobytes(),
    }


class _Turn:
    """The turn to use the global generators, which one thread at a time has."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a transform may read another dataset that has transforms

    def renew(self) -> None:
        """Begin with nobody having it: in a forked process the thread that had it is gone."""
        self.lock = threading.RLock()


_TURN = _Turn()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_TURN.renew)


@contextmanager
def seeded_alone(seed: int) -> Iterator[None]:
    """Do as `seeded`, one thread after the other: there is one set of global generators for all of them.

    What runs inside must not wait for another thread that does the same.
    """
    with _TURN.lock, seeded(seed):
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of random, numpy and torch (the CPU's), and put them back afterwards.

    For one thread, as for a look at a dataset, which may have threads of its own; `seeded_alone` is for several.
    """
    # The generators that datasets really use are the global ones, of numpy too.
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators too, for good
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
