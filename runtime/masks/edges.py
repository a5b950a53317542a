"""Mask probabilities of detections, [N, M, M], to the edges of their masks in the picture.

An edge is where a scan of the picture, column by column from the top, enters or leaves the mask: the ends of
the runs that run-length encoding counts. Between two mask rows the resampled probability is linear in y, so
that a column enters or leaves at most once there, at a place that one division gives. No pixel is ever made:
the work follows the length of the outline, not the area of the boxes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Edges = npt.NDArray[np.int64]

# Rounding in float64 is far finer than this; with it a pixel of exactly 0.5 counts, whatever the rounding did.
THRESHOLD = 0.5 - 2.0**-40
# Columns of several masks worked on at a time; with an edge in every cell that takes some 30 MB.
_BATCH_COLUMNS = 1 << 13
# Around the probabilities lie a ring that they continue into, then a ring of zeros that ends every mask.
_RINGS = 2


@dataclass(frozen=True)
class Span:
    """Where N boxes lie along one axis of the picture.

    Attributes:
        low: float64 [N], where the box begins, in pixels.
        high: float64 [N], where it ends.
        first: int64 [N], the first pixel of the picture in it.
        last: int64 [N], the end (exclusive) of those pixels; not above `first` if there are none.
    """

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]

    def take(self, boxes: npt.NDArray[np.intp]) -> "Span":
        """Keep some of the boxes."""
        return Span(self.low[boxes], self.high[boxes], self.first[boxes], self.last[boxes])

    def from_first(self) -> "Span":
        """Count pixels from the first one of each box."""
        return Span(self.low - self.first, self.high - self.first, self.first - self.first, self.last - self.first)


def box_spans(boxes: npt.NDArray[np.floating], image_size: tuple[int, int], *, aligned: bool) -> tuple[Span, Span]:
    """Find the rows and the columns of boxes in a picture.

    Args:
        boxes: float [N, 4], x1, y1, x2, y2 in picture pixels, finite.
        image_size: (height, width) of the picture.
        aligned: use the boxes as they are, and not rounded half to even.

    Returns:
        The spans of the rows and of the columns.
    """
    low, high = np.split((boxes if aligned else np.rint(boxes)).astype(np.float64), 2, axis=1)
    # Pixel i has its centre at i + 0.5 and counts if low <= i + 0.5 < high: boxes side by side share none.
    first = np.maximum(np.ceil(low - 0.5), 0).astype(np.int64)
    last = np.minimum(np.ceil(high - 0.5), image_size[::-1]).astype(np.int64)
    columns, rows = (Span(low[:, axis], high[:, axis], first[:, axis], last[:, axis]) for axis in (0, 1))
    return rows, columns


def mask_edges(
    probabilities: npt.NDArray[np.floating], rows: Span, columns: Span, image_size: tuple[int, int], *, aligned: bool
) -> Iterator[list[Edges]]:
    """Find the edges of masks, some masks at a time.

    Args:
        probabilities: float [N, M, M], 0..1, rows from top to bottom of the box.
        rows: of the boxes in the picture, from `box_spans`.
        columns: likewise.
        image_size: (height, width) of the picture.
        aligned: the mode of `runtime.masks.paste.paste_mask`.

    Yields:
        Per mask, in order, int64 [2 R]: begin, end (exclusive), begin, ... of the R runs of the mask, as
        x * height + y; each is above the one before it. A run may go on over the foot of a column.
    """
    # A mask belongs to the batch in which its first column falls.
    wide = np.where(rows.last > rows.first, np.maximum(columns.last - columns.first, 0), 0)
    batch = (np.cumsum(wide) - wide) // _BATCH_COLUMNS
    bounds = np.flatnonzero(np.diff(batch, prepend=-1, append=-1))
    for begin, end in pairwise(bounds.tolist()):
        found: list[Edges] = [np.zeros(0, np.int64)] * (end - begin)
        kept = np.flatnonzero(wide[begin:end]) + begin
        if len(kept):
            places = _batch_edges(probabilities[kept], rows.take(kept), columns.take(kept), image_size, aligned)
            for row, edges in zip(kept, places, strict=True):
                found[row - begin] = edges
        yield found


def _batch_edges(
    probabilities: npt.NDArray[np.floating], rows: Span, columns: Span, image_size: tuple[int, int], aligned: bool
) -> list[Edges]:
    count, tall, across = probabilities.shape
    height, stride = image_size[0], image_size[0] * image_size[1] + 1
    cells = _outline_cells(_surround(probabilities, aligned))
    wide = columns.last - columns.first
    mask = np.repeat(np.arange(count), wide)  # one entry for each column of each mask, up to `fraction`
    x = np.arange(len(mask)) - np.repeat(np.cumsum(wide) - wide - columns.first, wide)
    position = (x + 0.5 - columns.low[mask]) * (across / (columns.high - columns.low))[mask] + (_RINGS - 0.5)
    left = position.astype(np.int64)
    fraction = position - left
    strip = mask * cells.first.shape[1] + left
    several = cells.length.ravel()[strip]
    # One entry for each cell of the outline that a column passes, from the top down.
    column = np.repeat(np.arange(len(strip)), several)
    cell = np.arange(len(column)) + np.repeat(cells.first.ravel()[strip] - np.cumsum(several) + several, several)
    above = cells.top[cell] + fraction[column] * cells.top_step[cell]
    below = cells.bottom[cell] + fraction[column] * cells.bottom_step[cell]
    crossed = np.flatnonzero((above >= THRESHOLD) != (below >= THRESHOLD))
    above, below, column, cell = above[crossed], below[crossed], column[crossed], cell[crossed]
    mask = mask[column]
    # The pixel centre at or after the place where the straight line between both meets the threshold. A place stays
    # within its cell whatever the rounding, so that places come in ascending order.
    scale = (rows.high - rows.low) / tall
    depth = cells.row[cell] + (THRESHOLD - above) / (below - above)
    y = np.ceil(depth * scale[mask] + (rows.low - 0.5 - (_RINGS - 0.5) * scale)[mask])
    # What lies above or below the picture falls on its border, where begin and end cancel.
    y = np.clip(y, rows.first[mask], rows.last[mask]).astype(np.int64)
    places = _cancel_pairs(mask * stride + x[column] * height + y)
    # Masks are a picture and one apart, so that the end of one is never the begin of the next.
    parts = np.split(places, np.searchsorted(places, np.arange(1, count) * stride))
    return [part - number * stride for number, part in enumerate(parts)]


def _surround(probabilities: npt.NDArray[np.floating], aligned: bool) -> npt.NDArray[np.float64]:
    """Put the rings around the probabilities: float64 [N, M + 4, M + 4]."""
    values = np.pad(probabilities.astype(np.float64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    if not aligned:
        # `resize_bilinear` has zeros outside, but clips to the range of its input; the lower end can matter.
        zero = probabilities.min(axis=(1, 2)) < THRESHOLD
        values[zero, :: values.shape[1] - 1] = 0.0
        values[zero, :, :: values.shape[2] - 1] = 0.0
    return np.pad(values, ((0, 0), (1, 1), (1, 1)))


class _Cells(NamedTuple):
    """The squares between four neighbouring values that the threshold passes, by mask, column, row.

    Attributes:
        first: int64 [N, S], the index of the first cell of each of the S columns of cells of a mask.
        length: int64 [N, S], how many there are in it.
        row: int64 [C], in which row of cells each of all C cells lies.
        top: float64 [C], value of the upper left corner.
        top_step: float64 [C], by how much the upper right corner is above that.
        bottom: float64 [C], likewise the lower left corner.
        bottom_step: float64 [C], likewise the lower right corner.
    """

    first: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    top: npt.NDArray[np.float64]
    top_step: npt.NDArray[np.float64]
    bottom: npt.NDArray[np.float64]
    bottom_step: npt.NDArray[np.float64]


def _outline_cells(values: npt.NDArray[np.float64]) -> _Cells:
    inside = values >= THRESHOLD
    over, under = inside[:, :-1] | inside[:, 1:], inside[:, :-1] & inside[:, 1:]
    mixed = (over[:, :, :-1] | over[:, :, 1:]) & ~(under[:, :, :-1] & under[:, :, 1:])
    length = mixed.sum(axis=1)
    number, column, row = np.nonzero(mixed.transpose(0, 2, 1))
    side = values.shape[2]
    corner = (number * side + row) * side + column
    flat = values.ravel()
    top, bottom = flat[corner], flat[corner + side]
    first = np.cumsum(length).reshape(length.shape) - length
    return _Cells(first, length, row, top, flat[corner + 1] - top, bottom, flat[corner + side + 1] - bottom)


def _cancel_pairs(places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Leave out pairs of equal places: runs without a pixel, and runs that go on over the foot of a column."""
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    odd = np.diff(starts, append=len(places)) % 2 == 1
    kept: npt.NDArray[np.int64] = places[starts[odd]]
    return kept
