"""Names of the classes of mask images, in a text file beside their folders."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from maskrcnn.data.readers.findings import RowError
from maskrcnn.data.readers.json_rows import read_text, shown
from maskrcnn.data.readers.mask_values import MaskMap
from maskrcnn.data.readers.picture_rows import BACKGROUND
from maskrcnn.errors import DatasetFormatError

_FILES = ("labelmap.txt", "classes.txt", "class_names.txt")
_BACKGROUNDS = ("background", "bg", "unlabeled", "unlabelled")
_IGNORED = "ignore"  # a line of labelme's, for pixels that are nobody's
_COLOR = re.compile(r"\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*")


@dataclass
class MaskClasses:
    """Names of classes by the value, or by the color, of their pixels.

    Attributes:
        file: Where they are from, for messages.
        names: The background, and the classes in the order of the file.
        background: The color that means background, besides black.
    """

    file: str
    names: tuple[str, ...]
    background: int = 0
    _values: dict[int, str] = field(default_factory=dict)
    _colors: dict[int, str] = field(default_factory=dict)

    @property
    def has_colors(self) -> bool:
        """Whether classes have colors."""
        return bool(self._colors)

    def without_background(self, found: MaskMap) -> MaskMap:
        """Return a map of colors whose background is 0."""
        if not found.colored or not self.background:
            return found
        return replace(found, values=np.where(found.values == self.background, 0, found.values))

    def of(self, value: int, *, colored: bool) -> str:
        """Return the class of a value, or of a color 0xRRGGBB; raise RowError if it has none."""
        name = (self._colors if colored else self._values).get(value)
        if name is None:
            what = f"color is {value >> 16}, {value >> 8 & 255}, {value & 255}" if colored else f"class is {value}"
            raise RowError("unknown-category", f"its {what}, which {self.file} does not name")
        return name


def read_classes(folder: Path, encoding: str | None) -> MaskClasses | None:
    """Read the names in `labelmap.txt` (`name:red,green,blue:...` in each line) or in `classes.txt`; None without them.

    A line is the class of the value that is its number: the first one that of 0 if it is called background, else of 1.

    Raises:
        DatasetFormatError: The file has no classes, duplicates, or a line that cannot be read.
        DatasetError: The file cannot be decoded.
    """
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    lines = [line.strip() for line in read_text(path, encoding)[0].splitlines()]
    lines = [line for line in lines if line and not line.startswith("#") and line.strip("_").lower() != _IGNORED]
    colored = path.name == _FILES[0]
    rows = [_row(line, path) if colored else (line, None) for line in lines]
    names = [name for name, _ in rows]
    behind = [name for name in names if not _is_background(name)]
    if not behind or len(set(names)) != len(names) or BACKGROUND in behind or len(behind) < len(names) - 1:
        raise DatasetFormatError(f"{path} has the classes {shown(names)}; expected unique names, one in each line")
    first = int(len(behind) == len(names))
    found = MaskClasses(path.name, (BACKGROUND, *behind))
    for value, (name, color) in enumerate(rows, first):
        if _is_background(name):
            found.background = color or 0
            continue
        found._values[value] = name
        if color is not None:
            if color in found._colors or color == 0:
                raise DatasetFormatError(f"{path} gives {shown(name)} the color of another class or of the background")
            found._colors[color] = name
    return found


def _is_background(name: str) -> bool:
    return name.strip("_").lower() in _BACKGROUNDS


def _row(line: str, path: Path) -> tuple[str, int]:
    name, _, rest = line.partition(":")
    match = _COLOR.fullmatch(rest.split(":")[0])
    values = [int(value) for value in match.groups()] if match else [256]
    if not name or max(values) > 255:
        raise DatasetFormatError(f"{path} has the line {shown(line)}; expected name:red,green,blue")
    return name.strip(), values[0] << 16 | values[1] << 8 | values[2]
