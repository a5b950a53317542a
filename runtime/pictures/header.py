"""The header of image files: format, mode and size, without decoding a pixel.

`PIL.Image.open` compares the declared size with a limit of the whole process: it warns above the limit and raises above
twice the limit. Neither is wanted here: silencing a warning changes the filters of all threads, and the application may
have set another limit. So Pillow's readers are called one by one, and the caller checks the size.
"""

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

from PIL import (  # noqa: F401  (each plugin registers its reader)
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
    features,
)

from runtime.arguments import shown
from runtime.errors import ImageError
from runtime.pictures.amplifiers import check_structure, webp_size, weight
from runtime.pictures.deep import Bands, note_native_order, tiff_bands

# Pillow reads some forty formats; the rare ones are little tested, and one of them starts Ghostscript.
# "JPEG" covers MPO, the JPEGs with previews that phones and stereo cameras write. Pillow's wheels have AVIF; some other
# builds do not.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", *(("AVIF",) if features.check("avif") else ()))
# File name endings by which images are found in folders. A file given by name may have any ending.
PICTURE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
    ".jfif",
    ".mpo",
    ".pbm",
    *((".avif",) if "AVIF" in FORMATS else ()),
)

# The default limit. A file of some 100 KiB can declare 10,000 x 10,000 pixels and take 300 MB once decoded.
# 100 megapixels leave room for the largest cameras.
MAX_PIXELS = 100_000_000

_MOST_SAMPLES = 6  # of a pixel; Pillow would log an error of its own for more
_PREFIX = 32  # bytes by which readers recognize their format, and that have the size of a WebP image
_LONGEST_PATH = 300
_FOREIGN = (SyntaxError, IndexError, TypeError, struct.error)  # what Pillow's readers raise for files of other formats


class BandsError(ImageError):
    """A TIFF file has more bands than an image of Pillow, or other samples; `bands` describes them."""

    def __init__(self, name: str, bands: Bands) -> None:
        super().__init__(
            f"{name} is {bands.described}: choose the bands that are the channels of the image, "
            "as in bands=(3, 2, 1) or --bands 3,2,1"
            if bands.count > 1
            else f"{name} is {bands.described}, which cannot be read here: save it in 8 or 16 bits"
        )
        self.bands = bands


@contextmanager
def opened(
    source: str | bytes | bytearray,
    name: str,
    formats: Sequence[str] = FORMATS,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Image.Image]:
    """Open an image file, or the bytes of one, for the duration of a block; `name` is for messages.

    Yields:
        The image, not decoded; its size is as declared and may be zero or absurd.

    Raises:
        ImageError: there is no such file, it has none of `formats`, or it would take a decoder absurdly long or,
            compared with `max_pixels`, absurdly much memory.
        OSError: the file cannot be read. Pillow's readers raise many other types for damaged files.
    """
    if isinstance(source, str):
        check_regular(source, name)
        with Path(source).open("rb") as file, _read_header(file, name, formats, max_pixels) as image:
            yield image
    else:
        with _read_header(BytesIO(source), name, formats, max_pixels) as image:
            yield image


def shown_path(path: str) -> str:
    """Return a path for messages; of one that is too long to be a path, the beginning."""
    return repr(path) if len(path) <= _LONGEST_PATH else f"{shown(path)} ({len(path)} characters)"


def check_pixels(size: tuple[int, int], max_pixels: int, name: str, kind: str = "", *, animated: bool = False) -> None:
    """Raise ImageError if an image of a size (width, height) has too many pixels, or would take too much memory."""
    width, height = size
    if height * width > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels; at most {max_pixels} are allowed: shrink it, or raise max_pixels"
        )
    times = weight(kind, animated=animated)
    if times * height * width > max(max_pixels, MAX_PIXELS):
        what = f"animated {kind} image" if animated else f"{kind} image"
        raise ImageError(
            f"{name} is an {what} of {width} x {height} pixels, which takes {times} times the memory of other images: "
            f"save it in another format, or set max_pixels to {times * height * width}"
        )


def check_regular(path: str, name: str) -> None:
    """Raise ImageError unless it is a regular file: opening a pipe can block forever, and a device may be endless."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  (a str, kept as given)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"{name} does not exist; expected an image file") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ImageError(f"{name} cannot be opened: {reason}; expected the path of an image file") from error
    if not stat.S_ISREG(mode):
        what = "is a directory" if stat.S_ISDIR(mode) else "is a pipe, a socket or a device"
        raise ImageError(f"{name} {what}; expected an image file")


def _read_header(file: IO[bytes], name: str, formats: Sequence[str], max_pixels: int) -> Image.Image:
    prefix = file.read(_PREFIX)
    for kind in formats:
        factory, accept = Image.OPEN[kind]
        if accept is not None and accept(prefix) is not True:
            continue
        check_structure(file, kind, name)
        if kind == "WEBP" and (found := webp_size(prefix)) is not None:
            check_pixels(found[0], max_pixels, name, kind, animated=found[1])
        bands = tiff_bands(file) if kind == "TIFF" else None
        if bands is not None and bands.count > _MOST_SAMPLES:
            raise BandsError(name, bands)
        file.seek(0)
        try:
            image = factory(file, "")
        except _FOREIGN:
            if bands is not None:
                raise BandsError(name, bands) from None
        else:
            if kind == "TIFF":
                note_native_order(image)
            return image
    raise ImageError(f"{name} is empty or not an image in a known format ({', '.join(formats)})") from (
        UnidentifiedImageError(f"it begins with {prefix!r}")
    )
