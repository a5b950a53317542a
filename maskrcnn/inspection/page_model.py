"""The content of the page: sections of blocks, each of one kind. The templates define how each kind looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from PIL import Image

from maskrcnn.inspection.scene import Scene


@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers with their names; `rows` has name and value by a key such as "anchors.positive"."""

    kind: ClassVar[str] = "numbers"
    title: str
    rows: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images with shapes on them."""

    kind: ClassVar[str] = "scenes"
    title: str
    scenes: Sequence[Scene]


@dataclass(frozen=True, eq=False)
class Images:
    """Small images with captions, in rows; a wide one takes a row of its own."""

    kind: ClassVar[str] = "images"
    title: str
    intro: str
    images: Sequence[tuple[Image.Image, str]]
    wide: bool = False


@dataclass(frozen=True, eq=False)
class Charts:
    """SVG elements made by `charts.to_svg`."""

    kind: ClassVar[str] = "charts"
    title: str
    intro: str
    charts: Sequence[str]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with one text per column.

    Attributes:
        marks: "good" or "bad" by (row, column), which colors the cell.
        folded: Whether the table is closed at first.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)
    folded: bool = False


@dataclass(frozen=True, eq=False)
class Result:
    """The last filters, which the page repeats when a threshold is moved.

    Attributes:
        scene: A shape for each candidate, best score first.
        data: The data of the page's script, as JSON values.
        rows: The texts of each candidate.
        final: The candidates that are detections at the thresholds of the run.
        numbers: Name and number of boxes after each filter by key.
    """

    kind: ClassVar[str] = "result"
    scene: Scene
    data: Mapping[str, Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    final: frozenset[int]
    numbers: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, eq=False)
class Text:
    """A paragraph, and commands to type."""

    kind: ClassVar[str] = "text"
    title: str
    text: str
    commands: Sequence[str] = ()


Block = Numbers | Scenes | Images | Charts | Table | Result | Text


@dataclass(eq=False)
class Section:
    """A section of the page; `common` blocks belong to no image, the others are stored by the number of their image."""

    key: str
    title: str
    intro: str
    common: list[Block] = field(default_factory=list)
    of_picture: dict[int, list[Block]] = field(default_factory=dict)
