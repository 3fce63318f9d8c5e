"""Members of foreign archives decoded by their names' ends; what would have to be unpickled is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from autotune.data.archives.npy_bytes import npy_array
from autotune.data.archives.tar_scan import TarLimits
from autotune.data.extras import needed
from autotune.errors import ArchiveError, AutotuneError

_PICKLED = frozenset({"pkl", "pickle", "pyd", "pth", "pt", "ckpt", "joblib", "dill"})
_LIMITS = TarLimits()


def decode_member(name: str, data: bytes) -> Any:
    """Decode a member by the last part of its name; one of an unknown kind stays bytes.

    Arrays come from `npy`, pixels `(bands, H, W)` from `tif` through rasterio, `(H, W)` or `(H, W, C)` from
    `png` and `jpg` through PIL, numbers from `cls`, text from `txt`, values from `json`.

    Raises:
        ArchiveError: It is pickled, or broken.
    """
    extension = name.rpartition(".")[2].lower()
    if extension in _PICKLED:
        raise ArchiveError(
            f"member {name!r} is pickled, and loading it could run any code, so it is never done; store arrays as npy "
            "and values as json, or take the bytes by decode=False"
        )
    decode = DECODERS.get(extension)
    if decode is None:
        return data
    try:
        return decode(data)
    except AutotuneError as error:
        raise ArchiveError(f"member {name!r} cannot be decoded: {error}") from error
    except (ValueError, OSError, RecursionError) as error:
        raise ArchiveError(f"member {name!r} cannot be decoded: {error or type(error).__name__}") from error


def _array(data: bytes) -> Any:
    return npy_array(memoryview(data), own=True)


def _raster(data: bytes) -> Any:
    from autotune.data.datasets.raster_files import read_bytes

    return read_bytes(data).pixels


def _image(data: bytes) -> Any:
    needed("PIL", "decoding png and jpg")
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            # Told by the header, before any pixel is there.
            _LIMITS.check("an image", len(data), image.width * image.height * len(image.getbands()))
            return np.array(image)
    except AutotuneError:
        raise
    except Exception as error:  # PIL's plugins raise anything on damaged data
        raise ArchiveError(f"the image is broken or a bomb: {error or type(error).__name__}") from error


def _text(data: bytes) -> str:
    return data.decode("utf-8")


DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(("npy",), _array),
    **dict.fromkeys(("tif", "tiff"), _raster),
    **dict.fromkeys(("png", "jpg", "jpeg"), _image),
    **dict.fromkeys(("json", "jsn"), json.loads),
    **dict.fromkeys(("cls", "cls2", "class", "count", "index", "inx", "id"), int),
    **dict.fromkeys(("txt", "text", "transcript"), _text),
}
"""Decoders by the last part of a member's name; those of the `webdataset` package, without its pickled ones."""
