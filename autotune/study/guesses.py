"""`Guesses`: what the probe lets expect of each configuration of a space, and what measuring made of it."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.constants import EQUIVALENCE_SHARE, ESTIMATES_FIRST, EXPECTED_FROM_TRIALS
from autotune.space import Space, estimate
from autotune.spec import Bottleneck, LoaderConfig, Profile
from autotune.study.memory import MemoryModel
from autotune.study.surrogate import Surrogate


class Guesses:
    """Estimated rates of a space.

    Args:
        space: The space.
        profile: What the probe found; None without one, and then nothing is estimated.
        memory: What each configuration will need.
    """

    def __init__(self, space: Space, profile: Profile | None, memory: MemoryModel) -> None:
        self._space = space
        self._profile = profile
        self._memory = memory
        self.points = sorted(space.points, key=LoaderConfig.label)
        self.rates: dict[LoaderConfig, float] = {}
        if profile is not None:
            found = {config: estimate(config, profile, space.inspection) for config in self.points}
            self.rates = {config: one.samples_per_s for config, one in found.items()}
        self._surrogate = Surrogate(self.points, self.rates)

    def first(self) -> list[LoaderConfig]:
        """Give the best few by the estimate, each of another way to store samples, the best one first.

        Beside the best one stands the cheapest that should be as fast: where the step is the bottleneck most are,
        and the one with the fewest workers is wanted.
        """
        if not self.rates:
            return []
        possible = [config for config in self.points if self._memory.breach(config) is None]
        ranked = sorted(possible, key=lambda config: -self.rates[config])
        if not ranked:
            return []
        best = self.rates[ranked[0]]
        equal = [config for config in ranked if self.rates[config] >= best * (1 - EQUIVALENCE_SHARE)]
        chosen = [ranked[0], min(equal, key=_cheapness)]
        for config in ranked:
            if len(set(chosen)) >= ESTIMATES_FIRST + 1:
                break
            if _storage(config) not in {_storage(other) for other in chosen}:
                chosen.append(config)
        return list(dict.fromkeys(chosen))

    def promising(self, rates: Mapping[LoaderConfig, float]) -> tuple[LoaderConfig | None, float] | None:
        """Give the unmeasured configuration that is expected to gain most over the best one, and that share.

        What will break a memory limit is passed over; where nothing else is left there is no configuration.

        Args:
            rates: What was measured, in samples/s.

        Returns:
            None where too little is measured to expect anything.
        """
        if len(rates) < EXPECTED_FROM_TRIALS:
            return None
        gains = self._surrogate.gains(rates)
        for config in sorted(gains, key=lambda config: -gains[config]):
            if self._memory.breach(config) is None:
                return config, gains[config]
        return None, 0.0

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
            and self._memory.breach(LoaderConfig.torch_default(size).canonical(has_accelerator=accelerated)) is None
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


def _cheapness(config: LoaderConfig) -> tuple[int, int, int, str]:
    return config.num_workers, int(config.cache != "none"), int(config.archive != "files"), config.label()


def _storage(config: LoaderConfig) -> tuple[object, ...]:
    return config.archive, config.stored, config.cache, config.num_workers > 0
