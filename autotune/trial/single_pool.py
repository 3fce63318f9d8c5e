"""`SinglePool`: one machine, whose trials run where they are submitted."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from autotune.spec import Failure, Profile, TrialRequest
from autotune.trial._base import OnRecord, Records, TrialRunner


class SinglePool:
    """Measures with one runner, in the calling thread; a `autotune.trial.TrialPool`.

    Args:
        runner: Measures; whoever made it closes it.
    """

    capacity = 1

    def __init__(self, runner: TrialRunner) -> None:
        self._runner = runner

    def submit(self, requests: Sequence[TrialRequest], *, on_record: OnRecord | None = None) -> Future[Records]:
        """Measure requests now; see `TrialPool.submit`.

        Raises:
            TrialServerError: No process can be started at all.
        """
        records = []
        for request in requests:
            records.append(self._runner.run(request))
            if on_record is not None:
                on_record(records[-1])
        done: Future[Records] = Future()
        done.set_result(tuple(records))
        return done

    def probe(self, request: TrialRequest) -> Profile | Failure:
        """Look at where time and memory go; see `TrialRunner.probe`."""
        return self._runner.probe(request)

    def close(self) -> None:
        """Do nothing: the runner is closed by whoever made it."""
