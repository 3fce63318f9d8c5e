"""CPU quota, memory limit, throttling and out-of-memory kills of this process's control groups (v1 and v2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_UNLIMITED_BYTES = 1 << 60  # v1 writes "no limit" as the largest page-aligned 64-bit number
_NS_PER_S, _US_PER_S = 1e9, 1e6


class Cgroups:
    """The control groups that one process lies in, each with all of its ancestors.

    What cannot be read is None: there is no such controller, or no control groups at all.

    Args:
        proc: Folder of the process (`/proc/self`); its files `cgroup` and `mountinfo` are read.
    """

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._groups = dict(_read_groups(proc / "cgroup"))
        self._mounts = tuple(_read_mounts(proc / "mountinfo"))

    def own_folder(self, controller: str) -> Path | None:
        """Give the folder of the group under a controller of version 1, of version 2 for `""`; None without one."""
        return next(self._folders(controller), None)

    def cpu_quota(self) -> float | None:
        """Give the smallest CPU quota over the group and its ancestors, in CPUs."""
        quotas = [_quota_v1(folder) for folder in self._folders("cpu")]
        quotas += [_quota_v2(folder) for folder in self._folders("")]
        return min((quota for quota in quotas if quota is not None), default=None)

    def memory_limit(self) -> int | None:
        """Give the smallest memory limit over the group and its ancestors, in bytes."""
        limits = [limit for limit, _ in self._memory()]
        return min(limits, default=None)

    def memory_free(self) -> int | None:
        """Give what the tightest limit leaves, in bytes; page cache that can be dropped counts as free."""
        free = [max(0, limit - used) for limit, used in self._memory() if used is not None]
        return min(free, default=None)

    def throttled_s(self) -> float | None:
        """Give the seconds for which the quota has kept the group and its ancestors from running."""
        values = [_scaled(_field(folder / "cpu.stat", "throttled_time"), _NS_PER_S) for folder in self._folders("cpu")]
        values += [_scaled(_field(folder / "cpu.stat", "throttled_usec"), _US_PER_S) for folder in self._folders("")]
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    def oom_kills(self) -> int | None:
        """Give how many processes the kernel has killed because a memory limit was hit."""
        values = [_field(folder / "memory.oom_control", "oom_kill") for folder in self._folders("memory")]
        values += [_field(folder / "memory.events", "oom_kill") for folder in self._folders("")]
        known = [value for value in values if value is not None]
        return max(known) if known else None

    def _memory(self) -> Iterator[tuple[int, int | None]]:
        for folder in self._folders("memory"):
            limit = _number(folder / "memory.limit_in_bytes")
            if limit is not None and limit < _UNLIMITED_BYTES:
                droppable = _field(folder / "memory.stat", "total_inactive_file") or 0
                yield limit, _less(_number(folder / "memory.usage_in_bytes"), droppable)
        for folder in self._folders(""):
            limit = _number(folder / "memory.max")
            if limit is not None:
                droppable = _field(folder / "memory.stat", "inactive_file") or 0
                yield limit, _less(_number(folder / "memory.current"), droppable)

    def _folders(self, controller: str) -> Iterator[Path]:
        """Go through the folders of a controller from the group to its topmost visible ancestor; `""` is v2."""
        path = self._groups.get(controller)
        if path is None:
            return
        for kind, controllers, root, mount in self._mounts:
            if kind == ("cgroup" if controller else "cgroup2") and (not controller or controller in controllers):
                yield from _up(mount, _inside(path, root))
                return


def count_oom_kills(cgroups: Cgroups | None = None, vmstat: Path = Path("/proc/vmstat")) -> int:
    """Give how many processes the kernel has killed for want of memory, in our control groups or on the machine.

    Only the difference of two readings means anything; 0 where neither is told.
    """
    return max((Cgroups() if cgroups is None else cgroups).oom_kills() or 0, _field(vmstat, "oom_kill") or 0)


def _read_groups(path: Path) -> Iterator[tuple[str, str]]:
    """Read `/proc/self/cgroup`: lines `number:controllers:path`, no controllers in v2."""
    for line in _lines(path):
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        for controller in controllers.split(","):
            yield controller, group


def _read_mounts(path: Path) -> Iterator[tuple[str, frozenset[str], str, Path]]:
    """Read `/proc/self/mountinfo`: kind, controllers, root inside the hierarchy and mount point."""
    for line in _lines(path):
        before, separator, after = line.partition(" - ")
        fields, options = before.split(), after.split()
        if separator and len(fields) >= 5 and len(options) >= 3 and options[0] in {"cgroup", "cgroup2"}:
            mount = Path(fields[4].encode().decode("unicode_escape"))
            yield options[0], frozenset(options[2].split(",")), fields[3], mount


def _inside(path: str, root: str) -> str:
    """Take the mount's root off a group's path; a group outside of what is mounted counts as the root."""
    parts, above = Path(path).parts[1:], Path(root).parts[1:]
    if ".." in parts or parts[: len(above)] != above:
        return ""
    return "/".join(parts[len(above) :])


def _up(mount: Path, inside: str) -> Iterator[Path]:
    folder = mount / inside
    while True:
        if folder.is_dir():
            yield folder
        if folder == mount:
            return
        folder = folder.parent


def _quota_v1(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and quota > 0 and period else None


def _quota_v2(folder: Path) -> float | None:
    words = " ".join(_lines(folder / "cpu.max")).split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and all(word.isdigit() for word in words) else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.removeprefix("-").isdigit() else None


def _field(path: Path, key: str) -> int | None:
    for line in _lines(path):
        name, _, value = line.partition(" ")
        if name == key and value.strip().isdigit():
            return int(value)
    return None


def _less(value: int | None, less: int) -> int | None:
    return None if value is None else max(0, value - less)


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value / unit
