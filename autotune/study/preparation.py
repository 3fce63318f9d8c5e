"""`Preparation`: what building archives and filling caches will take of the budget, before it is tried."""

from __future__ import annotations

from autotune.constants import CONFIRM_PAIRS_MIN, PREPARATION_SHARE
from autotune.space import Space, estimate
from autotune.spec import Failure, LoaderConfig, Profile, TrialRecord
from autotune.units import format_seconds

_RUNS = 2 + CONFIRM_PAIRS_MIN
"""Runs in which the winner fills its cache at least: the search, verification, the fewest pairs."""


class Preparation:
    """Predicts seconds of preparation, and refuses what leaves too little of the budget to measure in.

    Each run is a fresh process that fills its memory cache again; an archive and a whole disk cache outlive it. Where a
    space has nothing beside PyTorch's default that could be ready in time nothing is refused: it was asked for.

    Args:
        space: The space.
        profile: What the probe found; None without one, and then nothing is known or refused.
        budget_s: Seconds of the study.
        samples: Samples that a run measures on; None is unknown.
    """

    def __init__(self, space: Space, profile: Profile | None, *, budget_s: float, samples: int | None) -> None:
        self._inspection = space.inspection
        self._profile = profile
        self._allowed_s = PREPARATION_SHARE * budget_s
        self._budget_s = budget_s
        self._samples = samples or 0
        self._there: set[tuple[str, str | None]] = set()
        self._points = [one for one in space.points if one != _default(one)]
        self._strict = self._is_any_affordable()

    def learn(self, record: TrialRecord) -> None:
        """Take in which archives are there by now."""
        if record.measurement is None:
            return
        config = record.config
        self._there.add((config.archive, config.stored))
        if config.cache == "disk" and config.cache_fraction == 1:
            self._there.add(("disk", config.stored))
        self._strict = self._strict or self._is_any_affordable()

    def seconds(self, config: LoaderConfig) -> float:
        """Predict the seconds that a study spends on preparing a configuration, from the search to its confirmation."""
        if self._profile is None:
            return 0.0
        there = config.archive == "files" or (config.archive, config.stored) in self._there
        # archives are built by as many processes as there are CPUs
        build_s = 0.0 if there else self._samples * self._profile.sample_s / self._inspection.machine.cpu_count
        filled = config.cache == "disk" and ("disk", config.stored) in self._there
        fills = {"none": 0, "disk": 0 if filled else 1}.get(config.cache, _RUNS)
        return build_s + fills * self._kept(config) * self._sample_s(config)

    def breach(self, config: LoaderConfig) -> Failure | None:
        """Say that a configuration takes too much of the budget to prepare; None where it does not."""
        needed_s = self.seconds(config)
        if not self._strict or needed_s <= self._allowed_s:
            return None
        text = (
            f"building and filling for {self._samples:,} samples would take about {format_seconds(needed_s)} of a "
            f"budget of {format_seconds(self._budget_s)}, and at most {PREPARATION_SHARE:.0%} may go into that; take a "
            "longer budget, or measure on a subset"
        )
        return Failure(kind="budget", phase="predict", message=text, excess=needed_s / self._allowed_s - 1)

    def left_out(self) -> list[LoaderConfig]:
        """Give what is refused."""
        return [config for config in self._points if self.breach(config) is not None]

    def _is_any_affordable(self) -> bool:
        return any(self.seconds(config) <= self._allowed_s for config in self._points)

    def _kept(self, config: LoaderConfig) -> float:
        """Give the samples that a cache will hold: memory caches are cut to what can fit at all."""
        wanted = (config.cache_fraction or 1.0) * self._samples
        if config.cache == "disk":
            return wanted
        return min(wanted, self._inspection.machine.memory_bytes / max(1, self._inspection.sample_bytes))

    def _sample_s(self, config: LoaderConfig) -> float:
        """Give the seconds in which one thread loads one sample from what lies under the cache."""
        if self._profile is None:
            return 0.0
        alone = {"num_workers": 0, "prefetch_factor": None, "persistent_workers": None}
        under = config.replace(cache="none", cache_fraction=None, **alone)
        found = estimate(under, self._profile, self._inspection)
        return sum(spent for stage, spent in found.stages.items() if stage != "consume") / config.batch_size


def _default(config: LoaderConfig) -> LoaderConfig:
    return LoaderConfig.torch_default(config.batch_size).replace(pin_memory=config.pin_memory, decoder=config.decoder)
