"""Targets of the RPN: which anchors are objects, and how they move onto them (Faster R-CNN, section 3.1.2).

They are computed on the host in float64: an anchor that ties with another for an object is positive too, so the last
bit counts. Anchors lie on grids, so their intersection with a box is the product of one factor per row and one per
column. Only the rows and columns that a box touches are computed, so the cost depends on the objects, not on the image.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from maskrcnn import boxes as box_ops
from maskrcnn.anchor_grids import LevelGrid

POSITIVE_IOU = 0.7
NEGATIVE_IOU = 0.3
CROWD_IOU = 0.001

Floats = npt.NDArray[np.float64]


class Sampler(Protocol):
    """The common interface of `numpy.random.Generator` and `RandomState`."""

    def choice(self, a: npt.NDArray[np.intp], size: int, replace: bool) -> npt.NDArray[np.intp]:
        """Draw `size` different elements of `a`."""


class RpnTargets(NamedTuple):
    """Targets of one image.

    Attributes:
        match: int32 [A]: 1 object, -1 background, 0 not used.
        deltas: float64 [anchors_per_image, 4] in units of `rpn_box_std`: those of the positive anchors in order,
            then zeros.
    """

    match: npt.NDArray[np.int32]
    deltas: Floats


def rpn_targets(
    grids: Sequence[LevelGrid],
    boxes: npt.NDArray[np.number],
    crowds: npt.NDArray[np.bool_],
    anchors_per_image: int,
    box_std: Sequence[float],
    sampler: Sampler,
    original_bugs: bool = False,
) -> RpnTargets:
    """Match anchors to objects, then drop surplus positives and negatives at random.

    An anchor is positive if its IoU with an object is at least 0.7, or if no anchor has a larger IoU with that
    object. It is negative if its IoU with every object is below 0.3 and with every crowd below 0.001.

    Args:
        grids: From `anchor_grids`.
        boxes: int or float [N, 4] y1, x1, y2, x2 in input pixels.
        crowds: bool [N].
        anchors_per_image: Anchors used; at most half of them positive.
        box_std: Scale of the deltas.
        sampler: Draws the surplus positives first, then the surplus negatives.
        original_bugs: An object that overlaps no anchor makes every anchor positive.
    """
    objects = boxes[~crowds]
    count = _anchor_count(grids)
    best_iou, best_object = np.zeros(count), np.zeros(count, np.intp)
    forced = [_match_object(grids, box, row, best_iou, best_object) for row, box in enumerate(objects)]
    crowd_iou = np.zeros(count)
    for box in boxes[crowds]:
        _match_object(grids, box, 0, crowd_iou, np.zeros(count, np.intp))
    match = np.zeros(count, np.int32)
    match[(best_iou < NEGATIVE_IOU) & (crowd_iou < CROWD_IOU)] = -1
    for anchors in forced:
        if len(anchors) or original_bugs:
            match[anchors if len(anchors) else slice(None)] = 1
    match[best_iou >= POSITIVE_IOU] = 1
    _thin_out(match, 1, anchors_per_image // 2, sampler)
    _thin_out(match, -1, anchors_per_image - int(np.count_nonzero(match == 1)), sampler)
    deltas = np.zeros((anchors_per_image, 4))
    positive = np.flatnonzero(match == 1)
    if len(positive):
        moved = box_ops.encode(_anchors_at(grids, positive), objects[best_object[positive]].astype(np.float64))
        deltas[: len(positive)] = moved / np.asarray(box_std)
    return RpnTargets(match, deltas)


def _anchor_count(grids: Sequence[LevelGrid]) -> int:
    return grids[-1].first + grids[-1].y1.size * len(grids[-1].x1)


def _match_object(
    grids: Sequence[LevelGrid],
    box: npt.NDArray[np.number],
    row: int,
    best_iou: Floats,
    best_object: npt.NDArray[np.intp],
) -> npt.NDArray[np.intp]:
    """Record the object for anchors that it overlaps more than earlier ones; return the anchors that fit it best."""
    blocks = list(_overlaps(grids, box))
    top = max((float(iou.max()) for _, iou in blocks), default=0.0)
    tied = []
    for index, iou in blocks:
        better = iou > best_iou[index]
        best_iou[index[better]] = iou[better]
        best_object[index[better]] = row
        tied.append(index[iou == top])
    return np.concatenate(tied) if top > 0 else np.zeros(0, np.intp)


def _overlaps(grids: Sequence[LevelGrid], box: npt.NDArray[np.number]) -> Iterator[tuple[npt.NDArray[np.intp], Floats]]:
    """Yield anchor indices and IoU [rows, columns, R] of the part of each level that a box touches."""
    y1, x1, y2, x2 = box.astype(np.float64)
    area = (y2 - y1) * (x2 - x1)
    for grid in grids:
        high = np.maximum(np.minimum(y2, grid.y2) - np.maximum(y1, grid.y1), 0)  # [rows, R]
        wide = np.maximum(np.minimum(x2, grid.x2) - np.maximum(x1, grid.x1), 0)
        rows, columns = np.flatnonzero(high.any(axis=1)), np.flatnonzero(wide.any(axis=1))
        if not (len(rows) and len(columns)):
            continue
        intersection = wide[columns][None] * high[rows][:, None]  # [rows, columns, R]
        sides = (grid.y2 - grid.y1)[rows][:, None], (grid.x2 - grid.x1)[columns][None]
        ratios, width = grid.y1.shape[1], len(grid.x1)
        cells = rows[:, None] * width + columns[None]
        index = grid.first + cells[..., None] * ratios + np.arange(ratios)
        yield index, intersection / (area + sides[0] * sides[1] - intersection)


def _thin_out(match: npt.NDArray[np.int32], value: int, limit: int, sampler: Sampler) -> None:
    found = np.flatnonzero(match == value)
    if len(found) > limit:
        match[sampler.choice(found, len(found) - limit, replace=False)] = 0


def _anchors_at(grids: Sequence[LevelGrid], index: npt.NDArray[np.intp]) -> Floats:
    """Return anchors float64 [N, 4] by their index among all levels."""
    anchors = np.empty((len(index), 4))
    for grid in grids:
        ratios, columns = grid.y1.shape[1], len(grid.x1)
        here = (index >= grid.first) & (index < grid.first + grid.y1.size * columns)
        cell, ratio = np.divmod(index[here] - grid.first, ratios)
        row, column = np.divmod(cell, columns)
        sides = (grid.y1[row, ratio], grid.x1[column, ratio], grid.y2[row, ratio], grid.x2[column, ratio])
        anchors[here] = np.stack(sides, axis=1)
    return anchors
