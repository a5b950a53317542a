"""Conversion of outlines to masks with pycocotools, so that areas and AP agree with COCO's own tools.

The C code of pycocotools trusts every number: for a distant point it allocates gigabytes, and the process dies without
a message. So every outline is checked in Python first.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.data.readers.findings import RowError
from maskrcnn.data.readers.json_rows import shown
from runtime.errors import MissingPackageError
from runtime.masks.rle import RLE

# pycocotools walks along an outline in steps of 1/5 pixel and stores 16 bytes for each: 2**25 steps are 512 MB.
_STEPS_PER_PIXEL = 5
_MAX_STEPS = 2**25
_ROUND = 72  # corners of a circle with a radius up to 100 pixels; at most 0.1 pixels off


@cache
def _mask_api() -> Any:
    try:
        from pycocotools import mask  # noqa: PLC0415 - needed for outlines only
    except ImportError as error:
        raise MissingPackageError("pycocotools", "train", "reading outlines of objects") from error
    return mask


def check_polygon(points: Any, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Check an outline from a file for pycocotools.

    Args:
        points: x, y, x, y, ... in image pixels, or anything else.
        size: (height, width) of the image.

    Returns:
        float64 [2 * corners].

    Raises:
        RowError: It is not a list of an even number of finite values, has fewer than 3 corners, is too long, or is far
            outside the image.
    """
    if not isinstance(points, list) or not set(map(type, points)) <= {int, float}:
        raise RowError("polygon-type", f"a polygon is {shown(points)}; expected a list of numbers x, y, x, y, ...")
    if len(points) % 2:
        raise RowError("polygon-odd", f"a polygon has {len(points)} coordinates; expected an even number, x, y, ...")
    if len(points) < 6:
        raise RowError("polygon-short", f"a polygon has {len(points) // 2} corners; expected at least 3")
    try:
        values = np.array(points, np.float64)
    except OverflowError:
        values = np.array([np.inf])
    if not np.isfinite(values).all():
        raise RowError("polygon-not-finite", "a polygon has a coordinate that is not finite")
    reach = max(size)
    if values.min() < -reach or values.max() > 2 * reach:
        worst = float(values[np.abs(values).argmax()])
        raise RowError(
            "polygon-far", f"a polygon has the coordinate {worst:g}, in an image of {size[1]} x {size[0]} pixels"
        )
    # No side is longer than the span of all points, so the exact length is rarely needed.
    if len(points) * (float(np.ptp(values)) * _STEPS_PER_PIXEL + 1) > _MAX_STEPS and _steps(values) > _MAX_STEPS:
        raise RowError("polygon-long", f"a polygon's outline is over {_MAX_STEPS // _STEPS_PER_PIXEL} pixels long")
    return values


def _steps(outline: npt.NDArray[np.float64]) -> float:
    corners = outline.reshape(-1, 2)
    sides = np.abs(corners - np.roll(corners, -1, axis=0)).max(axis=1)
    return float(sides.sum()) * _STEPS_PER_PIXEL + len(corners)


def rasterize(polygons: Sequence[Any], size: tuple[int, int]) -> tuple[RLE, float]:
    """Return the mask of the union of outlines, and how many pixels they extend beyond the image.

    The mask is cut off at the edges of the image, which has `size` (height, width).
    """
    outlines = [check_polygon(points, size) for points in polygons]
    if not outlines:
        raise RowError("no-mask", "it has no polygons; expected the outline of an object")
    if len(outlines) > 1 and sum(map(_steps, outlines)) > _MAX_STEPS:
        raise RowError("polygon-long", f"its outlines are over {_MAX_STEPS // _STEPS_PER_PIXEL} pixels long together")
    corners = (outlines[0] if len(outlines) == 1 else np.concatenate(outlines)).reshape(-1, 2)
    overshoot = max(float((-corners).max()), float((corners - (size[1], size[0])).max()), 0.0)
    api = _mask_api()
    parts = api.frPyObjects(outlines, *size)
    whole = parts[0] if len(parts) == 1 else api.merge(parts)
    return {"size": [int(size[0]), int(size[1])], "counts": str(whole["counts"], "ascii")}, overshoot


def joined(masks: Sequence[RLE]) -> RLE:
    """Return the union of valid masks of one size."""
    if len(masks) == 1:
        return masks[0]
    coded = [{"size": mask["size"], "counts": str(mask["counts"]).encode("ascii")} for mask in masks]
    return {"size": masks[0]["size"], "counts": str(_mask_api().merge(coded)["counts"], "ascii")}


def mask_area(mask: RLE) -> int:
    """Return the pixels of a valid mask, ten times as fast as `runtime.masks.rle.area`, which validates it."""
    return int(_mask_api().area({"size": mask["size"], "counts": mask["counts"].encode("ascii")}))


def mask_box(mask: RLE) -> tuple[float, float, float, float]:
    """Return the box of a valid mask like `runtime.masks.rle.mask_box`, which would double the reading time."""
    x, y, width, height = _mask_api().toBbox({"size": mask["size"], "counts": mask["counts"].encode("ascii")}).tolist()
    return x, y, x + width, y + height


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    """Return the outline of a rectangle."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> list[float]:
    """Return the outline of an ellipse with center x, y and half-axes rx, ry, rotated by `angle` (radians, x to y)."""
    count = int(np.clip(_ROUND * np.sqrt(max(rx, ry, 1.0) / 100), _ROUND, 4096))
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    with np.errstate(all="ignore"):  # `check_polygon` refuses values that are not finite
        across, down = rx * np.cos(turn), ry * np.sin(turn)
        xs = x + across * np.cos(angle) - down * np.sin(angle)
        ys = y + across * np.sin(angle) + down * np.cos(angle)
    outline: list[float] = np.stack([xs, ys], axis=1).ravel().tolist()
    return outline
