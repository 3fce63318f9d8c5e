"""`Space`: the canonical, possible configurations of one study."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import Any

from autotune.errors import SpecError
from autotune.space.dimensions import Dimensions, dimensions
from autotune.space.rules import broken_rule
from autotune.spec import Inspection, LoaderConfig, SpaceSpec, StudySpec

Choose = Callable[[str, Sequence[Any]], Any]
"""Picks one of the choices of a dimension: a sampler's suggestion, or one step of an enumeration."""


class Space:
    """The configurations that a study may propose.

    Args:
        spec: Narrowing by the study file.
        inspection: What is known of dataset and machine.
        streaming: Whether archives may be read from front to back, which is another way of sampling.
        inexact_decoders: Whether decoders that change pixels may be tried.

    Raises:
        SpecError: Nothing is left.
    """

    def __init__(
        self, spec: SpaceSpec, inspection: Inspection, *, streaming: bool = False, inexact_decoders: bool = False
    ) -> None:
        self.inspection = inspection
        self.dimensions: Dimensions = dimensions(
            spec, inspection, streaming=streaming, inexact_decoders=inexact_decoders
        )
        if not self.points:
            broken = broken_rule(next(self._combinations()), inspection)
            reason = f"{broken.name}: {broken.reason}" if broken else "it is empty"
            raise SpecError(f"the space holds no possible configuration; {reason}")

    @classmethod
    def of_study(cls, spec: StudySpec, inspection: Inspection) -> Space:
        """Give the space of a study; one that takes its batches on the CPU leaves an accelerator alone.

        Raises:
            SpecError: Nothing is left.
        """
        if spec.device == "cpu":
            alone = {"accelerator": None, "accelerator_count": 0, "accelerator_memory_bytes": None}
            inspection = inspection.replace(machine=inspection.machine.replace(**alone))
        return cls(
            spec.space,
            inspection,
            streaming=spec.order == "streaming",
            inexact_decoders=spec.inexact_decoders,
        )

    def choose(self, choose: Choose) -> LoaderConfig:
        """Build one canonical configuration by asking for each dimension that matters.

        Dimensions without effect (prefetch without workers) are not asked.
        """
        dims = self.dimensions
        config: dict[str, Any] = {"batch_size": choose("batch_size", dims.batch_size)}
        config["archive"], config["stored"], *order = choose("archive", dims.archive).split("/")
        config["order"] = order[0] if order else "map"
        if config["stored"] == "encoded" and len(dims.decoder) > 1:
            config["decoder"] = choose("decoder", dims.decoder)
        elif config["stored"] == "encoded" and dims.decoder:
            config["decoder"] = dims.decoder[0]
        if self._is_own(config.get("decoder"), config["archive"]):
            config["decoder"] = None
        # what streams keeps no samples, and what lies on the device has no workers
        config["cache"] = "none" if order else choose("cache", dims.cache)
        if config["cache"] != "none":
            config["cache_fraction"] = choose("cache_fraction", dims.cache_fraction)
        config["num_workers"] = 0 if config["cache"] == "device" else choose("num_workers", dims.num_workers)
        if config["num_workers"]:
            config["prefetch_factor"] = choose("prefetch_factor", dims.prefetch_factor)
        if config["cache"] == "device":
            pass  # batches are there already
        elif len(dims.pin_memory) > 1:
            config["pin_memory"] = choose("pin_memory", dims.pin_memory)
        elif dims.pin_memory[0]:
            config["pin_memory"] = True
        return LoaderConfig(**config).canonical(has_accelerator=self.inspection.machine.has_accelerator)

    def _is_own(self, decoder: str | None, archive: str) -> bool:
        """Tell whether a decoder is the dataset's own by another name, which would be measured twice."""
        on_bytes = archive != "files" and decoder == self.inspection.own_decoder_on_bytes
        return on_bytes or decoder in self.inspection.decoders[:1]

    def choices_of(self, config: LoaderConfig) -> dict[str, Any] | None:
        """Give the choices that lead to a configuration, or None where it lies outside the space."""
        stored = f"{config.archive}/{config.stored}"
        streamed = f"{stored}/streaming" if config.order == "streaming" else stored
        own = config.decoder or next(iter(self.dimensions.decoder), None)
        wanted: dict[str, Any] = {**config.model_dump(), "archive": streamed, "decoder": own}
        taken: dict[str, Any] = {}

        def take(name: str, choices: Sequence[Any]) -> Any:
            taken[name] = wanted[name] if wanted[name] in choices else choices[0]
            return taken[name]

        return taken if self.choose(take) == config and config in self.points else None

    @cached_property
    def points(self) -> frozenset[LoaderConfig]:
        """All canonical, possible configurations."""
        return frozenset(config for config in self._combinations() if not broken_rule(config, self.inspection))

    @cached_property
    def _plain_fields_of(self) -> dict[LoaderConfig, tuple[Any, ...]]:
        return {point: _plain_fields(point) for point in self.points}

    def _combinations(self) -> Iterator[LoaderConfig]:
        choices = {name: values for name, values in self.dimensions.model_dump().items() if values}
        names = list(choices)
        for values in product(*choices.values()):
            picked = dict(zip(names, values, strict=True))
            yield self.choose(lambda name, _, picked=picked: picked[name])  # type: ignore[misc]

    def nearest(self, config: LoaderConfig) -> LoaderConfig:
        """Give the point that shares most with a configuration from elsewhere (a prior, another machine).

        Fields that differ count one each; among equals, the nearest batch size and worker count win.
        """
        wanted = config.canonical(has_accelerator=self.inspection.machine.has_accelerator)
        sought = _plain_fields(wanted)

        def distance(point: LoaderConfig) -> tuple[float, float, float, str]:
            differing = sum(map(operator.ne, self._plain_fields_of[point], sought))
            batch = abs(point.batch_size - wanted.batch_size) / wanted.batch_size
            workers = abs(point.num_workers - wanted.num_workers)
            # the side of a worker boundary matters more than any single field
            crossing = (point.num_workers > 0) != (wanted.num_workers > 0)
            return differing + 2 * crossing, workers, batch, point.label()

        return min(self.points, key=distance)


_plain_fields = operator.attrgetter(
    "archive", "stored", "order", "decoder", "cache", "cache_fraction", "prefetch_factor", "pin_memory"
)
"""Fields of a configuration that are equal or not, and nothing in between."""
