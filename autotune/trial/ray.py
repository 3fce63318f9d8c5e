"""A Ray cluster as machines: one actor a node measures there, one trial at a time; or each does some work once."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from autotune.constants import RETRY_LIMIT
from autotune.errors import (
    MachineBusyError,
    MachineLostError,
    MissingExtraError,
    NoMachineError,
    SpecError,
    TrialServerError,
)
from autotune.spec import Failure, Inspection, Profile, TrialRecord, TrialRequest
from autotune.trial.ray_messages import NodeAnswer, NodeOrder
from autotune.units import format_seconds

_logger = logging.getLogger(__name__)

CONNECTED_WITHIN_S = 20.0
"""How long a cluster gets to answer before it counts as absent."""
_STARTED_WITHIN_S = 90.0
"""How long a node gets to start a process and take its machine's lock; with a cold disk Python alone takes long."""
_ANSWERED_WITHIN_S = 60.0
"""How much longer than its time-outs allow a node may take for a trial, before it counts as lost."""
_LEFT_WITHIN_S = 5.0
_SHORT = 8
_WAY_IN = "`ray status --address ADDRESS` tells whether one is up, `ray start --head` starts one"


class NodeProgram(Protocol):
    """What runs on a node; everything goes in and comes out as JSON, but for the bytes of the payload."""

    def begin(self, order: str, payload: bytes | None) -> str:
        """Take an order, and the objects that have no dotted path; gives a `NodeAnswer`."""

    def measure(self, request: str) -> str:
        """Measure a request; gives a `NodeAnswer`."""

    def inspect(self, request: str) -> str:
        """Look at a request's dataset and the machine; gives a `NodeAnswer`."""

    def probe(self, request: str) -> str:
        """Look at where time and memory go; gives a `NodeAnswer`."""

    def leave(self) -> str:
        """Remove what would outlive the process; gives a `NodeAnswer`."""


@dataclass(frozen=True, kw_only=True)
class RayNode:
    """A node that is up.

    Attributes:
        node_id: Ray's key of it.
        name: Name for people: that of the host, with the beginning of the key where hosts do not tell nodes apart.
        address: Of the host in the cluster; nodes that have it in common are on one host.
        cpus: CPUs that Ray manages there; all of them are reserved while the node measures.
        gpus: Accelerators likewise.
    """

    node_id: str
    name: str
    address: str
    cpus: float
    gpus: float

    @property
    def short_id(self) -> str:
        """Beginning of the key."""
        return self.node_id[:_SHORT]


