"""Mask probabilities of detections, [N, M, M], to the edges of their masks in the image.

An edge is where a scan of the image, column by column from the top, enters or leaves the mask: the ends of the runs
that run-length encoding counts. Between two mask rows the resampled probability is linear in y, so a column enters or
leaves at most once there, and one division tells where. No pixels are made: the cost grows with the length of the
outline, not with the area of the boxes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

PasteMode = Literal["matterport", "aligned", "torchvision", "detectron2"]  # see `runtime.masks.paste.paste_mask`
Edges = npt.NDArray[np.int64]

# A pixel of exactly 0.5 belongs to the mask; the margin is far larger than the rounding errors of float64.
THRESHOLD = 0.5 - 2.0**-40
# From this distance to 0.5, or to an edge in cells, rounding values and positions to float32 changes nothing.
_NEAR = 1e-4
# Columns of several masks processed at a time; with an edge in every cell that takes some 30 MB.
_BATCH_COLUMNS = 1 << 13
# The probabilities are surrounded by a ring of what the mode has outside, then by a ring of zeros that ends every mask.
_RINGS = 2


@dataclass(frozen=True)
class Span:
    """N boxes along one axis of the image, in pixels."""

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    first: npt.NDArray[np.int64]  # the first pixel of the image that is in the box
    last: npt.NDArray[np.int64]  # exclusive; not above `first` if no pixel is in the box
    origin: npt.NDArray[np.int64]  # the pixel of the image from which `first` and `last` are counted

    def take(self, boxes: npt.NDArray[np.intp]) -> "Span":
        """Keep some of the boxes."""
        return Span(self.low[boxes], self.high[boxes], self.first[boxes], self.last[boxes], self.origin[boxes])

    def from_first(self) -> "Span":
        """Count pixels from the first one of each box."""
        return Span(self.low, self.high, self.first - self.first, self.last - self.first, self.origin + self.first)

    def positions(
        self, box: npt.NDArray[np.intp], pixel: npt.NDArray[np.int64], cells: int, mode: PasteMode
    ) -> npt.NDArray[np.float64]:
        """Return where the centers of pixels lie in a mask of `cells` cells; the center of the first cell is 0.

        Two modes round as the operators whose pixels they reproduce, `torch.nn.functional.interpolate` and
        `grid_sample`: all operations are in float32, a product and a sum together are rounded once.
        """
        low, size = self.low[box], (self.high - self.low)[box]
        center = pixel + self.origin[box] + 0.5
        if mode == "torchvision":
            scale = (np.float32(cells) / size.astype(np.float32)).astype(np.float64)
            return ((center - low) * scale - 0.5).astype(np.float32).astype(np.float64)
        if mode == "detectron2":
            share = (center - low).astype(np.float32) / size.astype(np.float32)
            normalized = share * np.float32(2) - np.float32(1) + np.float32(1)
            return (normalized.astype(np.float64) * (cells / 2) - 0.5).astype(np.float32).astype(np.float64)
        return (center - low) * (cells / size) - 0.5


def box_spans(
    boxes: npt.NDArray[np.floating], image_size: tuple[int, int], mode: PasteMode, mask_size: int
) -> tuple[Span, Span]:
    """Return the rows and the columns of boxes [N, 4] x1, y1, x2, y2 whose masks have `mask_size` cells a side."""
    if mode == "torchvision":
        begin, end = _enlarged(boxes.astype(np.float32), mask_size)
        low, high = begin.astype(np.float64), np.maximum(end, begin + 1).astype(np.float64)
        first, last = begin, end
    else:
        single = boxes.astype(np.float32) if mode == "detectron2" else boxes
        low, high = np.split((np.rint(boxes) if mode == "matterport" else single).astype(np.float64), 2, axis=1)
        # Pixel i has its center at i + 0.5 and counts if low <= i + 0.5 < high: adjacent boxes share no pixel.
        first, last = np.ceil(low - 0.5).astype(np.int64), np.ceil(high - 0.5).astype(np.int64)
        if mode == "detectron2":  # where it is 0.5, as it may be on both sides
            last = np.where(high > low, np.floor(high - 0.5).astype(np.int64) + 1, first)
    first, last = np.maximum(first, 0), np.minimum(last, image_size[::-1])
    origin = np.zeros_like(first)
    columns, rows = (
        Span(low[:, axis], high[:, axis], first[:, axis], last[:, axis], origin[:, axis]) for axis in (0, 1)
    )
    return rows, columns


def _enlarged(boxes: npt.NDArray[np.float32], mask_size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first and last (exclusive) pixels, int64 [N, 2] x, y, of boxes enlarged by a cell on each side."""
    low, high = np.split(boxes, 2, axis=1)
    half = (high - low) * np.float32(0.5) * np.float32((mask_size + 2) / mask_size)
    center = (high + low) * np.float32(0.5)
    return (center - half).astype(np.int64), (center + half).astype(np.int64) + 1  # towards zero


