"""One image of the worst images: ground truth beside predictions, colored by outcome."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.evaluation.picture_score import Outcome, PictureScore, score_picture, shown
from maskrcnn.evaluation.results import ScoredResult
from runtime.masks.paste import MaskCrop, crop_of
from runtime.masks.rle import RLE, decode
from runtime.output.draw import Color, DrawnObject, draw_objects
from runtime.pictures.read import read_image

CELL = (480, 360)  # width and height for an image, in pixels of the sheet

_COLORS: dict[Outcome, Color] = {
    "found": (64, 220, 96),
    "missed": (255, 72, 72),
    "false": (255, 160, 32),
    "ignored": (150, 160, 235),
}
_LEGEND: dict[Outcome, str] = {
    "found": "found",
    "missed": "missed object",
    "false": "false positive",
    "ignored": "crowd, not counted",
}
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PAPER, _INK, _FAINT = (250, 250, 250), (20, 20, 20), (110, 110, 110)
_GAP, _LINE, _HEAD = 12, 22, 54
_FONT_SIZE = 14
_MOST_LABELS = 12  # with more objects, only errors are labeled, because labels would hide the rest
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


class _Object(NamedTuple):
    mask: RLE
    outcome: Outcome
    name: str
    tail: str


def contact_sheet(
    dataset: Dataset, predictions: Sequence[Sequence[ScoredResult]], rows: Sequence[int], min_score: float
) -> Image.Image:
    """Draw the records of `rows`, in this order: ground truth on the left, predictions on the right.

    `predictions` are those of every image, from `results.by_picture`; scores below `min_score` are left out. Three or
    more records are drawn in two columns.
    """
    across = 1 if len(rows) < 3 else 2
    pair_width, pair_height = 2 * CELL[0] + _GAP // 2, CELL[1] + _LINE
    down = -(-len(rows) // across)
    width = across * pair_width + (across + 1) * _GAP
    sheet = Image.new("RGB", (width, _HEAD + down * (pair_height + _GAP) + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    _write_head(pen, font, f"{dataset.name}, {len(rows)} of {len(dataset)} images, worst first", min_score)
    for place, row in enumerate(rows):
        record = dataset.records[row]
        left = _GAP + place % across * (pair_width + _GAP)
        top = _HEAD + place // across * (pair_height + _GAP)
        visible = shown(predictions[row], min_score)
        instances = record.load_instances()
        score = score_picture(record.image_id, instances, visible)
        pen.text((left, top), _caption(pen, font, score, pair_width), _INK, font)
        image = _showable(record)
        for objects in (_truth(instances, score, dataset), _predicted(visible, score, dataset)):
            cell = _draw(image, objects)
            sheet.paste(cell, (left, top + _LINE))
            left += cell.width + _GAP // 2
    return sheet


def _write_head(pen: ImageDraw.ImageDraw, font: _Font, title: str, min_score: float) -> None:
    pen.text((_GAP, 6), f"{title}. Left: ground truth; right: predictions, score {min_score:g} and above", _INK, font)
    x: float = _GAP
    for outcome, text in _LEGEND.items():
        pen.rectangle((x, _LINE + 8, x + 12, _LINE + 18), fill=_COLORS[outcome])
        pen.text((x + 18, _LINE + 4), text, _FAINT, font)
        x += 18 + pen.textlength(text, font=font) + 20


def _caption(pen: ImageDraw.ImageDraw, font: _Font, score: PictureScore, room: float) -> str:
    name = str(score.image_id)
    counts = f": score {score.score:.2f}, found {score.found}, missed {score.missed}, false {score.false}"
    if pen.textlength(name + counts, font=font) <= room:
        return name + counts
    while name and pen.textlength(_ELLIPSIS + name + counts, font=font) > room:
        name = name[1:]  # the ends of paths differ
    return _ELLIPSIS + name + counts


def _truth(instances: Sequence[Instance], score: PictureScore, dataset: Dataset) -> list[_Object]:
    return [
        _Object(instance.mask, outcome, _label(instance.class_id, dataset), "")
        for instance, outcome in zip(instances, score.objects, strict=True)
    ]


def _predicted(predictions: Sequence[ScoredResult], score: PictureScore, dataset: Dataset) -> list[_Object]:
    return [
        _Object(prediction.mask, outcome, _label(prediction.class_id, dataset), f" {prediction.score:.2f}")
        for prediction, outcome in zip(predictions, score.predictions, strict=True)
    ]


def _label(class_id: int, dataset: Dataset) -> str:
    # The name of the only class would just hide objects.
    return dataset.class_names[class_id] if len(dataset.class_names) > 2 else ""


def _showable(record: Record) -> npt.NDArray[np.uint8]:
    if callable(record.image):
        image = record.image()
        if image.ndim == 3 and image.shape[2] not in (1, 3, 4):  # show the first channels
            return read_image(np.ascontiguousarray(image[..., : 3 if image.shape[2] > 3 else 1]))
        return read_image(image)
    return read_image(record.image)


def _draw(image: npt.NDArray[np.uint8], objects: Sequence[_Object]) -> Image.Image:
    """Scale the image before drawing, so that lines and letters are not scaled."""
    height, width = image.shape[:2]
    scale = min(CELL[0] / width, CELL[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    pixels = np.array(Image.fromarray(image).resize(size, method))
    drawn = []
    crowded = len(objects) > _MOST_LABELS
    for mask, outcome, name, tail in objects:
        crop, (y, x) = _scaled(mask, size)
        box = (x, y, x + crop.shape[1], y + crop.shape[0])
        label = ("", "") if crowded and outcome == "found" else (name, tail)
        drawn.append(DrawnObject((crop, (y, x)), box, *label, _COLORS[outcome]))
    return draw_objects(pixels, drawn, boxes=False, opacity=0.3)


def _scaled(mask: RLE, size: tuple[int, int]) -> MaskCrop:
    pixels = Image.fromarray(decode(mask).astype(np.uint8) * 255)
    shares = np.asarray(pixels.resize(size, Image.Resampling.BOX))
    solid = shares >= 128
    return crop_of(solid if solid.any() else shares > 0)  # keeps objects thinner than a pixel visible
