"""What the page shows: sections of blocks, each block one kind of content. The templates know how each kind looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from PIL import Image

from maskrcnn.inspection.scene import Scene


@dataclass(frozen=True, eq=False)
class Numbers:
    """Figures with their names; each can be found in the page by its key.

    Attributes:
        title: A few words.
        rows: Name and value by key, such as "anchors.positive".
    """

    kind: ClassVar[str] = "numbers"
    title: str
    rows: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pictures with shapes on them."""

    kind: ClassVar[str] = "scenes"
    title: str
    scenes: Sequence[Scene]


@dataclass(frozen=True, eq=False)
class Images:
    """Small images in rows.

    Attributes:
        title: A few words.
        intro: What is to be seen.
        images: Each with its caption.
        wide: Whether each takes a row of its own.
    """

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
    """Rows of texts.

    Attributes:
        title: A few words.
        columns: Their names.
        rows: One text per column.
        marks: By (row, column): "good" or "bad", which colors the cell.
        folded: Whether the table is closed until somebody opens it.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)
    folded: bool = False


@dataclass(frozen=True, eq=False)
class Result:
    """The final step, which the page repeats when a threshold is moved.

    Attributes:
        scene: A shape for each candidate, best score first.
        data: What the script needs, JSON serialisable.
        rows: A row of texts for each candidate: number, class, score, level, IoU.
        columns: Their names.
        final: Candidates of the result at the thresholds of the run.
        numbers: Boxes after each filter, name and value by key.
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
    """A paragraph, and lines to be typed."""

    kind: ClassVar[str] = "text"
    title: str
    text: str
    commands: Sequence[str] = ()


Block = Numbers | Scenes | Images | Charts | Table | Result | Text


@dataclass(eq=False)
class Section:
    """A part of the page.

    Attributes:
        key: Of its link.
        title: In words.
        intro: What the section is about.
        common: Blocks that belong to no picture.
        of_picture: Blocks by the number of their picture.
    """

    key: str
    title: str
    intro: str
    common: list[Block] = field(default_factory=list)
    of_picture: dict[int, list[Block]] = field(default_factory=dict)
