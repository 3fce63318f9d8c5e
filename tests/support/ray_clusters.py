"""Ray clusters of several nodes on this host, as small as they get."""

import os
import shutil
import tempfile
from contextlib import contextmanager

SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@contextmanager
def ray_cluster(nodes, *, cpus=()):
    """Start a cluster, and end it with everything that it left.

    Args:
        nodes: How many nodes are up.
        cpus: For the last ones of them, the CPUs that they may use: machines of another class.
    """
    from ray.cluster_utils import Cluster

    # Ray's sockets lie there, and their paths have 107 bytes at most
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    os.environ["RAY_TMPDIR"] = folder
    cluster = Cluster(initialize_head=True, head_node_args=SMALL)
    try:
        for place in range(1, nodes):
            left = nodes - place
            with _only(cpus[-left] if left <= len(cpus) else os.sched_getaffinity(0)):
                cluster.add_node(**SMALL)
        yield cluster
    finally:
        cluster.shutdown()
        del os.environ["RAY_TMPDIR"]
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _only(cpus):
    """Have processes that start now use some CPUs alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
