"""Masks as polygons along the edges of their pixels, traced from the edges of their columns.

Coordinates are corners of pixels: the pixel in column x and row y covers x..x + 1 and y..y + 1, so that a mask
of that pixel alone is the square (x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError
from runtime.masks.edges import Edges

# int32 [P, 2], x, y in picture pixels; the last corner is joined to the first.
Ring = npt.NDArray[np.int32]


def trace_rings(edges: Edges, height: int) -> list[Ring]:
    """Find the boundary of a mask, exactly: filling its rings by the even-odd rule gives the mask back.

    Pixels that touch only at a corner belong to different parts, so that no ring crosses another or itself.

    Args:
        edges: int64 [2 R], as `runtime.masks.edges.mask_edges` finds them.
        height: of the picture, in pixels.

    Returns:
        One ring around each part of the mask, clockwise on the screen, and one around each hole, the other way
        round; only corners where the boundary turns. No rings for an empty mask.
    """
    if not len(edges):
        return []
    x, top, bottom = _columns_of_runs(edges, height)
    # Every begin (1) and end (0) of a run in a column is a piece of horizontal boundary, 1 wide, with a left (0) and
    # a right (1) corner. Pieces of one kind that meet are one line; where a begin meets an end, two corners stay.
    levels = 2 * (height + 1)
    lefts = np.concatenate([x * levels + 2 * top + 1, x * levels + 2 * bottom])
    corners = np.sort(np.concatenate([2 * lefts, 2 * (lefts + levels) + 1]))
    same = np.flatnonzero(corners[1:] >> 1 == corners[:-1] >> 1)
    corners = np.delete(corners, np.concatenate([same, same + 1]))
    places, right = np.divmod(corners, 2)
    column, level = np.divmod(places, levels)
    # In the order column, row, end before begin, the corners of each vertical line follow one another.
    # In the order kind, row, column, those of each horizontal line do.
    order = np.lexsort((column, level >> 1, level & 1))
    across = np.empty(len(corners), np.int64)
    across[order[::2]], across[order[1::2]] = order[1::2], order[::2]
    points = np.stack([column, level >> 1], axis=1).astype(np.int32)
    # Top boundaries are walked to the right, bottom ones to the left: the mask is always on the right hand.
    starts = np.flatnonzero((level & 1) != right)
    return [points[np.stack([walk, across[walk]], axis=1).ravel()] for walk in _cycles(across ^ 1, starts)]


def _columns_of_runs(edges: Edges, height: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Cut runs at the foot of each column: column, begin and end (exclusive) of every piece."""
    begin, end = edges[::2], edges[1::2]
    first, last = begin // height, (end - 1) // height
    pieces = last - first + 1
    run = np.repeat(np.arange(len(first)), pieces)
    column = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces - first, pieces)
    top = np.where(column == first[run], (begin - first * height)[run], 0)
    bottom = np.where(column == last[run], (end - last * height)[run], height)
    return column, top, bottom


def _cycles(following: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Follow each start to the one after it until it comes round."""
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
    """Refuse a tolerance that is none.

    Raises:
        InputError: it is not a finite number from 0.
    """
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance is {tolerance!r}; expected a finite number of pixels from 0")


def simplify_ring(ring: Ring, tolerance: float) -> Ring:
    """Leave out corners of a ring, by Douglas and Peucker's method.

    Steps of one pixel need a tolerance of about 0.8 to become a straight line. Rings simplified on their own may
    touch or cross one another.

    Args:
        ring: int32 [P, 2], P >= 3.
        tolerance: how far a corner left out may lie from the lines that stay, in pixels; 0 keeps the ring.

    Returns:
        int32 [Q, 2], at least 3 of its corners in their order.

    Raises:
        InputError: `tolerance` is not a finite number from 0.
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
    if keep.sum() < 3:  # a sliver within the tolerance; with its farthest corner it keeps an area
        keep[farthest[1]] = True
    return ring[keep[:-1]]


def _distances(
    points: npt.NDArray[np.float64], begin: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Measure how far points [P, 2] are from the line between two of them, which ends at both."""
    line = end - begin
    length = float(line @ line)
    along = np.clip((points - begin) @ line / length, 0, 1) if length else np.zeros(len(points))
    distances: npt.NDArray[np.float64] = np.hypot(*(points - begin - along[:, None] * line).T)
    return distances


def coco_polygons(rings: Sequence[Ring], tolerance: float = 0.0) -> list[list[float]]:
    """Write rings as a COCO segmentation: a list of polygons [x, y, x, y, ...], of which the union counts.

    COCO has no word for a hole: a ring in it is always filled. Each hole is therefore joined to the ring around
    it by a line that runs there and back and encloses nothing. Readers that fill by the even-odd or the
    winding rule, as pycocotools does, get the mask back; tools that edit polygons show that line.

    Args:
        rings: of one mask, from `trace_rings`.
        tolerance: see `simplify_ring`; 0 is exact.

    Returns:
        One polygon per part of the mask; none for an empty mask.

    Raises:
        InputError: as `simplify_ring`.
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
    """Say whether the pixel to the left of the hole's first column is inside the outer ring."""
    left = hole[hole[:, 0] == hole[:, 0].min()]
    x, y = left[0, 0] - 0.5, left[:, 1].min() + 0.5
    ends = np.roll(outer, -1, axis=0)
    crossed = (outer[:, 0] < x) & (np.minimum(outer[:, 1], ends[:, 1]) < y) & (y < np.maximum(outer[:, 1], ends[:, 1]))
    return int(np.count_nonzero(crossed & (outer[:, 0] == ends[:, 0]))) % 2 == 1


def _join(outer: Ring, hole: Ring) -> Ring:
    place = int(np.argmin(np.abs(outer - hole[0]).sum(axis=1)))
    return np.concatenate([outer[: place + 1], hole, hole[:1], outer[place:]])
