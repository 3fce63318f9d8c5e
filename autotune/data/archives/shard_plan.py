"""Which samples each shard of an archive holds, the same on every machine, and who builds which first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from torch.utils.data import Dataset

from autotune.data.archives._base import Manifest, check_form, check_staged, sized
from autotune.data.archives.estimating import estimated_bytes
from autotune.data.fingerprint import source_fingerprint
from autotune.data.stages import apart
from autotune.data.streaming import part_of
from autotune.errors import ArchiveDamagedError, ArchiveError, SpecError
from autotune.spec.base import Value
from autotune.spec.config import SHARDED_FORMATS, StoredForm
from autotune.units import MIB

LEASE_S = 60.0
"""Time after which a shard is taken from a builder on another machine that gives no sign of life."""

_SHARD_BYTES_MAX = 256 * MIB
"""What the `webdataset` package's documentation takes for shards on local disks and object stores alike."""
_SHARD_BYTES_MIN = 1 * MIB
_SHARDS_AIMED_AT = 16
"""Shards of a small archive: processes that build it take whole ones."""
_SHARDS_MAX = 10**6
"""As many as the names of shards have digits for."""


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How one of several builders takes part in building an archive.

    Attributes:
        shard_samples: Samples in a shard; None follows from the size of the samples, or from what is there already.
        rank: Number of this builder: where it begins. What others leave undone it does too.
        world_size: Builders that are expected.
        lease_s: Seconds without a sign of life after which another builder's shard is taken over.
    """

    shard_samples: int | None = None
    rank: int = 0
    world_size: int = 1
    lease_s: float = LEASE_S

    def __post_init__(self) -> None:
        if self.shard_samples is not None and self.shard_samples < 1:
            raise SpecError(f"a shard has at least 1 sample, got {self.shard_samples}; leave it out for a usual size")
        if not 0 <= self.rank < self.world_size:
            raise SpecError(
                f"rank must be from 0 to world_size - 1, got rank={self.rank} and world_size={self.world_size}"
            )


class ShardPlan(Value):
    """The shards of an archive: contiguous ranges of samples, all of one length but the last.

    Attributes:
        format: Name of the format.
        stored: Stored form.
        count: Number of samples.
        shard_samples: Samples in each shard but the last, which may have fewer.
        fingerprint: Fingerprint of the source; None where none can be had.
    """

    format: str
    stored: StoredForm
    count: int = Field(ge=1)
    shard_samples: int = Field(ge=1)
    fingerprint: str | None = None

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.count // self.shard_samples)

    def places(self, number: int) -> range:
        """Give the samples of a shard.

        Raises:
            SpecError: There is no such shard.
        """
        if not 0 <= number < self.shards:
            raise SpecError(f"shards are numbered from 0 to {self.shards - 1}, got {number}")
        first = number * self.shard_samples
        return range(first, min(self.count, first + self.shard_samples))

    def order_of(self, rank: int, world_size: int) -> list[int]:
        """Give the shards in the order in which a builder takes them: its own range, then on through the others'.

        The ranges of all ranks are disjoint and complete, and differ by at most one shard.
        """
        first, _ = part_of(self.shards, rank, world_size)
        return [*range(first, self.shards), *range(first)]


def plan_of(source: Dataset[Any], form: tuple[str, StoredForm], shard_samples: int | None = None) -> ShardPlan:
    """Plan the shards of a dataset; a few samples are read where no size is given.

    Args:
        source: A map-style dataset, of which a copy is read.
        form: Name of the format and stored form.
        shard_samples: Samples in a shard; None aims at 16 shards of 1 to 256 MiB.

    Raises:
        ArchiveError: The dataset cannot be archived in this form, or would have too many shards.
        SpecError: The format does not come in shards.
    """
    name, stored = form
    check_sharded(name)
    check_form(name, stored)
    check_staged(source, stored)
    count = sized(source)
    wanted = max(_usual_samples(source, form), -(-count // _SHARDS_MAX)) if shard_samples is None else shard_samples
    length = min(count, wanted)
    plan = ShardPlan(
        format=name, stored=stored, count=count, shard_samples=length, fingerprint=source_fingerprint(source)
    )
    if plan.shards > _SHARDS_MAX:
        raise ArchiveError(
            f"an archive has at most {_SHARDS_MAX:,} shards, got {plan.shards:,} of {length:,} samples; "
            "put more samples into each"
        )
    return plan


def check_sharded(name: str) -> None:
    """Refuse a format that is one file.

    Raises:
        SpecError: It is.
    """
    if name not in SHARDED_FORMATS:
        raise SpecError(f"archives that come in shards are {', '.join(SHARDED_FORMATS)}, got {name!r}")


def plan_in(manifest: Manifest) -> ShardPlan:
    """Give the plan by which an archive was built.

    Raises:
        ArchiveDamagedError: The manifest tells of no shards.
    """
    if manifest.shard_samples is None:
        raise ArchiveDamagedError(f"the manifest of an archive {manifest.format!r} names no size of its shards")
    return ShardPlan(
        format=manifest.format, stored=manifest.stored, count=manifest.count, shard_samples=manifest.shard_samples,
        fingerprint=manifest.fingerprint,
    )  # fmt: skip


def _usual_samples(source: Dataset[Any], form: tuple[str, StoredForm]) -> int:
    """Give how many samples make a shard of the usual size."""
    whole = estimated_bytes(apart(source), *form)
    limit = max(_SHARD_BYTES_MIN, min(whole // _SHARDS_AIMED_AT, _SHARD_BYTES_MAX))
    return max(1, limit * sized(source) // max(1, whole))
