"""Load on the HTTP resolver: requests a second and their times, by clients on the machine of the service.

Examples:
    python studies/benchmarks/resolver_load.py --quick
    python studies/benchmarks/resolver_load.py --storage postgresql://me@127.0.0.1/bench --record

The service runs as `autotune serve` in a process of its own, over a registry of 100,000 records, and the clients in
another one; all share the machine's cores. Rows: each of 800 questions asked once, which are answered from the tables;
then each client asks one of them, drawn at random, after another, over a connection that is kept, over one made for
each request, and over a kept one while a decision is deployed every second, with which the answers about its dataset
are void. `--storage` names an empty database; without it, a PostgreSQL server is started for the run where its programs
are installed. Reached is: at least 500 requests a second and no error, in each row but the first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resolver_load_registry import DECISIONS_OF_ONE_STUDY, STUDIES, decide, fill, questions

from autotune.machine import machine_facts
from autotune.registry import open_registry
from autotune.registry.engine import place_of, registry_url
from autotune.service.tokens import digest_of, new_token
from autotune.spec import AccessToken

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "studies" / "records"
WANTED_PER_S = 500.0
ROWS = {
    "first": "each question for the first time",
    "kept": "connections are kept",
    "new": "a connection each",
    "deciding": "kept, a decision every second",
}


def main() -> None:
    """Measure, print, and record where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000, help="trial records in the registry")
    parser.add_argument("--clients", type=int, default=16, help="clients at a time")
    parser.add_argument("--seconds", type=float, default=20.0, help="time of each row")
    parser.add_argument("--storage", default=None, help="address of an empty database; sqlite is a file for the run")
    parser.add_argument("--quick", action="store_true", help="2,000 records in SQLite, 2 s a row: do all parts work")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--record", action="store_true", help="write JSON and Markdown to studies/records/")
    options = parser.parse_args()
    if options.quick:
        options.records, options.seconds, options.storage = 2000, 2.0, "sqlite"
    document = run(options)
    print(json.dumps(document, indent=1) if options.json else as_markdown(document))
    if options.record:
        print(f"written: {record(document)}", file=sys.stderr)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Fill a registry, serve it, and measure each row."""
    with tempfile.TemporaryDirectory(prefix="autotune-load-") as folder, _storage(options.storage) as url:
        home, token = Path(folder), new_token()
        started_s = time.monotonic()
        fill(home, url, options.records)
        with open_registry(home, url) as registry:
            allowed = AccessToken(name="load", scopes=("read",), created_at=datetime.now(UTC))
            registry.add_token(digest_of(token), allowed)
        print(f"filled in {time.monotonic() - started_s:.0f} s", file=sys.stderr)
        load = os.getloadavg()[0]
        with _served(home, url) as port:
            job = {"port": port, "token": token, "questions": questions(), "clients": options.clients}
            rows = {
                "first": _row({**job, "seconds": None, "keeps": True}),
                "kept": _row({**job, "seconds": options.seconds, "keeps": True}),
                "new": _row({**job, "seconds": options.seconds, "keeps": False}),
            }
            with _deciding(home, url):
                rows["deciding"] = _row({**job, "seconds": options.seconds, "keeps": True})
        facts, place = machine_facts(accelerator=False), place_of(registry_url(home, url))
        return {
            "benchmark": "resolver_load",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": facts.machine_class,
            "environment": facts.environment,
            "versions": dict(facts.versions),
            "registry": "PostgreSQL" if place.startswith("postgresql") else "SQLite",
            "records": options.records,
            "clients": options.clients,
            "questions": len(job["questions"]),
            "load_average": [load, os.getloadavg()[0]],
            "rows": rows,
            "reached": _is_reached(rows),
        }


def _is_reached(rows: dict[str, dict[str, Any]]) -> bool:
    """Tell whether no request failed, and enough were answered in each row but that of the first answers."""
    fast = all(row["requests_per_s"] >= WANTED_PER_S for name, row in rows.items() if name != "first")
    return fast and not any(row["errors"] for row in rows.values())


@contextlib.contextmanager
def _storage(named: str | None) -> Iterator[str | None]:
    """Give the address of an empty database; None is SQLite in the home folder."""
    if named is not None:
        yield None if named == "sqlite" else named
        return
    sys.path.append(str(ROOT / "tests" / "support"))
    import postgresql_server

    reason = postgresql_server.why_not()
    if reason:
        raise SystemExit(f"no PostgreSQL server can be started: {reason}; name a database with --storage")
    with postgresql_server.running_server() as server:
        yield server.new_database("load")


@contextlib.contextmanager
def _served(home: Path, url: str | None) -> Iterator[int]:
    environ = {**os.environ, "AUTOTUNE_HOME": str(home), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    environ.pop("AUTOTUNE_STORAGE", None)
    if url is not None:
        environ["AUTOTUNE_STORAGE"] = url
    command = "from autotune.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve", "--port", "0", "--rate", "1000000/second"],
        env=environ, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        told = process.stderr.readline() if process.stderr else ""
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", told)
        if found is None:
            raise SystemExit(f"the service did not start: {told}")
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextlib.contextmanager
def _deciding(home: Path, url: str | None) -> Iterator[None]:
    """Deploy another configuration of some study every second."""
    ended = threading.Event()

    def work() -> None:
        nth = 0
        with open_registry(home, url) as registry:
            while not ended.wait(1.0):
                decide(registry, nth % STUDIES, DECISIONS_OF_ONE_STUDY + nth)
                nth += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _clients(job: dict[str, Any]) -> dict[str, Any]:
    script = Path(__file__).with_name("resolver_load_clients.py")
    done = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(job), capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def _row(job: dict[str, Any]) -> dict[str, Any]:
    """Run the clients once; times are in milliseconds."""
    found = _clients(job)
    ms = sorted(1000 * each for each in found["seconds"])
    errors = {status: count for status, count in found["statuses"].items() if status != "200"}

    def at(share: float) -> float:
        return ms[min(len(ms) - 1, int(share * len(ms)))]

    return {
        "requests": len(ms),
        "requests_per_s": len(ms) / found["took_s"],
        "errors": errors,
        "ms": {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": ms[-1]},
    }


def as_markdown(document: dict[str, Any]) -> str:
    """Write the result as a table."""
    about = (
        f"{document['machine']}; {document['registry']}, {document['records']:,} records; "
        f"{document['clients']} clients, {document['questions']} questions; "
        f"load {document['load_average'][0]:.1f} before, {document['load_average'][1]:.1f} after"
    )
    lines = [
        about,
        "",
        "| clients | requests/s | p50 ms | p95 ms | p99 ms | longest ms | errors |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in document["rows"].items():
        ms = row["ms"]
        errors = ", ".join(f"{count} x {status}" for status, count in row["errors"].items()) or "none"
        times = " | ".join(f"{ms[key]:.1f}" for key in ("p50", "p95", "p99", "max"))
        lines.append(f"| {ROWS[name]} | {row['requests_per_s']:,.0f} | {times} | {errors} |")
    reached = "reached" if document["reached"] else "NOT reached"
    return "\n".join([*lines, "", f"At least {WANTED_PER_S:.0f} requests/s with no error: {reached}.", ""])


def record(document: dict[str, Any]) -> Path:
    """Write the dated record, as JSON and as Markdown."""
    day = document["at"][:10]
    path = RECORDS / f"{day}-resolver-load.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    path.with_suffix(".md").write_text(f"# Load on the resolver, {day}\n\n{as_markdown(document)}")
    return path


if __name__ == "__main__":
    main()
