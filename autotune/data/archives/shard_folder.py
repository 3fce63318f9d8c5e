"""The folder in which an archive is built shard by shard, and what is finished there."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from autotune.data.archives._base import StoredFile, write_file
from autotune.data.archives.shard_plan import ShardPlan
from autotune.data.archives.tar_index import TarIndex
from autotune.errors import ArchiveDamagedError, SpecError
from autotune.spec.base import Value

_logger = logging.getLogger(__name__)

PLAN_NAME = "plan.json"
PART = ".part-"
"""What marks files that are being written."""


class FinishedShard(Value):
    """What is noted beside a finished shard.

    Attributes:
        plan: Digest of the plan that it belongs to.
        count: Number of samples.
        fingerprint: Fingerprint that the source had when all of them had been read.
        tar: The shard.
        index: Its own index.
        stamp: Size, time of change in nanoseconds and inode that it was left with.
        took_s: Seconds that writing it took.
    """

    plan: str
    count: int = Field(ge=1)
    fingerprint: str | None = None
    tar: StoredFile
    index: StoredFile
    stamp: tuple[int, int, int]
    took_s: float = Field(default=0.0, ge=0)


@dataclass(frozen=True)
class WrittenShard:
    """A shard that is written, and safe on disk, but not seen yet.

    Attributes:
        number: Its number.
        part: Where it lies.
        tar: Size and checksum.
        index: Where its samples are.
        took_s: Seconds that writing it took.
    """

    number: int
    part: Path
    tar: StoredFile
    index: TarIndex
    took_s: float = 0.0


class ShardFolder:
    """Shards as they become finished, by this process and by others.

    A shard is finished when its note is there, and matches it: then it is whole, safe on disk and of a source that
    had not changed.

    Args:
        directory: The folder.
        plan: What is built there.
    """

    def __init__(self, directory: Path, plan: ShardPlan) -> None:
        self.directory = directory
        self.plan = plan
        self._digest = plan.digest()
        self._known: dict[int, FinishedShard] = {}

    def tar(self, number: int) -> Path:
        """Give where a shard lies."""
        return self.directory / f"{shard_name(number)}.tar"

    def part(self, number: int) -> Path:
        """Give a name that nobody else has, under which a shard can be written."""
        return self.directory / f"{shard_name(number)}.tar{PART}{uuid.uuid4().hex}"

    def finish(self, written: WrittenShard) -> FinishedShard:
        """Let everybody see a shard that is written, with its note as the last step.

        Raises:
            FileNotFoundError: The folder is gone, or another builder took the shard over and removed what was written.
        """
        path, index = self.tar(written.number), written.index.to_bytes()
        ours = _stamp(written.part)
        written.part.replace(path)
        try:
            shard = FinishedShard(
                plan=self._digest,
                count=len(self.plan.places(written.number)),
                fingerprint=self.plan.fingerprint,
                tar=written.tar,
                index=StoredFile(size_bytes=len(index), sha256=hashlib.sha256(index).hexdigest()),
                stamp=_stamp(path),
                took_s=written.took_s,
            )
            write_whole(self.directory, f"{shard_name(written.number)}.index", index)
            write_whole(self.directory, f"{shard_name(written.number)}.json", shard.to_json().encode())
        except BaseException:  # a full disk, which what nobody can use would keep full
            with suppress(OSError):
                if _stamp(path) == ours:  # and not that of a builder which took the shard over
                    path.unlink()
            raise
        self._known[written.number] = shard
        return shard

    def finished(self, number: int) -> FinishedShard | None:
        """Give what is noted of a shard; None where it is missing, or was damaged since and is to be built again."""
        if number not in self._known:
            found = self._read(number)
            if found is None:
                return None
            self._known[number] = found
        return self._known[number]

    def missing(self, numbers: Iterable[int]) -> list[int]:
        """Give those of some shards that are not finished, in their order.

        Raises:
            FileNotFoundError: The folder is gone.
        """
        there = set(os.listdir(self.directory))  # noqa: PTH208  # one question for all names
        return [
            number
            for number in numbers
            if number not in self._known and (f"{shard_name(number)}.json" not in there or not self.finished(number))
        ]

    def noted(self) -> int:
        """Count the shards of which there is a note; nothing is read, and nothing removed that does not match.

        Raises:
            FileNotFoundError: The folder is gone.
        """
        there = set(os.listdir(self.directory))  # noqa: PTH208
        return sum(f"{shard_name(number)}.json" in there for number in range(self.plan.shards))

    def index_of(self, number: int) -> TarIndex:
        """Give the index of a finished shard.

        Raises:
            ArchiveDamagedError: It was damaged since; the shard counts as missing now.
        """
        path = self.directory / f"{shard_name(number)}.index"
        shard = self.finished(number)
        try:
            if shard is not None and sha256_of(path) == shard.index.sha256:
                return TarIndex.from_file(path)
        except OSError:
            pass
        self.forget(number)
        raise ArchiveDamagedError(f"the index {path} was damaged since it was written; build the archive again")

    def forget(self, number: int) -> None:
        """Have a shard built again."""
        self._known.pop(number, None)
        (self.directory / f"{shard_name(number)}.json").unlink(missing_ok=True)

    def remove_parts(self, number: int) -> None:
        """Remove what builders that were killed left of a shard; whoever calls it has claimed the shard."""
        for path in self.directory.glob(f"{shard_name(number)}.*{PART}*"):
            path.unlink(missing_ok=True)

    def _read(self, number: int) -> FinishedShard | None:
        try:
            shard = FinishedShard.from_json((self.directory / f"{shard_name(number)}.json").read_bytes())
        except FileNotFoundError:
            return None
        except SpecError as error:
            _logger.warning("building shard %d of %s again: its note cannot be read: %s", number, self.directory, error)
            return None
        with suppress(OSError):
            path, places = self.tar(number), self.plan.places(number)
            if shard.plan == self._digest and shard.count == len(places):
                if _stamp(path) == shard.stamp:
                    return shard
                if sha256_of(path) == shard.tar.sha256:
                    return shard.replace(stamp=_stamp(path))
        _logger.warning(
            "building shard %d of %s again: it is missing, or not as it was written", number, self.directory
        )
        self.forget(number)
        return None


def shard_name(number: int) -> str:
    """Give the name of a shard and of the files beside it, without their ends."""
    return f"shard-{number:06d}"


def write_whole(directory: Path, name: str, data: bytes) -> None:
    """Write a small file that others see whole or not at all.

    It is not forced onto the disk: after a power cut it may be missing or broken, which shows, and costs its shard.
    """
    temporary = directory / f"{name}{PART}{uuid.uuid4().hex}"
    try:
        temporary.write_bytes(data)
        temporary.replace(directory / name)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def create_whole(directory: Path, name: str, data: bytes) -> None:
    """Write a small file that is seen whole or not at all, unless there is one of its name already."""
    temporary = directory / f"{name}{PART}{uuid.uuid4().hex}"
    write_file(directory, temporary.name, data)
    try:
        (directory / name).hardlink_to(temporary)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        temporary.replace(directory / name)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make names in a folder safe on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stamp(path: Path) -> tuple[int, int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino
