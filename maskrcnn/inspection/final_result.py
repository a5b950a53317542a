"""Step 7: the result on its picture, its tables, and beside the annotated objects, if there are any."""

from typing import Any

import numpy as np

from maskrcnn.inspection.box_refinement import class_color
from maskrcnn.inspection.scene import DUPLICATE, FALSE, NEGATIVE, NEUTRAL, POSITIVE, Scene, Shape, box_of
from maskrcnn.inspection.truth import Comparison, Outcome, Truth
from maskrcnn.intermediates.stage_run import StageRun
from runtime.detections import Detections
from runtime.output.draw import Color

_COLORS: dict[Outcome, Color] = {
    "match": POSITIVE,
    "duplicate": DUPLICATE,
    "wrong class": FALSE,
    "false": FALSE,
    "crowd": NEUTRAL,
}
_MISSED = NEGATIVE


def detection_rows(run: StageRun, detections: Detections, comparison: Comparison | None) -> list[dict[str, Any]]:
    """One row per detection, JSON serialisable: name, class, score, level, box, area, and outcome and IoU."""
    levels = [int(level) for level in run.levels(_normalized(run, detections))]
    rows = []
    for row, (name, score) in enumerate(zip(detections.names, detections.scores, strict=True)):
        entry: dict[str, Any] = {
            "class": name,
            "score": float(score),
            "level": f"P{levels[row]}",
            "box": [round(side, 1) for side in detections.boxes[row].tolist()],
            "area": int(detections.areas[row]),
        }
        if comparison is not None:
            entry["outcome"] = comparison.outcomes[row]
            entry["iou"] = float(comparison.overlaps[row].max(initial=0))
        rows.append(entry)
    return rows


def result_scene(run: StageRun, detections: Detections, comparison: Comparison | None) -> Scene:
    """The detections with their masks, in the colors of their classes."""
    shapes = []
    for row, facts in enumerate(detection_rows(run, detections, comparison)):
        color = class_color(int(detections.class_ids[row]))
        shown = {"class": facts["class"], "score": f"{facts['score']:.3f}", "level": facts["level"]}
        if "iou" in facts:
            shown |= {"IoU": f"{facts['iou']:.2f}", "outcome": facts["outcome"]}
        label = f"{facts['class']} {facts['score']:.2f}"
        shapes.append(
            Shape(box_of(detections.boxes[row]), color, label=label, facts=shown, mask=detections.mask_crops[row])
        )
    caption = f"{len(detections)} detections of a score of at least {run.score_threshold:g}."
    return Scene("result", "Result", caption, run.picture, shapes)


def difference_scene(run: StageRun, detections: Detections, truth: Truth, comparison: Comparison) -> Scene:
    """Objects that were missed beside detections that match, repeat, or are wrong."""
    names = run.config.model.class_names
    shapes = []
    for row, outcome in enumerate(comparison.outcomes):
        iou = comparison.overlaps[row].max(initial=0)
        facts = {
            "outcome": outcome,
            "class": detections.names[row],
            "score": f"{detections.scores[row]:.3f}",
            "IoU": f"{iou:.2f}",
        }
        label = f"{detections.scores[row]:.2f} / {iou:.2f}"
        mask = detections.mask_crops[row]
        shapes.append(
            Shape(box_of(detections.boxes[row]), _COLORS[outcome], label=label, facts=facts, group=outcome, mask=mask)
        )
    for row in np.flatnonzero(~comparison.found).tolist():
        y1, x1, y2, x2 = (int(side) for side in truth.boxes[row])
        mask = truth.masks[y1:y2, x1:x2, row], (y1, x1)
        name = names[truth.class_ids[row]]
        facts = {"outcome": "missed", "class": name}
        shapes.append(Shape((x1, y1, x2, y2), _MISSED, True, f"missed: {name}", facts, "missed", mask))
    counts = comparison.numbers
    caption = (
        f"{counts['objects']} objects: {counts['matches']} matched, {counts['misses']} missed (red, dotted); "
        f"{counts['duplicates']} duplicates, {counts['false'] + counts['wrong_class']} false. "
        "Point at one for its score and its IoU with the nearest object."
    )
    return Scene("differences", "Beside the annotated objects", caption, run.picture, shapes)


def truth_scene(run: StageRun, truth: Truth) -> Scene:
    """The annotated objects with their masks."""
    shapes = []
    for row, class_id in enumerate(truth.class_ids.tolist()):
        y1, x1, y2, x2 = (int(side) for side in truth.boxes[row])
        name, crop = run.config.model.class_names[class_id], (truth.masks[y1:y2, x1:x2, row], (y1, x1))
        area = int(np.count_nonzero(crop[0]))
        facts = {"class": name, "area": f"{area} pixels"}
        shapes.append(Shape((x1, y1, x2, y2), class_color(class_id), label=name, facts=facts, group=name, mask=crop))
    caption = f"{len(truth)} annotated objects; boxes are taken from the masks."
    return Scene("truth", "Annotated objects", caption, run.picture, shapes)


def _normalized(run: StageRun, detections: Detections) -> Any:
    """The boxes of the detections as the network had them, so that their level is that of the crops."""
    count = int(run.tensors["num_detections"])
    boxes = run.tensors["detected_boxes"][:count]
    rounded = np.rint(run.to_picture(boxes))
    sides = rounded[:, 2:] - rounded[:, :2]
    return boxes[np.all(sides > 0, axis=1)][: len(detections)]
