"""What can go wrong while measuring and training, and what is promised where it does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        name: What goes wrong.
        promise: What is promised then.
    """

    name: str
    promise: str


FAULTS: dict[int, Fault] = {
    1: Fault("worker killed", "the trial is told as crashed within 10 s, and the next one is measured"),
    2: Fault("worker hangs", "the trial times out, and no process survives it"),
    3: Fault("trial process killed", "it is recorded after one retry, and shared memory is clean"),
    4: Fault("tuner killed", "the study goes on: finished trials are kept, and none stays running"),
    5: Fault("killed between result and tracking", "MLflow gets exactly one run for each trial"),
    6: Fault("database stops", "the measurement is kept and written once"),
    7: Fault("database hangs", "the wait is bounded and ends in a clear error; leases are lost safely"),
    8: Fault("SQLite locked", "it is tried again, then a clear error says so, and no part of a row is there"),
    9: Fault("MLflow down, slow or broken", "measurements are as ever, and MLflow is told later"),
    10: Fault("disk full in an archive's build", "it is refused before or removed after, and no archive is seen"),
    11: Fault("disk full under the registry", "the failure is loud, and the old best is still served"),
    12: Fault("read error", "the error names the sample's path, and nothing is scored"),
    13: Fault("two nightly jobs at once", "the second ends with exit code 4 and names the first"),
    14: Fault("holder of a lease frozen past its end", "its late write is refused"),
    15: Fault("clock jumps", "durations and leases take no notice"),
    16: Fault("64 MB of shared memory", "it is predicted, or the reason given is shared memory"),
    17: Fault("few file descriptors", "the reason given is file descriptors"),
    18: Fault("limit of a control group's memory", "infeasible by the kernel's counter, and the parent lives"),
    19: Fault("accelerator out of memory", "infeasible, and the next trial is clean"),
    20: Fault("quota of CPUs", "1.5 CPUs count as 1, and throttling is recorded"),
    21: Fault("noisy neighbour", "disturbed windows are marked, and nothing is promoted for noise"),
    22: Fault("library forked with open handles", "it works, as handles are opened again, or is refused clearly"),
    23: Fault("damaged archive", "its checksum says so before it is measured, and plain files are read instead"),
    24: Fault("builder killed", "the archive is absent or whole, never half"),
    25: Fault("hostile tar", "it is refused, and nothing is written outside"),
    26: Fault("bomb", "limits of bytes and ratio stop it"),
    27: Fault("pickle in data", "it is refused, and its code does not run"),
    28: Fault("hostile study file", "the error names line and key"),
    29: Fault("hostile HTTP", "it is refused with its status, and the registry is as it was"),
    30: Fault("senseless results", "they are never the best, and the safe default comes with a reason"),
    31: Fault("registry damaged or absent", "best_loader warns and serves the safe default"),
    32: Fault("dataset changes under an archive", "the archive is stale: it is not used, and that is said"),
    33: Fault("random samples archived", "they are refused, with the staged form explained"),
    34: Fault("odd rasters", "they are read, or refused with a clear error before memory is taken"),
}
"""By the number of their row, under which tests and drills know them."""
