"""Photographs from the bytes of their files to upright RGB, by several libraries with one result.

One rule for all: 8 bits of red, green and blue, turned as the EXIF orientation says. Greyscale becomes three equal
channels, palettes their colours, CMYK is converted without a colour profile, 16-bit greyscale keeps its upper 8 bits,
alpha is dropped with colours as they are stored, and of several frames the first counts. What a fast decoder does not
do alike (anything but a whole RGB or greyscale JPEG) is left to PIL.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from autotune.data.extras import is_installed, needed
from autotune.errors import SampleError

Rgb = npt.NDArray[np.uint8]
"""Pixels `(height, width, 3)`."""

MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3
"""Largest image, the limit at which PIL warns; a file may claim any size, and nothing above this is decoded."""

_SHOWN_BYTES = 8
_WHOLE = "give a whole file in a format of images, as JPEG or PNG"
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_JPEG_END = b"\xff\xd9"
_REDUCTIONS = (8, 4, 2)


class Header(NamedTuple):
    """What the head of an image file says.

    Attributes:
        image: The image as PIL opened it, not yet decoded.
        orientation: As EXIF numbers it, 1 to 8.
        target: Height and width to be resized to, as they lie in the file: swapped where it lies on its side.
    """

    image: Any
    orientation: int
    target: tuple[int, int] | None

    @property
    def is_plain_jpeg(self) -> bool:
        """Whether every JPEG library gives the same pixels."""
        return self.image.format == "JPEG" and self.image.mode in ("RGB", "L")


def decode_image(data: bytes, decoder: str, size: tuple[int, int] | None) -> Rgb:
    """Decode one image by a decoder of `DECODERS`, upright and at the wanted height and width.

    Raises:
        SampleError: It is damaged, no image, of a kind without an 8-bit form, or claims too many pixels; knows no
            path.
        MissingExtraError: The decoder's package is not installed.
    """
    header = open_header(data, size)
    pixels = DECODERS[decoder].decode(data, header) if header.is_plain_jpeg else None
    upright = _by_pil(header) if pixels is None else _turned(pixels, header.orientation)
    if size is not None and upright.shape[:2] != size:
        upright = _resized(upright, size)
    return upright


def open_header(data: bytes, size: tuple[int, int] | None = None) -> Header:
    """Read the head of an image file and refuse what is not to be decoded.

    Raises:
        SampleError: See `decode_image`.
    """
    pil = _pil("Image")
    try:
        image = pil.open(io.BytesIO(data))
    except pil.DecompressionBombError as error:
        raise SampleError(f"the image claims too many pixels: {error}") from error
    except pil.UnidentifiedImageError as error:
        raise SampleError(f"it is no image that PIL reads: it starts with {data[:_SHOWN_BYTES]!r}; {_WHOLE}") from error
    except Exception as error:  # PIL's plugins raise anything on damaged heads
        raise SampleError(f"it is no image that PIL reads: {_told(error)}; {_WHOLE}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise SampleError(f"the image claims {width} x {height} pixels, and at most {MAX_PIXELS:,} are decoded")
    orientation = _orientation(image)
    return Header(image, orientation, size[::-1] if size is not None and orientation in _SIDEWAYS else size)


def _orientation(image: Any) -> int:
    """Give the EXIF orientation of a JPEG; asking other formats may decode them, and PIL turns those itself."""
    if image.format != "JPEG":
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # PIL's plugins raise anything on damaged heads
        raise SampleError(f"the EXIF data cannot be read: {_told(error)}") from error
    return found if isinstance(found, int) else 1


def _by_pil(header: Header) -> Rgb:
    """Decode by PIL, which judges what is damaged: all decoders come here in the end."""
    turning = _pil("ImageOps")
    try:
        image = turning.exif_transpose(header.image)
        return _as_rgb(image, str(header.image.format))
    except SampleError:
        raise
    except Exception as error:  # PIL's plugins raise anything on damaged data
        raise SampleError(f"the image cannot be decoded: {_told(error)}; {_WHOLE}") from error


def _as_rgb(image: Any, file_format: str) -> Rgb:
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and file_format in ("PNG", "PPM")):
        upper: Rgb = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(upper[:, :, None], 3, axis=2)
    if mode in ("I", "F"):
        raise SampleError(f"an image of 32 bits a pixel (mode {mode!r} of PIL) has no RGB form; read it as a raster")
    if "transparency" in image.info:  # PIL warns of going straight to RGB, and gives the same colours
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _by_draft(_: bytes, header: Header) -> None:
    """Let PIL decode at an eighth, a quarter or half the size, no smaller than wanted."""
    if header.target is not None:
        header.image.draft(None, header.target[::-1])


def _by_simplejpeg(data: bytes, header: Header, *, scaled: bool = False) -> Rgb | None:
    simplejpeg = needed("simplejpeg", "decoder 'simplejpeg'")
    least = header.target if scaled and header.target is not None else (0, 0)
    try:
        pixels: Rgb = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1])
    except ValueError:  # it is stricter than PIL
        return None
    return pixels


def _by_cv2(data: bytes, header: Header, *, scaled: bool = False) -> Rgb | None:
    cv2 = needed("cv2", "decoder 'cv2'")
    if not data.endswith(_JPEG_END):  # it fills up what is missing with grey and says nothing
        return None
    factor = _reduction(header) if scaled else 1
    color = cv2.IMREAD_COLOR if factor == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), color | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    # Not cvtColor, which starts threads that a forked worker does not have.
    return None if pixels is None else np.ascontiguousarray(pixels[:, :, ::-1])


def _reduction(header: Header) -> int:
    """Give the largest factor that leaves no less than is wanted."""
    if header.target is None:
        return 1
    width, height = header.image.size
    fits = (f for f in _REDUCTIONS if -(-height // f) >= header.target[0] and -(-width // f) >= header.target[1])
    return next(fits, 1)


def _turned(pixels: Rgb, orientation: int) -> Rgb:
    """Turn upright what lies as the EXIF orientation says."""
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _resized(pixels: Rgb, size: tuple[int, int]) -> Rgb:
    pil = _pil("Image")
    return np.array(pil.fromarray(pixels).resize(size[::-1], pil.Resampling.BILINEAR))


def _pil(module: str) -> Any:
    needed("PIL", "reading images")
    return importlib.import_module(f"PIL.{module}")


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


_TURNS: Mapping[int, Callable[[Rgb], Rgb]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels[::-1].transpose(1, 0, 2),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}


class Decoder(NamedTuple):
    """One way to decode a plain JPEG.

    Attributes:
        decode: Gives the pixels as they lie in the file; None leaves the image to PIL.
        package: What it needs.
        exact: Whether it gives what PIL gives, bit for bit; the others decode at reduced size and resize the rest,
            and are offered where a size is wanted.
    """

    decode: Callable[[bytes, Header], Rgb | None]
    package: str = "PIL"
    exact: bool = True


DECODERS: Mapping[str, Decoder] = {
    "pil": Decoder(lambda _data, _header: None),
    "simplejpeg": Decoder(_by_simplejpeg, "simplejpeg"),
    "cv2": Decoder(_by_cv2, "cv2"),
    "pil_draft": Decoder(_by_draft, exact=False),
    "simplejpeg_scaled": Decoder(partial(_by_simplejpeg, scaled=True), "simplejpeg", exact=False),
    "cv2_scaled": Decoder(partial(_by_cv2, scaled=True), "cv2", exact=False),
}
"""Decoders of images by name; the first is the datasets' own."""


def installed_decoders() -> tuple[str, ...]:
    """Give the decoders whose packages are installed, the datasets' own first."""
    return tuple(name for name, decoder in DECODERS.items() if name == "pil" or is_installed(decoder.package))
