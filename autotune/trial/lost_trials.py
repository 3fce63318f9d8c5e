"""What is said of requests that machines were lost over, one after another, so that they do not take all there are."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.spec import Failure, TrialRecord, TrialRequest


def loss_over(requests: Sequence[TrialRequest]) -> Failure:
    """Say why requests are not tried again: they end machines, as far as one request alone can be blamed for it.

    Of several nobody knows which one does, if any: machines are also taken away. Their block goes without a reading.
    """
    alone = len(requests) == 1
    what = "it" if alone else f"it and {len(requests) - 1} others in turn"
    return Failure(
        kind="crashed" if alone else "senseless",
        phase="start",
        message=f"machines were lost one after another while they measured {what}; it is not tried again",
    )


def lost_records(requests: Sequence[TrialRequest]) -> tuple[TrialRecord, ...]:
    """Give the records of requests that are not tried again."""
    failure = loss_over(requests)
    return tuple(
        TrialRecord(
            key=one.key,
            study=one.study,
            number=one.number,
            phase=one.phase,
            workload=one.workload,
            config=one.config,
            failure=failure,
        )
        for one in requests
    )
