"""Archive formats, one a module; the table has the keys of `autotune.spec.STORED_FORMS`."""

from collections.abc import Mapping

from autotune.data.archives._base import ArchiveFormat, Manifest
from autotune.data.archives.files import FilesFormat
from autotune.data.archives.npy import NpyFormat
from autotune.data.archives.tar import TarFormat

FORMATS: Mapping[str, ArchiveFormat] = {"files": FilesFormat(), "tar": TarFormat(), "npy": NpyFormat()}

__all__ = ["FORMATS", "ArchiveFormat", "Manifest"]
