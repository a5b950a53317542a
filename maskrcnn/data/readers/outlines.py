"""Outlines to masks, by pycocotools' rule, so that areas and AP are those that COCO's own tools give.

Its C code trusts every number: for a point far away it asks for gigabytes, and then the process dies without a message.
So every outline is looked at in Python first.
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

# pycocotools follows an outline in steps of a fifth of a pixel and keeps 16 bytes for each: 2**25 steps are 512 MB.
_STEPS_PER_PIXEL = 5
_MAX_STEPS = 2**25
_ROUND = 72  # corners that stand for a circle of up to 100 pixels: 0.1 pixels from it


@cache
def _mask_api() -> Any:
    try:
        from pycocotools import mask  # noqa: PLC0415 - needed for outlines only
    except ImportError as error:
        raise MissingPackageError("pycocotools", "train", "reading outlines of objects") from error
    return mask


def check_polygon(points: Any, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Refuse an outline that pycocotools cannot take.

    Args:
        points: x, y, x, y, ... in picture pixels; from a file, so it may be anything.
        size: (height, width) of the picture.

    Returns:
        float64 [2 * corners].

    Raises:
        RowError: Not a list of numbers, too few, an odd count, not finite, or far outside of the picture.
    """
    if not isinstance(points, list) or not set(map(type, points)) <= {int, float}:
        raise RowError("polygon-type", f"a polygon is {shown(points)}; expected a list of numbers x, y, x, y, ...")
    if len(points) % 2:
        raise RowError("polygon-odd", f"a polygon has {len(points)} coordinates; expected an even count, x, y, ...")
    if len(points) < 6:
        raise RowError("polygon-short", f"a polygon has {len(points) // 2} corners; expected at least 3")
    try:
        values = np.array(points, np.float64)
    except OverflowError:
        values = np.array([np.inf])
    if not np.isfinite(values).all():
        raise RowError("polygon-not-finite", "a polygon has a coordinate that is not a finite number")
    reach = max(size)
    if values.min() < -reach or values.max() > 2 * reach:
        worst = float(values[np.abs(values).argmax()])
        raise RowError(
            "polygon-far", f"a polygon has the coordinate {worst:g}, in a picture of {size[1]} x {size[0]} pixels"
        )
    # No side is longer than the span of all points: most outlines need no closer look.
    if len(points) * (float(np.ptp(values)) * _STEPS_PER_PIXEL + 1) > _MAX_STEPS and _steps(values) > _MAX_STEPS:
        raise RowError("polygon-long", f"a polygon's outline is over {_MAX_STEPS // _STEPS_PER_PIXEL} pixels long")
    return values


def _steps(outline: npt.NDArray[np.float64]) -> float:
    corners = outline.reshape(-1, 2)
    sides = np.abs(corners - np.roll(corners, -1, axis=0)).max(axis=1)
    return float(sides.sum()) * _STEPS_PER_PIXEL + len(corners)


def rasterize(polygons: Sequence[Any], size: tuple[int, int]) -> tuple[RLE, float]:
    """Mask of an object given by outlines, which may overlap: their union.

    Args:
        polygons: Each as for `check_polygon`; at least one.
        size: (height, width) of the picture.

    Returns:
        The mask cut at the picture's edges, and how many pixels the outlines reach beyond them.

    Raises:
        RowError: An outline cannot be used.
    """
    outlines = [check_polygon(points, size) for points in polygons]
    if not outlines:
        raise RowError("no-mask", "it has no polygon; expected the outline of an object")
    if len(outlines) > 1 and sum(map(_steps, outlines)) > _MAX_STEPS:
        raise RowError("polygon-long", f"its outlines are over {_MAX_STEPS // _STEPS_PER_PIXEL} pixels long together")
    corners = (outlines[0] if len(outlines) == 1 else np.concatenate(outlines)).reshape(-1, 2)
    overshoot = max(float((-corners).max()), float((corners - (size[1], size[0])).max()), 0.0)
    api = _mask_api()
    parts = api.frPyObjects(outlines, *size)
    whole = parts[0] if len(parts) == 1 else api.merge(parts)
    return {"size": [int(size[0]), int(size[1])], "counts": str(whole["counts"], "ascii")}, overshoot


def mask_area(mask: RLE) -> int:
    """Pixels of a sound mask, in a tenth of the time of `runtime.masks.rle.area`, which trusts nothing."""
    return int(_mask_api().area({"size": mask["size"], "counts": mask["counts"].encode("ascii")}))


def mask_box(mask: RLE) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of a sound mask that is not empty, in pixels; the far sides are exclusive."""
    x, y, width, height = _mask_api().toBbox({"size": mask["size"], "counts": mask["counts"].encode("ascii")}).tolist()
    return x, y, x + width, y + height


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    """Outline of a rectangle."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> list[float]:
    """Outline of an ellipse.

    Args:
        x: Its center.
        y: Its center.
        rx: Half axis, along x before turning.
        ry: The other.
        angle: Turn in radians, from x to y.
    """
    count = int(np.clip(_ROUND * np.sqrt(max(rx, ry, 1.0) / 100), _ROUND, 4096))
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    with np.errstate(all="ignore"):  # what is not finite is refused with the other outlines
        across, down = rx * np.cos(turn), ry * np.sin(turn)
        xs = x + across * np.cos(angle) - down * np.sin(angle)
        ys = y + across * np.sin(angle) + down * np.cos(angle)
    outline: list[float] = np.stack([xs, ys], axis=1).ravel().tolist()
    return outline
