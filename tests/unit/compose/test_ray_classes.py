"""Which nodes of a cluster measure together, and what is said where none can."""

import pytest
from study_records import DATASET, MACHINE

from autotune.compose.ray_classes import _check_alike, _worst
from autotune.errors import ConflictError, DatasetError, MachineBusyError, MachineLostError, NoMachineError
from autotune.spec import Inspection

SEEN = Inspection(dataset=DATASET, machine=MACHINE, sample_structure="x", sample_bytes=1, largest_sample_bytes=1)
BUSY, GONE = MachineBusyError("node a: held by process 1"), MachineLostError("node b is gone")


def other(**versions):
    return SEEN.replace(machine=MACHINE.replace(host="other", versions=versions))


def test_nodes_with_another_dataset_do_not_measure_for_the_same_study():
    smaller = SEEN.replace(dataset=DATASET.replace(length=599))
    with pytest.raises(ConflictError, match=r"599 samples of x\) than node host \(600"):
        _check_alike(SEEN, smaller)


def test_minor_versions_may_differ_and_major_ones_may_not():
    _check_alike(other(torch="2.6.0"), other(torch="2.9.1"))
    with pytest.raises(ConflictError, match=r"torch 3.0.0\) than node other \(torch 2.6.0"):
        _check_alike(other(torch="2.6.0"), other(torch="3.0.0"))


@pytest.mark.parametrize(
    ("errors", "kind", "said"),
    [
        ([BUSY, GONE, DatasetError("node c: no such file")], DatasetError, "node c: no such file"),
        ([BUSY, BUSY], MachineBusyError, "held by process 1"),
        ([BUSY, GONE], NoMachineError, "can measure: node a: held by process 1; node b is gone"),
        ([], NoMachineError, "it has none that is up"),
    ],
)
def test_a_cluster_of_which_no_node_can_measure_says_why(errors, kind, said):
    worst = _worst(errors)
    assert type(worst) is kind
    assert said in str(worst)
