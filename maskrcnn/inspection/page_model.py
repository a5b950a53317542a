"""The content of the page: sections of blocks, each of one kind. The templates define how each kind looks.

The blocks of a section follow each other. Most take a whole row. Tables that are not wide, and `Scenes`, `Images` and
`Charts` of one figure share a row with their neighbors of these kinds, so keep together what belongs together. The page
chooses how many figures of a block stand side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from PIL import Image

from maskrcnn.inspection.scene import Scene


@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers with their names; `rows` has name and value by a key such as "anchors.positive"."""

    kind: ClassVar[str] = "numbers"
    title: str
    rows: Mapping[str, tuple[str, str]]


class Finding(NamedTuple):
    """What a reader should look at.

    Attributes:
        section: Key of the section that shows it, to which its text is a link.
        text: What was found, in a few words.
        picture: Number of the image that it was found in; None for what belongs to no image.
    """

    section: str
    text: str
    picture: int | None = None


@dataclass(frozen=True, eq=False)
class Summary:
    """The whole inspection in a few numbers.

    Attributes:
        numbers: Name and text by key, as in `Numbers`.
        columns: The names of the columns of `rows`.
        rows: One row per image: its name, which is a link to its result, and a text for each further column. They are
            shown if there are several.
        findings: What to look at; if there is nothing, the page says so.
    """

    kind: ClassVar[str] = "summary"
    numbers: Mapping[str, tuple[str, str]]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    findings: Sequence[Finding]


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images with shapes on them; shapes with a label have it written next to them where there is room."""

    kind: ClassVar[str] = "scenes"
    title: str
    scenes: Sequence[Scene]


@dataclass(frozen=True, eq=False)
class Images:
    """Small images with captions, side by side; wide ones are mosaics, which get more room."""

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


Block = Numbers | Summary | Scenes | Images | Charts | Table | Result | Text


@dataclass(eq=False)
class Section:
    """A section of the page; `common` blocks belong to no image, the others are stored by the number of their image.

    A section without blocks is not shown.
    """

    key: str
    title: str
    intro: str
    common: list[Block] = field(default_factory=list)
    of_picture: dict[int, list[Block]] = field(default_factory=dict)
