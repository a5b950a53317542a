"""Draw detections, or other objects, on their image."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.arguments import flag, real, shown
from runtime.errors import InputError
from runtime.masks.paste import MaskCrop
from runtime.output.labels import RGB, LabeledObject, readable_name, write_labels
from runtime.output.splash import read_image_of
from runtime.pictures.read import ImageSource

if TYPE_CHECKING:
    from runtime.detections import Detections

Color = RGB
ColorBy = Literal["object", "class"]

# Three hexadecimal digits for each of 100 colors, all saturated and none dark. Each was chosen to be as far as possible
# from those before it, for usual vision and for three kinds of color blindness (distance in OKLab).
_PALETTE = (
    "29ff71fd2d170d884d4fffa0e5f08cf3bc60a4fc0a2bdc0070faf80df4f48c1c5de04f86d2bf54ec091cc060e6c1e4cfc70f"
    "6bf3e17c82dfb50ae0c68e9f8cd59d7787d8fac49de6faed94e58f9e88e95d58fb7de7ccd78afc5ad56be8d8ec51f96c6a6c"
    "8f9b2cbd7a5eed00c08b8d8d90fb1dcf1acb4c3c76cd65c2bd0a7ebd69ca0a0f9c7ad292ed05f69cc5c67e7697ee3fc38d3c"
)

# Pixels of a mask that are drawn at a time: they fit the processor's cache.
_STRIP_PIXELS = 1 << 17

_Plan = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

# Rows, and half the columns, of the part of an image that is mixed at a time.
_TILE = 128

_NO_MASK: MaskCrop = (np.zeros((0, 0), np.bool_), (0, 0))


class DrawnObject(NamedTuple):
    """How one object is drawn."""

    crop: MaskCrop | Callable[[], MaskCrop]  # a function makes it when it is drawn: one crop is in memory at a time
    box: Sequence[int]  # x1, y1, x2, y2 in whole image pixels; the label is next to it
    name: str  # first part of the label, shortened if it is long
    tail: str  # second part of the label, such as a score; left out where there is no room
    color: Color
    area: int | None = None  # pixels of the mask, or of the box where no masks are drawn; None counts those of the mask


class DrawOptions(TypedDict, total=False):
    """The options of `draw_detections`, for methods that pass them on: editors complete them."""

    masks: bool
    boxes: bool
    labels: bool
    opacity: float
    color_by: ColorBy


def draw_detections(
    image: ImageSource,
    detections: "Detections",
    *,
    masks: bool = True,
    boxes: bool = True,
    labels: bool = True,
    opacity: float = 0.45,
    color_by: ColorBy = "object",
) -> Image.Image:
    """Draw masks with their outlines, boxes and labels.

    Small objects are drawn over large ones; each pixel has the tint of one object. Lines and letters grow with the
    image, and lines are thinner on small objects. No label covers another or leaves the image; one that would hide more
    than 30 % of an object is shortened to the name or left out.

    Names are written in Pillow's own font, which has ASCII only. For others a font of the system is used; if none has
    the letters, the log says so, accents are left out, and a name without any letter becomes "class N".

    Args:
        image: the image that the detections belong to: a path, bytes, a PIL image or a uint8 array.
        detections: if there are none, the image is returned as it is.
        masks: tint and outline the masks.
        boxes: draw the boxes.
        labels: write name and score next to each box.
        opacity: opacity of the tint, 0..1.
        color_by: "object": a color for each position in the list, so that neighbors of a class differ. "class": a color
            for each class, which stays the same in all images. There are 100 colors; then they repeat.

    Returns:
        An RGB image of the same size; `image` itself is not changed.

    Raises:
        ImageError: `image` cannot be read.
        InputError: its size is not `detections.image_size`, or an option is out of range or of another type.
    """
    masks, boxes, labels = flag("masks", masks), flag("boxes", boxes), flag("labels", labels)
    opacity = real("opacity", opacity, range_="0 (clear) to 1 (solid)")
    if not isinstance(color_by, str) or color_by not in get_args(ColorBy):
        raise InputError(f"color_by is {shown(color_by)}: expected one of {', '.join(get_args(ColorBy))}")
    pixels = read_image_of(detections, image)
    found = detections.mask_runs if masks else [None] * len(detections)
    ids = detections.class_ids.tolist()
    rows = zip(found, detections.pixel_boxes.tolist(), ids, detections.names, detections.scores, strict=True)
    objects = [
        DrawnObject(
            _NO_MASK if runs is None else runs.crop,  # one crop at a time is in memory
            box,
            readable_name(name, class_id),
            f" {score:.2f}",
            instance_color(class_id - 1 if color_by == "class" else row),
            max(0, box[2] - box[0]) * max(0, box[3] - box[1]) if runs is None else runs.area,
        )
        for row, (runs, box, class_id, name, score) in enumerate(rows)
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

    An object without name and tail has no label.
    """
    height, width = pixels.shape[:2]
    line = max(1, round((height * width) ** 0.5 / 320))
    colors = list(dict.fromkeys(each.color for each in objects))
    # Per pixel the number of its color, counted from 1, and a bit for lines, which no tint covers.
    plan = np.zeros((height, width), np.uint8 if len(colors) < 128 else np.uint16)
    solid = 1 << (8 * plan.itemsize - 1)
    for each in sorted(objects, key=_area, reverse=True):  # equal ones in their order
        number, crop = colors.index(each.color) + 1, _made(each.crop)
        if boxes:
            _mark_box(plan, each.box, number | solid, max(1, _line(line, each.box) // (2 if crop[0].size else 1)))
        _mark_mask(plan, crop, number, solid, _line(line, each.box))
    canvas = _blend(pixels, plan, colors, opacity)
    if labels:
        write_labels(canvas, [LabeledObject(each.box, each.name, each.tail, each.color) for each in objects])
    return canvas


def instance_color(row: int) -> Color:
    """Return the RGB color of the detection at position `row`, or of the class with id `row` + 1."""
    place = row % (len(_PALETTE) // 3) * 3
    red, green, blue = (17 * int(digit, 16) for digit in _PALETTE[place : place + 3])
    return red, green, blue


def _made(crop: MaskCrop | Callable[[], MaskCrop]) -> MaskCrop:
    return crop() if callable(crop) else crop


def _area(drawn: DrawnObject) -> int:
    return int(np.count_nonzero(_made(drawn.crop)[0])) if drawn.area is None else drawn.area


def _line(most: int, box: Sequence[int]) -> int:
    """Return the width of an object's lines: thinner ones leave something of a small object to see."""
    x1, y1, x2, y2 = box
    return max(1, min(most, round(min(x2 - x1, y2 - y1) / 16)))


def _mark_box(plan: _Plan, box: Sequence[int], code: int, line: int) -> None:
    limits = plan.shape[::-1]
    x1, y1, x2, y2 = (max(0, min(side, limit)) for side, limit in zip(box, limits * 2, strict=True))
    inside = plan[y1:y2, x1:x2]
    for edge in (inside[:line], inside[-line:], inside[:, :line], inside[:, -line:]):
        edge[...] = code


def _mark_mask(plan: _Plan, place: MaskCrop, number: int, solid: int, line: int) -> None:
    crop, (y, x) = place
    height, width = crop.shape
    step = max(line, _STRIP_PIXELS // max(1, width))
    for top in range(0, height, step):
        strip, above = crop[top : top + step], min(top, line)
        inner = _eroded(crop[top - above : top + step + line], line)[above : above + len(strip)]
        codes = plan[y + top : y + top + len(strip), x : x + width]
        np.copyto(codes, number, where=strip & (codes < solid))
        np.copyto(codes, number | solid, where=strip & ~inner)


def _eroded(mask: npt.NDArray[np.bool_], steps: int) -> npt.NDArray[np.bool_]:
    """Remove the pixels that are at most `steps` up, down, left or right from the outside, which is around it too."""
    reach = 0
    while reach < steps:
        step = min(max(reach, 1), steps - reach)  # shifts by up to `reach` leave no gaps, so the reach can double
        inner = np.zeros_like(mask)
        if min(mask.shape) > 2 * step:
            inner[step:-step, step:-step] = mask[step:-step, step:-step]
            inner[step:] &= mask[:-step]
            inner[:-step] &= mask[step:]
            inner[:, step:] &= mask[:, :-step]
            inner[:, :-step] &= mask[:, step:]
        mask, reach = inner, reach + step
    return mask


def _blend(pixels: npt.NDArray[np.uint8], plan: _Plan, colors: Sequence[Color], opacity: float) -> Image.Image:
    """Mix the colors into an image where the plan has a number, and replace its pixels where it has a line."""
    canvas = Image.fromarray(pixels)
    solid = 1 << (8 * plan.itemsize - 1)
    table = np.zeros((2, solid, 4), np.uint8)
    table[:, 1 : len(colors) + 1, :3] = np.array(colors, np.uint8).reshape(-1, 3)
    inks = table.reshape(-1, 4).view(np.uint32)[:, 0]
    for top in range(0, plan.shape[0], _TILE):
        for left in range(0, plan.shape[1], 2 * _TILE):
            tile = plan[top : top + _TILE, left : left + 2 * _TILE]
            rows, columns = np.flatnonzero(tile.any(axis=1)), np.flatnonzero(tile.any(axis=0))
            if len(rows):
                part = tile[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                x, y = left + int(columns[0]), top + int(rows[0])
                box = (x, y, x + part.shape[1], y + part.shape[0])
                color = Image.frombuffer("RGBX", part.shape[::-1], np.take(inks, part), "raw", "RGBX", 0, 1)
                color = color.convert("RGB")
                canvas.paste(Image.blend(canvas.crop(box), color, opacity), box, Image.fromarray(part > 0))
                canvas.paste(color, box, Image.fromarray(part > solid))
    return canvas
