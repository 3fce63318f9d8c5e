"""`Guesses`: what the probe lets expect of each configuration of a space, and what measuring made of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from autotune.constants import (
    CLIMBED_FROM,
    EQUIVALENCE_SHARE,
    ESTIMATES_FIRST,
    EXPECTED_FROM_TRIALS,
    GUESS_SHARE,
)
from autotune.space import Space, estimate
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.spec import Bottleneck, LoaderConfig, Profile
from autotune.study.forecast import Forecast
from autotune.study.surrogate import Surrogate


class Guesses:
    """Estimated rates of a space.

    Args:
        space: The space.
        profile: What the probe found; None without one, and then nothing is estimated.
        forecast: Which limit each configuration will break.

    Attributes:
        host: The machine whose bounds these are; None is unknown.
        points: The configurations, in the order of their labels.
        rates: Estimated rates in samples/s.
    """

    def __init__(self, space: Space, profile: Profile | None, forecast: Forecast) -> None:
        self._space = space
        self._profile = profile
        self._forecast = forecast
        self.host = profile.host if profile else None
        self.points = sorted(space.points, key=LoaderConfig.label)
        self._largest_fraction = max((config.cache_fraction or 0.0 for config in self.points), default=0.0)
        self.rates: dict[LoaderConfig, float] = {}
        if profile is not None:
            found = {config: estimate(config, profile, space.inspection) for config in self.points}
            self.rates = {config: one.samples_per_s for config, one in found.items()}
        self._surrogate = Surrogate(self.points, self.rates)

    def first(self) -> list[LoaderConfig]:
        """Give the best few by the estimate, from different places to read from, the best one first.

        Beside the best one stands the cheapest that should be as fast: where the step is the bottleneck most are,
        and the one with the fewest workers is wanted. Batch sizes beyond those that the probe took are left to the
        search: at the edge of the memory limit a guess costs several runs, if only its default breaks it.
        """
        if not self.rates:
            return []
        ranked = sorted((config for config in self.points if self._is_safe(config)), key=self._rank)
        if not ranked:
            return []
        best = self.rates[ranked[0]]
        equal = [config for config in ranked if self.rates[config] >= best * (1 - EQUIVALENCE_SHARE)]
        chosen = [ranked[0], min(equal, key=_cost)]
        for config in ranked:
            if len(set(chosen)) >= ESTIMATES_FIRST + 1:
                break
            if self.rates[config] < GUESS_SHARE * best:
                break
            if _source(config) not in {_source(other) for other in chosen}:
                chosen.append(config)
        return list(dict.fromkeys(chosen))

    def _is_safe(self, config: LoaderConfig) -> bool:
        sizes = [bound.batch_size for bound in self._profile.bounds] if self._profile else []
        probed = config.batch_size <= max(sizes, default=config.batch_size)
        # a cache of a part is a mixture, which is never faster than both that it mixes
        whole = config.replace(cache_fraction=self._largest_fraction) if config.cache_fraction else config
        mixed = whole != config and self._forecast.breach(whole) is None
        return probed and not mixed and self._forecast.breach(config) is None

    def _rank(self, config: LoaderConfig) -> tuple[float, int, tuple[int, int, int], str]:
        """Order by the estimate; what it holds for equal by how near the batch size is to the usual one, and cost."""
        distance = abs(config.batch_size - REFERENCE_BATCH_SIZE)
        return -self.rates[config], distance, _cost(config), config.label()

    def promising(
        self, rates: Mapping[LoaderConfig, float], *, begun: Collection[LoaderConfig] = ()
    ) -> tuple[LoaderConfig | None, float] | None:
        """Give the unmeasured configuration that is expected to gain most over the best one, and that share.

        What will break a limit is passed over; where nothing else is left there is no configuration.

        Args:
            rates: What was measured, in samples/s.
            begun: What is being measured, and passed over too.

        Returns:
            None where too little is measured to expect anything.
        """
        if len(rates) < EXPECTED_FROM_TRIALS:
            return None
        gains = self._surrogate.gains(rates)
        for config in sorted(gains, key=lambda config: -gains[config]):
            if config not in begun and self._forecast.breach(config) is None:
                return config, gains[config]
        return None, 0.0

    def neighbours(self, rates: Mapping[LoaderConfig, float]) -> list[LoaderConfig]:
        """Give what was not measured yet one batch size beside the best, and beside the best from another place.

        A probe tells places apart, but hardly batch sizes: where a batch outgrows what the allocator keeps, or the
        processor's caches, a rate breaks down by half from one size to the next.

        Args:
            rates: What was measured, in samples/s.
        """
        best: dict[tuple[object, ...], LoaderConfig] = {}
        for config in sorted(rates, key=lambda config: -rates[config]):
            best.setdefault(_source(config), config)
        sizes = sorted(self._space.dimensions.batch_size)
        found = []
        for config in list(best.values())[:CLIMBED_FROM]:
            place = sizes.index(config.batch_size) if config.batch_size in sizes else 0
            beside = (config.replace(batch_size=size) for size in sizes[max(0, place - 1) : place + 2])
            found += [one for one in beside if one not in rates and self._forecast.breach(one) is None]
        return [config for config in found if config in self._space.points]

    def highest_bound(self) -> float | None:
        """Give the rate that no loader can exceed at any possible batch size; None without a probe."""
        return max(self.bounds().values(), default=None)

    def bounds(self) -> dict[int, float]:
        """Give the bound of every batch size whose default should keep the memory limit; none without a probe."""
        found = {size: self.bound(size) for size in self._space.dimensions.batch_size}
        accelerated = self._space.inspection.machine.has_accelerator
        return {
            size: bound
            for size, bound in found.items()
            if bound is not None
            and self._forecast.breach(LoaderConfig.torch_default(size).canonical(has_accelerator=accelerated)) is None
        }

    def bound(self, batch_size: int) -> float | None:
        """Give the rate that no loader can exceed at a batch size; None without a probe."""
        return self._profile.bound(batch_size) if self._profile else None

    def bottleneck(self, config: LoaderConfig) -> Bottleneck | None:
        """Say what limits a configuration; None without a probe."""
        if self._profile is None:
            return None
        found = estimate(config, self._profile, self._space.inspection)
        return Bottleneck(
            config=config.label(),
            stage=found.bottleneck,
            limit=found.limit,
            stages={stage: seconds * 1000 for stage, seconds in found.stages.items()},
            estimated_samples_per_s=found.samples_per_s,
        )


def _cost(config: LoaderConfig) -> tuple[int, int, int]:
    """Give what a configuration takes up: workers first, then a cache, then an archive."""
    return config.num_workers, int(config.cache != "none"), int(config.archive != "files")


def _source(config: LoaderConfig) -> tuple[object, ...]:
    """Name where samples come from once the first epoch is over: what lies under a full cache no longer matters."""
    if config.cache != "none" and config.cache_fraction == 1:
        return config.cache, config.num_workers > 0
    return config.archive, config.stored, config.cache, config.num_workers > 0
