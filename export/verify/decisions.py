"""Name the close decisions that made two runs choose different boxes.

Top-k, arg-max and non-maximum suppression turn a difference of 1e-7 into another set of boxes. If an artifact's
detections differ from the model's, the difference is accepted only if it can be traced to a decision that depends on
less than a margin. Everything is computed in float64 from the stage boundary tensors of one image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.verify.tolerances import DECISION_MARGIN, MASKS, STAGES
from maskrcnn.configuration.model import Config, RoiLevel
from maskrcnn.evaluation.metrics import box_iou

Array = npt.NDArray[Any]

_SAME_BOX = 1e-4  # normalized units; two engines place the same box within 1e-6

_WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class _Chosen:
    """Boxes that a stage kept: boxes [N, 4] normalized, scores [N], class_ids [N]."""

    boxes: Array
    scores: Array
    class_ids: Array


def explain_scores(
    reference: Mapping[str, Array], other: Mapping[str, Array], on_its_boxes: Mapping[str, Array]
) -> list[str]:
    """Return why scores of equal boxes differ by more than the box head rounds: rounding of the boxes, amplified.

    Empty unless that explains all of them: on the artifact's proposals, the model has the artifact's scores. Arguments
    are those of `explain_masks`.
    """
    sides = [_detections(run) for run in (reference, other)]
    distance = np.abs(sides[0].boxes[:, None] - sides[1].boxes[None]).max(axis=-1, initial=0)
    distance[sides[0].class_ids[:, None] != sides[1].class_ids[None]] = np.inf
    if not distance.size:
        return []
    partners = distance.argmin(axis=1)
    boxes = distance[np.arange(len(partners)), partners]
    scores = np.abs(sides[0].scores - sides[1].scores[partners])
    bound = STAGES["class_probs"].bound
    rows = np.flatnonzero((scores > bound) & (boxes <= _SAME_BOX))
    for row in rows:
        class_id, score = sides[1].class_ids[partners[row]], sides[1].scores[partners[row]]
        distances = np.abs(other["class_probs"][:, class_id] - score)
        proposals = distances == distances.min()  # that of the row; several if the score is 1
        left = np.abs(on_its_boxes["class_probs"][proposals, class_id] - score).max()
        if not (boxes[row] < DECISION_MARGIN and left <= bound):
            return []
    return [
        f"box head: the score of row {row} differs by {scores[row]:.1e}, its box by {boxes[row]:.1e} of the image"
        for row in rows
    ]


def explain_masks(
    reference: Mapping[str, Array],
    other: Mapping[str, Array],
    on_its_boxes: Mapping[str, Array],
    image_size: Sequence[int],
    rounding: RoiLevel = "nearest",
) -> list[str]:
    """Return why masks of equal boxes differ: a box between two levels, or rounding amplified by the mask head.

    Empty unless the boxes are the reason: on the artifact's boxes, the model has the artifact's masks.

    Args:
        reference: Stage boundary tensors of the model's own run, without the batch axis, with boxes relative to the
            input; `other` likewise of the artifact.
        on_its_boxes: `class_probs` and `masks` of the model, cropped from its own levels at the boxes of `other`.
        image_size: Height and width of the network's input.
        rounding: How levels are rounded.
    """
    found = [_detections(run) for run in (reference, other)]
    count = len(found[1].boxes)
    if not np.abs(on_its_boxes["masks"][:count] - other["masks"][:count]).max(initial=0) <= MASKS.bound:
        return []
    return _levels(found, image_size, rounding) + _amplified(reference, other)


def explain_rows(
    reference: Mapping[str, Array],
    other: Mapping[str, Array],
    anchors: Array,
    config: Config,
    thresholds: Sequence[float],
    anchor_levels: Array | None = None,
    area: Sequence[float] = _WHOLE,
) -> list[str]:
    """Return one sentence per close decision that explains different rows or another order; empty if there is none.

    Args:
        reference: See `explain_masks`.
        other: See `explain_masks`.
        anchors: float32 [A, 4] relative to the input.
        config: Configuration of the model.
        thresholds: `score_threshold` and `nms_threshold` of the run.
        anchor_levels: int [A], if proposals are chosen within each level.
        area: Where proposals are clipped, relative to the input.
    """
    proposals = config.proposals
    levels = np.zeros(len(anchors), np.int32) if anchor_levels is None else anchor_levels
    sides = [_proposals(run, anchors, config, levels, area) for run in (reference, other)]
    missing, extra = _only_in_one(*sides)
    if len(missing.boxes) or len(extra.boxes):
        scores = reference["rpn_probs"][:, -1]
        cuts = [_anchor_cut(scores[levels == level], proposals.pre_nms_limit) for level in np.unique(levels)]
        reasons = [reason for cut in cuts for reason in cut]
        return reasons + _suppression("proposals", missing, extra, sides, proposals.nms_threshold)
    score_threshold, nms_threshold = thresholds
    found = [_detections(run) for run in (reference, other)]
    missing, extra = _only_in_one(*found)
    every_class = config.detection.candidates == "every_class"
    reasons = (_near_scores if every_class else _classes)(reference["class_probs"], score_threshold)
    reasons += _suppression("detection", missing, extra, found, nms_threshold)
    return reasons + _order(found[0].scores)


def _proposals(
    run: Mapping[str, Array], anchors: Array, config: Config, levels: Array, area: Sequence[float] = _WHOLE
) -> _Chosen:
    """Return a run's proposals with the scores and, as class ids, the levels of the anchors they came from."""
    boxes = run["proposals"][np.any(run["proposals"] != 0, axis=1)].astype(np.float64)
    deltas = run["rpn_deltas"].astype(np.float64) * np.asarray(config.model.rpn_box_std)
    sizes = (anchors[:, 2:] - anchors[:, :2]).astype(np.float64)
    centers = anchors[:, :2] + 0.5 * sizes + deltas[:, :2] * sizes
    smallest, largest = config.model.log_sizes
    sizes *= np.exp(np.clip(deltas[:, 2:], smallest, largest))
    low, high = np.tile(area[:2], 2), np.tile(area[2:], 2)
    refined = np.clip(np.concatenate([centers - 0.5 * sizes, centers + 0.5 * sizes], axis=1), low, high)
    scores = run["rpn_probs"][:, -1]
    order = np.argsort(-scores, kind="stable")
    limit = config.proposals.pre_nms_limit + 1
    candidates = np.concatenate([order[levels[order] == level][:limit] for level in np.unique(levels)])
    nearest = [candidates[np.abs(refined[candidates] - box).max(axis=1).argmin()] for box in boxes]
    rows = np.array(nearest, np.int64)
    return _Chosen(boxes, scores.astype(np.float64)[rows], levels[rows])


