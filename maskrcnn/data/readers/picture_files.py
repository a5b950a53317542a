"""Finding the pictures that annotations name, and their sizes."""

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
    """The folder in which the pictures of an annotation file lie.

    Args:
        annotations: The annotation file.
        images: The folder, if it is known; else those where annotation tools put pictures are looked at.
        names: The file names that the annotations give.
        root: The folder that no name may lead out of; by default that of the pictures. Links in it are followed.

    Raises:
        DatasetNotFoundError: `images` is given and is not a folder.
    """

    def __init__(self, annotations: Path, images: Path | None, names: Sequence[str], root: Path | None = None) -> None:
        if images is not None and not images.is_dir():
            raise DatasetNotFoundError(f"{images} is not a folder; expected that of the pictures of {annotations}")
        places = [images] if images is not None else _usual_folders(annotations)
        self.places = [place for place in dict.fromkeys(places) if place.is_dir()]
        self._annotations, self._names, self._root = annotations, names, root

    @cached_property
    def best(self) -> Path:
        """The first of the folders that hold the most of the pictures."""
        if len(self.places) == 1:
            return self.places[0]
        return max(self.places, key=lambda place: sum(self._resolve(place, name) is not None for name in self._names))

    def find(self, name: str) -> Path | None:
        """Path of a picture, None if there is none."""
        return self._resolve(self.best, name)

    def require(self, name: str) -> Path:
        """Path of a picture.

        Raises:
            RowError: There is none.
        """
        path = self.find(name)
        if path is None:
            raise RowError("missing-file", f"there is no picture {shown(name)} in {self.best}")
        return path

    def note_if_none_found(self, findings: Findings) -> bool:
        """Note an error if none of the pictures is there; returns whether."""
        if not self._names or any(self.find(name) for name in self._names):
            return False
        places = ", ".join(map(str, self.places))
        message = f"none of its {len(self._names)} pictures is in {places}; give their folder with images="
        findings.add("error", NO_PICTURES, str(self._annotations), message)
        return True

    def _resolve(self, folder: Path, name: str) -> Path | None:
        # Tools on Windows write backslashes; many write a folder of the machine that they ran on.
        forward = name.replace("\\", "/")
        for part in dict.fromkeys((name, forward, forward.rsplit("/", 1)[-1])):
            path = folder / part
            try:
                if part and _is_inside(part, folder, self._root) and path.is_file():
                    return path
            except (OSError, ValueError):  # a name that is too long, or has a NUL
                continue
        return None


def _is_inside(name: str, folder: Path, root: Path | None) -> bool:
    if not os.path.isabs(name) and ".." not in name:  # noqa: PTH117  (half a million names of a large file)
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
    """Open a picture file for the time of a block; what is wrong with it, decoding in the block included, is a fault.

    Raises:
        RowError: It cannot be read, or as the block raises.
    """
    try:
        with opened(str(path), repr(str(path))) as image:
            yield image
    except RowError:
        raise
    except ImageError as error:
        raise RowError("broken-image", f"the {what} {error}") from error
    except Exception as error:  # decoders raise a dozen types for the same fault: a damaged file
        raise RowError("broken-image", f"the {what} {path} cannot be read: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """What an error of somebody else's code says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture as `read_image` decodes it, from its header.

    Raises:
        RowError: It is not a picture, or is too large.
    """
    with opened_row(path, "picture") as image:
        width, height = image.size
        # Pillow turns TIFF by itself, its size too.
        turned = image.format != "TIFF" and image.getexif().get(_EXIF_ORIENTATION) in _TURNED
    check_pixels(height, width)
    return (width, height) if turned else (height, width)


def check_pixels(height: int, width: int) -> None:
    """Refuse a size that no picture has.

    Raises:
        RowError: It has more pixels than are decoded.
    """
    if height * width > MAX_PIXELS:
        raise RowError(
            "image-size", f"a picture of {shown(width)} x {shown(height)} pixels; at most {MAX_PIXELS} are allowed"
        )


def list_pictures(folder: Path) -> dict[str, Path]:
    """The picture files of a folder by stem, in the order of their names."""
    files: Iterable[Path] = sorted(folder.iterdir()) if folder.is_dir() else ()
    found: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith("."):
            found.setdefault(path.stem, path)
    return found
