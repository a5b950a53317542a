"""The result section of the page: filters with sliders, detections, and their comparison with the annotations."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.evaluation.metrics import box_iou
from maskrcnn.inspection.charts import precision_recall_chart, to_svg
from maskrcnn.inspection.final_result import detection_levels, difference_scene
from maskrcnn.inspection.final_steps import Candidates, FinalSteps, compose, rows_of_detections
from maskrcnn.inspection.page_model import Block, Charts, Numbers, Result, Scenes, Table
from maskrcnn.inspection.scene import Scene, Shape, box_of, label_of
from maskrcnn.inspection.truth import MATCH_IOU, Comparison, Truth, compare
from maskrcnn.intermediates.stage_run import StageRun, StageRunner
from runtime.detections import Detections
from runtime.masks.paste import MaskCrop, paste_mask
from runtime.output.draw import instance_color

# Masks of boxes that are not detections cost time in the mask head, so only the best such boxes get one.
_CANDIDATE_MASKS = 100
_SHOWN_OVERLAPS = 25

_FILTERS = {
    "proposals": "proposals",
    "not_background": "classified as an object",
    "confident": "score at or above the threshold",
    "after_nms": "kept by NMS",
    "final": "detections",
}
_OUTCOMES = {
    "objects": "annotated objects",
    "matches": "matches (true positives)",
    "misses": "missed objects",
    "duplicates": "duplicates",
    "wrong_class": "wrong class",
    "false": "false positives (no object there)",
    "in_crowd": "in a crowd (not counted)",
}


def result_blocks(
    run: StageRun, runner: StageRunner, candidates: Candidates, truth: Truth | None
) -> tuple[list[Block], dict[str, Any]]:
    """Return the blocks of the section and the numbers in them; `truth` is None without annotations."""
    steps = compose(candidates, run.score_threshold, run.nms_threshold)
    steps = replace(steps, final=rows_of_detections(run, candidates))  # exactly what the network chose
    detections = run.detections
    figures: dict[str, Any] = {f"final.{key}": value for key, value in steps.numbers.items()}
    figures["final.final"] = len(detections)  # without boxes that have no pixel in the image
    figures["final.per_class"] = dict(Counter(detections.names))
    result, suppression = _interactive(run, runner, candidates, steps, truth), _suppression_table(run, steps)
    if truth is None:
        return [result, suppression], figures
    comparison = compare(detections, truth)
    figures |= {f"truth.{key}": value for key, value in comparison.numbers.items()}
    compared = _comparison_blocks(run, detections, truth, comparison)
    overlaps = [_overlap_table(run, detections, truth, comparison)] if comparison.overlaps.size else []
    return [result, *compared, suppression, *overlaps], figures


def _interactive(
    run: StageRun, runner: StageRunner, candidates: Candidates, steps: FinalSteps, truth: Truth | None
) -> Result:
    names, boxes = run.config.model.class_names, run.to_picture(candidates.boxes).astype(np.float32)
    rounded = np.rint(boxes)
    has_area = np.all(rounded[:, 2:] > rounded[:, :2], axis=1)
    final = frozenset(int(row) for row in steps.final if has_area[row])
    crops = _candidate_masks(run, runner, candidates, steps, boxes)
    overlaps = box_iou(boxes[:, [1, 0, 3, 2]], truth.boxes) if truth is not None and len(truth) else None
    levels = run.levels(candidates.rois)
    # Detections have the colors that `runtime.draw_detections` gives them.
    order = dict.fromkeys([*(row for row in steps.final.tolist() if has_area[row]), *range(len(candidates))])
    colors = {row: instance_color(place) for place, row in enumerate(order)}
    shapes, rows = [], []
    for row, class_id in enumerate(candidates.class_ids.tolist()):
        iou = "" if overlaps is None else f"{overlaps[row].max():.2f}"
        facts = {"class": names[class_id], "score": f"{candidates.scores[row]:.3f}", "level": f"P{levels[row]}"}
        if iou:
            facts["IoU"] = iou
        label = label_of(names[class_id], float(candidates.scores[row]))
        shapes.append(Shape(box_of(boxes[row]), colors[row], label=label, facts=facts, mask=crops.get(row)))
        rows.append([str(row + 1), *facts.values()])
    caption = "Detections at these thresholds. Point at a box to see its class, score, level and IoU."
    if len(candidates) > len(crops):
        caption += f" The best {len(crops)} candidates have masks, the others only boxes."
    data = {
        "scores": candidates.scores.tolist(),
        "classes": candidates.class_ids.tolist(),
        "boxes": candidates.boxes.tolist(),
        "hasArea": has_area.tolist(),
        "dropEmpty": candidates.drop_empty,
        "above": candidates.above,
        "max": candidates.max_detections,
        "score": run.score_threshold,
        "nms": run.nms_threshold,
    }
    counts = {**steps.numbers, "final": len(final)}
    numbers = {f"final.{key}": (name, str(counts[key])) for key, name in _FILTERS.items()}
    columns = ["candidate", "class", "score", "level", *(["IoU of boxes"] if overlaps is not None else [])]
    return Result(Scene("result", "Result", caption, run.picture, shapes), data, columns, rows, final, numbers)


def _candidate_masks(
    run: StageRun,
    runner: StageRunner,
    candidates: Candidates,
    steps: FinalSteps,
    boxes: npt.NDArray[np.float32],
) -> dict[int, MaskCrop]:
    """Return pasted masks by candidate: those of the detections, and for the best others those of the mask head."""
    found = {int(row): run.tensors["masks"][place] for place, row in enumerate(steps.final)}
    others = np.array([row for row in range(len(candidates)) if row not in found][:_CANDIDATE_MASKS], np.intp)
    if len(others):
        more = runner.masks(run, candidates.boxes[others], candidates.class_ids[others])
        if more is not None:
            found |= {int(row): mask for row, mask in zip(others, more, strict=True)}
    size = (run.picture.shape[0], run.picture.shape[1])
    mode = run.config.detection.mask_paste
    return {row: paste_mask(mask, boxes[row], size, mode) for row, mask in sorted(found.items())}


def _suppression_table(run: StageRun, steps: FinalSteps) -> Table:
    names = run.config.model.class_names
    rows = [[names[class_id], str(before), str(after)] for class_id, (before, after) in steps.per_class.items()]
    title = "NMS within each class, at the model's thresholds"
    return Table(title, ["class", "boxes before NMS", "boxes kept"], rows)


def _comparison_blocks(run: StageRun, detections: Detections, truth: Truth, comparison: Comparison) -> list[Block]:
    numbers = comparison.numbers
    shown = {f"truth.{key}": (name, str(numbers[key])) for key, name in _OUTCOMES.items()}
    if len(truth):
        shown["truth.ap50"] = (f"AP of this image at IoU {MATCH_IOU}", f"{numbers['ap50']:.3f}")
        shown["truth.ap"] = ("AP of this image, mean over IoU 0.5 to 0.95", f"{numbers['ap']:.3f}")
    numbered = [str(number) for number in range(1, len(detections) + 1)]
    scores, overlaps = ([f"{value:.3f}" for value in each] for each in (detections.scores, comparison.best_overlaps))
    levels = detection_levels(run, detections)
    cells = list(zip(numbered, detections.names, scores, levels, comparison.outcomes, overlaps, strict=True))
    marks = {(row, 4): "good" if each == "match" else "bad" for row, each in enumerate(comparison.outcomes)}
    columns = ["detection", "class", "score", "level", "outcome", "IoU of masks"]
    blocks: list[Block] = [
        Numbers("Compared with the annotations, at the model's thresholds", shown),
        Scenes("Matches and errors", [difference_scene(run, detections, truth, comparison)]),
        Table("Outcome of each detection", columns, cells, marks),
    ]
    if len(truth):
        chart = precision_recall_chart(comparison.precision, f"AP {numbers['ap50']:.3f} at IoU {MATCH_IOU}")
        intro = "For this image, all classes together, at the model's thresholds."
        blocks.append(Charts("Precision and recall", intro, [to_svg(chart)]))
    return blocks


def _overlap_table(run: StageRun, detections: Detections, truth: Truth, comparison: Comparison) -> Table:
    """Return the IoU of every detection with every object; matches are green, other large overlaps red."""
    names = run.config.model.class_names
    down, across = (min(count, _SHOWN_OVERLAPS) for count in comparison.overlaps.shape)
    columns = ["detection", *(f"{column + 1} {names[truth.class_ids[column]]}" for column in range(across))]
    rows = [
        [f"{row + 1} {detections.names[row]}", *(f"{comparison.overlaps[row, column]:.2f}" for column in range(across))]
        for row in range(down)
    ]
    marks = {}
    for row in range(down):
        for column in range(across):
            if comparison.partners[row] == column:
                marks[row, column + 1] = "good"
            elif comparison.overlaps[row, column] >= MATCH_IOU:
                marks[row, column + 1] = "bad"
    title = "IoU of masks: one row per detection, one column per object"
    cut = "" if comparison.overlaps.size == down * across else f" (the first {down} detections and {across} objects)"
    return Table(title + cut, columns, rows, marks)
