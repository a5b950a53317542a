"""The steps of one image as blocks of the page, and the numbers in them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.data.sample import Sample
from maskrcnn.inspection.anchor_matches import AnchorMatches, match_scenes
from maskrcnn.inspection.box_refinement import (
    DELTA_NAMES,
    BoxDeltas,
    final_refinement,
    refinement_numbers,
    refinement_scene,
)
from maskrcnn.inspection.charts import bar_chart, overlaid_histograms, to_svg
from maskrcnn.inspection.final_steps import Candidates
from maskrcnn.inspection.mask_generation import mask_strip, strip_facts
from maskrcnn.inspection.page_model import Block, Charts, Images, Numbers, Scenes, Table
from maskrcnn.inspection.proposal_steps import RECALL_IOU, proposal_scenes, proposal_steps, recalls
from maskrcnn.inspection.training_step import TrainingStep, roi_scenes, target_strip
from maskrcnn.intermediates.activations import Activation, mosaic
from maskrcnn.intermediates.stage_run import StageRun

# The most that the page shows of each kind.
_SHOWN_BOXES, _SHOWN_MASKS, _SHOWN_TARGETS = 50, 24, 8

# Blocks, and the numbers in them by key, as JSON values.
Described = tuple[list[Block], dict[str, Any]]

_ANCHOR_NAMES = {
    "anchors.total": "anchors",
    "anchors.positive": "positive (object)",
    "anchors.neutral": "neutral (not used)",
    "anchors.negative": "negative (background)",
    "anchors.used_positive": "positive, used in the loss",
    "anchors.used_negative": "negative, used in the loss",
    "anchors.by_score": "kept by score",
    "anchors.clipped": "clipped at the edge",
    "anchors.after_nms": "proposals (after NMS)",
    "anchors.recall_anchors": f"recall of the anchors at IoU {RECALL_IOU}",
    "anchors.recall_refined": f"recall after refinement at IoU {RECALL_IOU}",
    "anchors.recall_proposals": f"recall of the proposals at IoU {RECALL_IOU}",
}
_REFINEMENT_NAMES = {
    "refinement.candidates": "classified as an object",
    "refinement.median_shift": "median shift (input pixels)",
    "refinement.median_growth": "median ratio of the areas, after / before",
    "refinement.kept": "detections",
    "refinement.kept_median_shift": "median shift of the detections (input pixels)",
}
_ROI_NAMES = {
    "rois.sampled": "proposals sampled",
    "rois.positive": "positive (match an object)",
    "rois.negative": "negative (background)",
    "rois.positive_ratio": "share of positives",
    "rois.largest_ratio": "largest share allowed",
}
_DELTA_AXES = ("dy (down)", "dx (right)", "dh (log height)", "dw (log width)")


def gt_boxes(sample: Sample | None) -> npt.NDArray[np.number]:
    """Return the boxes of the objects that are not crowds, [N, 4] y1, x1, y2, x2 in input pixels."""
    return np.zeros((0, 4)) if sample is None else sample.boxes[sample.class_ids > 0]


def anchor_blocks(run: StageRun, sample: Sample | None, matches: AnchorMatches | None) -> Described:
    """Describe the match of anchors and objects, if there are annotations, and the way from anchors to proposals."""
    steps = proposal_steps(run)
    figures: dict[str, Any] = {"anchors.total": len(run.anchors)}
    figures |= {f"anchors.{key}": value for key, value in steps.numbers.items()}
    scenes: list[Block] = []
    if sample is not None and matches is not None:
        figures |= {f"anchors.{key}": value for key, value in matches.numbers.items()}
        found = recalls(run, steps, gt_boxes(sample)) if len(gt_boxes(sample)) else {}
        figures |= {f"anchors.recall_{key}": value for key, value in found.items()}
        scenes.append(Scenes("How training matches anchors to objects", match_scenes(run, matches, sample)))
    scenes.append(Scenes("From anchors to proposals", proposal_scenes(run, steps, gt_boxes(sample), _SHOWN_BOXES)))
    return [Numbers("Anchors at each step", _named(figures, _ANCHOR_NAMES)), *scenes], figures


def delta_blocks(deltas: BoxDeltas, stage: str, positives: str, others: str) -> list[Block]:
    """Describe the deltas of a stage by histograms and their means.

    Args:
        stage: Who predicts them.
        positives: The boxes that have targets.
        others: The boxes of `deltas.predictions`.
    """
    intro = (
        f"How far {stage} moves boxes: dy and dx in heights and widths of the box, dh and dw as logarithms of the "
        "ratio of the sizes, each divided by its standard deviation in the configuration. If these deviations fit the "
        "dataset, the targets have means near 0 and deviations near 1."
    )
    numbers, charts, rows = deltas.numbers, [], []
    predicted, same = {"predictions": deltas.predictions}, "predictions for the same boxes"
    pairs = [(others, predicted)]
    if deltas.targets is not None and deltas.answers is not None:
        pairs.insert(0, (positives, {"targets": deltas.targets, same: deltas.answers}))
    for boxes, arrays in pairs:
        if count := max(map(len, arrays.values())):
            panels = {
                f"{axis}, unit {std:g}": {name: each[:, column] for name, each in arrays.items()}
                for column, (axis, std) in enumerate(zip(_DELTA_AXES, deltas.std, strict=True))
            }
            charts.append(to_svg(overlaid_histograms(panels, f"{boxes.capitalize()} ({count})")))
    named = {"targets": f"targets of {positives}", "answers": same, "predictions": f"predictions for {others}"}
    for key, name in named.items():
        if key in numbers and numbers[key]["count"]:
            both = zip(numbers[key]["mean"], numbers[key]["std"], strict=True)
            values = [f"{value:.3f}" for pair in both for value in pair]
            rows.append([name, str(numbers[key]["count"]), *values])
    if numbers.get("error"):
        errors = [text for error in numbers["error"] for text in (f"{error:.3f}", "-")]
        rows.append(["absolute error of the predictions", str(numbers["targets"]["count"]), *errors])
    title = f"Deltas of {stage}"
    columns = ["deltas", "boxes", *(f"{name} {what}" for name in DELTA_NAMES for what in ("mean", "std"))]
    return [Charts(title, intro, charts), Table(f"{title}, in numbers", columns, rows)]


def roi_blocks(step: TrainingStep, largest: float) -> Described:
    """Describe the proposals that a training step samples; `largest` is the largest allowed share of positives."""
    numbers = step.numbers | {"largest_ratio": largest}
    figures = {f"rois.{key}": value for key, value in numbers.items()}
    intro = (
        "Classes of the proposals that this training step samples; BG is the background. Few positives mean that the "
        "proposals miss the objects."
    )
    sampled = {name: count for name, count in numbers["per_class"].items() if count}
    chart = bar_chart(sampled, "Sampled proposals per class", "proposals")
    blocks: list[Block] = [
        Numbers("Proposals sampled in a training step", _named(figures, _ROI_NAMES)),
        Scenes("What the heads are trained on", roi_scenes(step)),
        Charts("Classes of the sampled proposals", intro, [to_svg(chart)]),
    ]
    return blocks, figures


def refinement_blocks(run: StageRun, candidates: Candidates, sample: Sample | None) -> Described:
    """Describe the proposals that the box head classifies as an object, and where it moves them."""
    numbers = refinement_numbers(run, candidates)
    figures = {f"refinement.{key}": value for key, value in numbers.items()}
    counts = [[name, str(count)] for name, count in numbers["per_class"].items()]
    blocks: list[Block] = [
        Numbers("Effect of the box head", _named(figures, _REFINEMENT_NAMES)),
        Scenes(
            "How the box head moves boxes",
            [
                final_refinement(run, candidates, gt_boxes(sample)),
                refinement_scene(run, candidates, gt_boxes(sample)),
            ],
        ),
    ]
    if counts:
        blocks.append(Table("Proposals classified as each class", ["class", "proposals"], counts))
    return blocks, figures


def mask_blocks(run: StageRun, step: TrainingStep | None) -> Described:
    """Describe the masks of the detections and the mask targets of a training step."""
    detections = run.detections
    count = min(len(detections), _SHOWN_MASKS)
    strips = []
    for row in range(count):
        facts = ", ".join(f"{name} {value}" for name, value in strip_facts(detections, row).items())
        strips.append((mask_strip(run, detections, row), f"{row + 1}: {facts}"))
    side = run.config.model.mask_size
    intro = (
        f"{count} of {len(detections)} detections. From left to right: the image inside the box, the {side} x {side} "
        "probabilities of the mask head (dark 0, bright 1), and the mask pasted from them at a threshold of 0.5. "
        "Unsure: share of probabilities between 0.1 and 0.9."
    )
    blocks: list[Block] = [Images("Masks of the detections", intro if count else "There are no detections.", strips)]
    figures: dict[str, Any] = {"masks.shown": count}
    if step is not None and len(step.masks):
        rows = np.linspace(0, len(step.masks) - 1, min(len(step.masks), _SHOWN_TARGETS)).astype(int).tolist()
        names = run.config.model.class_names
        images = [(target_strip(step, row), names[step.class_ids[row]]) for row in rows]
        intro = "What the mask head would be trained on: the image inside the proposal, and the mask it should predict."
        blocks.append(Images("Mask targets in training", intro, images))
    return blocks, figures


def activation_blocks(activations: Sequence[Activation]) -> Described:
    """Describe the channels of each layer as mosaics and as a table, which lists dead and saturated ones."""
    images, rows, figures = [], [], {}
    for each in activations:
        numbers, shape = each.numbers, "{} x {} x {}".format(*each.values.shape)
        flagged = [(kind, numbers[kind]) for kind in ("dead", "saturated") if numbers[kind]]
        flags = "".join(f", {len(channels)} {kind} ({_listed(channels)})" for kind, channels in flagged)
        images.append((mosaic(each), f"{each.name}: {shape}{flags}"))
        ends = [f"{numbers[key]:.4g}" for key in ("min", "max", "mean")]
        lists = [_listed(numbers[kind]) or "none" for kind in ("dead", "saturated")]
        rows.append([each.name, shape, *ends, *lists])
        figures[f"activations.{each.name}"] = numbers
    intro = (
        "The first 64 channels of each layer, each scaled to its own range (dark is low, bright is high). Red frame: "
        "dead, the same value everywhere. Orange frame: saturated, 99% of the values in the top 1% of the range."
    )
    columns = ["layer", "height x width x channels", "min", "max", "mean", "dead channels", "saturated channels"]
    marks = {(r, c): "bad" for r, row in enumerate(rows) for c in (5, 6) if row[c] != "none"}
    blocks: list[Block] = [
        Images("Channels of each layer", intro, images, wide=True),
        Table("Values of each layer", columns, rows, marks),
    ]
    return blocks, figures


def _named(figures: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return name and text of the figures that have a name and a value."""
    shown = {key: (names[key], figures[key]) for key in names if figures.get(key) is not None}
    return {
        key: (name, f"{value:.3f}" if isinstance(value, float) else str(value)) for key, (name, value) in shown.items()
    }


def _listed(channels: Sequence[int]) -> str:
    return ", ".join(map(str, channels[:12])) + (", ..." if len(channels) > 12 else "")
