"""The measures of matterport's `mrcnn.utils`, on arrays of one picture.

They average over pictures, not over classes and scores as COCO does: their numbers cannot be compared with COCO's, only
with those of matterport's notebooks. Boxes are y1, x1, y2, x2 in pixels, masks are bool [H, W, N]. What was a division
by zero there is defined here: a picture without objects scores 1 if nothing was predicted, else 0.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Masks = npt.NDArray[np.bool_]

# COCO's: 0.5, 0.55, ... 0.95.
IOU_THRESHOLDS = tuple(np.arange(0.5, 1.0, 0.05).tolist())


class Matches(NamedTuple):
    """Which prediction found which object; -1 for none.

    Attributes:
        gt_match: float64 [G], for each object the row of its prediction.
        pred_match: float64 [N], for each prediction the row of its object.
        overlaps: float32 [N, G], IoU of masks.

    Rows of predictions are in the order of falling scores.
    """

    gt_match: Floats
    pred_match: Floats
    overlaps: Floats


class AveragePrecision(NamedTuple):
    """Area under the curve of precision over recall, and the curve.

    Attributes:
        ap: 0 to 1.
        precisions: float64 [N + 2], for the best n predictions, made monotonous, between a 0 and a 0.
        recalls: float64 [N + 2], between a 0 and a 1.
        overlaps: float32 [N, G], as in `Matches`.
    """

    ap: float
    precisions: Floats
    recalls: Floats
    overlaps: Floats


def mask_iou(masks: Masks, others: Masks) -> Floats:
    """IoU of masks [H, W, N] with masks [H, W, M]: float32 [N, M]; 0 where both are empty.

    Floating-point masks count from above 0.5.
    """
    if 0 in (masks.shape[-1], others.shape[-1]):
        return np.zeros((masks.shape[-1], others.shape[-1]), np.float32)
    first, second = (
        np.reshape(each > 0.5, (-1, each.shape[-1])).astype(np.float32).T  # [N, H * W]
        for each in (masks, others)
    )
    shared = first @ second.T
    union = first.sum(axis=1)[:, None] + second.sum(axis=1)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def box_iou(boxes: npt.ArrayLike, others: npt.ArrayLike) -> Floats:
    """IoU of pixel boxes [N, 4] with boxes [M, 4]: float64 [N, M]; 0 where both are empty."""
    first, second = (np.asarray(each, np.float64).reshape(-1, 4) for each in (boxes, others))
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=-1)
    area, other_area = ((each[:, 2:] - each[:, :2]).prod(axis=-1) for each in (first, second))
    union = area[:, None] + other_area[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def match_detections(
    gt_boxes: npt.NDArray[np.number],
    gt_class_ids: Ints,
    gt_masks: Masks,
    pred_boxes: npt.NDArray[np.number],
    pred_class_ids: Ints,
    pred_scores: Floats,
    pred_masks: Masks,
    iou_threshold: float = 0.5,
) -> Matches:
    """Give each prediction, best score first, the object of its class with the largest IoU that is still free.

    Of equal scores the later prediction comes first, of equal IoUs the later object, as in the original. (Its
    `score_threshold` was compared with the IoU too: give the larger of both as `iou_threshold`.)

    Args:
        gt_boxes: [G, 4]; rows of zeros are padding, and are left out here and in what follows.
        gt_class_ids: [G].
        gt_masks: [H, W, G].
        pred_boxes: [N, 4], with padding too.
        pred_class_ids: [N].
        pred_scores: [N].
        pred_masks: [H, W, N].
        iou_threshold: Lowest mask IoU of a match.
    """
    objects = _used(gt_boxes)
    gt_class_ids, gt_masks = gt_class_ids[objects], gt_masks[..., objects]
    order = _used(pred_boxes)
    order = order[np.argsort(pred_scores[order], kind="stable")[::-1]]
    pred_class_ids = pred_class_ids[order]
    overlaps = mask_iou(pred_masks[..., order], gt_masks)
    gt_match, pred_match = np.full(len(objects), -1.0), np.full(len(order), -1.0)
    for row, class_id in enumerate(pred_class_ids):
        for column in np.argsort(overlaps[row], kind="stable")[::-1]:
            if float(overlaps[row, column]) < iou_threshold:  # in float64, where 7 / 10 as float32 misses 0.7
                break
            if gt_match[column] < 0 and gt_class_ids[column] == class_id:
                gt_match[column], pred_match[row] = row, column
                break
    return Matches(gt_match, pred_match, overlaps)


def average_precision(
    gt_boxes: npt.NDArray[np.number],
    gt_class_ids: Ints,
    gt_masks: Masks,
    pred_boxes: npt.NDArray[np.number],
    pred_class_ids: Ints,
    pred_scores: Floats,
    pred_masks: Masks,
    iou_threshold: float = 0.5,
) -> AveragePrecision:
    """AP of one picture at one IoU threshold, all classes together; matterport's `compute_ap`.

    Args are those of `match_detections`.
    """
    gt_match, pred_match, overlaps = match_detections(
        gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks, iou_threshold
    )
    if not len(gt_match):
        nothing = float(not len(pred_match))
        return AveragePrecision(nothing, np.full(2, nothing), np.array([0.0, 1.0]), overlaps)
    hits = np.cumsum(pred_match > -1)
    precisions = np.concatenate([[0], hits / (np.arange(len(hits)) + 1), [0]])
    # Recalls are rounded to float32, as in the original: thirds must come out the same.
    recalls = np.concatenate([[0], hits.astype(np.float32) / len(gt_match), [1]])
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]  # the best one at this recall or a larger one
    steps = np.flatnonzero(recalls[:-1] != recalls[1:]) + 1
    ap = np.sum((recalls[steps] - recalls[steps - 1]) * precisions[steps])
    return AveragePrecision(float(ap), precisions, recalls, overlaps)


def average_precision_range(
    gt_boxes: npt.NDArray[np.number],
    gt_class_ids: Ints,
    gt_masks: Masks,
    pred_boxes: npt.NDArray[np.number],
    pred_class_ids: Ints,
    pred_scores: Floats,
    pred_masks: Masks,
    iou_thresholds: Iterable[float] = IOU_THRESHOLDS,
) -> float:
    """Mean of `average_precision` over IoU thresholds; matterport's `compute_ap_range`."""
    given = (gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks)
    return float(np.mean([average_precision(*given, threshold).ap for threshold in iou_thresholds]))


def recall(pred_boxes: npt.ArrayLike, gt_boxes: npt.ArrayLike, iou: float) -> tuple[float, npt.NDArray[np.intp]]:
    """Share of boxes that are the nearest one to some prediction; matterport's `compute_recall`.

    Args:
        pred_boxes: [N, 4], for instance proposals.
        gt_boxes: [G, 4].
        iou: Lowest box IoU at which a box counts as found.

    Returns:
        The recall (1 if there is nothing to find), and the rows of the predictions that reach `iou`.
    """
    overlaps = box_iou(pred_boxes, gt_boxes)
    if not overlaps.shape[1]:
        return 1.0, np.zeros(0, np.intp)
    rows = np.flatnonzero(overlaps.max(axis=1) >= iou)
    return len(np.unique(overlaps.argmax(axis=1)[rows])) / overlaps.shape[1], rows


def _used(boxes: npt.NDArray[np.number]) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.any(boxes != 0, axis=1))
