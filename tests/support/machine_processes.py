"""Machines that can be killed: processes of their own that answer from recorded rates."""

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from multiprocessing import connection

from autotune.errors import MachineLostError
from autotune.spec import Failure, Inspection, Profile, TrialRecord, TrialRequest
from autotune.trial import ReplayRunner

_FORK = multiprocessing.get_context("fork")


class MachineProcess:
    """A machine in a process; a `autotune.trial.TrialRunner`.

    Processes fork, so all machines are made before the first thread of a pool begins.
    """

    def __init__(self, landscape, host, *, seed=0, speed=1.0, seconds=0.0):
        self.host = host
        self._ours, theirs = _FORK.Pipe()
        runner = ReplayRunner(landscape, seed=seed, host=host, speed=speed)
        self._process = _FORK.Process(target=_answer, args=(theirs, runner, seconds), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, request: TrialRequest) -> TrialRecord:
        return TrialRecord.from_json(self._ask("run", request))

    def inspect(self, request: TrialRequest) -> Inspection | Failure:
        return Inspection.from_json(self._ask("inspect", request))

    def probe(self, request: TrialRequest) -> Profile | Failure:
        text = self._ask("probe", request)
        return Failure.from_json(text) if '"kind"' in text else Profile.from_json(text)

    def close(self) -> None:
        if self._process.is_alive():
            self.kill()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()

    def _ask(self, method, request):
        try:
            self._ours.send((method, request.to_json()))
            # the other machines hold copies of its end of the pipe, so only the process says that it is gone
            connection.wait([self._ours, self._process.sentinel])
            if self._ours.poll():
                return self._ours.recv()
        except (OSError, EOFError):
            pass
        raise MachineLostError(f"{self.host} is gone")


def _answer(pipe, runner, seconds):
    while True:
        method, request = pipe.recv()
        time.sleep(seconds)
        pipe.send(getattr(runner, method)(TrialRequest.from_json(request)).to_json())
