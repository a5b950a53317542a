"""Step 1 in prediction: how the RPN sorts and filters anchors into proposals."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from maskrcnn import boxes as box_ops, nms
from maskrcnn.evaluation.metrics import box_iou, recall
from maskrcnn.inspection.scene import Scene, Shape, box_of
from maskrcnn.intermediates.stage_run import Floats, StageRun
from runtime.output.draw import Color

RECALL_IOU = 0.7


@dataclass(frozen=True, eq=False)
class ProposalSteps:
    """The anchors after each step of the RPN, best score first.

    Attributes:
        order: int32 [P], index of each anchor that its score keeps.
        scores: float32 [P].
        anchors: float32 [P, 4] in the frame of the network.
        refined: float32 [P, 4] in the same, moved by the deltas.
        clipped: float32 [P, 4] in the same, clipped.
        kept: int32 [N], the rows that NMS keeps: the proposals.
    """

    order: npt.NDArray[np.int32]
    scores: Floats
    anchors: Floats
    refined: Floats
    clipped: Floats
    kept: npt.NDArray[np.int32]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of boxes after each step, as JSON values."""
        changed = np.any(self.refined != self.clipped, axis=1)
        return {"by_score": len(self.order), "clipped": int(np.sum(changed)), "after_nms": len(self.kept)}


def proposal_steps(run: StageRun) -> ProposalSteps:
    """Repeat the selection of proposals step by step, with the operations of the network."""
    limits, model = run.config.proposals, run.config.model
    scores = run.tensors["rpn_probs"][:, -1]
    order = np.argsort(-scores, kind="stable").astype(np.int32)
    levels = run.anchor_levels[order] if limits.per_level else np.zeros(len(order), np.int64)
    within = np.zeros(len(order), np.bool_)
    for level in np.unique(levels):
        within[np.flatnonzero(levels == level)[: limits.pre_nms_limit]] = True
    order, levels = order[within], levels[within]
    anchors = tf.gather(tf.constant(run.anchors), order)
    deltas = tf.gather(tf.constant(run.tensors["rpn_deltas"]), order) * tf.constant(model.rpn_box_std, tf.float32)
    refined = box_ops.decode(anchors, deltas, model.box_frame, model.log_sizes)
    size = tf.constant(run.image.shape[:2])
    area = box_ops.whole_input(size, model.box_frame)
    if limits.clip == "window":
        area = box_ops.to_frame(tf.constant(run.letterbox.window, tf.float32), size, model.box_frame)
    clipped = box_ops.clip(refined, area)
    of_level = tf.constant(levels[:, None] == np.unique(levels))
    valid = of_level & box_ops.long_enough(clipped, limits.min_side)
    rows, kept = nms.suppress(clipped[None], valid[None], limits.post_nms_inference, limits.nms_threshold)
    found = rows[0][kept[0]]
    scores = scores[order]
    if model.objectness == "sigmoid":
        scores = tf.sigmoid(tf.constant(scores)).numpy()
    return ProposalSteps(order, scores, *(t.numpy() for t in (anchors, refined, clipped, found)))


def recalls(run: StageRun, steps: ProposalSteps, gt_boxes: npt.NDArray[np.number]) -> dict[str, float]:
    """Return the share of objects that have a box with an IoU of at least 0.7, after each step.

    Args:
        gt_boxes: [N, 4] y1, x1, y2, x2 in input pixels.
    """
    boxes = {"anchors": run.anchors, "refined": steps.clipped, "proposals": steps.clipped[steps.kept]}
    return {
        name: float(recall(run.to_input(each)[:, [1, 0, 3, 2]], gt_boxes, RECALL_IOU)[0])
        for name, each in boxes.items()
    }


def proposal_scenes(run: StageRun, steps: ProposalSteps, gt_boxes: npt.NDArray[np.number], count: int) -> list[Scene]:
    """Return the `count` best anchors before refinement, after it and after clipping, and the best boxes after NMS.

    Args:
        gt_boxes: [N, 4] y1, x1, y2, x2 in input pixels; N may be 0.
    """
    best = np.arange(min(count, len(steps.order)))
    kept = steps.kept[:count]
    stages: Sequence[tuple[str, str, str, Floats, npt.NDArray[np.integer], bool]] = (
        ("by_score", "Best anchors", "anchors, in their original places", steps.anchors, best, True),
        ("refined", "After refinement", "anchors, moved by the predicted deltas", steps.refined, best, False),
        ("clipped", "After clipping", "boxes, clipped to the input", steps.clipped, best, False),
        ("after_nms", "After NMS", "proposals, the boxes that NMS keeps", steps.clipped, kept, False),
    )
    scenes = []
    for name, title, what, boxes, rows, dotted in stages:
        total = len(steps.kept) if rows is kept else len(steps.order)
        corners = run.to_input(boxes[rows])
        shapes = [
            Shape(
                box_of(corner),
                _score_color(float(steps.scores[row])),
                dotted,
                facts={"score": f"{steps.scores[row]:.3f}", **level_facts(run, steps.order[row]), **iou},
            )
            for corner, row, iou in zip(corners, rows, iou_facts(corners, gt_boxes), strict=True)
        ]
        caption = f"The best {len(rows)} of {total} {what}."
        scenes.append(Scene(f"anchors/{name}", title, caption, run.shown_input, shapes[::-1], 0.06))
    return scenes


def level_facts(run: StageRun, anchor: np.integer) -> dict[str, str]:
    """Return the pyramid level of an anchor as a fact of its shape."""
    return {"level": f"P{run.anchor_levels[anchor]}"}


def iou_facts(corners: npt.NDArray[np.float64], gt_boxes: npt.NDArray[np.number]) -> list[dict[str, str]]:
    """Return, for each box [N, 4] x1, y1, x2, y2, its largest IoU with an object as a fact; empty without objects."""
    if not len(gt_boxes):
        return [{}] * len(corners)
    return [{"IoU": f"{iou:.2f}"} for iou in box_iou(corners[:, [1, 0, 3, 2]], gt_boxes).max(axis=1)]


def _score_color(score: float) -> Color:
    """Return a color from blue (0) over violet to yellow (1), which color-blind people can tell apart too."""
    return (round(70 + 185 * score), round(90 + 130 * score * score), round(255 - 215 * score))
