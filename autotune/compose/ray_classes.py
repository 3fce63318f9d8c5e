"""`RayClasses`: the nodes of a Ray cluster as pools of machines, one for each class, for as long as studies run."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from autotune import __version__
from autotune.compose.alike import check_alike
from autotune.compose.places import Places
from autotune.compose.ray_choice import NodeChoice
from autotune.compose.ray_node import NodeMachine
from autotune.compose.runs import inspect_dataset
from autotune.errors import AutotuneError, ConflictError, DatasetError, FactoryError, MachineBusyError, NoMachineError
from autotune.spec import Inspection, StudySpec
from autotune.trial import MachinePool
from autotune.trial.ray import RayCluster, RayMachine, RayNode
from autotune.trial.ray_messages import NodeOrder

_LOG = logging.getLogger(__name__)

NODE_AWAITED_S = 120.0
"""How long studies wait for a node once their last one is lost: a cluster that scales replaces one within minutes."""
_LOOKED_EVERY_S = 5.0
_AT_ONCE = 16
_ENDS_WITHIN_S = 20.0


class RayClasses:
    """Looks at every node of a cluster, and has those measure that can; nodes that join later do so too.

    Args:
        cluster: The cluster.
        spec: The study.
        at: Where the driver keeps everything.
        own_home: Folder that the driver was told to use, and the nodes then too; None leaves them their own.
        payload: Objects without a dotted path; None without.
        awaited_s: How long the machines of a class are waited for when the last one is lost.
        emulated: Whether nodes of one host are machines of their own.
    """

    def __init__(
        self,
        cluster: RayCluster,
        spec: StudySpec,
        *,
        at: Places,
        own_home: Path | None,
        payload: bytes | None,
        awaited_s: float,
        emulated: bool,
    ) -> None:
        self.pools: dict[str, MachinePool] = {}
        self.inspections: dict[str, Inspection] = {}
        self._cluster = cluster
        self._spec = spec
        self._at = at
        self._own_home = own_home
        self._payload = payload
        self._awaited_s = awaited_s
        self._machines: dict[str, RayMachine] = {}
        self._emulated = emulated
        self._choice = NodeChoice(emulated=emulated)
        self._told: set[str] = set()
        self._starting: set[RayMachine] = set()
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch, name="nodes", daemon=True)

    def __enter__(self) -> Self:
        """Look at all nodes.

        Raises:
            NoMachineError: None of them can measure; the message says why for each.
            MachineBusyError: Other jobs hold all of them.
            DatasetError: The dataset can be read on none of them.
        """
        with ExitStack() as undoing:
            undoing.callback(self.close)  # also where the user ends it: nodes that were taken in would stay held
            errors = self._look(self._due())
            if not self.pools:
                raise _worst(errors)
            self._watching.start()
            undoing.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all that was started on the nodes."""
        self._end_starting()
        if self._watching.is_alive():
            self._watching.join(_ENDS_WITHIN_S)
        for pool in self.pools.values():
            pool.close()

    def _end_starting(self) -> None:
        """Have nobody wait any more for nodes that start."""
        self._ended.set()
        with self._guard:
            starting = list(self._starting)
        for machine in starting:
            machine.close()

    def present(self) -> dict[str, int]:
        """Count the machines of each class; classes whose first node joins later come later."""
        with self._guard:
            return {name: pool.capacity for name, pool in self.pools.items()}

    def _watch(self) -> None:
        while not self._ended.wait(_LOOKED_EVERY_S):
            try:
                self._look(self._due())
            except Exception:  # noqa: BLE001  (the studies go on with the machines that they have)
                _LOG.exception("the nodes of the cluster could not be looked at; joining ones are not used for now")

    def _due(self) -> list[RayNode]:
        """Give the nodes that are up and do not measure, but may."""
        for node_id, machine in list(self._machines.items()):
            if machine.lost:
                del self._machines[node_id]
                self._choice.lost(node_id, finished=machine.finished)
        return self._choice.due(self._cluster.nodes(), self._machines)

    def _look(self, nodes: Iterable[RayNode]) -> list[AutotuneError]:
        """Start nodes and take in those that can measure; gives why the others cannot."""
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as threads:
            try:
                errors = [error for error in threads.map(self._taken_in, nodes) if error is not None]
            except KeyboardInterrupt:
                self._end_starting()
                raise
        if self._ended.is_set():
            return []
        for told in {str(error) for error in errors} - self._told:
            self._told.add(told)
            _LOG.warning("left out: %s", told)
        return errors

    def _taken_in(self, node: RayNode) -> AutotuneError | None:
        machine = self._started(node)
        if machine is None:
            return None
        try:
            machine.begin(self._order(node), self._payload)
            self._admit(node, machine, inspect_dataset(machine, self._spec, at=self._at))
        except AutotuneError as error:
            machine.close()
            return self._refused(node, error)
        except BaseException:
            machine.close()
            raise
        finally:
            with self._guard:
                self._starting.discard(machine)
        return None

    def _started(self, node: RayNode) -> RayMachine | None:
        with self._guard:
            if self._ended.is_set():
                return None
            machine = self._cluster.start(node, NodeMachine)
            self._starting.add(machine)
            return machine

    def _refused(self, node: RayNode, error: AutotuneError) -> AutotuneError:
        """Note that a node cannot measure now; gives an error that names it."""
        if isinstance(error, MachineBusyError):
            self._choice.busy(node.node_id)
        else:
            self._choice.failed(node.node_id)
        if isinstance(error, (DatasetError, FactoryError, ConflictError)):
            return type(error)(f"node {node.name}: {error}")
        return error

    def _admit(self, node: RayNode, machine: RayMachine, inspection: Inspection) -> None:
        """Have a machine measure with the others of its class.

        Raises:
            ConflictError: They would come to other results.
        """
        name = inspection.machine.machine_class
        with self._guard:
            if self._ended.is_set():
                machine.close()
                return
            if name not in self.pools:
                self.inspections[name] = inspection
                self.pools[name] = MachinePool(wait_s=self._awaited_s)
            check_alike(self._spec, self.inspections[name], inspection)
            self._machines[node.node_id] = machine
            self.pools[name].add(machine)

    def _order(self, node: RayNode) -> NodeOrder:
        return NodeOrder(
            version=__version__,
            purpose=f"study {self._spec.name}",
            home=None if self._own_home is None else str(self._own_home),
            folder=str(Path.cwd()),
            sys_path=tuple(sys.path),
            emulated_node=node.short_id if self._emulated else None,
        )


def _worst(errors: list[AutotuneError]) -> AutotuneError:
    """Give the error of a cluster of which no node can measure: what is wrong with the study goes first."""
    for kind in (FactoryError, DatasetError):
        for error in errors:
            if isinstance(error, kind):
                return error
    told = "; ".join(str(error) for error in errors) or "it has none that is up"
    if errors and all(isinstance(error, MachineBusyError) for error in errors):
        return MachineBusyError(told)
    return NoMachineError(f"no node of the cluster can measure: {told}")
