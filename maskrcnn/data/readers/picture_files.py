"""Opening the image files of a dataset, and reading their sizes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from maskrcnn.data.readers.findings import RowError
from maskrcnn.data.readers.json_rows import shown
from runtime.errors import ImageError
from runtime.pictures.header import PICTURE_SUFFIXES, BandsError, opened
from runtime.pictures.read import MAX_PIXELS

_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width


@contextmanager
def opened_row(source: Path | bytes, what: str) -> Iterator[Image.Image]:
    """Open an image, a file or its bytes, for a block; raise RowError if that, or decoding in the block, fails."""
    path = f"of {len(source)} bytes" if isinstance(source, bytes) else repr(str(source))
    try:
        with opened(source if isinstance(source, bytes) else str(source), path) as image:
            yield image
    except RowError:
        raise
    except ImageError as error:
        raise RowError("broken-image", f"the {what} {error}") from error
    except Exception as error:  # decoders raise many types for damaged files
        raise RowError("broken-image", f"the {what} {path} cannot be read: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Return the message of an error from a library, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def picture_size(source: Path | bytes) -> tuple[int, int]:
    """Return the (height, width) that `read_image` decodes an image to, from its header.

    Raises:
        RowError: It is not an image, or is too large.
    """
    try:
        with opened_row(source, "image") as image:
            width, height = image.size
            # Pillow applies the orientation of TIFF files itself, also to the size.
            turned = image.format != "TIFF" and image.getexif().get(_EXIF_ORIENTATION) in _TURNED
    except RowError as error:
        if not isinstance(error.__cause__, BandsError):
            raise
        bands = error.__cause__.bands  # which of them will be read is not known yet
        width, height, turned = bands.width, bands.height, bands.orientation in _TURNED
    check_pixels(height, width)
    return (width, height) if turned else (height, width)


def check_pixels(height: int, width: int) -> None:
    """Raise RowError if an image has more pixels than `read_image` allows."""
    if height * width > MAX_PIXELS:
        raise RowError(
            "image-size", f"the image has {shown(width)} x {shown(height)} pixels; at most {MAX_PIXELS} are allowed"
        )


def list_pictures(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by stem, sorted by name."""
    files: Iterable[Path] = sorted(folder.iterdir()) if folder.is_dir() else ()
    found: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith("."):
            found.setdefault(path.stem, path)
    return found
