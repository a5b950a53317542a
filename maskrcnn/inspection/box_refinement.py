"""Step 2: where the box head moves the proposals that it classifies as an object."""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.inspection.final_steps import Candidates
from maskrcnn.inspection.proposal_steps import iou_facts
from maskrcnn.inspection.scene import Scene, Shape, box_of
from maskrcnn.intermediates.stage_run import StageRun
from runtime.output.draw import instance_color


def refinement_numbers(run: StageRun, candidates: Candidates) -> dict[str, Any]:
    """Return the number of candidates per class and how far they move, as JSON values.

    `median_shift` is the median distance between the centers of proposal and refined box in input pixels, and
    `median_growth` the median ratio of their areas; None without candidates.
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


def _centers(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray((boxes[:, :2] + boxes[:, 2:]) / 2)


def _areas(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
