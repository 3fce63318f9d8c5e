"""`SmallerMachine`: the fewest CPUs and bytes that keep a consumer fed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from autotune.spec.base import Value
from autotune.spec.config import LoaderConfig


class SmallerMachine(Value):
    """The smallest machine that keeps the consumer waiting for no more than the target share of its time.

    Attributes:
        cpus: Fewest CPUs that do by what was run and predicted; `of_cpus` where fewer do not do, or not even these do.
        of_cpus: CPUs of the machine.
        fed: Whether any number of them keeps the wait under the target.
        state: `verified` was run with just these CPUs, and where all are needed with one less; `predicted` follows from
            the CPU time of runs with all of them.
        limited_by: What kept the verifying run to its CPUs: a control group's quota, or affinity; None where all were
            used, or none was made.
        config: The configuration, the one with the fewest bytes among those that do with these CPUs.
        busy_cpus: CPUs that it kept busy with all of them at hand.
        samples_per_s: Its rate in the verifying run, else with all CPUs.
        data_wait_share: Share of its time that the consumer waited there.
        target_share: The share that it may wait.
        host_bytes: Proportional set size of the process tree there; None is unknown.
        archive_bytes: Bytes of the archive that it reads; 0 for plain files.
        cache_bytes: Bytes of its cache; those of a memory cache are in `host_bytes` as well.
        too_few: Most CPUs below `cpus` with which a run showed that they do not do; None without such a run.
        too_few_config: The configuration of that run; of two the one that needs less CPU time.
        too_few_wait_share: Share of its time that the consumer waited then; at most the target where it was itself
            slowed down.
    """

    cpus: int = Field(ge=1)
    of_cpus: int = Field(ge=1)
    fed: bool = True
    state: Literal["predicted", "verified"]
    limited_by: Literal["quota", "affinity"] | None = None
    config: LoaderConfig
    busy_cpus: float = Field(ge=0)
    samples_per_s: float = Field(gt=0)
    data_wait_share: float = Field(ge=0, le=1)
    target_share: float = Field(gt=0, le=1)
    host_bytes: int | None = None
    archive_bytes: int = Field(default=0, ge=0)
    cache_bytes: int = Field(default=0, ge=0)
    too_few: int | None = None
    too_few_config: LoaderConfig | None = None
    too_few_wait_share: float | None = None