def _detections(run: Mapping[str, Array]) -> _Chosen:
    count = int(run["num_detections"])
    boxes = run["detected_boxes"][:count].astype(np.float64)
    return _Chosen(boxes, run["scores"][:count].astype(np.float64), run["class_ids"][:count])


def _only_in_one(reference: _Chosen, other: _Chosen) -> tuple[_Chosen, _Chosen]:
    near = np.abs(reference.boxes[:, None] - other.boxes[None]).max(axis=-1) <= _SAME_BOX
    near &= reference.class_ids[:, None] == other.class_ids[None]
    return _pick(reference, ~near.any(axis=1)), _pick(other, ~near.any(axis=0))


def _pick(chosen: _Chosen, rows: Array) -> _Chosen:
    return _Chosen(chosen.boxes[rows], chosen.scores[rows], chosen.class_ids[rows])


def _anchor_cut(scores: Array, limit: int) -> list[str]:
    if len(scores) <= limit:
        return []
    ordered = np.sort(scores.astype(np.float64))[::-1]
    gap = ordered[limit - 1] - ordered[limit]
    if gap >= DECISION_MARGIN:
        return []
    return [f"proposals: anchors {limit} and {limit + 1} by score differ by {gap:.1e}, only one enters"]


def _suppression(stage: str, missing: _Chosen, extra: _Chosen, sides: list[_Chosen], threshold: float) -> list[str]:
    """Explain boxes of one side: an overlap close to the threshold, or a score close to that of a box of the other."""
    reasons = []
    for lost, winners in ((missing, sides[1]), (extra, sides[0])):
        overlaps = box_iou(lost.boxes, winners.boxes)
        comparable = lost.class_ids[:, None] == winners.class_ids[None]
        for i, j in np.argwhere(comparable & (np.abs(overlaps - threshold) < DECISION_MARGIN)):
            reasons.append(f"{stage}: two boxes overlap by {overlaps[i, j]:.7f}, the threshold is {threshold}")
    gaps = np.abs(missing.scores[:, None] - extra.scores[None])
    reasons += [
        f"{stage}: two boxes of which one is kept differ in score by {gaps[i, j]:.1e}"
        for i, j in np.argwhere(gaps < DECISION_MARGIN)
    ]
    return reasons


