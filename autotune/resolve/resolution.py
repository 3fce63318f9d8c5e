"""`Resolution`: the configuration that is served, how well it is founded, and why."""

from __future__ import annotations

import sys
import warnings
from typing import Literal

from autotune.spec import Interval, LoaderConfig, Outcome, Value

Match = Literal["exact", "near", "default"]


class AutotuneWarning(UserWarning):
    """Training goes on, but not with what was asked for or measured; the message says what helps."""


def warn_caller(message: str) -> None:
    """Warn with `AutotuneWarning` at the line outside this package that asked."""
    level, frame = 1, sys._getframe()  # noqa: SLF001 - `skip_file_prefixes` needs Python 3.12
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("autotune."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, AutotuneWarning, stacklevel=level)


class Resolution(Value):
    """What `best_config` gives.

    Attributes:
        config: The configuration that is served.
        match: `exact` was measured like this; `near` differs in length, minor versions or a pinned field;
            `default` is PyTorch's own.
        why: Reasons, one sentence each, the most important first.
        decision_key: The decision behind it; None for a default without one.
        study: Name of the study.
        outcome: What the study came to.
        ratio: Rate of the decision's configuration over the PyTorch default, with its 95 % interval.
        samples_per_s: Rate of the decision's configuration.
        served_samples_per_s: Rate that was measured of the configuration that is served; None where none was.
        fingerprint: Source fingerprint that its archives are named after.
        sampler_seed: Seed that distributed samplers of all ranks share.
        ranks_on_node: Processes that share this machine's cores and memory.
        world_size: Processes that divide the samples.
    """

    config: LoaderConfig
    match: Match
    why: tuple[str, ...]
    decision_key: str | None = None
    study: str | None = None
    outcome: Outcome | None = None
    ratio: Interval | None = None
    samples_per_s: float | None = None
    served_samples_per_s: float | None = None
    fingerprint: str | None = None
    sampler_seed: int = 0
    ranks_on_node: int = 1
    world_size: int = 1

    @property
    def global_batch_size(self) -> int:
        """Samples of one step over all processes that divide them."""
        return self.config.batch_size * self.world_size
