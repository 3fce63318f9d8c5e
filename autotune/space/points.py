"""`Space`: the canonical, possible configurations of one study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import Any

from autotune.errors import SpecError
from autotune.space.dimensions import Dimensions, dimensions
from autotune.space.rules import broken_rule
from autotune.spec import Inspection, LoaderConfig, SpaceSpec

Choose = Callable[[str, Sequence[Any]], Any]
"""Picks one of the choices of a dimension: a sampler's suggestion, or one step of an enumeration."""


class Space:
    """The configurations that a study may propose.

    Args:
        spec: Narrowing by the study file.
        inspection: What is known of dataset and machine.

    Raises:
        SpecError: Nothing is left.
    """

    def __init__(self, spec: SpaceSpec, inspection: Inspection) -> None:
        self.inspection = inspection
        self.dimensions: Dimensions = dimensions(spec, inspection)
        if not self.points:
            broken = broken_rule(next(self._combinations()), inspection)
            reason = f"{broken.name}: {broken.reason}" if broken else "it is empty"
            raise SpecError(f"the space holds no possible configuration; {reason}")

    def choose(self, choose: Choose) -> LoaderConfig:
        """Build one canonical configuration by asking for each dimension that matters.

        Dimensions without effect (prefetch without workers) are not asked.
        """
        dims = self.dimensions
        config: dict[str, Any] = {"batch_size": choose("batch_size", dims.batch_size)}
        config["archive"], config["stored"] = choose("archive", dims.archive).split("/")
        config["cache"] = choose("cache", dims.cache)
        if config["cache"] != "none":
            config["cache_fraction"] = choose("cache_fraction", dims.cache_fraction)
        config["num_workers"] = choose("num_workers", dims.num_workers)
        if config["num_workers"]:
            config["prefetch_factor"] = choose("prefetch_factor", dims.prefetch_factor)
        if len(dims.pin_memory) > 1:
            config["pin_memory"] = choose("pin_memory", dims.pin_memory)
        elif dims.pin_memory[0]:
            config["pin_memory"] = True
        return LoaderConfig(**config).canonical(has_accelerator=self.inspection.machine.has_accelerator)

    def choices_of(self, config: LoaderConfig) -> dict[str, Any] | None:
        """Give the choices that lead to a configuration, or None where it lies outside the space."""
        wanted: dict[str, Any] = {**config.model_dump(), "archive": f"{config.archive}/{config.stored}"}
        taken: dict[str, Any] = {}

        def take(name: str, choices: Sequence[Any]) -> Any:
            taken[name] = wanted[name] if wanted[name] in choices else choices[0]
            return taken[name]

        return taken if self.choose(take) == config and config in self.points else None

    @cached_property
    def points(self) -> frozenset[LoaderConfig]:
        """All canonical, possible configurations."""
        return frozenset(config for config in self._combinations() if not broken_rule(config, self.inspection))

    def _combinations(self) -> Iterator[LoaderConfig]:
        names = list(type(self.dimensions).model_fields)
        for values in product(*(getattr(self.dimensions, name) for name in names)):
            picked = dict(zip(names, values, strict=True))
            yield self.choose(lambda name, _, picked=picked: picked[name])  # type: ignore[misc]

    def nearest(self, config: LoaderConfig) -> LoaderConfig:
        """Give the point that shares most with a configuration from elsewhere (a prior, another machine).

        Fields that differ count one each; among equals, the nearest batch size and worker count win.
        """
        wanted = config.canonical(has_accelerator=self.inspection.machine.has_accelerator)
        fields = ("archive", "stored", "cache", "cache_fraction", "prefetch_factor", "pin_memory")

        def distance(point: LoaderConfig) -> tuple[float, float, float, str]:
            differing = sum(getattr(point, name) != getattr(wanted, name) for name in fields)
            batch = abs(point.batch_size - wanted.batch_size) / wanted.batch_size
            workers = abs(point.num_workers - wanted.num_workers)
            # the side of a worker boundary matters more than any single field
            crossing = (point.num_workers > 0) != (wanted.num_workers > 0)
            return differing + 2 * crossing, workers, batch, point.label()

        return min(self.points, key=distance)