def mask_edges(
    probabilities: npt.NDArray[np.floating],
    rows: Span,
    columns: Span,
    image_size: tuple[int, int],
    mode: PasteMode,
    *,
    turned: bool = False,
) -> Iterator[list[Edges]]:
    """Find the edges of masks, several masks at a time.

    Args:
        probabilities: float [N, M, M], 0..1, rows from top to bottom of the box.
        rows: rows of the boxes, from `box_spans`.
        columns: columns of the boxes.
        image_size: (height, width).
        mode: as for `box_spans`.
        turned: whether rows and columns are exchanged, in all other arguments; it matters to roundings only.

    Yields:
        Per mask, in order, int64 [2 R]: begin, end (exclusive), begin, ... of the R runs of the mask, as x * height +
        y, strictly increasing. A run may continue from the bottom of a column into the top of the next.
    """
    # A mask belongs to the batch that its first column is in.
    wide = np.where(rows.last > rows.first, np.maximum(columns.last - columns.first, 0), 0)
    batch = (np.cumsum(wide) - wide) // _BATCH_COLUMNS
    bounds = np.flatnonzero(np.diff(batch, prepend=-1, append=-1))
    for begin, end in pairwise(bounds.tolist()):
        found: list[Edges] = [np.zeros(0, np.int64)] * (end - begin)
        kept = np.flatnonzero(wide[begin:end]) + begin
        if len(kept):
            places = _batch_edges(probabilities[kept], rows.take(kept), columns.take(kept), image_size, mode, turned)
            for row, edges in zip(kept, places, strict=True):
                found[row - begin] = edges
        yield found


def _batch_edges(
    probabilities: npt.NDArray[np.floating],
    rows: Span,
    columns: Span,
    image_size: tuple[int, int],
    mode: PasteMode,
    turned: bool,
) -> list[Edges]:
    if mode == "torchvision":
        probabilities = np.pad(probabilities, ((0, 0), (1, 1), (1, 1)))
    count, tall, across = probabilities.shape
    height, stride = image_size[0], image_size[0] * image_size[1] + 1
    cells = _outline_cells(_surround(probabilities, mode))
    wide = columns.last - columns.first
    mask = np.repeat(np.arange(count), wide)  # one entry for each column of each mask, up to `fraction`
    x = np.arange(len(mask)) - np.repeat(np.cumsum(wide) - wide - columns.first, wide)
    position = columns.positions(mask, x, across, mode) + _RINGS
    left = position.astype(np.int64)
    fraction = position - left
    strip = mask * cells.first.shape[1] + left
    several = cells.length.ravel()[strip]
    # One entry for each outline cell that a column crosses, from the top down.
    column = np.repeat(np.arange(len(strip)), several)
    cell = np.arange(len(column)) + np.repeat(cells.first.ravel()[strip] - np.cumsum(several) + several, several)
    above = cells.top[cell] + fraction[column] * cells.top_step[cell]
    below = cells.bottom[cell] + fraction[column] * cells.bottom_step[cell]
    crossed = np.flatnonzero((above >= THRESHOLD) != (below >= THRESHOLD))
    above, below, column, cell = above[crossed], below[crossed], column[crossed], cell[crossed]
    mask = mask[column]
    # The first pixel center at or after the point where the line between both values meets the threshold. Rounding
    # never moves a point out of its cell, so points come in ascending order.
    scale = (rows.high - rows.low) / tall
    depth = cells.row[cell] + (THRESHOLD - above) / (below - above)
    edge = depth * scale[mask] + (rows.low - rows.origin - 0.5 - (_RINGS - 0.5) * scale)[mask]
    y = np.ceil(edge)
    if mode in ("torchvision", "detectron2"):
        # Rounding moves few of them. To find these, the distance of the closest pixel in float64 is near enough.
        distance = (0.5 - np.abs(y - edge - 0.5)) / scale[mask] * np.minimum(np.abs(below - above), 1.0)
        few = np.flatnonzero(distance < 2 * _NEAR)
        near = _Crossings(mask[few], cell[few], fraction[column[few]], depth[few], above[few], below[few])
        y[few] = _decide_near(y[few].astype(np.int64), near, cells, rows, tall, mode, turned)
    # What is above or below the image moves to its border, where begin and end cancel.
    y = np.clip(y, rows.first[mask], rows.last[mask]).astype(np.int64)
    places = cancel_pairs(mask * stride + x[column] * height + y)
    # Masks are one image and one pixel apart, so the end of one is never the begin of the next.
    parts = np.split(places, np.searchsorted(places, np.arange(1, count) * stride))
    return [part - number * stride for number, part in enumerate(parts)]


