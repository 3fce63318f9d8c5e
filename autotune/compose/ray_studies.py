"""Studies that the nodes of a Ray cluster measure for: one for each class of machines, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

from autotune.compose.class_studies import ClassesListener, ClassStudies, decided
from autotune.compose.driving import driven
from autotune.compose.places import Places
from autotune.compose.ray_classes import NODE_AWAITED_S, RayClasses
from autotune.compose.running import settle_interrupted
from autotune.registry import check_separate, registry_address
from autotune.spec import StudySpec, StudySummary
from autotune.trial.payload import pickled
from autotune.trial.ray import CONNECTED_WITHIN_S, RayCluster

_LOOKED_EVERY_S = 1.0


def tune_on_ray(
    spec: StudySpec,
    address: str,
    *,
    at: Places,
    listener: ClassesListener,
    own_home: Path | None = None,
    payload: Mapping[str, Any] | None = None,
    node_awaited_s: float = NODE_AWAITED_S,
    connected_within_s: float = CONNECTED_WITHIN_S,
    emulated: bool = False,
) -> dict[str, StudySummary]:
    """Run a study on the nodes of a Ray cluster, from start or from where a killed driver left it.

    This process asks, keeps and tells; nothing else has a connection to Optuna or the registry. Its own machine
    measures where it is a node.

    Args:
        spec: The study.
        address: Of the cluster: `auto` is the one that this machine belongs to; else `host:port`.
        at: Where everything is kept here.
        listener: Is told how it goes.
        own_home: Folder for archives and caches on the nodes too; None leaves them their own.
        payload: Objects without a dotted path: `dataset`, `step`, `collate_fn`.
        node_awaited_s: How long it waits for a node once the last one of a class is lost.
        connected_within_s: How long the cluster gets to answer.
        emulated: Whether nodes of one host count as machines of their own, for tests and benchmarks of clusters;
            their records say so. Else one node of each host measures.

    Returns:
        How it ended for each class of machines that was decided, that of most machines first.

    Raises:
        MissingExtraError: Ray is not installed.
        NoMachineError: There is no cluster, no node that can measure, or none was left.
        MachineBusyError: Other jobs hold all nodes, or another process drives the study.
        DatasetError: The dataset can be read on no node.
    """
    check_separate(registry_address(at.home, at.registry_url), at.optuna_url, at.tracking_uri)
    sent = None if payload is None else pickled(payload)
    with (
        driven(spec.name, at) as registry,
        closing(RayCluster(address, connected_within_s=connected_within_s)) as cluster,
        ThreadPoolExecutor(thread_name_prefix="study") as threads,
        RayClasses(
            cluster, spec, at=at, own_home=own_home, payload=sent, awaited_s=node_awaited_s, emulated=emulated
        ) as classes,
    ):
        settle_interrupted(spec, registry, at)
        studies = ClassStudies(spec, at=at, registry=registry, listener=listener)
        return decided(_ended(studies, classes, threads, listener), spec.name)


def _ended(
    studies: ClassStudies, classes: RayClasses, threads: ThreadPoolExecutor, listener: ClassesListener
) -> dict[str, Future[StudySummary]]:
    """Run a study for each class, also for one whose first node joins meanwhile, until all that began have ended."""
    begun: dict[str, Future[StudySummary]] = {}
    shown = None
    while True:
        present = classes.present()
        if present != shown:
            shown = present
            listener.on_machines(present)
        for name in sorted(present.keys() - begun.keys(), key=lambda name: -present[name]):
            begun[name] = threads.submit(studies.decide, classes.pools[name], classes.inspections[name])
        if not wait(begun.values(), timeout=_LOOKED_EVERY_S).not_done:
            return begun
