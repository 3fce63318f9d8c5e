"""What tuner, server and trial process send each other: one JSON document a line."""

from __future__ import annotations

from typing import Literal

from autotune.spec import (
    DatasetFacts,
    Failure,
    Inspection,
    MachineFacts,
    Measurement,
    Profile,
    TrialRequest,
    Value,
)

Task = Literal["run", "inspect", "probe"]


class Order(Value):
    """Tuner to server: start a trial process. The pipe for its reports and a log file come along as descriptors.

    Attributes:
        task: `run` measures, `inspect` looks at dataset and machine, `probe` at where time and memory go.
        request: What is measured.
        sys_path: The tuner's import path.
        folder: The tuner's current folder.
        temporary: Folder for temporary files, removed after the trial.
        tuner_pid: The tuner's process, whose CPU time counts as ours.
        cpu_cap: Most CPUs that the user allows.
        preload: Libraries that earlier trials imported, for a server that forks to import once.
        cpu_group: Folder of the control group by which the request's `cpus` are kept to; None is by affinity.
        emulated_node: Name of this machine where it shares its host with others that pretend to be machines; None
            where it does not.
    """

    task: Task
    request: TrialRequest
    sys_path: tuple[str, ...]
    folder: str
    temporary: str
    tuner_pid: int
    cpu_cap: int | None = None
    preload: tuple[str, ...] = ()
    cpu_group: str | None = None
    emulated_node: str | None = None


class Command(Value):
    """Tuner to server: an order, or the end of the trial that runs."""

    order: Order | None = None
    kill: bool = False


class ServerNotice(Value):
    """Server to tuner.

    Attributes:
        started_pid: A trial process began.
        ended_pid: It ended, and nothing of it is left.
        exit_code: Its exit code; the negative signal where one killed it.
        pids: Processes of the trial that had to be killed after it.
    """

    started_pid: int | None = None
    ended_pid: int | None = None
    exit_code: int | None = None
    pids: tuple[int, ...] = ()


class Report(Value):
    """Trial process to tuner: how far it is, and at last what it came to.

    Attributes:
        phase: The phase that begins.
        done: Samples that this phase has prepared.
        total: Samples that it is to prepare.
        worker_pids: Processes of the loader.
        machine: The machine, once known.
        dataset: The dataset, once known.
        measurement: The result of `run`.
        inspection: The result of `inspect`.
        profile: The result of `probe`.
        failure: Why there is no result.
        libraries: What was imported that is worth preloading for the next trial.
    """

    phase: str | None = None
    done: int | None = None
    total: int | None = None
    worker_pids: tuple[int, ...] = ()
    machine: MachineFacts | None = None
    dataset: DatasetFacts | None = None
    measurement: Measurement | None = None
    inspection: Inspection | None = None
    profile: Profile | None = None
    failure: Failure | None = None
    libraries: tuple[str, ...] = ()

    @property
    def final(self) -> bool:
        """Whether this is the last report."""
        results = (self.measurement, self.inspection, self.profile, self.failure)
        return any(result is not None for result in results)


class Lines:
    """Cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes and give the lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line for line in lines if line]