class _Crossings(NamedTuple):
    """Where columns cross the threshold, one entry for each edge."""

    mask: npt.NDArray[np.intp]
    cell: npt.NDArray[np.intp]
    fraction: npt.NDArray[np.float64]  # the position of the column in its cell
    depth: npt.NDArray[np.float64]  # the position of the edge, in cells with both rings
    above: npt.NDArray[np.float64]  # the value of the column at the top of the cell
    below: npt.NDArray[np.float64]  # and at the bottom


def _decide_near(
    y: npt.NDArray[np.int64],
    edges: _Crossings,
    cells: "_Cells",
    rows: Span,
    tall: int,
    mode: PasteMode,
    turned: bool,
) -> npt.NDArray[np.int64]:
    """Move the first pixel after an edge by one if rounding to float32 decides on which side a pixel beside it is."""
    enters, slope = edges.below >= THRESHOLD, np.abs(edges.below - edges.above)
    for back in (1, 0):
        position = rows.positions(edges.mask, y - back, tall, mode) + _RINGS
        distance = np.abs(position - edges.depth)
        down = position - cells.row[edges.cell]
        # A pixel belongs to one cell alone, so begins and ends stay in order.
        near = np.flatnonzero((np.minimum(distance, distance * slope) < _NEAR) & (down >= 0) & (down < 1))
        value = _sample_there(cells, edges.cell[near], edges.fraction[near], down[near], mode, turned)
        begun = (value >= 0.5) == enters[near]  # the pixel is after the edge
        y[near] += np.where(begun, -back, 1 - back)
    return y


def _sample_there(
    cells: "_Cells",
    cell: npt.NDArray[np.intp],
    fraction: npt.NDArray[np.float64],
    down: npt.NDArray[np.float64],
    mode: PasteMode,
    turned: bool,
) -> npt.NDArray[np.float32]:
    """Sample cells as PyTorch's operators do, rounding for rounding, on processors that multiply and add at once."""
    top, bottom = cells.top[cell], cells.bottom[cell]
    corners = top, top + cells.top_step[cell], bottom, bottom + cells.bottom_step[cell]
    upper_left, upper_right, lower_left, lower_right = (corner.astype(np.float32) for corner in corners)
    right, lower = fraction.astype(np.float32), down.astype(np.float32)
    if turned:
        upper_right, lower_left, right, lower = lower_left, upper_right, lower, right
    left, upper = 1 - right, 1 - lower
    if mode == "torchvision":  # interpolate
        above = _fused(upper_left, left, upper_right * right)
        below = _fused(lower_left, left, lower_right * right)
        return _fused(above, upper, below * lower)
    total = _fused(upper_right, upper * right, upper_left * (upper * left))  # grid_sample
    total = _fused(lower_left, lower * left, total)
    return _fused(lower_right, lower * right, total)


def _fused(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], added: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Multiply and add float32 with one rounding."""
    product = first.astype(np.float64) * second.astype(np.float64)  # exact
    return (product + added).astype(np.float32)


def _surround(probabilities: npt.NDArray[np.floating], mode: PasteMode) -> npt.NDArray[np.float64]:
    """Add both rings: float64 [N, M + 4, M + 4]."""
    if mode in ("torchvision", "detectron2"):
        return np.pad(probabilities.astype(np.float64), ((0, 0), (_RINGS, _RINGS), (_RINGS, _RINGS)))
    values = np.pad(probabilities.astype(np.float64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    if mode == "matterport":
        # `resize_bilinear` has zeros outside, but clips to the range of its input, whose lower end can matter.
        zero = probabilities.min(axis=(1, 2)) < THRESHOLD
        values[zero, :: values.shape[1] - 1] = 0.0
        values[zero, :, :: values.shape[2] - 1] = 0.0
    return np.pad(values, ((0, 0), (1, 1), (1, 1)))


class _Cells(NamedTuple):
    """The C squares between four neighboring values that the threshold crosses, by mask, column, row."""

    first: npt.NDArray[np.int64]  # [N, S]: index of the first cell in each of a mask's S columns of cells
    length: npt.NDArray[np.int64]  # [N, S]: number of cells in the column
    row: npt.NDArray[np.int64]  # [C]: the row of each cell
    top: npt.NDArray[np.float64]  # [C]: value of the upper left corner
    top_step: npt.NDArray[np.float64]  # [C]: upper right minus upper left
    bottom: npt.NDArray[np.float64]  # [C]: value of the lower left corner
    bottom_step: npt.NDArray[np.float64]  # [C]: lower right minus lower left


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


def cancel_pairs(places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Drop pairs of equal values: runs without a pixel, and breaks between columns inside a run."""
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    odd = np.diff(starts, append=len(places)) % 2 == 1
    kept: npt.NDArray[np.int64] = places[starts[odd]]
    return kept
