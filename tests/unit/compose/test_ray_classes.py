"""What is said of a cluster of which no node can measure."""

import pytest

from autotune.compose.ray_classes import _worst
from autotune.errors import DatasetError, MachineBusyError, MachineLostError, NoMachineError

BUSY, GONE = MachineBusyError("node a: held by process 1"), MachineLostError("node b is gone")


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