class RayCluster:
    """A connection to a Ray cluster, which this process joins as a driver.

    Args:
        address: `auto` is the cluster that this machine belongs to; else `host:port`.
        connected_within_s: How long the cluster gets to answer.

    Raises:
        MissingExtraError: Ray is not installed.
        SpecError: The address has another form.
        NoMachineError: There is no cluster at that address.
    """

    def __init__(self, address: str, *, connected_within_s: float = CONNECTED_WITHIN_S) -> None:
        self._ray = _imported()
        self._joined = not self._ray.is_initialized()
        if self._joined:
            _connect(self._ray, address, within_s=connected_within_s)

    def close(self) -> None:
        """Leave the cluster, where this joined it; may be called twice."""
        if self._joined and self._ray.is_initialized():
            self._ray.shutdown()

    def nodes(self) -> list[RayNode]:
        """List the nodes that are up."""
        up = [node for node in self._ray.nodes() if node["Alive"]]
        named = Counter(node["NodeManagerHostname"] for node in up)
        return [
            RayNode(
                node_id=node["NodeID"],
                name=_name(node, alone=named[node["NodeManagerHostname"]] == 1),
                address=node["NodeManagerAddress"],
                cpus=node["Resources"].get("CPU", 0.0),
                gpus=node["Resources"].get("GPU", 0.0),
            )
            for node in up
        ]

    def start(self, node: RayNode, program: Callable[[], NodeProgram]) -> RayMachine:
        """Have a program started on a node, which no other work of Ray's shares meanwhile; `RayMachine.begin` waits.

        Args:
            node: Where.
            program: Class of what runs there, which can import it.
        """
        actor_class = self._ray.remote(program)
        actor = actor_class.options(
            num_cpus=node.cpus,
            num_gpus=node.gpus,
            max_restarts=0,
            max_concurrency=2,  # so that it can be told to leave while it measures
            scheduling_strategy=_on(node),
        ).remote()
        return RayMachine(self._ray, actor, node)

    def call_each(
        self, work: Callable[[str], str], told: Mapping[RayNode, str]
    ) -> Iterator[tuple[RayNode, str | MachineLostError]]:
        """Call a function once on each node, all at once, and wait for the answers as long as they take.

        Args:
            work: The function, which nodes can import.
            told: Its argument for each node.

        Yields:
            Nodes as they end, with the answer, or with what became of the node or the function there.
        """
        task = self._ray.remote(work)
        nodes = {
            task.options(num_cpus=0, max_retries=0, scheduling_strategy=_on(node)).remote(argument): node
            for node, argument in told.items()
        }
        waiting = list(nodes)
        while waiting:
            (ended,), waiting = self._ray.wait(waiting, num_returns=1)
            yield nodes[ended], self._answer(ended)

    def _answer(self, ended: Any) -> str | MachineLostError:
        try:
            answer: str = self._ray.get(ended)
        except self._ray.exceptions.RayError as error:
            return MachineLostError(f"it was lost: {_last_line(error)}")
        return answer


class _LateError(MachineLostError):
    """A node has not answered in time."""


class RayMachine:
    """A node that measures; a `autotune.trial.TrialRunner`.

    Every method raises `MachineLostError` where the node is gone, and `TrialServerError` where it can start no process.

    Attributes:
        name: Name for people.
        lost: Whether it gets no more work.
        finished: Trials that it has measured.

    Args:
        ray: The package.
        actor: The program on the node.
        node: Where it is.
    """

    def __init__(self, ray: Any, actor: Any, node: RayNode) -> None:
        self.name = node.name
        self.lost = False
        self.finished = 0
        self._begun = False
        self._node = node
        self._ray = ray
        self._actor = actor

    def begin(self, order: NodeOrder, payload: bytes | None) -> None:
        """Wait until it runs, and have it take the machine's lock.

        Args:
            order: What it is told first.
            payload: Objects without a dotted path; None without.

        Raises:
            MachineLostError: The node does not start it, or refuses; the message says why.
            MachineBusyError: Another tuning job holds the machine, or other work of Ray's.
        """
        try:
            self._ask(self._actor.begin, order.to_json(), payload, within_s=_STARTED_WITHIN_S)
        except _LateError as error:
            raise MachineBusyError(
                f"{error}: all of its {self._node.cpus:g} CPUs and {self._node.gpus:g} GPUs have to be free in Ray; "
                "`ray status -v` tells what takes them"
            ) from error
        self._begun = True

    def run(self, request: TrialRequest) -> TrialRecord:
        """Measure one configuration there; see `TrialRunner.run`. The time of its start is by the clock here."""
        within_s = (1 + RETRY_LIMIT) * request.timeout_s + _ANSWERED_WITHIN_S
        answer = self._ask(self._actor.measure, request.to_json(), within_s=within_s)
        assert answer.record is not None  # noqa: S101 - what is no error has it
        self.finished += 1
        took = timedelta(seconds=answer.record.wall_s)
        return answer.record.replace(started_at=datetime.now(UTC) - took)  # clocks of machines differ

    def inspect(self, request: TrialRequest) -> Inspection | Failure:
        """Look at dataset and machine there; see `TrialRunner.inspect`."""
        answer = self._ask(self._actor.inspect, request.to_json(), within_s=request.timeout_s + _ANSWERED_WITHIN_S)
        found = answer.failure or answer.inspection
        assert found is not None  # noqa: S101 - what is no error has one of them
        return found

    def probe(self, request: TrialRequest) -> Profile | Failure:
        """Look there at where time and memory go; see `TrialRunner.probe`."""
        answer = self._ask(self._actor.probe, request.to_json(), within_s=request.timeout_s + _ANSWERED_WITHIN_S)
        found = answer.failure or answer.profile
        assert found is not None  # noqa: S101 - what is no error has one of them
        return found

    def close(self) -> None:
        """End the program with the trial that it may run; may be called twice, and while others wait for it."""
        if not self._ray.is_initialized():  # it ended with the connection, and Ray would begin a cluster to be asked
            return
        if self._begun and not self.lost:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.get(self._actor.leave.remote(), timeout=_LEFT_WITHIN_S)
        self.lost = True
        self._ray.kill(self._actor)  # the trial server there sees that, and clears away what ran

    def _ask(self, method: Any, *values: Any, within_s: float) -> NodeAnswer:
        """Have a method called there, and take its answer."""
        errors = self._ray.exceptions
        try:
            answer = NodeAnswer.from_json(self._ray.get(method.remote(*values), timeout=within_s))
        except errors.GetTimeoutError as error:
            self.lost = True
            raise _LateError(f"node {self.name} has not answered within {format_seconds(within_s)}") from error
        except errors.RayTaskError as error:
            raise self._loss(f"cannot measure: {_last_line(error)}") from error
        except errors.RayError as error:
            raise self._loss(f"is gone: {_last_line(error)}") from error
        if answer.busy is not None:
            raise MachineBusyError(f"node {self.name}: {answer.busy}")
        if answer.no_server is not None:
            raise TrialServerError(f"node {self.name}: {answer.no_server}")
        if answer.refusal is not None:
            raise self._loss(f"cannot measure: {answer.refusal}")
        return answer

    def _loss(self, what: str) -> MachineLostError:
        self.lost = True
        return MachineLostError(f"node {self.name} {what}")


