"""Which builder is at work on which shard: a file for each that several machines can see.

A claim keeps two builders from the same work, and nothing more: what is written does not depend on who wrote it, and
appears whole. So a builder that was frozen, and finds its shard taken when it goes on, has done no harm.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from autotune.data.archives.holding import is_held
from autotune.data.archives.shard_folder import PLAN_NAME
from autotune.processes import identity, is_gone

_BEATS = 6
"""Signs of life that a builder gives within one lease."""
_UNKNOWN = "unknown"
"""What stands in the claim of a process that cannot be told from others."""
_WRITTEN_S = 2.0
"""Time within which a builder that made a claim writes into it who it is, unless it was killed just then."""
_FORGOTTEN_S = 600.0
"""Age of the last sign of life from another machine, whose clock may differ, after which shards may be removed."""


class Claim:
    """A shard that this process builds.

    Args:
        path: Its file; the last of those for a shard counts, as one that lost its holder is never written again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def current(self) -> bool:
        """Whether no other builder has taken the shard over meanwhile."""
        return self.path.exists() and not _with_turn(self.path, _turn(self.path) + 1).exists()

    @property
    def is_taken_over(self) -> bool:
        """Whether another builder had the shard in hand before, and may have left a part of it."""
        return _turn(self.path) > 0

    def beat(self) -> None:
        """Give a sign of life."""
        with suppress(OSError):  # a folder that is gone, or a disk that cannot be reached for a moment
            os.utime(self.path)

    def release(self) -> None:
        """Let go of the shard, and of the claims that it was taken over from; another builder's is left alone."""
        for turn in range(_turn(self.path) + 1) if self.current else ():
            with suppress(OSError):
                _with_turn(self.path, turn).unlink(missing_ok=True)


class Claims:
    """The claims on the shards of one folder, as one process makes and sees them.

    A claim is over when its process has ended, where that can be seen from here, or when it gave no sign of life for
    the time of a lease by the clock of the one who watches: clocks of different machines are never compared.

    Args:
        folder: Where shards are built.
        lease_s: Time of a lease in seconds.
    """

    def __init__(self, folder: Path, lease_s: float) -> None:
        self._folder = folder
        self._lease_s = lease_s
        self._seen: dict[str, tuple[int, float]] = {}
        self._held: list[Claim] = []
        self._ended = threading.Event()

    def take(self, name: str) -> Claim | None:
        """Claim a shard; None where another builder is at work on it.

        Whoever claims one looks afterwards whether it is finished: it may have been released in this moment.

        Raises:
            FileNotFoundError: The folder is gone.
        """
        last = self._last(name)
        if last is not None and not self._is_over(last):
            return None
        path = self._folder / f"{name}.claim-0" if last is None else _with_turn(last, _turn(last) + 1)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return None
        claim = Claim(path)
        self._held.append(claim)
        try:
            os.write(descriptor, (identity() or _UNKNOWN).encode())
        except OSError:  # a full disk: nobody could tell whose claim it is
            self.release(claim)
            raise
        finally:
            os.close(descriptor)
        return claim

    def is_free(self, name: str) -> bool:
        """Tell whether nobody is at work on a shard."""
        last = self._last(name)
        return last is None or self._is_over(last)

    def release(self, claim: Claim) -> None:
        """Let go of a shard."""
        claim.release()
        self._held.remove(claim)

    def __enter__(self) -> Self:
        """Give signs of life until the block ends; what is claimed then is released."""
        self._ended = threading.Event()
        threading.Thread(target=self._beat, args=(self._ended,), name="claims of shards", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for claim in tuple(self._held):
            self.release(claim)

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(self._lease_s / _BEATS):
            for claim in tuple(self._held):
                claim.beat()

    def _last(self, name: str) -> Path | None:
        """Give the claim that counts: the last of those that follow on each other."""
        path = self._folder / f"{name}.claim-0"
        if not path.exists():
            return None
        while (following := _with_turn(path, _turn(path) + 1)).exists():
            path = following
        return path

    def _is_over(self, path: Path) -> bool:
        try:
            with path.open() as file:  # opened, as network file systems look at the server only then
                holder, changed_ns = file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False  # released just now; the next look will show a finished shard or none at work
        if is_gone(holder):
            return True
        now_s = time.monotonic()
        before = self._seen.get(path.name)
        if before is None or before[0] != changed_ns:
            self._seen[path.name] = (changed_ns, now_s)
            return False
        return now_s - before[1] > (self._lease_s if holder else min(self._lease_s, _WRITTEN_S))

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder, "_lease_s": self._lease_s, "_seen": self._seen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Claims.__init__(self, state["_folder"], state["_lease_s"])
        self._seen = state["_seen"]


def is_idle(folder: Path) -> bool:
    """Tell whether nobody works on the shards of a folder, as far as that can be seen from here."""
    if is_held(folder / PLAN_NAME):
        return False
    for path in folder.glob("*.claim-*"):
        with suppress(OSError):
            if not is_gone(path.read_text()) and time.time() - path.stat().st_mtime < _FORGOTTEN_S:
                return False
    return True


def _turn(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _with_turn(path: Path, turn: int) -> Path:
    return path.with_name(f"{path.name.rpartition('-')[0]}-{turn}")
