"""What every runner of trials promises, and every pool of machines that have one each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
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


OnRecord = Callable[[TrialRecord], None]
Records = tuple[TrialRecord, ...]


@runtime_checkable
class TrialPool(Protocol):
    """Machines of one class, each measuring one trial at a time.

    Machines may be lost and others may join. What a lost one was measuring is measured again on another; a record that
    was handed out is final, and its request is never measured again. All methods are called from one thread.
    """

    @property
    def capacity(self) -> int:
        """Machines that can measure now; at least 1, even while one is being waited for."""

    def submit(self, requests: Sequence[TrialRequest], *, on_record: OnRecord | None = None) -> Future[Records]:
        """Measure requests one after another on one machine; where it is lost, all of them again on another.

        A pool that measures in the calling thread is done when this returns, and may raise what the future would.

        Args:
            requests: At least one; none with a key that was submitted before.
            on_record: Told of each record as soon as it is there by a pool that measures in the calling thread, as
                nothing but that thread can be lost. Others leave it alone: a record is final once all of them are.

        Returns:
            The records in the order of the requests; `record.machine.host` says where they were measured. It raises
            `NoMachineError` where no machine was left and none came within the pool's time.
        """

    def probe(self, request: TrialRequest) -> Profile | Failure:
        """Look at where time and memory of a batch go, on one machine; see `TrialRunner.probe`.

        Raises:
            NoMachineError: No machine was left, and none came within the pool's time.
        """

    def close(self) -> None:
        """Drop what waits and end everything that was started; may be called twice."""
