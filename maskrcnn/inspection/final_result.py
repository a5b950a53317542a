"""Step 7: detections next to the annotated objects."""

import numpy as np

from maskrcnn.inspection.scene import DUPLICATE, FALSE, NEGATIVE, NEUTRAL, POSITIVE, Scene, Shape, box_of, label_of
from maskrcnn.inspection.truth import Comparison, Outcome, Truth
from maskrcnn.intermediates.stage_run import StageRun
from runtime.detections import Detections
from runtime.one_line import count_of
from runtime.output.draw import Color

_COLORS: dict[Outcome, Color] = {
    "match": POSITIVE,
    "duplicate": DUPLICATE,
    "wrong class": FALSE,
    "false": FALSE,
    "crowd": NEUTRAL,
}
_MISSED = NEGATIVE


def difference_scene(run: StageRun, detections: Detections, truth: Truth, comparison: Comparison) -> Scene:
    """Return a scene with missed objects, and detections colored by outcome."""
    names = run.config.model.class_names
    shapes = []
    for row, (outcome, iou) in enumerate(zip(comparison.outcomes, comparison.best_overlaps, strict=True)):
        facts = {
            "outcome": outcome,
            "class": detections.names[row],
            "score": f"{detections.scores[row]:.3f}",
            "IoU": f"{iou:.2f}",
        }
        label = label_of(detections.names[row], float(detections.scores[row]))
        mask = detections.mask_crops[row]
        shapes.append(
            Shape(box_of(detections.boxes[row]), _COLORS[outcome], label=label, facts=facts, group=outcome, mask=mask)
        )
    for row in np.flatnonzero(~comparison.found).tolist():
        y1, x1, y2, x2 = (int(side) for side in truth.boxes[row])
        mask = truth.masks[y1:y2, x1:x2, row], (y1, x1)
        name = names[truth.class_ids[row]]
        facts = {"outcome": "missed", "class": name}
        shapes.append(Shape((x1, y1, x2, y2), _MISSED, True, f"missed: {label_of(name)}", facts, "missed", mask))
    counts = comparison.numbers
    caption = (
        f"{count_of(counts['objects'], 'object')}: {counts['matches']} matched, {counts['misses']} missed (red, "
        f"dotted); {count_of(counts['duplicates'], 'duplicate')}, {counts['false'] + counts['wrong_class']} false. "
        "Point at a detection to see its score and its IoU with the object that it overlaps most."
    )
    return Scene("differences", "Detections and annotated objects", caption, run.picture, shapes)


def detection_levels(run: StageRun, detections: Detections) -> list[str]:
    """Return the pyramid level that the mask of each detection is cropped from."""
    count = int(run.tensors["num_detections"])
    boxes = run.tensors["detected_boxes"][:count]
    rounded = np.rint(run.to_picture(boxes))
    visible = np.all(rounded[:, 2:] > rounded[:, :2], axis=1)  # others are not among the detections
    return [f"P{level}" for level in run.levels(boxes[visible][: len(detections)])]
