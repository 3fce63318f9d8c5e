"""How fast the same samples are read from every archive format and cache, ours and the packages'.

    python studies/benchmarks/archives.py [--workload A] [--samples 2000] [--rounds 3] [--seconds 1.0]
        [--rivals-python PATH] [--out studies/records] [--quick]

Every measurement is one process, forked from this one; the order is drawn anew in each round. A window is whole
epochs for every row. Before the first round each row is read once and compared with the plain files by checksum.
Packages that disturb this environment (litdata, MONAI) run under `--rivals-python`; without it they are left out.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from archives_ours import our_rows, ours_to_build
from archives_packages import array_rows, package_rows, packages_to_write, rival_rows
from archives_report import write_records
from archives_runs import Rivals, RunFailedError, State, build, digest, folder_bytes, in_fork, measure, write
from archives_setting import FILES, SCANNED, Row, Setting
from archives_workloads import REAL_DATA, WORKLOADS, Place, stored_forms

from autotune.machine import machine_facts
from autotune.measure.pagecache import prepare_page_cache

RECORDS = Path(__file__).resolve().parent.parent / "records"
_BUILD_WORKERS = (0, 1, 2)
_FULL_BUILD_WORKERS = 2
_QUICK = {"samples": 60, "rounds": 2, "seconds": 0.1, "build_samples": 40}
_PRELOADED = ("h5py", "lmdb", "webdataset", "zstandard", "rasterio", "tifffile", "PIL.Image", "simplejpeg", "cv2")
"""Imported before anything is forked, so that no epoch pays for it; none of them opens a file by that."""
_VERSIONS = ("webdataset", "h5py", "lmdb", "zstandard", "diskcache", "tifffile", "imagecodecs")


class Benchmark:
    """One run of everything.

    Attributes:
        document: What was found so far, as the record keeps it.
    """

    def __init__(self, setting: Setting, options: argparse.Namespace) -> None:
        self.setting = setting
        self.options = options
        self.rivals = Rivals(options.rivals_python) if options.rivals_python else None
        self._started_s = time.monotonic()
        self.document: dict[str, Any] = {"runs": [], "builds": [], "full_builds": [], "checks": [], "left_out": []}

    def run(self) -> None:
        """Build, check and measure."""
        offer = self._fork(partial(_look, self.setting), self.options.build_timeout)
        if self.rivals is None:
            self._leave_out("litdata and MONAI", "no --rivals-python")
        else:
            self.document["rivals_versions"] = self.rivals.ask({"do": "versions"}, self.options.timeout)
        self._build_all(offer.stored)
        self._time_builds()
        self._measure_all(self._checked(self._chosen(offer)))

    def close(self) -> None:
        """End the rivals' process."""
        if self.rivals is not None:
            self.rivals.close()

    # Building

    def _build_all(self, stored: Sequence[str]) -> None:
        """Write everything that is read later, once, and note seconds and bytes."""
        forms, missing = ours_to_build(stored)
        packages, absent = packages_to_write(stored)
        self.document["left_out"] += missing + absent
        for form in forms:
            if self.options.formats and form[0] not in (*self.options.formats, "npy"):
                continue
            directory, workers = self.setting.archive(form), _FULL_BUILD_WORKERS
            call = partial(build, self.setting, form, directory, samples=self.setting.samples, workers=workers)
            self._note_build(call, directory, family="ours", name=" ".join(form), workers=workers)
        for one in packages:
            directory = self.setting.plain(one.name, one.stored)
            call = partial(write, self.setting, one, directory)
            self._note_build(call, directory, family="package", name=f"{one.name} {one.stored}", workers=0)
        if self.rivals is not None:
            for workers in (1, 2):
                directory = self.setting.plain("litdata", "decoded")
                shutil.rmtree(directory, ignore_errors=True)
                call = partial(self._litdata, workers)
                self._note_build(call, directory, family="package", name="litdata decoded", workers=workers)

    def _litdata(self, workers: int) -> dict[str, float]:
        if self.rivals is None:
            raise RunFailedError("no --rivals-python")
        directory = self.setting.plain("litdata", "decoded")
        took: dict[str, float] = self.rivals.ask(
            {**self._rival_request(), "do": "build", "workers": workers}, self.options.build_timeout
        )
        return {**took, "bytes": folder_bytes(directory)}

    def _note_build(self, call: Callable[[], Any], directory: Path, *, family: str, name: str, workers: int) -> None:
        elsewhere = name.startswith("litdata")
        try:
            took = call() if elsewhere else self._fork(call, self.options.build_timeout)
        except RunFailedError as error:
            shutil.rmtree(directory, ignore_errors=True)
            self._leave_out(f"{name} (built with {workers} workers)", str(error))
            return
        entry = {"family": family, "name": name, "workers": workers, "samples": self.setting.samples, **took}
        self.document["full_builds"].append(entry)
        self._tell(f"built {name}: {took['seconds']:.1f} s, {took['bytes'] / 1e6:.0f} MB")

    def _time_builds(self) -> None:
        """Build each format with 0, 1 and 2 workers in random order, and throw the archives away."""
        forms = [tuple(entry["name"].split()) for entry in self.document["full_builds"] if entry["family"] == "ours"]
        order = random.Random(self.setting.seed)
        samples = min(self.options.build_samples or self.setting.samples, self.setting.samples)
        directory = self.setting.place.work / "building"
        for number in range(self.options.build_rounds):
            jobs = [(form, workers) for form in forms for workers in _BUILD_WORKERS]
            for form, workers in order.sample(jobs, len(jobs)):
                call = partial(build, self.setting, form, directory, samples=samples, workers=workers)
                try:
                    took = self._fork(call, self.options.build_timeout)
                except RunFailedError as error:
                    self._leave_out(f"build of {' '.join(form)} with {workers} workers", str(error))
                    continue
                entry = {"name": " ".join(form), "workers": workers, "samples": samples, "round": number, **took}
                self.document["builds"].append(entry)
            self._tell(f"builds, round {number + 1} of {self.options.build_rounds}")
        shutil.rmtree(directory, ignore_errors=True)

    # Checking

    def _chosen(self, offer: _Offer) -> list[Row]:
        """Give the rows that were asked for and whose files were built."""
        built = self.document["full_builds"]
        forms = [tuple(entry["name"].split()) for entry in built if entry["family"] == "ours"]
        rows, missing = our_rows(forms, offer.decoders)
        rows += [*package_rows(offer.stored, forms), *(rival_rows() if self.rivals else [])]
        rows += array_rows() if ("npy", "decoded") in forms else []
        self.document["left_out"] += missing
        self.document["rows"] = [{"name": row.name, "family": row.family, "against": row.against} for row in rows]
        wanted = [*self.options.rows, FILES] if self.options.rows else ["*"]
        left = [row for row in rows if _matches(row.name, wanted)]
        return [row for row in left if row.name == FILES or not _matches(row.name, self.options.skip)]

    def _checked(self, rows: list[Row]) -> list[Row]:
        """Read each row once and keep those that give the content of the plain files."""
        expected: dict[str, int] | None = None
        sound = []
        for row in rows:
            try:
                found = self._digest(row)
            except RunFailedError as error:
                self._leave_out(row.name, f"could not be read: {error}")
                continue
            expected = expected or found  # the plain files are the first row
            self.document["checks"].append({"row": row.name, **found})
            if row.name != SCANNED and found != expected:
                self._leave_out(row.name, f"gives {_content(found)}, the plain files {_content(expected)}")
                continue
            sound.append(row)
        self._tell(f"{len(sound)} of {len(rows)} rows read, content equal")
        return sound

    def _digest(self, row: Row) -> dict[str, int]:
        if row.rival is None:
            found: dict[str, int] = self._fork(partial(digest, row, self.setting))
        else:
            found = self._ask(row, {"do": "check", "workers": 0})
        return found

    # Measuring

    def _measure_all(self, rows: list[Row]) -> None:
        order = random.Random(self.setting.seed)
        jobs = list(_jobs(rows, self.options.workers, self.options.cold_workers))
        failed: set[tuple[str, str, int]] = set()
        for number in range(self.options.rounds):
            for done, (row, state, workers) in enumerate(order.sample(jobs, len(jobs)), 1):
                self._tell(f"round {number + 1}/{self.options.rounds}, {done}/{len(jobs)}: {row.name}", passing=True)
                if (row.name, state, workers) in failed:
                    continue
                entry = {"row": row.name, "state": state, "workers": workers, "round": number}
                try:
                    found = self._measured(row, state, workers)
                except RunFailedError as error:
                    failed.add((row.name, state, workers))
                    self._leave_out(f"{row.name}, {state}, {workers} workers", str(error))
                    continue
                self.document["runs"].append({**entry, **found})
        self._tell(f"{len(self.document['runs'])} measurements")

    def _measured(self, row: Row, state: State, workers: int) -> dict[str, Any]:
        if row.rival is None:
            measured: dict[str, Any] = self._fork(partial(measure, row, self.setting, state, workers))
            return measured
        files = row.files(self.setting) if row.files else []
        reached, share = prepare_page_cache(files, state) if files else ("none read", None)
        found = self._ask(row, {"do": "measure", "state": state, "workers": workers, "seconds": self.setting.seconds})
        seconds = sum(window["seconds"] for window in found["windows"])
        samples = sum(window["samples"] for window in found["windows"])
        if samples % self.setting.samples:
            raise RunFailedError(f"epochs must have {self.setting.samples} samples, got {samples} in all")
        return {**found, "samples_per_s": samples / seconds, "page_cache": reached, "resident_share": share}

    def _ask(self, row: Row, request: dict[str, Any]) -> Any:
        if self.rivals is None:
            raise RunFailedError("no --rivals-python")
        return self.rivals.ask({**self._rival_request(), "row": row.rival, **request}, self.options.timeout)

    def _rival_request(self) -> dict[str, Any]:
        return {
            "leaves": [str(path) for path in self.setting.leaves],
            "samples": self.setting.samples,
            "batch": self.setting.batch,
            "directory": str(self.setting.plain("litdata", "decoded")),
        }

    # Around

    def _fork(self, call: Callable[[], Any], timeout_s: float | None = None) -> Any:
        return in_fork(call, timeout_s or self.options.timeout)

    def _leave_out(self, what: str, why: str) -> None:
        self.document["left_out"].append(f"{what}: {why}")
        self._tell(f"left out: {what}: {why}")

    def _tell(self, text: str, *, passing: bool = False) -> None:
        if passing and not sys.stderr.isatty():
            return
        print(f"[{time.monotonic() - self._started_s:6.1f} s] {text}", file=sys.stderr, flush=True)


