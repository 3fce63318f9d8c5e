"""`NodeChoice`: which nodes of a Ray cluster are to be started to measure, and when again."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from autotune.trial.ray import RayNode

_LOG = logging.getLogger(__name__)

FAILURES_MAX = 3
"""How often a node that lives is started in vain before it is left alone."""
BUSY_FOR_S = 60.0
"""How long a node that another job holds is left to it: most of them take minutes."""


class NodeChoice:
    """Says which nodes are to be started now.

    Args:
        emulated: Whether nodes of one host are machines of their own; else one node of each host measures.
        clock: Monotonic seconds.
    """

    def __init__(self, *, emulated: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._emulated = emulated
        self._clock = clock
        self._failures: Counter[str] = Counter()
        self._busy_until_s: dict[str, float] = {}
        self._left_out: set[str] = set()

    def due(self, up: Sequence[RayNode], serving: Collection[str]) -> list[RayNode]:
        """Give the nodes to start.

        Args:
            up: The nodes that are up.
            serving: Keys of those that measure.
        """
        taken = {self._place(node): node.name for node in up if node.node_id in serving or self._is_busy(node)}
        chosen = []
        for node in up:
            if node.node_id in serving or self._is_busy(node) or self._failures[node.node_id] >= FAILURES_MAX:
                continue
            if self._place(node) in taken:
                self._leave_out(node, taken[self._place(node)])
                continue
            taken[self._place(node)] = node.name
            chosen.append(node)
        return chosen

    def failed(self, node_id: str) -> None:
        """Note that a node could not be started."""
        self._failures[node_id] += 1

    def busy(self, node_id: str) -> None:
        """Note that another job holds a node, which says nothing against it."""
        self._busy_until_s[node_id] = self._clock() + BUSY_FOR_S

    def lost(self, node_id: str, *, finished: int) -> None:
        """Note that a node was lost after so many trials: one that finished some was no failure until then."""
        self._failures[node_id] = 0 if finished else self._failures[node_id] + 1

    def _place(self, node: RayNode) -> str:
        return node.node_id if self._emulated else node.address

    def _is_busy(self, node: RayNode) -> bool:
        return self._clock() < self._busy_until_s.get(node.node_id, 0.0)

    def _leave_out(self, node: RayNode, other: str) -> None:
        if node.node_id not in self._left_out:
            self._left_out.add(node.node_id)
            _LOG.warning(
                "left out: node %s is on the same host as node %s, and a machine measures one trial at a time",
                node.name,
                other,
            )
