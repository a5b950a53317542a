"""Picture files as far as their header: format, mode and size, and no pixel yet.

`PIL.Image.open` judges the declared size by a limit of the whole process: it warns above that, and raises above twice
that. Neither is wanted. Silencing a warning changes the filters of all threads, and the program around us may have
set the limit to something else. So Pillow's readers are asked here one by one, and the size is left to the caller.
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

# Pillow knows some forty formats; the rare ones are little tested, and one of them starts Ghostscript.
# "JPEG" covers MPO, the JPEGs with previews that phones and stereo cameras write.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# Endings of their files, for finding images in folders. A file that is named may end in anything.
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

_PREFIX = 16  # bytes by which Pillow's readers know their format
_FOREIGN = (SyntaxError, IndexError, TypeError, struct.error)  # what Pillow's readers say to files not of their format


@contextmanager
def opened(source: str | bytes | bytearray, name: str, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """Open a picture file for the time of a block.

    Args:
        source: a path; or the bytes of an encoded picture.
        name: of the file, for messages.
        formats: of `FORMATS`, those that may be read.

    Yields:
        The image, not decoded; its size is as declared, and may be zero or absurd.

    Raises:
        ImageError: there is no such file, or it is of none of the formats.
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
    """Refuse what is no file: opening a pipe waits for a writer for ever, and a device may have no end.

    Raises:
        ImageError: nothing, a directory, a pipe, a socket or a device is there.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  (a str, kept as given)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"{name} does not exist; expected a picture file") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ImageError(f"{name} cannot be opened: {reason}") from error
    if not stat.S_ISREG(mode):
        what = "is a directory" if stat.S_ISDIR(mode) else "is a pipe, a socket or a device"
        raise ImageError(f"{name} {what}; expected a picture file")


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
    raise ImageError(f"{name} is empty or not a picture in a known format ({', '.join(formats)})") from (
        UnidentifiedImageError(f"it begins with {prefix!r}")
    )
