"""What autotune costs beside the measuring: importing, resolving, loading, trials, tracking, keeping the books.

Examples:
    python studies/benchmarks/overheads.py --quick
    python studies/benchmarks/overheads.py --quick --json > overheads.json
    python studies/benchmarks/overheads.py --only import loader
    python studies/benchmarks/overheads.py --record

Everything that is compared takes turns in random order. A quick run takes under two minutes and uses small
registries and studies, so its figures say that all parts work, not what they cost; a full one takes a quarter of an
hour or more, and some 5 GB for the larger registry. The document has one key for each overhead, and `circumstances`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from overheads_bookkeeping import measure_books
from overheads_figures import FULL, QUICK, Entry, Scale
from overheads_resolving import measure_best_loader, measure_imports, measure_loader
from overheads_trials import measure_tracking, measure_trials

from autotune.machine import machine_facts

RECORDS = Path(__file__).resolve().parent.parent / "records"

PARTS: Mapping[str, Callable[[Scale, Path], dict[str, Entry]]] = {
    "import": measure_imports,
    "best_loader": measure_best_loader,
    "loader": measure_loader,
    "trial": measure_trials,
    "tracking": measure_tracking,
    "books": measure_books,
}


def main() -> None:
    """Measure, print, and with `--record` keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small registries and studies, few rounds")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--record", action="store_true", help="write JSON, Markdown and plot to studies/records/")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run; all by default")
    parser.add_argument("--work", type=Path, default=None, help="folder for registries and studies while it runs")
    options = parser.parse_args()
    document = run(options.only, QUICK if options.quick else FULL, options.work)
    if options.record:
        from overheads_report import write_records

        name = f"{document['circumstances']['measured_at'][:10]}-overheads"
        for path in write_records(document, RECORDS, name):
            print(f"written: {path.relative_to(RECORDS.parent.parent)}", file=sys.stderr)
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        from overheads_report import print_table

        print_table(document)


def run(parts: list[str], scale: Scale, work: Path | None) -> dict[str, Any]:
    """Run some parts one after another and put their entries together."""
    load, started_s = os.getloadavg()[0], time.monotonic()
    document: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="autotune-overheads-", dir=work) as folder:
        for name in parts:
            part_s = time.monotonic()
            document.update(PARTS[name](scale, Path(folder)))
            print(f"{name}: done in {time.monotonic() - part_s:.0f} s", file=sys.stderr)
    facts = machine_facts()
    document["circumstances"] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": facts.machine_class,
        "environment": facts.environment,
        "versions": dict(facts.versions),
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "took_s": time.monotonic() - started_s,
        "quick": scale is QUICK,
    }
    return document


if __name__ == "__main__":
    main()
