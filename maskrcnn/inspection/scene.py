"""An image with boxes, masks and arrows on it, drawn by PIL for notebooks and as SVG on the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from runtime.masks.paste import MaskCrop
from runtime.output.draw import Color, DrawnObject, draw_objects
from runtime.output.labels import LabeledObject, write_labels

Box = tuple[float, float, float, float]

POSITIVE: Color = (64, 220, 96)
NEGATIVE: Color = (255, 72, 72)
NEUTRAL: Color = (150, 160, 235)
FALSE: Color = (255, 160, 32)
DUPLICATE: Color = (240, 90, 240)
TRUTH: Color = (70, 200, 255)

# Largest and smallest length of a drawn image's longer side, in pixels.
_LONGEST, _SHORTEST = 1024, 512
_DASH = 6
_LONGEST_LABEL = 22  # letters of a class


@dataclass(frozen=True)
class Shape:
    """One box on a scene, with its mask and texts.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the scene's image.
        dotted: Whether the box is an origin rather than a result.
        label: Text next to the box, see `label_of`. The page leaves out those for which there is no room.
        facts: Texts by name, such as score and class, which the page shows when the pointer is on the box.
        group: Shapes of a group, such as a class, are switched on and off together.
        target: The box that this one moves to, drawn as an arrow from center to center.
    """

    box: Box
    color: Color
    dotted: bool = False
    label: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    mask: MaskCrop | None = None
    target: Box | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and the shapes on it, in drawing order; a notebook displays it as it is.

    Attributes:
        name: Name in TensorBoard: letters, digits, "/" and "_".
        image: uint8 [H, W, 3].
        margin: Space around the image for shapes that leave it, as a share of its longer side.
    """

    name: str
    title: str
    caption: str
    image: npt.NDArray[np.uint8]
    shapes: Sequence[Shape] = ()
    margin: float = 0.0

    @property
    def border(self) -> int:
        """The margin in pixels of the image."""
        return round(self.margin * max(self.image.shape[:2]))

    def to_image(self) -> Image.Image:
        """Draw the scene as an RGB image; small images are enlarged, large ones reduced."""
        pixels = np.pad(self.image, [(self.border,) * 2, (self.border,) * 2, (0, 0)], constant_values=40)
        scale = drawing_scale(pixels.shape[:2])
        shrunk = resize(pixels, scale)
        objects = [self._drawn(shape, scale, shrunk.shape[:2]) for shape in self.shapes]
        canvas = draw_objects(shrunk, objects, boxes=False, labels=False)
        pen = ImageDraw.Draw(canvas)
        width = max(1, round(max(canvas.size) / 512))
        for shape in self.shapes:
            _draw_box(pen, self._scaled(shape.box, scale), shape, width)
            if shape.target is not None:
                _draw_arrow(pen, self._scaled(shape.box, scale), self._scaled(shape.target, scale), shape.color, width)
        write_labels(canvas, [LabeledObject(each.box, each.name, each.tail, each.color) for each in objects])
        return canvas

    def _repr_png_(self) -> bytes:
        stream = BytesIO()
        self.to_image().save(stream, format="PNG")
        return stream.getvalue()

    def _scaled(self, box: Box, scale: float) -> Box:
        x1, y1, x2, y2 = ((side + self.border) * scale for side in box)
        return x1, y1, x2, y2

    def _drawn(self, shape: Shape, scale: float, size: tuple[int, ...]) -> DrawnObject:
        x1, y1, x2, y2 = (round(side) for side in self._scaled(shape.box, scale))
        mask = shape.mask or (np.zeros((0, 0), np.bool_), (0, 0))
        if scale != 1 or self.border:
            mask = scale_crop((mask[0], (mask[1][0] + self.border, mask[1][1] + self.border)), scale, size)
        return DrawnObject(mask, (x1, y1, x2, y2), shape.label, "", shape.color)


def label_of(name: str, score: float | None = None) -> str:
    """Return the label of an object: its class, shortened where it is long, and its score."""
    short = name if len(name) <= _LONGEST_LABEL else name[: _LONGEST_LABEL - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return short if score is None else f"{short} {score:.2f}"


def box_of(corners: npt.NDArray[np.number]) -> Box:
    """Return corners [4] as the box of a shape."""
    x1, y1, x2, y2 = (float(side) for side in corners)
    return x1, y1, x2, y2


def drawing_scale(size: Sequence[int]) -> float:
    """Return the factor by which an image of (height, width) is scaled for drawing."""
    longest = max(size)
    return min(1.0, _LONGEST / longest) if longest > _SHORTEST else _SHORTEST / longest


def resize(pixels: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    """Scale an image uint8 [H, W, 3]."""
    if scale == 1:
        return pixels
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return np.array(Image.fromarray(pixels).resize((size[0], size[1]), method))


def scale_crop(crop: MaskCrop, scale: float, size: Sequence[int]) -> MaskCrop:
    """Scale a mask for a scaled image of `size` (height, width); parts thinner than a pixel keep one pixel."""
    pixels, (y, x) = crop
    if not pixels.size:
        return pixels, (0, 0)
    edges = [np.rint(np.array([low, low + n]) * scale).astype(int) for low, n in zip((y, x), pixels.shape, strict=True)]
    limits = zip(edges, size, strict=False)
    (top, bottom), (left, right) = (
        (min(low, n - 1), max(min(high, n), min(low, n - 1) + 1)) for (low, high), n in limits
    )
    rows = np.minimum(((np.arange(top, bottom) + 0.5) / scale - y).astype(int), pixels.shape[0] - 1)
    columns = np.minimum(((np.arange(left, right) + 0.5) / scale - x).astype(int), pixels.shape[1] - 1)
    return pixels[np.maximum(rows, 0)][:, np.maximum(columns, 0)], (int(top), int(left))


def _draw_box(pen: ImageDraw.ImageDraw, box: Box, shape: Shape, width: int) -> None:
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return
    if not shape.dotted:
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=shape.color, width=width)
        return
    for begin in np.arange(x1, x2, 2 * _DASH):
        end = min(begin + _DASH, x2)
        pen.line((begin, y1, end, y1), shape.color, width)
        pen.line((begin, y2 - 1, end, y2 - 1), shape.color, width)
    for begin in np.arange(y1, y2, 2 * _DASH):
        end = min(begin + _DASH, y2)
        pen.line((x1, begin, x1, end), shape.color, width)
        pen.line((x2 - 1, begin, x2 - 1, end), shape.color, width)


def _draw_arrow(pen: ImageDraw.ImageDraw, source: Box, target: Box, color: Color, width: int) -> None:
    (x, y), (to_x, to_y) = (((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (source, target))
    pen.line((x, y, to_x, to_y), color, width)
    dot = width + 1
    pen.ellipse((to_x - dot, to_y - dot, to_x + dot, to_y + dot), fill=color)
