"""Recognises data that lies on a network or Drive mount, which every read crosses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from autotune.data.stages import leaves_of

MOUNTINFO = Path("/proc/self/mountinfo")

NETWORK_KINDS: Mapping[str, str] = {
    "9p": "a 9p share of the host",
    "afs": "AFS",
    "beegfs": "BeeGFS",
    "ceph": "Ceph",
    "cifs": "a Windows share",
    "fuse.afp": "an AFP share",
    "fuse.blobfuse": "Azure Blob Storage",
    "fuse.blobfuse2": "Azure Blob Storage",
    "fuse.ceph-fuse": "Ceph",
    "fuse.davfs": "WebDAV",
    "fuse.drive": "Google Drive",
    "fuse.gcsfuse": "Google Cloud Storage",
    "fuse.glusterfs": "GlusterFS",
    "fuse.google-drive-ocamlfuse": "Google Drive",
    "fuse.goofys": "S3",
    "fuse.juicefs": "JuiceFS",
    "fuse.mount-s3": "S3",
    "fuse.moosefs": "MooseFS",
    "fuse.rclone": "an rclone remote",
    "fuse.s3fs": "S3",
    "fuse.sshfs": "another machine over SSH",
    "fuse.weedfs": "SeaweedFS",
    "glusterfs": "GlusterFS",
    "gpfs": "GPFS",
    "lustre": "Lustre",
    "ncpfs": "a NetWare share",
    "nfs": "NFS",
    "nfs4": "NFS",
    "orangefs": "OrangeFS",
    "prl_fs": "a share of the host",
    "smb2": "a Windows share",
    "smb3": "a Windows share",
    "smbfs": "a Windows share",
    "vboxsf": "a share of the host",
    "virtiofs": "a share of the host",
    "vmhgfs": "a share of the host",
    "fuse.vmhgfs-fuse": "a share of the host",
    "wekafs": "WEKA",
}
"""Kinds of file systems that are read over a network or from the host of a virtual machine, and what they are."""

_SOURCES: Mapping[str, str] = {
    "drive": "Google Drive",
    "drivefs": "Google Drive",
    "gcsfuse": "Google Cloud Storage",
    "s3fs": "S3",
    "sshfs": "another machine over SSH",
}
"""What plain `fuse` mounts are called by their source, where the kind does not tell."""
_ELSEWHERE = re.compile(r"[\w.@-]+:/|\w+://|//\w")
"""A source on another machine: `user@host:/folder`, `s3://bucket`, `//server/share`."""
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_PATHS_MAX = 20_000
"""Paths of a dataset whose folders are looked at."""
_PATH_ATTRIBUTES = ("root", "folder", "directory", "data_dir", "path", "paths", "files", "image_paths")
"""Where datasets that name no `source_paths()` are usually told their files."""


class Mount(NamedTuple):
    """One line of `mountinfo`.

    Attributes:
        point: Folder that it is mounted at.
        kind: Kind of the file system (`ext4`, `nfs4`, `fuse.sshfs`).
        source: What is mounted.
    """

    point: str
    kind: str
    source: str

    @property
    def remote(self) -> str | None:
        """What it is read from, in words; None for a disk of this machine."""
        known = NETWORK_KINDS.get(self.kind)
        if known is not None or not self.kind.startswith("fuse") or self.kind == "fuseblk":
            return known
        if self.source in _SOURCES:
            return _SOURCES[self.source]
        return f"a network mount ({self.source})" if _ELSEWHERE.match(self.source) else None


def read_mounts(mountinfo: Path = MOUNTINFO) -> tuple[Mount, ...]:
    """Read what is mounted, the latest last; nothing where the system does not tell."""
    try:
        lines = mountinfo.read_bytes().splitlines()
    except OSError:
        return ()
    return tuple(_parsed(lines))


def _parsed(lines: Iterable[bytes]) -> Iterator[Mount]:
    for line in lines:
        before, separator, after = line.partition(b" - ")
        fields, told = before.split(), after.split()
        if separator and len(fields) >= 5 and len(told) >= 2:
            yield Mount(_text(fields[4]), _text(told[0]), _text(told[1]))


def _text(field: bytes) -> str:
    """Undo the kernel's octal escapes, as of a blank in a folder's name."""
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), field))


def mount_of(path: str | os.PathLike[str], mounts: Iterable[Mount]) -> Mount | None:
    """Give the mount that a path lies on: the one with the longest folder, of equal ones the latest."""
    place = os.path.realpath(path)
    best: Mount | None = None
    for mount in mounts:
        inside = mount.point in ("/", place) or place.startswith(f"{mount.point}/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def remote_mounts(dataset: Any, *, mountinfo: Path = MOUNTINFO) -> tuple[Mount, ...]:
    """Give the network mounts that a dataset's files lie on, each once."""
    mounts = read_mounts(mountinfo)
    if not any(mount.remote for mount in mounts):
        return ()
    folders = dict.fromkeys(os.path.dirname(path) for path in islice(paths_of(dataset), _PATHS_MAX))  # noqa: PTH120  # many
    found = (mount_of(folder, mounts) for folder in folders)
    return tuple(dict.fromkeys(mount for mount in found if mount is not None and mount.remote))


def paths_of(dataset: Any) -> Iterator[str]:
    """Give the files behind a dataset as far as it tells: by `source_paths()`, else by attributes such as `root`."""
    for leaf in leaves_of(dataset):
        named = getattr(leaf, "source_paths", None)
        if callable(named):
            yield from (os.fspath(path) for path in named())
            continue
        for name in _PATH_ATTRIBUTES:
            value = getattr(leaf, name, None)
            several = value if isinstance(value, list | tuple) else (value,)
            yield from (_inside(path) for path in several if isinstance(path, str | os.PathLike))


def _inside(path: str | os.PathLike[str]) -> str:
    """Give a path whose folder is looked at: of a folder, a name inside it."""
    text = os.fspath(path)
    return os.path.join(text, "") if os.path.isdir(text) else text  # noqa: PTH112, PTH118  # strings, and many
