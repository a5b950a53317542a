"""Rows of COCO's `annotations`: an object and its mask."""

import json
import math
from collections.abc import Mapping
from typing import Any

from maskrcnn.data.readers.findings import Row, RowError
from maskrcnn.data.readers.json_rows import finite, get, shown
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.data.readers.outlines import joined, mask_area, mask_box, rasterize, rectangle
from maskrcnn.data.records import Instance
from runtime.errors import InputError
from runtime.masks.rle import RLE, area
from runtime.masks.rle_string import write_counts

Size = tuple[int, int]
Box = tuple[float, float, float, float]

_TOLERANCE = 5.0  # pixels; boxes and outlines are drawn by hand
_CROWDS = {"0": False, "1": True, "false": False, "true": True}
_FEWEST = 6  # coordinates of a polygon


def read_object(
    row: Any, annotation_id: int | str | None, size: Size, class_id: int, options: ReadOptions, notes: Row
) -> tuple[Instance, float] | None:
    """Read an object from a row whose ids were checked; also return how many pixels its outline leaves the image.

    `size` is (height, width) of the image. None means that the object has no area, which is noted.
    """
    crowd = _read_crowd(row.get("iscrowd", 0), notes)
    box = _read_box(row.get("bbox"), notes)
    value = _plain(row.get("segmentation"), notes)
    if value is None or (not value and options.boxes_as_masks):
        if not options.boxes_as_masks:
            raise RowError(
                "no-mask",
                "it has no outline in 'segmentation', and a box is not enough; boxes_as_masks=True (--boxes-as-masks) "
                "takes boxes as masks",
            )
        if box is None:
            raise RowError("no-mask", "it has neither an outline in 'segmentation' nor a box in 'bbox'")
        notes.converted("box-as-mask", "its mask is its whole box, because it has no outline")
        value = [rectangle(*box)]
    if not value:
        message = "its outline has fewer than 3 corners, so it has no area: it is left out and trains as background"
        notes.converted("no-area", message, "warning")
        return None
    mask, overshoot = (_read_runs(value, size), 0.0) if isinstance(value, Mapping) else _read_parts(value, size)
    check_area(mask, overshoot)
    return Instance(class_id, mask, crowd, box, annotation_id), overshoot


def note_overshoot(overshoot: float, notes: Row) -> None:
    """Note an outline that extends beyond the image by more than the tolerance."""
    if overshoot > _TOLERANCE:
        message = f"its outline extends {overshoot:.0f} pixels beyond the image and is cut off there"
        notes.findings.add("warning", "outside", notes.where, message)


def note_other_box(instance: Instance, notes: Row) -> None:
    """Note a box in the file that differs from the box of the mask."""
    if instance.file_box is None:
        return
    box = mask_box(instance.mask)
    apart = max(abs(ours - theirs) for ours, theirs in zip(box, instance.file_box, strict=True))
    if apart > _TOLERANCE:
        message = (
            f"its bbox and the box of its mask are {apart:.0f} pixels apart: {_corners(instance.file_box)} and "
            f"{_corners(box)} (x1, y1, x2, y2); training uses the box of the mask"
        )
        notes.findings.add("warning", "box-differs", notes.where, message)


def check_area(mask: RLE, overshoot: float = 0.0) -> None:
    """Raise RowError if a mask has no pixels."""
    if mask_area(mask) == 0:
        place = f"; its outline extends {overshoot:.0f} pixels beyond it" if overshoot else ""
        raise RowError("empty-mask", f"its mask has no pixels in the image{place}")


def _read_crowd(value: Any, notes: Row) -> bool:
    if type(value) is int and value in (0, 1):
        return bool(value)
    if value is None:
        crowd: bool | None = False
    elif isinstance(value, str):
        crowd = _CROWDS.get(value.strip().lower())
    else:
        crowd = bool(value) if isinstance(value, bool | float) and value in (0, 1) else None
    if crowd is None:
        raise RowError("wrong-type", f"iscrowd is {shown(value)}; expected 0 or 1")
    notes.converted("iscrowd-type", f"iscrowd is {shown(value)}, read as {int(crowd)}")
    return crowd


