"""From proposals to detections, filter by filter, in plain NumPy, as the sliders of the page repeat it."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from maskrcnn import boxes as box_ops
from maskrcnn.intermediates.stage_run import Floats, StageRun

Rows = npt.NDArray[np.intp]

_SHOWN_FROM = 0.05  # of every class: thousands of candidates score less


@dataclass(frozen=True, eq=False)
class Candidates:
    """The proposals that the box head classifies as an object, best score first.

    Attributes:
        proposals: Number of all proposals.
        rois: float32 [N, 4] in the frame of the network, as proposed.
        boxes: float32 [N, 4] in the same, refined and clipped to the image.
        class_ids: int32 [N], never the background.
        scores: float32 [N]; equal scores in the order of the proposals.
        drop_empty: Whether boxes without area are left out before NMS.
        max_detections: Largest number of detections.
        above: Whether scores must be above the threshold, not only reach it.
    """

    proposals: int
    rois: Floats
    boxes: Floats
    class_ids: npt.NDArray[np.int32]
    scores: Floats
    drop_empty: bool
    max_detections: int
    above: bool

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def areas(self) -> Floats:
        """Normalized areas, float32 [N]."""
        return np.asarray((self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1]))


@dataclass(frozen=True, eq=False)
class FinalSteps:
    """The candidates that each filter keeps.

    Attributes:
        proposals: Number of proposals.
        of_class: Number of candidates.
        confident: Candidates whose score reaches the threshold.
        kept: Those that NMS within each class keeps.
        final: The first `max_detections` of those.
        per_class: Number of `confident` and of `kept` candidates by class id.
    """

    proposals: int
    of_class: int
    confident: Rows
    kept: Rows
    final: Rows
    per_class: dict[int, tuple[int, int]]

    @property
    def numbers(self) -> dict[str, int]:
        """Number of boxes after each filter, as JSON values."""
        return {
            "proposals": self.proposals,
            "not_background": self.of_class,
            "confident": len(self.confident),
            "after_nms": len(self.kept),
            "final": len(self.final),
        }


def find_candidates(run: StageRun) -> Candidates:
    """Give each proposal its classes, and refine and clip the boxes.

    Classes are its best, if that is not the background, or every one that scores enough for a detection at the run's
    threshold, but at least a hundredth.
    """
    probs, detection, model = run.tensors["class_probs"], run.config.detection, run.config.model
    if detection.candidates == "every_class":
        real = np.prod(run.tensors["proposals"][:, 2:] - run.tensors["proposals"][:, :2], axis=1) > 0
        least = max(min(run.score_threshold, _SHOWN_FROM), 0.01)
        sources, class_ids = np.nonzero((probs >= least) & real[:, None] & (np.arange(probs.shape[1]) > 0))
    else:
        sources, class_ids = np.arange(len(probs)), probs.argmax(axis=-1)
    scores, proposals = probs[sources, class_ids], run.tensors["proposals"][sources]
    deltas = run.tensors["box_deltas"][sources, class_ids]
    moves = tf.constant(deltas * np.array(model.box_std, "f4"))
    refined = box_ops.decode(tf.constant(proposals), moves, model.box_frame, model.log_sizes)
    window = tf.constant([run.letterbox.window], tf.float32)
    clipped = box_ops.clip(refined, box_ops.to_frame(window, tf.constant(run.image.shape[:2]), model.box_frame))
    long_enough, boxes = box_ops.long_enough(clipped, detection.min_side).numpy()[:, 0], clipped.numpy()
    rows = np.flatnonzero((class_ids > 0) & long_enough)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return Candidates(
        len(run.tensors["proposals"]),
        proposals[rows],
        boxes[rows],
        class_ids[rows].astype(np.int32),
        scores[rows],
        detection.drop_empty_boxes,
        detection.max_detections,
        detection.candidates == "every_class",
    )


def compose(candidates: Candidates, score_threshold: float, nms_threshold: float) -> FinalSteps:
    """Keep the candidates that reach the score threshold, apply NMS within each class, and keep the best."""
    threshold = np.float32(score_threshold)
    enough = candidates.scores > threshold if candidates.above else candidates.scores >= threshold
    if candidates.drop_empty:
        enough &= candidates.areas > 0
    confident = np.flatnonzero(enough)
    taken: list[int] = []
    for row in confident:
        rivals = [other for other in taken if candidates.class_ids[other] == candidates.class_ids[row]]
        if not np.any(_iou(candidates, int(row), rivals) > np.float32(nms_threshold)):
            taken.append(int(row))
    kept = np.array(taken, np.intp)
    before, after = (Counter(candidates.class_ids[rows].tolist()) for rows in (confident, kept))
    per_class = {class_id: (before[class_id], after[class_id]) for class_id in sorted(before)}
    final = kept[: candidates.max_detections]
    return FinalSteps(candidates.proposals, len(candidates), confident, kept, final, per_class)


def rows_of_detections(run: StageRun, candidates: Candidates) -> Rows:
    """Return the candidate of each detection that the network chose.

    Candidates and detections are rounded in different places, so the nearest candidate of the class is taken.
    """
    found: list[int] = []
    for row in range(int(run.tensors["num_detections"])):
        distance = np.abs(candidates.boxes - run.tensors["detected_boxes"][row]).max(axis=1)
        distance = distance + np.abs(candidates.scores - run.tensors["scores"][row])
        distance[candidates.class_ids != run.tensors["class_ids"][row]] = np.inf
        distance[found] = np.inf  # each candidate is one detection
        found.append(int(distance.argmin()))
    return np.array(found, np.intp)


def _iou(candidates: Candidates, row: int, others: list[int]) -> Floats:
    """Return the IoU of a box with others; not `box_iou`, because the graph compares in float32, 0 without area."""
    box, rest = candidates.boxes[row], candidates.boxes[others]
    low, high = np.maximum(box[:2], rest[:, :2]), np.minimum(box[2:], rest[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    area, areas = candidates.areas[row], candidates.areas[others]
    union = area + areas - shared
    usable = (areas > 0) & (area > 0)
    return np.divide(shared, union, out=np.zeros_like(shared), where=usable)
