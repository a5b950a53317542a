"""Masks given by their edges (`runtime.masks.edges`): moved to a larger image, joined, compared, cropped.

No bitmap is made except for a crop, so the cost grows with the outlines and not with the image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.masks.edges import Edges, cancel_pairs

# x1, y1, x2, y2 in whole image pixels; x2, y2 exclusive.
Rectangle = tuple[int, int, int, int]
Places = npt.NDArray[np.int64]


def column_runs(edges: Edges, height: int) -> tuple[Places, Places, Places]:
    """Cut runs at the bottom of each column: column, begin and end (exclusive) of every piece."""
    begin, end = edges[::2], edges[1::2]
    first, last = begin // height, (end - 1) // height
    pieces = last - first + 1
    run = np.repeat(np.arange(len(first)), pieces)
    column = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces - first, pieces)
    top = np.where(column == first[run], (begin - first * height)[run], 0)
    bottom = np.where(column == last[run], (end - last * height)[run], height)
    return column, top, bottom


def move_edges(edges: Edges, height: int, origin: tuple[int, int], new_height: int) -> Edges:
    """Bring the mask of a part of an image to the whole image.

    Args:
        edges: in the part.
        height: of the part, in pixels.
        origin: y, x of the part's first pixel in the image.
        new_height: of the image.
    """
    column, top, bottom = column_runs(edges, height)
    begin = (column + origin[1]) * new_height + origin[0] + top
    return cancel_pairs(np.stack([begin, begin + bottom - top], axis=1).ravel())


def join_edges(masks: Sequence[Edges]) -> Edges:
    """Return the union of masks of one image."""
    begin = np.sort(np.concatenate([edges[::2] for edges in masks]))
    end = np.sort(np.concatenate([edges[1::2] for edges in masks]))
    if not len(begin):
        return begin
    # A run of the union begins where all runs that began earlier have ended. Runs that touch become one.
    apart = begin[1:] > end[:-1]
    first, last = np.concatenate([[True], apart]), np.concatenate([apart, [True]])
    return np.stack([begin[first], end[last]], axis=1).ravel()


def edges_area(edges: Edges) -> int:
    """Count the pixels of a mask."""
    return int(np.sum(edges[1::2] - edges[::2]))


def shared_area(mask: Edges, other: Edges) -> int:
    """Count the pixels that two masks of one image share."""
    return int(np.sum(_count_before(mask, other[1::2]) - _count_before(mask, other[::2])))


def area_within(edges: Edges, rectangle: Rectangle, height: int) -> int:
    """Count the pixels of a mask in a rectangle of the image, which is `height` pixels high."""
    if not len(edges):
        return 0
    x1, y1, x2, y2 = rectangle
    columns = np.arange(max(x1, int(edges[0]) // height), min(x2, (int(edges[-1]) - 1) // height + 1)) * height
    return int(np.sum(_count_before(edges, columns + y2) - _count_before(edges, columns + y1)))


def is_inside(edges: Edges, places: Places) -> npt.NDArray[np.bool_]:
    """Return whether pixels, given as x * height + y, belong to a mask."""
    inside: npt.NDArray[np.bool_] = np.searchsorted(edges, places, side="right") % 2 == 1
    return inside


def _count_before(edges: Edges, places: Places) -> Places:
    """Count the pixels of a mask before each place of the scan."""
    if not len(edges):
        return np.zeros(len(places), np.int64)
    begin, end = edges[::2], edges[1::2]
    total = np.concatenate([[0], np.cumsum(end - begin)])
    run = np.searchsorted(begin, places)
    cut = np.where(run > 0, np.maximum(end[run - 1] - places, 0), 0)
    counted: Places = total[run] - cut
    return counted


class EdgeRuns(NamedTuple):
    """A mask with the methods of `runtime.masks.paste.MaskRuns`."""

    edges: Edges
    height: int  # of the image

    @property
    def area(self) -> int:
        """The number of pixels of the mask."""
        return edges_area(self.edges)

    def crop(self) -> tuple[npt.NDArray[np.bool_], tuple[int, int]]:
        """Return the pixels in the rectangle that they span, bool [h, w], and the (y, x) of its first pixel."""
        return crop_runs(self.edges[::2], self.edges[1::2], self.height)


def runs_box(starts: Places, ends: Places, height: int) -> Rectangle:
    """Return the rectangle that runs, at least one and none empty, span."""
    first, top = np.divmod(starts, height)
    last, bottom = np.divmod(ends - 1, height)
    left, right = int(first[0]), int(last[-1]) + 1
    if (first != last).any():  # a run over two columns has a pixel in the last row and one in the first
        return left, 0, right, height
    return left, int(top.min()), right, int(bottom.max()) + 1


def crop_runs(starts: Places, ends: Places, height: int) -> tuple[npt.NDArray[np.bool_], tuple[int, int]]:
    """Return the pixels of runs, none of them empty, in the rectangle that they span, and the (y, x) of its first."""
    if not len(starts):
        return np.zeros((0, 0), np.bool_), (0, 0)
    left, top, right, bottom = runs_box(starts, ends, height)
    # Two runs may touch if one without pixels was between them: an end and a begin are then equal.
    steps = np.zeros((right - left) * height + 1, np.int8)
    np.add.at(steps, starts - left * height, 1)
    np.add.at(steps, ends - left * height, -1)
    np.cumsum(steps, dtype=np.int8, out=steps)
    columns = steps[:-1].view(np.bool_).reshape(right - left, height)
    return np.ascontiguousarray(columns[:, top:bottom].T), (top, left)
