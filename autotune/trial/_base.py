"""What every runner of trials promises."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from autotune.spec import Failure, Inspection, Profile, TrialRecord, TrialRequest


@runtime_checkable
class TrialRunner(Protocol):
    """Measures configurations, each in a process of its own or by what was recorded.

    A runner serves one request at a time. A bad configuration is a result, never an exception:
    out of memory, crash, time-out and bad data are a `Failure`. When a method returns, no process,
    shared memory, temporary file or device memory of the trial is left.
    """

    def run(self, request: TrialRequest) -> TrialRecord:
        """Measure one configuration; the record has the request's key, study, number, phase and values.

        A retryable failure is run again at most `RETRY_LIMIT` times; `attempts` counts the processes.

        Raises:
            TrialServerError: No process can be started at all.
        """

    def inspect(self, request: TrialRequest) -> Inspection | Failure:
        """Look at the dataset and the machine of a request; its configuration is not used.

        Raises:
            TrialServerError: No process can be started at all.
        """

    def probe(self, request: TrialRequest) -> Profile | Failure:
        """Look at where time and memory of a batch go, at the request's `probe_batch_sizes`, else its batch size.

        Raises:
            TrialServerError: No process can be started at all.
        """

    def close(self) -> None:
        """End everything that was started; may be called twice."""
