"""Which faults a run of the tests has drilled: `pytest -m fault` ends in a table, one row a fault.

A test says which rows of `autotune.drill.faults.FAULTS` it causes by `@pytest.mark.fault(8)` or `(8, 31)`; without a
number it is a fault beyond the table.
"""

from collections import Counter
from pathlib import Path

import pytest

from autotune.drill.faults import FAULTS

PROPERTY = "fault_rows"
BEYOND = 0
OUTCOMES = ("passed", "failed", "skipped")


def pytest_addoption(parser):
    parser.addoption("--fault-report", type=Path, metavar="FILE", help="write the table of faults as Markdown")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        marks = list(item.iter_markers("fault"))
        rows = sorted({row for mark in marks for row in mark.args})
        unknown = [row for row in rows if row not in FAULTS]
        if unknown or any(mark.kwargs for mark in marks):
            raise pytest.UsageError(f"{item.nodeid}: rows of faults are 1 to {max(FAULTS)}, got {unknown or marks}")
        if marks:
            item.user_properties.append((PROPERTY, rows or [BEYOND]))


def tally(reports):
    """Count the outcomes of tests by row, and gather why some were skipped.

    Args:
        reports: Reports of all phases of all tests, which a parallel run hands over as well.
    """
    counts = {row: Counter() for row in (*FAULTS, BEYOND)}
    reasons = {row: set() for row in counts}
    worst = {}
    for report in reports:
        rows = dict(getattr(report, "user_properties", ())).get(PROPERTY, ())  # a module that is skipped has none
        known = worst.setdefault(report.nodeid, (rows, "passed"))
        if report.outcome != "passed" and known[1] != "failed":
            worst[report.nodeid] = (rows, report.outcome)
        if report.skipped and isinstance(report.longrepr, tuple):
            for row in rows:
                reasons[row].add(report.longrepr[2].removeprefix("Skipped: "))
    for rows, outcome in worst.values():
        for row in rows:
            counts[row][outcome] += 1
    return counts, reasons


def lines_of(counts, reasons):
    """Give the table as Markdown."""
    yield "| row | fault | passed | failed | skipped | promised | not run here |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row, count in counts.items():
        numbers = " | ".join(str(count[outcome]) for outcome in OUTCOMES)
        if row in FAULTS:
            about, why = FAULTS[row], "; ".join(sorted(reasons[row]))
            yield f"| {row} | {about.name} | {numbers} | {about.promise} | {why or ('' if count else 'no test ran')} |"
        elif count:
            yield f"| – | beyond the table | {numbers} | | {'; '.join(sorted(reasons[row]))} |"


def pytest_terminal_summary(terminalreporter, config):
    file = config.getoption("--fault-report")
    selected = config.getoption("markexpr").split()
    if file is None and selected[:1] != ["fault"]:
        return
    reports = [one for group in OUTCOMES for one in terminalreporter.stats.get(group, ())]
    reports += terminalreporter.stats.get("error", ())
    table = list(lines_of(*tally(reports)))
    terminalreporter.section("faults")
    for line in table:
        terminalreporter.line(line)
    if file is not None:
        file.write_text("\n".join(table) + "\n")
