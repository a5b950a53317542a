"""Draw detections, or other objects, on their image."""

import colorsys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from runtime.arguments import real
from runtime.masks.paste import MaskCrop, paste_mask
from runtime.output.splash import read_image_of
from runtime.pictures.read import ImageSource

if TYPE_CHECKING:
    from runtime.detections import Detections

Color = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]

# Multiples of the golden ratio spread hues evenly, however many there are.
_GOLDEN_RATIO = 0.618033988749895

# Rows of a mask that are drawn at a time: such a strip fits the processor's cache.
_STRIP_ROWS = 128

_NO_MASK: MaskCrop = (np.zeros((0, 0), np.bool_), (0, 0))


class DrawnObject(NamedTuple):
    """How one object is drawn."""

    crop: MaskCrop | Callable[[], MaskCrop]  # a function makes it when it is drawn: one crop is in memory at a time
    box: Sequence[int]  # x1, y1, x2, y2 in whole image pixels; the label is next to it
    name: str  # first part of the label, shortened if there is no room
    tail: str  # second part of the label, such as a score
    color: Color
    area: int | None = None  # pixels of the mask; None counts them


def draw_detections(
    image: ImageSource,
    detections: "Detections",
    *,
    masks: bool = True,
    boxes: bool = True,
    labels: bool = True,
    opacity: float = 0.45,
) -> Image.Image:
    """Draw masks, boxes and labels; the color of a detection depends only on its position in the list.

    Large masks are drawn first, so that small ones stay visible. Line width and letter size grow with the image.

    Args:
        image: the image that the detections belong to: a path, bytes, a PIL image or a uint8 array.
        detections: if there are none, the image is returned as it is.
        masks: tint and outline the masks.
        boxes: draw the boxes.
        labels: write name and score next to each box, inside the image.
        opacity: opacity of the tint, 0..1.

    Returns:
        An RGB image of the same size; `image` itself is not changed.

    Raises:
        ImageError: `image` cannot be read.
        InputError: its size is not `detections.image_size`, or `opacity` is out of range.
    """
    opacity = real("opacity", opacity, range_="0 (clear) to 1 (solid)")
    pixels = read_image_of(detections, image)
    pairs = zip(detections.mask_probabilities, detections.boxes, strict=True)
    # One mask at a time; `Detections.mask_crops` would keep them all.
    crops = [partial(paste_mask, *pair, detections.image_size, detections.paste_mode) for pair in pairs]
    areas = detections.areas.tolist() if masks else [0] * len(crops)
    rows = zip(crops, detections.pixel_boxes.tolist(), detections.names, detections.scores, areas, strict=True)
    objects = [
        DrawnObject(crop if masks else _NO_MASK, box, name, f" {score:.2f}", instance_color(row), area)
        for row, (crop, box, name, score, area) in enumerate(rows)
    ]
    return draw_objects(pixels, objects, boxes=boxes, labels=labels, opacity=opacity)