def _plain(value: Any, notes: Row) -> Any:
    """Return a segmentation as COCO defines it, a mapping or a list of polygons or mappings; None if there is none.

    Polygons with fewer than 3 corners are left out, so the list may be empty.
    """
    if isinstance(value, str):
        value = _parsed(value, notes)
    if value is None or value in ([], {}) or (isinstance(value, list) and all(part in ([], {}) for part in value)):
        return None
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, list):
        raise RowError("wrong-type", f"segmentation is {shown(value)}; expected a list of polygons, or an RLE")
    if all(isinstance(part, list) and set(map(type, part)) <= {int, float} for part in value):
        parts: list[Any] = _points(value, notes)
    elif any(isinstance(part, int | float | str) for part in value):
        notes.converted("flat-polygon", "segmentation is one polygon, not a list of polygons")
        parts = [_numbers(value, notes)]
    else:
        parts = [part if isinstance(part, Mapping) else _numbers(_flat(part, notes), notes) for part in value]
    whole = [part for part in parts if not _is_short(part)]
    if whole and len(whole) < len(parts):
        notes.converted("short-polygon", "a polygon with fewer than 3 corners has no area and is left out")
    return whole


def _is_short(part: Any) -> bool:
    return isinstance(part, list) and len(part) < _FEWEST and len(part) % 2 == 0


def _parsed(text: str, notes: Row) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list | dict):
        raise RowError("wrong-type", f"segmentation is {shown(text)}; expected a list of polygons, or an RLE")
    notes.converted("segmentation-text", "segmentation is JSON in a string")
    return value


def _points(parts: list[list[Any]], notes: Row) -> list[list[Any]]:
    """Join x, y pairs to one polygon, if the lists are no polygons themselves."""
    if len(parts) * 2 < _FEWEST or any(len(part) != 2 for part in parts):
        return parts
    notes.converted("polygon-pairs", "its polygon is a list of x, y pairs")
    return [[value for part in parts for value in part]]


def _flat(part: Any, notes: Row) -> Any:
    """Return a polygon of x, y pairs as COCO writes it."""
    if not isinstance(part, list) or not part or not all(isinstance(each, list) and len(each) == 2 for each in part):
        return part
    notes.converted("polygon-pairs", "its polygon is a list of x, y pairs")
    return [value for pair in part for value in pair]


def _numbers(part: Any, notes: Row) -> Any:
    """Return a polygon whose numbers may be texts; `check_polygon` refuses everything else."""
    if not isinstance(part, list) or not any(isinstance(value, str) for value in part):
        return part
    found = [_number(value) if isinstance(value, str) else value for value in part]
    if any(value is None for value in found):
        return part
    notes.converted("polygon-text", "its polygon has numbers in quotation marks")
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _read_parts(parts: list[Any], size: Size) -> tuple[RLE, float]:
    """Return the union of polygons, or of run-length encodings, and how many pixels an outline leaves the image."""
    if not any(isinstance(part, Mapping) for part in parts):
        return rasterize(parts, size)
    if not all(isinstance(part, Mapping) for part in parts):
        raise RowError("wrong-type", f"segmentation is {shown(parts)}; expected polygons or an RLE, not both")
    return joined([_read_runs(part, size) for part in parts]), 0.0


def _read_runs(value: Mapping[str, Any], size: Size) -> RLE:
    for key in ("size", "counts"):
        get(value, key)
    if value["size"] != list(size):
        raise RowError("rle-size", f"its RLE has size {shown(value['size'])}; expected {list(size)}, height and width")
    counts = value["counts"]
    try:
        area({"size": list(size), "counts": counts})
        text = counts if isinstance(counts, str) else write_counts(counts)
    except InputError as error:
        raise RowError("rle", f"its RLE cannot be used: {error}") from error
    return {"size": list(size), "counts": text}


def _read_box(value: Any, notes: Row) -> Box | None:
    """Return corners. Training takes boxes from masks, so an unusable box is only noted."""
    if value is None:
        return None
    texts = isinstance(value, list) and any(isinstance(each, str) for each in value)
    found = [_number(each) if isinstance(each, str) else each for each in value] if texts else value
    x, y, width, height = _four(found) or (math.nan,) * 4
    if not (width > 0 and height > 0 and math.isfinite(x + width) and math.isfinite(y + height)):
        notes.converted("box-unusable", f"bbox is {shown(value)}; training takes the box of the mask", "warning")
        return None
    if texts:
        notes.converted("box-text", f"bbox is {shown(value)}, with numbers in quotation marks")
    return x, y, x + width, y + height


def _four(value: Any) -> tuple[float, ...] | None:
    try:
        return tuple(finite(each, "bbox") for each in value) if isinstance(value, list) and len(value) == 4 else None
    except RowError:
        return None


def _corners(box: Box) -> str:
    return ", ".join(f"{value:g}" for value in box)