def _name(node: Mapping[str, Any], *, alone: bool) -> str:
    host: str = node["NodeManagerHostname"]
    return host if alone else f"{host}/{node['NodeID'][:_SHORT]}"


def _on(node: RayNode) -> Any:
    """Have something run on one node and on no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node.node_id, soft=False)


def _imported() -> Any:
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "measuring on a Ray cluster needs the package 'ray'; install it here and on every node by: "
            "pip install 'dataloader-autotune[ray]'"
        ) from error
    return ray


def _connect(ray: Any, address: str, *, within_s: float) -> None:
    """Join a cluster.

    Raises:
        NoMachineError: There is none at that address.
    """
    if address != "auto":
        _check_reachable(address, within_s=within_s)
    try:
        with _handler_kept(signal.SIGTERM):
            ray.init(address=address, namespace="autotune", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise NoMachineError(f"no Ray cluster can be joined at {address!r}: {_last_line(error)}; {_WAY_IN}") from error


@contextlib.contextmanager
def _handler_kept(number: int) -> Iterator[None]:
    """Put back who handles a signal: Ray takes it, and would end the process before anything is let go."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, before)


def _check_reachable(address: str, *, within_s: float) -> None:
    """Look whether somebody listens, as Ray itself would try for much longer.

    Raises:
        SpecError: It is no address.
        NoMachineError: Nobody does.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or "://" in host:
        raise SpecError(f"the address of a Ray cluster is auto or host:port, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=within_s).close()
    except OSError as error:
        raise NoMachineError(f"no Ray cluster answers at {address!r} ({error}); {_WAY_IN}") from error


def _last_line(error: BaseException) -> str:
    """Give the line of an error of Ray's that says what happened: they quote whole tracebacks of the node."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