def _classes(probs: Array, score_threshold: float) -> list[str]:
    probs = probs.astype(np.float64)
    ordered = np.sort(probs, axis=-1)
    reasons = [
        f"detection: two classes of proposal {row} have the score {ordered[row, -1]:.6f}"
        for row in np.flatnonzero(ordered[:, -1] - ordered[:, -2] < DECISION_MARGIN)
    ]
    near = (np.abs(ordered[:, -1] - score_threshold) < DECISION_MARGIN) & (probs.argmax(-1) > 0)
    return reasons + [
        f"detection: proposal {row} scores {ordered[row, -1]:.7f}, the threshold is {score_threshold}"
        for row in np.flatnonzero(near)
    ]


def _near_scores(probs: Array, score_threshold: float) -> list[str]:
    probs = probs.astype(np.float64)
    near = np.argwhere(np.abs(probs[:, 1:] - score_threshold) < DECISION_MARGIN)
    return [
        f"detection: proposal {row} scores {probs[row, column + 1]:.7f} for class {column + 1}, "
        f"the threshold is {score_threshold}"
        for row, column in near
    ]


def _order(scores: Array) -> list[str]:
    gaps = -np.diff(scores)
    return [
        f"detection: rows {row} and {row + 1} differ in score by {gaps[row]:.1e}"
        for row in np.flatnonzero(gaps < DECISION_MARGIN)
    ]


def _levels(sides: Sequence[_Chosen], image_size: Sequence[int], rounding: RoiLevel) -> list[str]:
    """Explain masks of detections between two pyramid levels, which may be cropped from either."""
    boxes = np.concatenate([side.boxes for side in sides])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    area = area[area > 0]
    level = 4 + np.log2(np.sqrt(area * image_size[0] * image_size[1]) / 224.0)
    distance = np.abs(level - np.floor(level) - 0.5) if rounding == "nearest" else np.abs(level - np.round(level))
    near = (distance < DECISION_MARGIN) & (level > 2) & (level < 5 + DECISION_MARGIN)
    return [f"mask roi align: a box lies {d:.1e} octaves from the border of two levels" for d in distance[near]]


def _amplified(reference: Mapping[str, Array], other: Mapping[str, Array]) -> list[str]:
    """Explain masks beyond their tolerance whose boxes differ by rounding, within theirs."""
    count = min(int(reference["num_detections"]), int(other["num_detections"]))
    boxes = np.abs(reference["detected_boxes"][:count] - other["detected_boxes"][:count]).max(axis=1)
    masks = np.abs(reference["masks"][:count] - other["masks"][:count]).max(axis=(1, 2))
    rows = np.flatnonzero((masks > MASKS.bound) & (boxes < DECISION_MARGIN))
    return [
        f"mask head: the mask of row {row} differs by {masks[row]:.1e}, its box by {boxes[row]:.1e} of the image"
        for row in rows
    ]
