"""What Optuna is told of a record, and what a record is worth."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.spec import Measurement, TrialRecord

CONSTRAINT = "limits"
"""Name of the one constraint: at most 0 is feasible."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What Optuna is told.

    Attributes:
        value: Objective in samples/s; 0.0 for whatever must never be best.
        constraint: How far over a limit; 0.0 is feasible.
    """

    value: float
    constraint: float


def verdict(record: TrialRecord, *, horizon_epochs: int | None = None, one_off_s: float = 0.0) -> Verdict:
    """Turn a record into objective and constraint.

    A failure is told as a complete trial worth 0.0 with a constraint above 0: samplers ignore failed
    trials and would propose the same again, and a dashboard that knows no constraints still cannot
    show it as best.

    Args:
        record: What became of a trial.
        horizon_epochs: Epochs that one-off costs are spread over; None leaves them out.
        one_off_s: Those costs.
    """
    if record.measurement is not None:
        return Verdict(value=score(record.measurement, horizon_epochs, one_off_s), constraint=0.0)
    excess = record.failure.excess if record.failure is not None else 1.0
    return Verdict(value=0.0, constraint=excess)


def score(measurement: Measurement, horizon_epochs: int | None, one_off_s: float) -> float:
    """Give samples/s of a full epoch; with a horizon, one-off costs are spread over its epochs."""
    if horizon_epochs is None:
        return measurement.samples_per_s
    samples = measurement.epoch_samples * horizon_epochs
    return samples / (samples / measurement.samples_per_s + one_off_s)
