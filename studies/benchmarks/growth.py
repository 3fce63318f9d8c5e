"""How costs grow: of a trial with the trials there are, of resolving with the records, of an archive with its members.

Examples:
    python studies/benchmarks/growth.py --quick
    python studies/benchmarks/growth.py --parts resolver --json > resolver.json
    python studies/benchmarks/growth.py --record

Parts, each with a record of its own:
    save      what saving, telling and tracking a further trial take at 10, 1,000 and 10,000 trials; asking alone, as
              it grows with the sampler's history, and a study ends when its canonical points run out
    resolver  whole calls of `best_config` at 10, 10,000 and 1,000,000 records
    index     an archive of 1,000 to 1,000,000 members: building and opening it, and the memory of each worker

Sizes take turns in random order. A step is wanted to be near constant and a whole near linear: the largest size may
cost at most twice the smallest, whose interval has to lie below. A full run takes half an hour or more, and some 8 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from growth_books import measure_books
from growth_index import measure_index
from growth_resolver import measure_resolver
from growth_scale import FULL, QUICK, Scale
from overheads_figures import Entry

from autotune.machine import machine_facts

RECORDS = Path(__file__).resolve().parent.parent / "records"


@dataclass(frozen=True)
class Part:
    """One part of the benchmark.

    Attributes:
        measure: Gives its entries.
        versions: Packages whose versions matter beside those of the machine.
    """

    measure: Callable[[Scale, Path], dict[str, Entry]]
    versions: tuple[str, ...]


PARTS: Mapping[str, Part] = {
    "save": Part(measure_books, ("optuna", "mlflow", "sqlalchemy")),
    "resolver": Part(measure_resolver, ("sqlalchemy",)),
    "index": Part(measure_index, ()),
}


def main() -> None:
    """Measure, print, and with `--record` keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=_names, default=tuple(PARTS), help=f"some of {','.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: do all parts work")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--record", action="store_true", help="write JSON, Markdown and plot to studies/records/")
    parser.add_argument("--work", type=Path, default=None, help="folder for databases and archives while it runs")
    options = parser.parse_args()
    documents = {name: run(name, QUICK if options.quick else FULL, options.work) for name in options.parts}
    if options.record:
        from growth_report import write_records

        for name, document in documents.items():
            for path in write_records(name, document, RECORDS):
                print(f"written: {path.relative_to(RECORDS.parent.parent)}", file=sys.stderr)
    if options.json:
        print(json.dumps(documents, indent=1))
    else:
        from growth_report import markdown

        for name, document in documents.items():
            print(markdown(name, document))


def run(name: str, scale: Scale, work: Path | None) -> dict[str, Any]:
    """Run one part; give its entries with the circumstances."""
    load, started_s = os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="autotune-growth-", dir=work) as folder:
        document: dict[str, Any] = PARTS[name].measure(scale, Path(folder))
    took_s = time.monotonic() - started_s
    print(f"{name}: done in {took_s:.0f} s", file=sys.stderr)
    facts = machine_facts()
    document["circumstances"] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": facts.machine_class,
        "environment": facts.environment,
        "versions": {**facts.versions, **_versions(PARTS[name].versions)},
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "idle_priority": os.sched_getscheduler(0) == os.SCHED_IDLE,
        "took_s": took_s,
        "quick": scale is QUICK,
    }
    return document


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in names}


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"a part is one of {', '.join(PARTS)}, got {unknown[0]!r}")
    return names


if __name__ == "__main__":
    main()
