"""Every drill that is shipped: what is promised holds here."""

import pytest

from autotune.drill.faults import FAULTS
from autotune.drill.running import run_drill
from autotune.drill.table import DRILLS

SLOW = {1, 2, 3, 9, 12, 17, 24, 26, 34}
"""Rows whose drills start processes or write much."""


def marked(drill):
    marks = [pytest.mark.fault(drill.row), *([pytest.mark.slow] if drill.row in SLOW else [])]
    return pytest.param(drill, id=f"{drill.row} {FAULTS[drill.row].name}", marks=marks)


@pytest.mark.parametrize("drill", [marked(drill) for drill in DRILLS])
def test_what_is_promised_holds(drill):
    result = run_drill(drill)
    assert (result.row, result.state) == (drill.row, "held"), result.happened
    assert result.happened


def test_every_drill_has_a_row_of_its_own():
    rows = [drill.row for drill in DRILLS]
    assert rows == sorted(set(rows))
    assert set(rows) <= set(FAULTS)
