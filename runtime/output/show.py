"""A drawn image in a file, in a notebook, or in the system's viewer."""

import os
import sys
from collections.abc import Iterable
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image

from runtime.arguments import file_path
from runtime.atomic import atomic_write
from runtime.errors import OutputError

# Format and options by suffix.
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 92}),
    ".jpeg": ("JPEG", {"quality": 92}),
    ".webp": ("WEBP", {"quality": 90}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
}
_LONGEST_SIDE = {"WEBP": 16_383, "JPEG": 65_500}  # pixels
_SHOWN_SIDE = 1024  # pixels, at most, in a notebook
_SHOWN_BYTES = 2**20


def check_target(path: str | PathLike[str], known: Iterable[str]) -> None:
    """Refuse a path whose suffix is no format, or that is a known file of the image, before anything is drawn.

    Raises:
        InputError: It is no path.
        OutputError: It is one of them.
    """
    target = file_path("path", path)
    if target.suffix.lower() not in _FORMATS:
        raise OutputError(
            f"{target} has the suffix {target.suffix!r}: expected that of an image format, {', '.join(_FORMATS)}"
        )
    if any(_is_same(target, file) for file in known):
        raise OutputError(f"{target} is the image itself, which would be lost: choose another path")


def _is_same(target: Path, file: str) -> bool:
    try:
        return target.samefile(file)
    except (OSError, ValueError):  # one of them does not exist, or cannot
        return False


def save(drawn: Image.Image, path: str | PathLike[str]) -> None:
    """Write an image in the format of the path's suffix, which `check_target` knows.

    Raises:
        OutputError: The file cannot be written, or the format holds no image of this size.
    """
    target = Path(path)
    kind, options = _FORMATS[target.suffix.lower()]
    most = _LONGEST_SIDE.get(kind, max(drawn.size))
    if max(drawn.size) > most:
        raise OutputError(
            f"cannot write {target}: {kind} holds at most {most} pixels on a side, and the image has "
            f"{drawn.width} x {drawn.height}: use .png"
        )
    with atomic_write(target, overwrite=True) as temporary:
        drawn.save(temporary, format=kind, **options)


def show(drawn: Image.Image) -> None:
    """Show an image in the notebook that runs this, or with the system's viewer.

    Raises:
        OutputError: There is no display, or no viewer.
    """
    # A notebook has imported IPython, and its shell has a kernel.
    ipython = sys.modules.get("IPython")
    if ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None:
        ipython.display.display(ipython.display.Image(data=small_png(shrunk(drawn))))
        return
    from PIL import ImageShow  # noqa: PLC0415 - looks for viewers

    blind = sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if blind or not ImageShow.show(drawn, "detections"):
        what = "no display to show the image on" if blind else "no program that shows images"
        raise OutputError(f"there is {what}: write it to a file, as in detections.save('detections.png')")


def shrunk(image: Image.Image) -> Image.Image:
    """Return an image with no side of more than 1024 pixels."""
    share = _SHOWN_SIDE / max(image.size)
    if share >= 1:
        return image
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    return image.resize(size, reducing_gap=2.0)


def small_png(image: Image.Image) -> bytes:
    """Return a PNG file of at most 1 MB, with fewer pixels if need be."""
    while True:
        stream = BytesIO()
        image.save(stream, "PNG")
        if stream.tell() <= _SHOWN_BYTES:
            return stream.getvalue()
        share = 0.95 * (_SHOWN_BYTES / stream.tell()) ** 0.5
        image = image.resize((max(1, int(image.width * share)), max(1, int(image.height * share))))
