"""Step 2: where the box head moves the proposals that it takes for an object, class by class."""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.evaluation.metrics import box_iou
from maskrcnn.inspection.final_steps import Candidates
from maskrcnn.inspection.scene import Scene, Shape, box_of
from maskrcnn.intermediates.stage_run import StageRun
from runtime.output.draw import Color, instance_color


def class_color(class_id: int) -> Color:
    """The color of a class, the same in every picture."""
    return instance_color(class_id)


def refinement_numbers(run: StageRun, candidates: Candidates) -> dict[str, Any]:
    """How many candidates there are of each class, and how far they move, JSON serialisable.

    Returns:
        `candidates`; `per_class` by name; `median_shift`, the median distance between the centres of proposal and
        refined box in input pixels, and `median_growth`, of the ratio of their areas; None without candidates.
    """
    names = run.config.model.class_names
    counts = Counter(names[class_id] for class_id in candidates.class_ids)
    before, after = run.to_input(candidates.rois), run.to_input(candidates.boxes)
    shifts = np.linalg.norm(_centers(after) - _centers(before), axis=1)
    areas = _areas(before)
    growth = _areas(after)[areas > 0] / areas[areas > 0]
    return {
        "candidates": len(candidates),
        "per_class": dict(counts.most_common()),
        "median_shift": float(np.median(shifts)) if len(shifts) else None,
        "median_growth": float(np.median(growth)) if len(growth) else None,
    }


def refinement_scene(
    run: StageRun, candidates: Candidates, gt_boxes: npt.NDArray[np.number], per_class: int = 20
) -> Scene:
    """Proposals (dotted) and refined boxes (solid) in the color of their class.

    Args:
        run: Of the picture.
        candidates: Of the run.
        gt_boxes: [N, 4] y1, x1, y2, x2 in input pixels; N may be 0.
        per_class: How many of each class are shown, the best first.
    """
    names = run.config.model.class_names
    seen: Counter[int] = Counter()
    rows = []
    for row, class_id in enumerate(candidates.class_ids.tolist()):
        seen[class_id] += 1
        if seen[class_id] <= per_class:
            rows.append(row)
    before, after = run.to_input(candidates.rois[rows]), run.to_input(candidates.boxes[rows])
    levels = run.levels(candidates.rois[rows])
    shapes = []
    for place, row in enumerate(rows):
        name, color = names[candidates.class_ids[row]], class_color(int(candidates.class_ids[row]))
        facts = {"class": name, "score": f"{candidates.scores[row]:.3f}", "level": f"P{levels[place]}"}
        for corners, dotted in ((before[place], True), (after[place], False)):
            box = box_of(corners)
            overlap = _overlap(corners, gt_boxes)
            what = {"box": "proposal" if dotted else "refined"}
            shapes.append(Shape(box, color, dotted, facts={**what, **facts, **overlap}, group=name))
    caption = (
        f"{len(candidates)} of {candidates.proposals} proposals are taken for an object; {len(rows)} of them shown, "
        f"the best {per_class} of each class: as proposed (dotted), and refined (solid)."
    )
    return Scene("refinement", "Proposals and refined boxes", caption, run.shown_input, shapes)


def _overlap(corners: npt.NDArray[np.float64], gt_boxes: npt.NDArray[np.number]) -> dict[str, str]:
    if not len(gt_boxes):
        return {}
    return {"IoU": f"{box_iou(corners[None, [1, 0, 3, 2]], gt_boxes).max():.2f}"}


def _centers(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray((boxes[:, :2] + boxes[:, 2:]) / 2)


def _areas(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
