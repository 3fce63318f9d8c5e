"""Every fault of the table has a test that says so."""

import ast
from pathlib import Path

import pytest

from autotune.drill.faults import FAULTS
from autotune.drill.table import DRILLS

TESTS = Path(__file__).resolve().parent.parent.parent


def rows_of(path):
    """Give the rows that the marks of a file name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


def test_every_row_has_a_test_of_its_own():
    found = {row for path in TESTS.rglob("test_*.py") for row in rows_of(path)}
    found |= {drill.row for drill in DRILLS}  # each of which is a test
    assert found == set(FAULTS) == set(range(1, 35))


def test_a_mark_of_a_row_that_is_not_there_stops_the_run(pytester):
    pytester.makeconftest('pytest_plugins = ("fault_report",)')
    pytester.makepyfile("import pytest\n@pytest.mark.fault(35)\ndef test_it(): pass\n")
    run = pytester.runpytest("-p", "no:cacheprovider")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["*rows of faults are 1 to 34, got *35*"])


def test_the_table_counts_each_test_once_by_its_worst_outcome(pytester):
    pytester.makeconftest('pytest_plugins = ("fault_report",)')
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def breaking():
            yield
            raise AssertionError

        @pytest.mark.fault(8, 31)
        def test_both(): pass

        @pytest.mark.fault(8)
        def test_teardown_fails(breaking): pass

        @pytest.mark.fault(19)
        def test_elsewhere(): pytest.skip("there is no accelerator")

        @pytest.mark.fault
        def test_another(): pass
        """
    )
    run = pytester.runpytest("-m", "fault", "--fault-report", "table.md", "-p", "no:cacheprovider")
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    table = (pytester.path / "table.md").read_text()
    cells = {line.split(" | ")[0]: line.split(" | ")[2:5] for line in table.splitlines()}
    assert (cells["| 8"], cells["| 31"]) == (["1", "1", "0"], ["1", "0", "0"])
    assert (cells["| 19"], cells["| –"]) == (["0", "0", "1"], ["1", "0", "0"])
    assert "there is no accelerator" in table
    run.stdout.fnmatch_lines(["*| 1 | worker killed | 0 | 0 | 0 *no test ran*"])
