"""Finding the image files that annotations name, and reading their sizes."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from PIL import Image

from maskrcnn.data.readers.findings import NO_PICTURES, Findings, RowError
from maskrcnn.data.readers.json_rows import shown
from maskrcnn.errors import DatasetNotFoundError
from runtime.errors import ImageError
from runtime.pictures.header import PICTURE_SUFFIXES, opened
from runtime.pictures.read import MAX_PIXELS

_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width


class PictureFolder:
    """The folder with the images of an annotation file.

    Args:
        annotations: The annotation file.
        images: The folder, if known; otherwise the folders that annotation tools use are searched.
        names: The file names in the annotations.
        root: File names must not lead out of this folder; by default, the folder with the images. Links are followed.

    Raises:
        DatasetNotFoundError: `images` is given and is not a folder.
    """

    def __init__(self, annotations: Path, images: Path | None, names: Sequence[str], root: Path | None = None) -> None:
        if images is not None and not images.is_dir():
            raise DatasetNotFoundError(
                f"{images} is not a folder; expected the folder with the images of {annotations}"
            )
        places = [images] if images is not None else _usual_folders(annotations)
        self.places = [place for place in dict.fromkeys(places) if place.is_dir()]
        self._annotations, self._names, self._root = annotations, names, root

    @cached_property
    def best(self) -> Path:
        """The folder that has the most of the images; the first one if several have as many."""
        if len(self.places) == 1:
            return self.places[0]
        return max(self.places, key=lambda place: sum(self._resolve(place, name) is not None for name in self._names))

    def find(self, name: str) -> Path | None:
        """Return the path of an image, or None if it does not exist."""
        return self._resolve(self.best, name)

    def require(self, name: str) -> Path:
        """Return the path of an image.

        Raises:
            RowError: It does not exist.
        """
        path = self.find(name)
        if path is None:
            raise RowError("missing-file", f"there is no image {shown(name)} in {self.best}")
        return path

    def note_if_none_found(self, findings: Findings) -> bool:
        """Return whether no image exists, after noting it as an error."""
        if not self._names or any(self.find(name) for name in self._names):
            return False
        places = ", ".join(map(str, self.places))
        message = f"none of its {len(self._names)} images is in {places}; give their folder with images="
        findings.add("error", NO_PICTURES, str(self._annotations), message)
        return True

    def _resolve(self, folder: Path, name: str) -> Path | None:
        # Tools on Windows write backslashes; many tools write a folder of the machine they ran on.
        forward = name.replace("\\", "/")
        for part in dict.fromkeys((name, forward, forward.rsplit("/", 1)[-1])):
            path = folder / part
            try:
                if part and _is_inside(part, folder, self._root) and path.is_file():
                    return path
            except (OSError, ValueError):  # the name is too long or contains NUL
                continue
        return None


def _is_inside(name: str, folder: Path, root: Path | None) -> bool:
    if not os.path.isabs(name) and ".." not in name:  # noqa: PTH117  (pathlib is too slow for half a million names)
        return True
    found = os.path.normpath(folder.absolute() / name)
    return Path(found).is_relative_to(os.path.normpath((root or folder).absolute()))


def _usual_folders(annotations: Path) -> list[Path]:
    here = annotations.resolve().parent
    stem = annotations.stem
    split = stem.rsplit("_", 1)[-1]  # instances_train2017.json
    return [
        here / stem,
        here / "images",
        here,
        here.parent / split,
        here.parent / "images" / split,
        here.parent / "images" / stem,
        here.parent / stem,
        here.parent / "images",
        here.parent,
    ]


@contextmanager
def opened_row(path: Path, what: str) -> Iterator[Image.Image]:
    """Open an image file for a block; raise RowError if opening it, or decoding it in the block, fails."""
    try:
        with opened(str(path), repr(str(path))) as image:
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


def picture_size(path: Path) -> tuple[int, int]:
    """Return the (height, width) that `read_image` decodes an image to, from its header.

    Raises:
        RowError: The file is not an image, or is too large.
    """
    with opened_row(path, "image") as image:
        width, height = image.size
        # Pillow applies the orientation of TIFF files itself, also to the size.
        turned = image.format != "TIFF" and image.getexif().get(_EXIF_ORIENTATION) in _TURNED
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
