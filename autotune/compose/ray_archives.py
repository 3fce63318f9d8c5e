"""An archive built by the nodes of a Ray cluster: each runs the command that builds it, with a rank of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from autotune import __version__
from autotune.errors import MachineLostError, NoMachineError
from autotune.spec import StudySpec, Value
from autotune.spec.study_show import show_spec
from autotune.trial.ray import CONNECTED_WITHIN_S, RayCluster, RayNode

_MAIN = """\
import sys
from autotune.processes import die_with_parent
die_with_parent(int(sys.argv.pop(1)))
from autotune.cli import main
main()
"""
"""The command, in a process that ends with the node's: readers forked from a process of Ray's would copy its locks."""


_TOLD = ("name", "directory", "samples", "size_bytes", "build_s")
"""What the command tells of the archive that is told on."""


class BuildOrder(Value):
    """Driver to node.

    Attributes:
        version: Version of autotune that the driver has.
        study: The study file.
        options: Options of `autotune archive build`.
        folder: The driver's current folder, which is taken where it is there.
        sys_path: The driver's import path, of which the node takes what it has behind its own.
    """

    version: str
    study: str
    options: tuple[str, ...]
    folder: str
    sys_path: tuple[str, ...]


class NodeBuilt(Value):
    """What became of the archive on one node.

    Attributes:
        node: Name for people; the driver knows it.
        name: The archive, as `<fingerprint>/<format>-<form>`; None where the node has none.
        directory: Where it lies, on that node.
        samples: Samples in it.
        size_bytes: Its size.
        build_s: Seconds from the beginning to its end, others' work included; 0 where it was there already.
        failure: Why the node has none; None where it has one.
    """

    node: str = ""
    name: str | None = None
    directory: str | None = None
    samples: int = 0
    size_bytes: int = 0
    build_s: float = 0.0
    failure: str | None = None


def build_on_ray(
    spec: StudySpec,
    options: Sequence[str],
    address: str,
    *,
    told: Callable[[NodeBuilt], None],
    connected_within_s: float = CONNECTED_WITHIN_S,
) -> list[NodeBuilt]:
    """Have every node of a Ray cluster build an archive of the whole dataset of a study.

    Nodes that share a folder of archives divide the shards among them, and what a lost node had in hand is done by the
    others; nodes with folders of their own each build the whole archive there.

    Args:
        spec: The study.
        options: Options of `autotune archive build`, but for rank and world size.
        address: Of the cluster: `auto` is the one that this machine belongs to; else `host:port`.
        told: Is called with what became of it on a node, as each of them ends.
        connected_within_s: How long the cluster gets to answer.

    Returns:
        What became of it on each node.

    Raises:
        MissingExtraError: Ray is not installed.
        NoMachineError: There is no cluster, or it has no node that is up.
        SpecError: The dataset was given as an object, which no node can make.
    """
    order = BuildOrder(
        version=__version__,
        study=show_spec(spec),
        options=tuple(options),
        folder=str(Path.cwd()),
        sys_path=tuple(entry for entry in sys.path if entry),
    )
    found = []
    with closing(RayCluster(address, connected_within_s=connected_within_s)) as cluster:
        nodes = cluster.nodes()
        if not nodes:
            raise NoMachineError(f"the Ray cluster at {address!r} has no node that is up; `ray status` tells why")
        orders = {
            node: order.replace(options=(*options, "--rank", str(rank), "--world-size", str(len(nodes)))).to_json()
            for rank, node in enumerate(nodes)
        }
        for node, answer in cluster.call_each(run_builder, orders):
            found.append(_built(node, answer))
            told(found[-1])
    return found


def _built(node: RayNode, answer: str | MachineLostError) -> NodeBuilt:
    if isinstance(answer, MachineLostError):
        return NodeBuilt(node=node.name, failure=str(answer))
    return NodeBuilt.from_json(answer).replace(node=node.name)


def run_builder(order: str) -> str:
    """Run the command on this node; gives a `NodeBuilt`."""
    told = BuildOrder.from_json(order)
    if told.version != __version__:
        return NodeBuilt(
            failure=f"it has autotune {__version__}, the driver {told.version}; install the same version on both"
        ).to_json()
    with TemporaryDirectory(prefix="autotune-build-") as folder:
        study = Path(folder) / "study.yaml"
        study.write_text(told.study)
        return _answer(_run(told, study)).to_json()


def _run(told: BuildOrder, study: Path) -> subprocess.CompletedProcess[str]:
    path = dict.fromkeys([*(entry for entry in sys.path if entry), *told.sys_path])
    return subprocess.run(
        [sys.executable, "-P", "-c", _MAIN, str(os.getpid()), "archive", "build", str(study), *told.options, "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        cwd=told.folder if Path(told.folder).is_dir() else None,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _answer(done: subprocess.CompletedProcess[str]) -> NodeBuilt:
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        why = lines[-1].removeprefix("error: ") if lines else f"the builder ended with exit code {done.returncode}"
        return NodeBuilt(failure=why)
    told = json.loads(done.stdout)
    return NodeBuilt.model_validate({name: told[name] for name in _TOLD})
