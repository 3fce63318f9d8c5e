"""Random numbers of a training: its own, apart from those of the program around it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

State = dict[str, Any]
"""States of the global generators, in types that a checkpoint may hold."""

_NUMPY_SEEDS = 2**32


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the global generators of Python, NumPy and torch.

    Args:
        seed: The seed.
        device: The device of the training, whose generator is seeded beside that of the CPU; `torch.manual_seed`
            would seed those of all accelerators, which others may draw from.
    """
    random.seed(seed)
    np.random.seed(seed % _NUMPY_SEEDS)  # noqa: NPY002  # the one that datasets and transforms really use
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.set_rng_state(torch.Generator(device).manual_seed(seed).get_state(), device)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def generator_states(device: torch.device) -> State:
    """Give the states of the global generators.

    Args:
        device: The device of the training, whose generator counts beside that of the CPU.
    """
    version, words, gauss = random.getstate()
    state: Any = np.random.get_state(legacy=True)  # noqa: NPY002  # as above
    name, keys, position, has_gauss, cached = state
    states: State = {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generator_states(states: State, device: torch.device) -> None:
    """Put the global generators into states that `generator_states` gave."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


class OwnRandomness:
    """The random numbers of one training, which go on from block to block and leave the caller's alone.

    Args:
        seed: Seed of the first block.
        device: The device of the training.
        deterministic: Whether torch may use deterministic algorithms alone meanwhile.
    """

    def __init__(self, seed: int, device: torch.device, *, deterministic: bool = False) -> None:
        self._seed = seed
        self._device = device
        self._deterministic = deterministic
        self._inside = False
        self._states: State | None = None

    @property
    def states(self) -> State | None:
        """States of the generators, inside a block those of now; None before the first."""
        return generator_states(self._device) if self._inside else self._states

    @states.setter
    def states(self, states: State | None) -> None:
        self._states = states
        if self._inside and states is not None:
            set_generator_states(states, self._device)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Use them for the length of a block."""
        before = generator_states(self._device)
        strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        if self._states is None:
            seed_generators(self._seed, self._device)
        else:
            set_generator_states(self._states, self._device)
        self._inside = True
        if self._deterministic:
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            self._inside = False
            self._states = generator_states(self._device)
            set_generator_states(before, self._device)
            if self._deterministic:
                torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])


__all__ = ["OwnRandomness", "State", "generator_states", "seed_generators", "set_generator_states"]
