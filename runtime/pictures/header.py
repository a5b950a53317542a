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
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from runtime.errors import ImageError

# Pillow reads some forty formats; the rare ones are little tested, and one of them starts Ghostscript.
# "JPEG" covers MPO, the JPEGs with previews that phones and stereo cameras write.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
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
)

_PREFIX = 16  # bytes by which Pillow's readers recognize their format
_FOREIGN = (SyntaxError, IndexError, TypeError, struct.error)  # what Pillow's readers raise for files of other formats


@contextmanager
def opened(source: str | bytes | bytearray, name: str, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """Open an image file, or the bytes of one, for the duration of a block; `name` is for messages.

    Yields:
        The image, not decoded; its size is as declared and may be zero or absurd.

    Raises:
        ImageError: there is no such file, or it has none of `formats`.
        OSError: the file cannot be read. Pillow's readers raise many other types for damaged files.
    """
    if isinstance(source, str):
        check_regular(source, name)
        with Path(source).open("rb") as file, _read_header(file, name, formats) as image:
            yield image
    else:
        with _read_header(BytesIO(source), name, formats) as image:
            yield image


def check_regular(path: str, name: str) -> None:
    """Raise ImageError unless it is a regular file: opening a pipe can block forever, and a device may be endless."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  (a str, kept as given)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"{name} does not exist; expected an image file") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ImageError(f"{name} cannot be opened: {reason}") from error
    if not stat.S_ISREG(mode):
        what = "is a directory" if stat.S_ISDIR(mode) else "is a pipe, a socket or a device"
        raise ImageError(f"{name} {what}; expected an image file")


def _read_header(file: IO[bytes], name: str, formats: Sequence[str]) -> Image.Image:
    prefix = file.read(_PREFIX)
    for kind in formats:
        factory, accept = Image.OPEN[kind]
        if accept is not None and accept(prefix) is not True:
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except _FOREIGN:
            continue
    raise ImageError(f"{name} is empty or not an image in a known format ({', '.join(formats)})") from (
        UnidentifiedImageError(f"it begins with {prefix!r}")
    )
