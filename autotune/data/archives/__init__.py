"""Archive formats, one a module; the table has the keys of `autotune.spec.STORED_FORMS`."""

from collections.abc import Mapping

from autotune.data.archives._base import ArchiveFormat, Manifest
from autotune.data.archives.compressed_tar import CompressedTarFormat
from autotune.data.archives.files import FilesFormat
from autotune.data.archives.hdf5 import Hdf5Format
from autotune.data.archives.lmdb_store import LmdbFormat
from autotune.data.archives.npy import NpyFormat
from autotune.data.archives.tar import TarFormat
from autotune.data.archives.webdataset import WebDatasetFormat

FORMATS: Mapping[str, ArchiveFormat] = {
    "files": FilesFormat(),
    "tar": TarFormat(),
    "tar.gz": CompressedTarFormat("gz"),
    "tar.xz": CompressedTarFormat("xz"),
    "tar.zst": CompressedTarFormat("zst"),
    "webdataset": WebDatasetFormat(),
    "hdf5": Hdf5Format(),
    "lmdb": LmdbFormat(),
    "npy": NpyFormat(),
}

__all__ = ["FORMATS", "ArchiveFormat", "Manifest"]
