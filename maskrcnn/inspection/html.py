"""Render the page as one HTML file with embedded images and escaped text, which loads nothing else."""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from importlib import resources
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskrcnn.inspection.page_model import Block, Charts, Images, Scenes, Section, Table
from maskrcnn.inspection.scene import Scene, Shape, drawing_scale, resize, scale_crop
from runtime.errors import MissingPackageError
from runtime.one_line import escaped
from runtime.output.draw import Color

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
except ModuleNotFoundError as error:
    raise MissingPackageError(error.name or "jinja2", "inspect", "writing the page") from error

_OPACITY = 0.45
_NARROW_TABLE, _LONGEST_CELL = 100, 32  # letters of a row with the spaces between its columns, and of a cell


class _Drawn(NamedTuple):
    """A shape in drawing order: the smallest comes last, on top, so that the pointer finds it."""

    row: int
    shape: Shape
    mask: str


def render(title: str, facts: Sequence[str], pictures: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the page; `facts` are short texts about the model, `pictures` names of images."""
    store = _ImageStore()
    environment = Environment(
        loader=PackageLoader("maskrcnn.inspection", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "backdrop": store.add,
        "css": _css,
        "drawn": _drawn,
        "group_colors": _group_colors,
        "is_narrow": _is_narrow,
    }
    environment.filters |= {"script": _script, "data_uri": partial(_encode, kind="WEBP"), "trusted": _Charts().place}
    folder = resources.files("maskrcnn.inspection").joinpath("page")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    body = environment.get_template("sections.html.jinja").render(pictures=pictures, sections=sections)
    return environment.get_template("page.html.jinja").render(
        title=title,
        facts=facts,
        pictures=pictures,
        sections=sections,
        body=Markup(body),  # noqa: S704  (already escaped)
        images=store.images,
        style=Markup(style),  # noqa: S704  (our own files)
        code=Markup(script),  # noqa: S704
    )


class _ImageStore:
    """The images behind the scenes, each stored once however many scenes show it."""

    def __init__(self) -> None:
        self.images: dict[str, tuple[str, int, int]] = {}

    def add(self, pixels: npt.NDArray[np.uint8]) -> str:
        """Store an image uint8 [H, W, 3] and return its name."""
        key = "picture-" + hashlib.sha256(pixels.tobytes() + str(pixels.shape).encode()).hexdigest()[:12]
        if key not in self.images:
            smaller = resize(pixels, min(1.0, drawing_scale(pixels.shape[:2])))
            self.images[key] = _encode(Image.fromarray(smaller), "JPEG"), pixels.shape[1], pixels.shape[0]
        return key


class _Charts:
    """Makes the ids of equal charts differ: images can have the same numbers."""

    def __init__(self) -> None:
        self._places: Counter[str] = Counter()

    def place(self, chart: str) -> Markup:
        """Return a chart for the next place on the page."""
        self._places[chart] += 1
        own = re.sub(r"\bchart-(?=[0-9a-f]{10}-)", f"chart-{self._places[chart]}-", chart)
        return Markup(own)  # noqa: S704  (matplotlib has escaped its texts)


def _drawn(scene: Scene) -> list[_Drawn]:
    scale = min(1.0, drawing_scale(scene.image.shape[:2]))
    sizes = [(s.box[2] - s.box[0]) * (s.box[3] - s.box[1]) for s in scene.shapes]
    order = sorted(range(len(sizes)), key=lambda row: (-sizes[row], row))
    return [_Drawn(row, scene.shapes[row], _mask(scene.shapes[row], scale)) for row in order]


def _mask(shape: Shape, scale: float) -> str:
    """Return the mask as a PNG of two colors, one of them transparent."""
    if shape.mask is None or not shape.mask[0].size:
        return ""
    pixels = shape.mask[0]
    if scale < 1:
        size = [max(1, round(side * scale)) for side in pixels.shape]
        pixels = scale_crop((pixels, (0, 0)), scale, size)[0]
    image = Image.fromarray(pixels.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, *shape.color])
    stream = BytesIO()
    image.save(stream, format="PNG", bits=1, transparency=bytes([0, round(255 * _OPACITY)]), optimize=True)
    return _uri(stream, "png")


def _group_colors(scene: Scene) -> dict[str, Color | None]:
    """Return the color of each group of a scene, in the order of first shapes; None if a group has several colors."""
    pairs = dict.fromkeys((shape.group, shape.color) for shape in scene.shapes if shape.group)
    colors: dict[str, Color | None] = dict(pairs.keys())
    return colors if len(colors) == len(pairs) else dict.fromkeys(colors)


def _is_narrow(block: Block) -> bool:
    """Return whether a block shares its row with the next narrow ones."""
    match block:
        case Table():
            columns = zip(block.columns, *block.rows, strict=True)
            widths = [min(_LONGEST_CELL, max(map(len, cells))) + 3 for cells in columns]
            return sum(widths) <= _NARROW_TABLE
        case Scenes():
            return len(block.scenes) == 1
        case Images():
            return len(block.images) == 1
        case Charts():
            return len(block.charts) == 1
    return False


def _printable(value: Any) -> Any:
    """Return a text with characters that do not print escaped; what is HTML already is returned as it is."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return escaped("".join(" " if letter.isspace() else letter for letter in value))


def _css(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _script(value: Any) -> Markup:
    """Return JSON for a script element, with "<" escaped so that no text can end the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    return Markup(text)  # noqa: S704


def _encode(image: Image.Image, kind: str) -> str:
    stream = BytesIO()
    image.save(stream, format=kind, quality=85)
    return _uri(stream, kind.lower())


def _uri(stream: BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
