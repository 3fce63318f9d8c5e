"""Growth of keeping the books: what a further trial takes, by the trials that a study has."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from growth_scale import Scale, course, growth
from overheads_bookkeeping import BOOKS, STEPS, Books
from overheads_figures import Entry
from overheads_resolving import timed

from autotune.registry import Registry, open_registry


def measure_books(scale: Scale, work: Path) -> dict[str, Entry]:
    """Add trials to studies of all sizes in turns, and time every step."""
    times: dict[str, dict[int, list[float]]] = {step: {size: [] for size in scale.trials} for step in STEPS}
    reading: dict[int, list[float]] = {size: [] for size in scale.trials}
    order = random.Random(0)
    with ExitStack() as stack:
        books = {size: stack.enter_context(_filled(work / str(size), size, scale)) for size in scale.trials}
        for number in range(scale.steps + 1):
            asking = number <= scale.asks
            for size in order.sample(list(books), len(books)):
                taken_ms = books[size][0].add(asking=asking)
                for step, ms in taken_ms.items():
                    if number and (asking or step != "ask"):  # the first one compiles statements
                        times[step][size].append(ms)
                if number <= scale.asks:
                    read_ms = 1000 * timed(lambda registry=books[size][1]: registry.records("books"))
                    reading[size].append(read_ms / size)
    sums = {size: [sum(parts) for parts in zip(*(times[step][size] for step in BOOKS), strict=True)] for size in books}
    return {
        "books": growth(sums, unit="ms a trial"),
        **{step: growth(times[step], unit="ms a trial") for step in BOOKS},
        "ask": course(times["ask"], unit="ms a trial"),
        "resume": course(reading, unit="ms for each record"),
    }


@contextmanager
def _filled(home: Path, size: int, scale: Scale) -> Iterator[tuple[Books, Registry]]:
    """Open books with so many trials in them."""
    with open_registry(home) as registry:
        books = Books(home, registry)
        tracked = min(size, scale.tracked)
        books.fill(size, tracked=tracked)
        copy_runs(home / "mlflow.db", size - tracked)
        yield books, registry


def copy_runs(file: Path, count: int) -> None:
    """Copy the trials' runs inside MLflow's database, each with a key of its own: telling takes 50 ms a run."""
    if not count:
        return
    connection = sqlite3.connect(file)
    connection.execute("CREATE TEMP TABLE made (old TEXT, new TEXT)")
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?), "
        "child(place, id) AS (SELECT row_number() OVER (), run_uuid FROM tags WHERE key = 'mlflow.parentRunId') "
        "INSERT INTO made SELECT child.id, lower(hex(randomblob(16))) FROM n JOIN child "
        "ON child.place = 1 + n.i % (SELECT count(*) FROM child)",
        (count,),
    )
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if "run_uuid" in names:
            changed = {"run_uuid": "made.new"}
            if table == "tags":
                changed["value"] = "CASE tags.key WHEN 'autotune.trial_key' THEN made.new ELSE tags.value END"
            taken = ", ".join(changed.get(name, f'{table}."{name}"') for name in names)
            connection.execute(
                f"INSERT INTO {table} SELECT {taken} FROM made JOIN {table} ON {table}.run_uuid = made.old"
            )
    connection.commit()
    connection.close()
