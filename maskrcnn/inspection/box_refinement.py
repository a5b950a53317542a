"""Step 2: where the box head moves the proposals that it classifies as an object, and the deltas of both stages."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.inspection.anchor_matches import AnchorMatches
from maskrcnn.inspection.final_steps import Candidates, rows_of_detections
from maskrcnn.inspection.proposal_steps import iou_facts
from maskrcnn.inspection.scene import Scene, Shape, box_of, label_of
from maskrcnn.inspection.training_step import TrainingStep
from maskrcnn.intermediates.stage_run import Floats, StageRun
from runtime.one_line import count_of
from runtime.output.draw import instance_color

DELTA_NAMES = ("dy", "dx", "dh", "dw")


@dataclass(frozen=True, eq=False)
class BoxDeltas:
    """The deltas (dy, dx, dh, dw) of a stage, in units of its standard deviations, as the network predicts them.

    Attributes:
        std: The four standard deviations.
        predictions: float32 [N, 4], of all anchors, or of the proposals that are classified as an object.
        targets: [P, 4], what the positive anchors or proposals should learn; None if nothing tells.
        answers: [P, 4], what the network predicts for those.
    """

    std: tuple[float, ...]
    predictions: Floats
    targets: npt.NDArray[np.floating] | None = None
    answers: Floats | None = None

    @cached_property
    def groups(self) -> dict[str, npt.NDArray[np.floating]]:
        """The arrays by the names "targets", "answers" and "predictions", without those that are None."""
        found = {"targets": self.targets, "answers": self.answers, "predictions": self.predictions}
        return {name: each for name, each in found.items() if each is not None}

    @property
    def numbers(self) -> dict[str, Any]:
        """Count, means and standard deviations of each group, as JSON values, and the mean absolute error.

        `error` is that of the answers, for each delta. Means of nothing are None.
        """
        numbers: dict[str, Any] = {}
        for name, deltas in self.groups.items():
            numbers[name] = {"count": len(deltas), "mean": _means(deltas), "std": None}
            if len(deltas):
                numbers[name]["std"] = deltas.astype(np.float64).std(axis=0).tolist()
        if self.targets is not None and self.answers is not None:
            numbers["error"] = _means(np.abs(self.answers - self.targets))
        return numbers


def rpn_deltas(run: StageRun, matches: AnchorMatches | None = None) -> BoxDeltas:
    """Return the deltas that the RPN predicts for all anchors, with targets and predictions of positive anchors."""
    std, predictions = run.config.model.rpn_box_std, run.tensors["rpn_deltas"]
    if matches is None:
        return BoxDeltas(std, predictions)
    return BoxDeltas(std, predictions, matches.deltas, predictions[matches.match == 1])


def head_deltas(run: StageRun, step: TrainingStep | None = None) -> BoxDeltas:
    """Return the deltas that the box head predicts for the best class of each proposal, if that is not the background.

    With a training step, also targets and predictions of its positive proposals.
    """
    best = run.tensors["class_probs"].argmax(axis=-1)
    rows = np.flatnonzero(best > 0)
    predictions = run.tensors["box_deltas"][rows, best[rows]]
    if step is None:
        return BoxDeltas(run.config.model.box_std, predictions)
    return BoxDeltas(run.config.model.box_std, predictions, step.deltas, step.predicted)


def final_refinement(run: StageRun, candidates: Candidates, gt_boxes: npt.NDArray[np.number]) -> Scene:
    """Return a scene of the detections alone: as proposed (dotted) and as refined (solid), in a color per object.

    Args:
        gt_boxes: [N, 4] y1, x1, y2, x2 in input pixels; N may be 0.
    """
    rows = _kept(run, candidates)
    before, after = run.to_input(candidates.rois[rows]), run.to_input(candidates.boxes[rows])
    overlaps = iou_facts(before, gt_boxes), iou_facts(after, gt_boxes)
    shifts = np.linalg.norm(_centers(after) - _centers(before), axis=1)
    shapes = []
    for place, row in enumerate(rows.tolist()):
        name = run.config.model.class_names[candidates.class_ids[row]]
        label, color = f"{place + 1} {label_of(name, float(candidates.scores[row]))}", instance_color(place)
        facts = {"class": name, "score": f"{candidates.scores[row]:.3f}", "moved": f"{shifts[place]:.1f} pixels"}
        for kind, boxes, overlap in (("proposal", before, overlaps[0]), ("refined", after, overlaps[1])):
            shown, dotted = {"box": kind, **facts, **overlap[place]}, kind == "proposal"
            text = "" if dotted else label
            shapes.append(Shape(box_of(boxes[place]), color, dotted, text, shown, label))
    caption = (
        f"{count_of(len(rows), 'detection')}, in a color each: as proposed (dotted) and as refined (solid). They are "
        "the boxes that the filters of the result keep."
    )
    return Scene("final_refinement", "Refinement of the detections", caption, run.shown_input, shapes)


def _kept(run: StageRun, candidates: Candidates) -> npt.NDArray[np.intp]:
    """Return the candidate of each detection that has a pixel in the image."""
    rows = rows_of_detections(run, candidates)
    rounded = np.rint(run.to_picture(run.tensors["detected_boxes"][: len(rows)]))
    return rows[np.all(rounded[:, 2:] > rounded[:, :2], axis=1)]


def refinement_numbers(run: StageRun, candidates: Candidates) -> dict[str, Any]:
    """Return the number of candidates per class and how far they move, as JSON values.

    `median_shift` is the median distance between the centers of proposal and refined box in input pixels, and
    `median_growth` the median ratio of their areas; None without candidates. `kept` and `kept_median_shift` are of the
    detections alone.
    """
    names = run.config.model.class_names
    counts = Counter(names[class_id] for class_id in candidates.class_ids)
    before, after = run.to_input(candidates.rois), run.to_input(candidates.boxes)
    shifts = np.linalg.norm(_centers(after) - _centers(before), axis=1)
    kept = _kept(run, candidates)
    areas = _areas(before)
    growth = _areas(after)[areas > 0] / areas[areas > 0]
    return {
        "candidates": len(candidates),
        "per_class": dict(counts.most_common()),
        "median_shift": float(np.median(shifts)) if len(shifts) else None,
        "median_growth": float(np.median(growth)) if len(growth) else None,
        "kept": len(kept),
        "kept_median_shift": float(np.median(shifts[kept])) if len(kept) else None,
    }


def refinement_scene(
    run: StageRun, candidates: Candidates, gt_boxes: npt.NDArray[np.number], per_class: int = 20
) -> Scene:
    """Return a scene with proposals (dotted) and refined boxes (solid), the best `per_class` of each class.

    Args:
        gt_boxes: [N, 4] y1, x1, y2, x2 in input pixels; N may be 0.
    """
    names = run.config.model.class_names
    seen: Counter[int] = Counter()
    rows = []
    for row, class_id in enumerate(candidates.class_ids.tolist()):
        seen[class_id] += 1
        if seen[class_id] <= per_class:
            rows.append(row)
    before, after = run.to_input(candidates.rois[rows]), run.to_input(candidates.boxes[rows])
    overlaps = iou_facts(before, gt_boxes), iou_facts(after, gt_boxes)
    levels = run.levels(candidates.rois[rows])
    shapes = []
    for place, row in enumerate(rows):
        name, color = names[candidates.class_ids[row]], instance_color(int(candidates.class_ids[row]))
        facts = {"class": name, "score": f"{candidates.scores[row]:.3f}", "level": f"P{levels[place]}"}
        for kind, boxes, overlap in (("proposal", before, overlaps[0]), ("refined", after, overlaps[1])):
            shown = {"box": kind, **facts, **overlap[place]}
            shapes.append(Shape(box_of(boxes[place]), color, kind == "proposal", facts=shown, group=name))
    caption = (
        f"{len(candidates)} of {candidates.proposals} proposals are classified as an object; {len(rows)} are shown, "
        f"the best {per_class} of each class: as proposed (dotted) and as refined (solid)."
    )
    return Scene("refinement", "Proposals and refined boxes", caption, run.shown_input, shapes)


def _means(deltas: npt.NDArray[np.floating]) -> list[float] | None:
    return [float(mean) for mean in deltas.astype(np.float64).mean(axis=0)] if len(deltas) else None


def _centers(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray((boxes[:, :2] + boxes[:, 2:]) / 2)


def _areas(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
