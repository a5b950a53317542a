"""Rows of COCO's `annotations`: an object and its mask."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from maskrcnn.data.readers.findings import Findings, RowError
from maskrcnn.data.readers.json_rows import finite, get, shown
from maskrcnn.data.readers.outlines import mask_area, mask_box, rasterize
from maskrcnn.data.records import Instance
from runtime.errors import InputError
from runtime.masks.rle import RLE, area
from runtime.masks.rle_string import write_counts

Size = tuple[int, int]
Box = tuple[float, float, float, float]

_TOLERANCE = 5.0  # pixels; boxes and outlines are drawn by hand


def read_object(row: Any, annotation_id: int | str, size: Size, class_id: int) -> tuple[Instance, float]:
    """Read an object from a row whose ids were checked; also return how many pixels its outline leaves the image.

    `size` is (height, width) of the image.
    """
    crowd = row.get("iscrowd", 0)
    if crowd not in (0, 1) or not isinstance(crowd, int):
        raise RowError("wrong-type", f"iscrowd is {shown(crowd)}; expected 0 or 1")
    mask, overshoot = read_segmentation(get(row, "segmentation"), size)
    check_area(mask, overshoot)
    return Instance(class_id, mask, bool(crowd), _read_box(row), annotation_id), overshoot


def note_overshoot(overshoot: float, where: str, findings: Findings) -> None:
    """Note an outline that extends beyond the image by more than the tolerance."""
    if overshoot > _TOLERANCE:
        message = f"its outline extends {overshoot:.0f} pixels beyond the image and is cut off there"
        findings.add("warning", "outside", where, message)


def note_other_box(instance: Instance, where: str, findings: Findings) -> None:
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
        findings.add("warning", "box-differs", where, message)


def check_area(mask: RLE, overshoot: float = 0.0) -> None:
    """Raise RowError if a mask has no pixels."""
    if mask_area(mask) == 0:
        place = f"; its outline extends {overshoot:.0f} pixels beyond it" if overshoot else ""
        raise RowError("empty-mask", f"its mask has no pixels in the image{place}")


def read_segmentation(value: Any, size: Size) -> tuple[RLE, float]:
    """Return the mask of COCO's `segmentation`, and how many pixels its outline extends beyond the image."""
    if isinstance(value, Mapping):
        return _read_runs(value, size), 0.0
    if not isinstance(value, list):
        raise RowError("wrong-type", f"segmentation is {shown(value)}; expected a list of polygons, or an RLE")
    if not value:
        raise RowError("no-mask", "segmentation is empty; expected an outline: a box is not enough")
    return rasterize(value, size)


def _read_runs(value: Mapping[str, Any], size: Size) -> RLE:
    for key in ("size", "counts"):
        get(value, key)
    if value["size"] != list(size):
        raise RowError("rle-size", f"its RLE has size {shown(value['size'])}; expected {list(size)}, height and width")
    counts = value["counts"]
    try:
        area(value)
        text = counts if isinstance(counts, str) else write_counts(counts)
    except InputError as error:
        raise RowError("rle", f"its RLE cannot be used: {error}") from error
    return {"size": list(size), "counts": text}


def _read_box(row: Mapping[str, Any]) -> Box | None:
    box = row.get("bbox")
    if box is None:
        return None
    if not isinstance(box, list) or len(box) != 4:
        raise RowError("wrong-type", f"bbox is {shown(box)}; expected x, y, width, height")
    x, y, width, height = (finite(value, "bbox") for value in box)
    if not isfinite(x + width) or not isfinite(y + height):
        raise RowError("not-finite", f"bbox is {shown(box)}; expected finite numbers, and finite sums")
    if width <= 0 or height <= 0:
        raise RowError("empty-box", f"bbox is {width:g} wide and {height:g} high; expected more than 0")
    return x, y, x + width, y + height


def _corners(box: Box) -> str:
    return ", ".join(f"{value:g}" for value in box)