def _content(found: dict[str, int]) -> str:
    return f"{found['count']:,} samples of content {found['digest']:x}"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


class _Offer(NamedTuple):
    """What a dataset offers: forms in which its samples can be stored, and decoders, its own first."""

    stored: tuple[str, ...]
    decoders: tuple[str, ...]


def _look(setting: Setting) -> _Offer:
    """Draw the files where they are missing, and see what the dataset offers."""
    source = setting.source()
    return _Offer(stored_forms(source), tuple(getattr(source, "decoders", ())))


def _jobs(rows: list[Row], warm: Sequence[int], cold: Sequence[int]) -> list[tuple[Row, State, int]]:
    """Give every measurement of a round; what reads no files has no cold one."""
    jobs: list[tuple[Row, State, int]] = []
    for row in rows:
        counts: tuple[tuple[State, Sequence[int]], ...] = (("warm", warm), ("cold", cold if row.files else ()))
        for state, workers in counts:
            jobs += [(row, state, count) for count in workers if row.most_workers is None or count <= row.most_workers]
    return jobs


def main() -> None:
    """Measure and write the record."""
    options = _options()
    for name in _PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    gc.freeze()  # collections in the children would otherwise copy every page
    options.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="archives-", dir=options.work))
    setting = Setting(
        workload=options.workload,
        samples=options.samples,
        batch=options.batch,
        place=Place(work=work, real=options.real_data),
        seconds=options.seconds,
        seed=options.seed,
    )
    benchmark = Benchmark(setting, options)
    started_at, load = datetime.now(UTC), os.getloadavg()
    try:
        benchmark.run()
    finally:
        benchmark.close()
        shutil.rmtree(work, ignore_errors=True)
    document = {
        "benchmark": "archives",
        "at": started_at.isoformat(timespec="seconds"),
        "took_s": (datetime.now(UTC) - started_at).total_seconds(),
        "workload": {"name": setting.workload, "title": WORKLOADS[setting.workload].title, "batch": setting.batch},
        "samples": setting.samples,
        "rounds": options.rounds,
        "seconds": setting.seconds,
        "machine": machine_facts(accelerator=False).model_dump(mode="json"),
        "versions": _versions(),
        "load_average_before": load,
        "load_average_after": os.getloadavg(),
        **benchmark.document,
    }
    name = f"{started_at:%Y-%m-%d}-archives{'' if setting.workload == 'A' else f'-{setting.workload}'}"
    for path in write_records(document, options.out, name):
        print(path)


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=tuple(WORKLOADS), default="A")
    parser.add_argument("--samples", type=int, help="samples (default: the workload's own)")
    parser.add_argument("--batch", type=int, default=32, help="batch size of every row")
    parser.add_argument("--rounds", type=int, help="rounds, at least 2 (default 3)")
    parser.add_argument("--seconds", type=float, help="seconds in windows of a measurement (default 1.0)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="worker counts, warm")
    parser.add_argument("--cold-workers", type=int, nargs="*", help="worker counts, cold (default: as warm)")
    parser.add_argument("--rows", nargs="+", default=[], help="patterns of rows; the plain files are always read")
    parser.add_argument("--skip", nargs="+", default=[], help="patterns of rows that are not measured")
    parser.add_argument("--formats", nargs="+", default=[], help="formats of ours; npy is always built")
    parser.add_argument("--build-samples", type=int, help="samples of the timed builds (default: all)")
    parser.add_argument("--build-rounds", type=int, help="rounds of the timed builds (default: --rounds)")
    parser.add_argument("--rivals-python", type=Path, help="Python of an environment with litdata and monai")
    parser.add_argument("--real-data", type=Path, default=REAL_DATA, help="folder of real data (workloads R and I)")
    parser.add_argument("--out", type=Path, default=RECORDS, help="folder of the record")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="folder of what is generated")
    parser.add_argument("--timeout", type=float, default=120.0, help="longest measurement in seconds")
    parser.add_argument("--build-timeout", type=float, default=900.0, help="longest build in seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a tiny run that only shows that everything works")
    options = parser.parse_args()
    usual = {"samples": None, "rounds": 3, "seconds": 1.0, "build_samples": None}
    for name, value in (_QUICK if options.quick else usual).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.samples is None:
        options.samples = WORKLOADS[options.workload].samples
    options.build_rounds = options.rounds if options.build_rounds is None else options.build_rounds
    options.cold_workers = options.workers if options.cold_workers is None else options.cold_workers
    if options.rounds < 2:
        parser.error(f"an interval needs at least 2 rounds, got {options.rounds}")
    return options


if __name__ == "__main__":
    main()
