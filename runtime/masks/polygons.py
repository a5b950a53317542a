"""Masks as polygons along the edges of their pixels, traced from the edges of their columns.

Coordinates are pixel corners: the pixel in column x and row y covers x..x + 1 and y..y + 1, so a mask of that pixel
alone is the square (x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1).
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.arguments import real
from runtime.masks.edges import Edges
from runtime.masks.regions import column_runs
from runtime.masks.rle import edges as edges_of

# int32 [P, 2], x, y in image pixels; the last corner is joined to the first.
Ring = npt.NDArray[np.int32]


def trace_rings(edges: Edges, height: int) -> list[Ring]:
    """Trace the exact boundary of a mask: filling its rings by the even-odd rule gives the mask back.

    Pixels that touch only at a corner belong to different parts, so no ring crosses another or itself.

    Args:
        edges: int64 [2 R], from `runtime.masks.edges.mask_edges`.
        height: of the image, in pixels.

    Returns:
        One ring around each part of the mask, clockwise on the screen, and one around each hole, counterclockwise; only
        corners where the boundary turns. No rings for an empty mask.
    """
    if not len(edges):
        return []
    x, top, bottom = column_runs(edges, height)
    # Every begin (1) and end (0) of a run in a column is a piece of horizontal boundary, 1 wide, with a left (0) and a
    # right (1) corner. Pieces of the same kind that meet form one line; where a begin meets an end, two corners remain.
    levels = 2 * (height + 1)
    lefts = np.concatenate([x * levels + 2 * top + 1, x * levels + 2 * bottom])
    corners = np.sort(np.concatenate([2 * lefts, 2 * (lefts + levels) + 1]))
    same = np.flatnonzero(corners[1:] >> 1 == corners[:-1] >> 1)
    corners = np.delete(corners, np.concatenate([same, same + 1]))
    places, right = np.divmod(corners, 2)
    column, level = np.divmod(places, levels)
    # Sorted by column, row, end before begin, the corners of each vertical line are adjacent.
    # Sorted by kind, row, column, those of each horizontal line are.
    order = np.lexsort((column, level >> 1, level & 1))
    across = np.empty(len(corners), np.int64)
    across[order[::2]], across[order[1::2]] = order[1::2], order[::2]
    points = np.stack([column, level >> 1], axis=1).astype(np.int32)
    # Top boundaries are followed to the right, bottom ones to the left: the mask is always on the right-hand side.
    starts = np.flatnonzero((level & 1) != right)
    return [points[np.stack([walk, across[walk]], axis=1).ravel()] for walk in _cycles(across ^ 1, starts)]


def rle_rings(rle: Mapping[str, Any]) -> list[Ring]:
    """Return `trace_rings` of a mask that is run-length encoded."""
    return trace_rings(edges_of(rle), int(rle["size"][0]))


def _cycles(following: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Return the closed walks from each start."""
    after, waiting, cycles = following.tolist(), set(starts.tolist()), []
    for start in starts.tolist():
        walk = []
        place = start
        while place in waiting:
            waiting.remove(place)
            walk.append(place)
            place = after[place]
        if walk:
            cycles.append(np.array(walk))
    return cycles


def ring_area(ring: npt.NDArray[np.number]) -> float:
    """Return the area inside a ring [P, 2] in pixels, negative for one that runs counterclockwise on the screen."""
    x, y = ring.astype(np.float64).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def check_tolerance(tolerance: float) -> None:
    """Raise InputError for a tolerance that is not a finite number of at least 0."""
    real("tolerance", tolerance, most=sys.float_info.max, range_="0 up, in pixels")


def simplify_ring(ring: Ring, tolerance: float) -> Ring:
    """Drop corners of a ring with the Douglas-Peucker algorithm; at least 3 remain.

    Steps of one pixel need a tolerance of about 0.8 to become a straight line. Each ring is simplified on its own, so
    rings may touch or cross afterward.

    Args:
        ring: int32 [P, 2], P >= 3.
        tolerance: largest distance of a dropped corner from the remaining lines, in pixels; 0 keeps the ring.
    """
    check_tolerance(tolerance)
    if tolerance == 0 or len(ring) == 3:
        return ring
    points = np.concatenate([ring, ring[:1]]).astype(np.float64)
    far = int(np.argmax(np.hypot(*(points - points[0]).T)))
    keep = np.zeros(len(points), np.bool_)
    keep[[0, far]] = True
    open_parts = [(0, far), (far, len(ring))]
    farthest = (-1.0, 0)
    while open_parts:
        begin, end = open_parts.pop()
        if end - begin < 2:
            continue
        distances = _distances(points[begin + 1 : end], points[begin], points[end])
        place = int(np.argmax(distances))
        farthest = max(farthest, (float(distances[place]), begin + 1 + place))
        if distances[place] > tolerance:
            keep[begin + 1 + place] = True
            open_parts += [(begin, begin + 1 + place), (begin + 1 + place, end)]
    if keep.sum() < 3:  # a sliver within the tolerance: its farthest corner keeps it from vanishing
        keep[farthest[1]] = True
    return ring[keep[:-1]]