def draw_objects(
    pixels: npt.NDArray[np.uint8],
    objects: Sequence[DrawnObject],
    *,
    boxes: bool = True,
    labels: bool = True,
    opacity: float = 0.45,
) -> Image.Image:
    """Draw objects on `pixels`, uint8 [H, W, 3], as `draw_detections` does.

    Boxes and labels are drawn in the order of `objects`; an object without name and tail has no label.
    """
    height, width = pixels.shape[:2]
    extent = (height * width) ** 0.5
    line = max(1, round(extent / 320))
    canvas = Image.fromarray(pixels)
    for each in sorted(objects, key=_area, reverse=True):  # equal ones in their order
        _tint(canvas, _made(each.crop), each.color, opacity, line)
    pen = ImageDraw.Draw(canvas)
    if boxes:
        for each in objects:
            x1, y1, x2, y2 = each.box
            if x2 > x1 and y2 > y1:
                pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=each.color, width=line)
    if labels:
        size = max(10, min(round(extent / 45), min(height, width) // 6))
        labeled = [each for each in objects if each.name or each.tail]
        _write_labels(pen, labeled, (height, width), ImageFont.load_default(size), line)
    return canvas


def instance_color(row: int) -> Color:
    """Return the RGB color of the detection at position `row`."""
    red, green, blue = colorsys.hsv_to_rgb(row * _GOLDEN_RATIO % 1, 0.8, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _made(crop: MaskCrop | Callable[[], MaskCrop]) -> MaskCrop:
    return crop() if callable(crop) else crop


def _area(drawn: DrawnObject) -> int:
    return int(np.count_nonzero(_made(drawn.crop)[0])) if drawn.area is None else drawn.area


def _tint(canvas: Image.Image, place: MaskCrop, color: Color, opacity: float, line: int) -> None:
    crop, (y, left) = place
    mixed = [np.rint((1 - opacity) * np.arange(256) + opacity * value).astype(int).tolist() for value in color]
    surrounded = np.pad(crop, line)
    for top in range(0, len(crop), _STRIP_ROWS):
        strip = crop[top : top + _STRIP_ROWS]
        box = (left, y + top, left + strip.shape[1], y + top + len(strip))
        canvas.paste(canvas.crop(box).point(mixed[0] + mixed[1] + mixed[2]), box, Image.fromarray(strip))
        inner = _eroded(surrounded[top : top + len(strip) + 2 * line], line)[line:-line, line:-line]
        canvas.paste(color, box, Image.fromarray(strip & ~inner))


def _eroded(mask: npt.NDArray[np.bool_], steps: int) -> npt.NDArray[np.bool_]:
    """Remove the pixels that are at most `steps` up, down, left or right from the outside, but for the outer rows."""
    reach = 0
    while reach < steps:
        step = min(max(reach, 1), steps - reach)  # shifts by up to `reach` leave no gaps, so the reach can double
        inner = mask.copy()
        inner[step:] &= mask[:-step]
        inner[:-step] &= mask[step:]
        inner[:, step:] &= mask[:, :-step]
        inner[:, :-step] &= mask[:, step:]
        mask, reach = inner, reach + step
    return mask


def _write_labels(
    pen: ImageDraw.ImageDraw,
    objects: Sequence[DrawnObject],
    image_size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    line: int,
) -> None:
    margin = line + 1
    taken: list[Rectangle] = []
    for _, box, name, tail, color, _ in objects:
        text = _fit(pen, font, name, tail, image_size[1] - 2 * margin)
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        size = (right - left + 2 * margin, bottom - top + 2 * margin)
        tag = _free_place(box, size, image_size, taken)
        taken.append(tag)
        pen.rectangle((tag[0], tag[1], tag[2] - 1, tag[3] - 1), fill=color)
        pen.text((tag[0] + margin - left, tag[1] + margin - top), text, _ink(color), font=font)


def _free_place(
    box: Sequence[int], size: tuple[float, float], image_size: tuple[int, int], taken: list[Rectangle]
) -> Rectangle:
    """Return the first free place inside the image for a tag of `size` (width, height) at its box."""
    inside = list(_places(box, size, image_size))
    free = (p for p in inside if not any(_overlap(p, other) for other in taken))
    return next(free, inside[0])


def _places(box: Sequence[int], size: tuple[float, float], image_size: tuple[int, int]) -> Iterator[Rectangle]:
    x1, y1, x2, y2 = box
    (wide, high), (height, width) = size, image_size
    # Above the box, below it, then inside it from the top down; at its left edge, then at its right.
    tops = [y1 - high, y2, *np.arange(max(y1, 0), min(y2, height) - high, high)]
    fitting = [top for top in tops if 0 <= top <= height - high] or [min(max(y1, 0), max(height - high, 0))]
    for top in fitting:
        for start in (x1, x2 - wide):
            left = max(0, min(start, width - wide))
            yield left, top, left + wide, top + high


def _overlap(first: Rectangle, second: Rectangle) -> bool:
    across = first[0] < second[2] and second[0] < first[2]
    return across and first[1] < second[3] and second[1] < first[3]


def _fit(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    name: str,
    score: str,
    room: float,
) -> str:
    """Shorten a name until the label fits; characters that do not print are shown as "?"."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in name)
    text = shown + score
    while shown and pen.textlength(text, font=font) > room:
        shown = shown[:-1]
        text = shown + "\N{HORIZONTAL ELLIPSIS}" + score
    return text if shown else score.strip()


def _ink(color: Color) -> Color:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # WCAG contrast is (light + 0.05) / (dark + 0.05); black and white are equal at sqrt(1.05 * 0.05) - 0.05.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
