"""The metrics of matterport's `mrcnn.utils`, for arrays of one image.

They average over images, not over classes and scores as COCO does, so they can only be compared with the numbers in
matterport's notebooks. Boxes are y1, x1, y2, x2 in pixels, masks are bool [H, W, N]. An image without objects, which
causes a division by zero in the original, scores 1 if nothing was predicted, otherwise 0.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Masks = npt.NDArray[np.bool_]

# COCO's thresholds: 0.5, 0.55, ... 0.95.
IOU_THRESHOLDS = tuple(np.arange(0.5, 1.0, 0.05).tolist())


class Matches(NamedTuple):
    """Which prediction matches which object; -1 for none.

    Rows of predictions are sorted by decreasing score.

    Attributes:
        gt_match: float64 [G], the row of each object's prediction.
        pred_match: float64 [N], the row of each prediction's object.
        overlaps: float32 [N, G], IoU of masks.
    """

    gt_match: Floats
    pred_match: Floats
    overlaps: Floats


class AveragePrecision(NamedTuple):
    """Area under the precision-recall curve, and the curve.

    Attributes:
        ap: 0 to 1.
        precisions: float64 [N + 2], for the best n predictions, made monotonic, with a 0 at either end.
        recalls: float64 [N + 2], with a 0 before and a 1 after.
        overlaps: float32 [N, G], as in `Matches`.
    """

    ap: float
    precisions: Floats
    recalls: Floats
    overlaps: Floats


def mask_iou(masks: Masks, others: Masks) -> Floats:
    """Return the IoU of masks [H, W, N] and masks [H, W, M], float32 [N, M]; 0 where both are empty.

    Values above 0.5 belong to a mask.
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
    """Return the IoU of boxes [N, 4] and [M, 4] in one frame, float64 [N, M]; 0 where both are empty."""
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
    """Match each prediction, best score first, with the free object of its class that has the largest mask IoU.

    As in the original, the later of predictions with equal scores comes first, and the later of objects with equal IoU
    is chosen. (The original compares the IoU with its `score_threshold` too: pass the larger one as `iou_threshold`.)

    Args:
        gt_boxes: [G, 4]; rows of zeros are padding and ignored, also in the other ground-truth arrays.
        gt_class_ids: [G].
        gt_masks: [H, W, G].
        pred_boxes: [N, 4], with padding like `gt_boxes`.
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
            if float(overlaps[row, column]) < iou_threshold:  # in float64: 7 / 10 in float32 is below 0.7
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
    """Return the AP of one image at one IoU threshold over all classes, like matterport's `compute_ap`.

    The arguments are those of `match_detections`.
    """
    gt_match, pred_match, overlaps = match_detections(
        gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks, iou_threshold
    )
    if not len(gt_match):
        nothing = float(not len(pred_match))
        return AveragePrecision(nothing, np.full(2, nothing), np.array([0.0, 1.0]), overlaps)
    hits = np.cumsum(pred_match > -1)
    precisions = np.concatenate([[0], hits / (np.arange(len(hits)) + 1), [0]])
    # Rounded to float32 like the original, so that results are identical.
    recalls = np.concatenate([[0], hits.astype(np.float32) / len(gt_match), [1]])
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]  # best precision at this or a larger recall
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
    """Return the mean of `average_precision` over IoU thresholds, like matterport's `compute_ap_range`."""
    given = (gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks)
    return float(np.mean([average_precision(*given, threshold).ap for threshold in iou_thresholds]))


def recall(pred_boxes: npt.ArrayLike, gt_boxes: npt.ArrayLike, iou: float) -> tuple[float, npt.NDArray[np.intp]]:
    """Return the recall of boxes, like matterport's `compute_recall`.

    Args:
        pred_boxes: [N, 4], for instance proposals.
        gt_boxes: [G, 4].
        iou: Lowest box IoU of a match.

    Returns:
        The fraction of boxes that are the best match of a prediction with at least `iou` (1 if there are no boxes), and
        the rows of these predictions.
    """
    overlaps = box_iou(pred_boxes, gt_boxes)
    if not overlaps.shape[1]:
        return 1.0, np.zeros(0, np.intp)
    rows = np.flatnonzero(overlaps.max(axis=1) >= iou)
    return len(np.unique(overlaps.argmax(axis=1)[rows])) / overlaps.shape[1], rows


def _used(boxes: npt.NDArray[np.number]) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.any(boxes != 0, axis=1))