def _distances(
    points: npt.NDArray[np.float64], begin: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the distance of points [P, 2] from the line segment between two of them."""
    line = end - begin
    length = float(line @ line)
    along = np.clip((points - begin) @ line / length, 0, 1) if length else np.zeros(len(points))
    distances: npt.NDArray[np.float64] = np.hypot(*(points - begin - along[:, None] * line).T)
    return distances


def coco_polygons(rings: Sequence[Ring], tolerance: float = 0.0) -> list[list[float]]:
    """Write rings as a COCO segmentation: polygons [x, y, x, y, ...], one for each part of the mask.

    COCO's format has no holes: every ring is filled. Each hole is therefore joined to the ring around it by a line
    there and back that encloses nothing. Readers that fill by the even-odd or the winding rule, as pycocotools does,
    get the mask back; tools that edit polygons show the line.

    Args:
        rings: of one mask, from `trace_rings`.
        tolerance: see `simplify_ring`; 0 is exact.
    """
    areas = [ring_area(ring) for ring in rings]
    joined = {row: simplify_ring(ring, tolerance) for row, ring in enumerate(rings) if areas[row] > 0}
    for row, ring in enumerate(rings):
        if areas[row] < 0:
            around = [outer for outer in joined if _encloses(rings[outer], ring)]
            owner = min(around, key=areas.__getitem__)
            joined[owner] = _join(joined[owner], simplify_ring(ring, tolerance))
    return [ring.ravel().astype(float).tolist() for ring in joined.values()]


def _encloses(outer: Ring, hole: Ring) -> bool:
    """Return whether the pixel left of the hole's first column is inside the outer ring."""
    left = hole[hole[:, 0] == hole[:, 0].min()]
    x, y = left[0, 0] - 0.5, left[:, 1].min() + 0.5
    ends = np.roll(outer, -1, axis=0)
    crossed = (outer[:, 0] < x) & (np.minimum(outer[:, 1], ends[:, 1]) < y) & (y < np.maximum(outer[:, 1], ends[:, 1]))
    return int(np.count_nonzero(crossed & (outer[:, 0] == ends[:, 0]))) % 2 == 1


def _join(outer: Ring, hole: Ring) -> Ring:
    place = int(np.argmin(np.abs(outer - hole[0]).sum(axis=1)))
    return np.concatenate([outer[: place + 1], hole, hole[:1], outer[place:]])


_TOLERANCES = (2.0, 1.5, 1.0, 0.75, 0.5)  # pixels
# Readers fill slanted lines by rules that differ by fractions of a pixel. Small masks, in pixels, are left exact, and
# others a little better than 0.99, the more so the longer their outline is for their area, so that 0.99 is kept in all.
_SMALL, _LEAST_IOU = 400, 0.993
_UNSURE = 0.04  # pixels for each pixel of the outline that readers may fill otherwise
_STRIP_PIXELS = 1 << 20  # that are filled at a time


def short_polygons(rings: Sequence[Ring]) -> list[list[float]]:
    """Return `coco_polygons` with as few corners as an IoU of 0.99 with the mask allows; exact ones for small masks.

    Args:
        rings: of one mask, from `trace_rings`.
    """
    exact = coco_polygons(rings)
    if sum(ring_area(ring) for ring in rings) < _SMALL:
        return exact
    unsure = _UNSURE * sum(int(np.abs(ring - np.roll(ring, 1, axis=0)).sum()) for ring in rings)
    corners = np.concatenate(rings)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    step = max(1, _STRIP_PIXELS // (right - left))
    strips = [((left, y), (right, min(y + step, bottom))) for y in range(top, bottom, step)]
    masks = [_filled(exact, *strip) for strip in strips]
    for tolerance in _TOLERANCES:
        polygons = coco_polygons(rings, tolerance)
        shared = either = 0
        for strip, mask in zip(strips, masks, strict=True):
            found = _filled(polygons, *strip)
            shared += int(np.count_nonzero(found & mask))
            either += int(np.count_nonzero(found | mask))
        if shared >= _LEAST_IOU * either and either - shared + unsure <= 0.01 * either:
            return polygons
    return exact


def _filled(polygons: Sequence[Sequence[float]], low: tuple[int, int], high: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the union of polygons in rows of their box: the pixels whose center is inside, by the even-odd rule.

    `low` and `high` are x, y; no polygon is left or right of them.
    """
    width, height = high[0] - low[0], high[1] - low[1]
    mask = np.zeros((height, width), np.bool_)
    for polygon in polygons:
        begin = np.array(polygon).reshape(-1, 2).astype(np.int64) - low
        end = np.roll(begin, -1, axis=0)
        upper, lower = (np.where((begin[:, 1] < end[:, 1])[:, None], *pair) for pair in ((begin, end), (end, begin)))
        slope = (lower[:, 0] - upper[:, 0]) / np.maximum(lower[:, 1] - upper[:, 1], 1)
        first_row, end_row = (np.clip(ends[:, 1], 0, height) for ends in (upper, lower))
        rows = end_row - first_row  # that a side crosses
        side = np.repeat(np.arange(len(rows)), rows)
        row = np.arange(len(side)) - np.repeat(np.cumsum(rows) - rows - first_row, rows)
        crossing = upper[side, 0] + (row + 0.5 - upper[side, 1]) * slope[side]
        first = np.ceil(crossing - 0.5).astype(np.int64)  # the first pixel to the right of the side
        toggles = np.bincount(row * (width + 1) + first, minlength=height * (width + 1))
        odd = np.logical_xor.accumulate((toggles.reshape(height, width + 1) & 1).astype(np.bool_), axis=1)
        mask |= odd[:, :width]
    return mask


def join_polygons(polygons: Sequence[Sequence[float]]) -> list[float]:
    """Return one polygon [x, y, x, y, ...] with several parts, joined by lines there and back between nearest corners.

    The lines enclose nothing.
    """
    parts = [np.array(polygon).reshape(-1, 2).astype(np.int32) for polygon in polygons]
    joined = parts[0]
    for part in parts[1:]:
        gaps = [int(np.abs(joined - corner).sum(axis=1).min()) for corner in part]
        joined = _join(joined, np.roll(part, -int(np.argmin(gaps)), axis=0))
    return joined.ravel().astype(float).tolist()
