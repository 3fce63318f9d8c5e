"""`Noise`: how a replay disturbs recorded rates, from what the machine itself did to what is worse."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from autotune.spec import Value


class Noise(Value):
    """What happens to the answers of a replay; all of it multiplies the true rate.

    Attributes:
        run_to_run: Standard deviation of the log rate between runs of one configuration; None is as recorded.
        block: Runs in a row that get neighbouring residuals of the recording, so that its drift stays in them.
        tail_freedom: Degrees of freedom of Student's t, which takes the place of the recorded residuals:
            heavy tails; None keeps those.
        drift: Log factor that comes on, once, at a random run among the first `drift_within`.
        drift_within: Runs within which the drift comes.
        burst_share: Share of the runs that lie in a burst of a busy neighbour.
        burst_runs: Length of a burst in runs.
        burst_factor: What is left of the rate in a burst.
        senseless_share: Share of the answers that are no number.
    """

    run_to_run: float | None = Field(default=None, ge=0)
    block: int = Field(default=4, ge=1)
    tail_freedom: float | None = Field(default=None, gt=2)
    drift: float = 0.0
    drift_within: int = Field(default=80, ge=1)
    burst_share: float = Field(default=0.0, ge=0, lt=1)
    burst_runs: int = Field(default=4, ge=1)
    burst_factor: float = Field(default=0.5, gt=0, le=1)
    senseless_share: float = Field(default=0.0, ge=0, lt=1)


class NoiseSource:
    """Draws the factor of each answer in turn.

    Args:
        noise: The model.
        residuals: Log residuals of the recording, in the order in time.
        seed: Seed of the draws.
    """

    def __init__(self, noise: Noise, residuals: tuple[float, ...], *, seed: int) -> None:
        self._noise = noise
        self._generator = np.random.default_rng(seed)
        self._recorded = np.array(residuals)
        spread = float(np.sqrt(np.mean(self._recorded**2))) if residuals else 0.0
        self._wanted = spread if noise.run_to_run is None else noise.run_to_run
        self._scale = self._wanted / spread if spread else 0.0
        self._waiting: list[float] = []
        self._drift_at = int(self._generator.integers(noise.drift_within)) if noise.drift else -1
        self._burst_left = 0
        self._runs = 0

    def factor(self) -> float | None:
        """Give the next factor; None for an answer that is no number."""
        noise = self._noise
        log = self._residual()
        if noise.drift and self._runs >= self._drift_at:
            log += noise.drift
        self._runs += 1
        if self._in_burst():
            log += math.log(noise.burst_factor)
        if noise.senseless_share and self._generator.random() < noise.senseless_share:
            return None
        return math.exp(log)

    def _residual(self) -> float:
        """Draw the next residual: from the block that was begun, else from a new one."""
        noise = self._noise
        if not self._wanted:
            return 0.0
        if noise.tail_freedom is not None:
            # Student's t has the variance n / (n - 2)
            unit = math.sqrt((noise.tail_freedom - 2) / noise.tail_freedom)
            return float(self._generator.standard_t(noise.tail_freedom)) * unit * self._wanted
        if not self._scale:
            return float(self._generator.normal(0.0, self._wanted))
        if not self._waiting:
            start = int(self._generator.integers(len(self._recorded)))
            places = (start + np.arange(noise.block)) % len(self._recorded)
            self._waiting = (self._recorded[places] * self._scale).tolist()
        return self._waiting.pop(0)

    def _in_burst(self) -> bool:
        noise = self._noise
        if self._burst_left:
            self._burst_left -= 1
            return True
        begins = noise.burst_share / noise.burst_runs / (1 - noise.burst_share)
        if begins and self._generator.random() < begins:
            self._burst_left = noise.burst_runs - 1
            return True
        return False
