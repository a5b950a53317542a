"""The Keras model as the reference: its runs, its stages, and what explains a difference from it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export.convert.trace import STAGES, Stage, border, trace
from export.verify import tolerances
from export.verify.compare import RowDifferences, compare_rows, difference
from export.verify.decisions import explain_masks, explain_rows, explain_scores
from export.verify.verdict import StageResult
from maskrcnn import boxes as box_ops
from maskrcnn.anchors import model_anchors
from maskrcnn.configuration.model import ModelConfig
from maskrcnn.model import MaskRCNN, Stages
from runtime import artifact as names
from runtime.engines.protocol import Arrays, StageCutter
from runtime.engines.saved_model import FunctionStages


class Reference:
    """The Keras model with its stage boundary tensors; `every_row` as for the artifact, see `MaskRCNN.stages`."""

    def __init__(self, model: MaskRCNN, every_row: bool = False) -> None:
        self.model = model
        self._function = trace(model, with_borders=True, every_row=every_row)

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> tuple[Arrays, Arrays]:
        """Return artifact outputs and stage boundary tensors."""
        with tf.device("/CPU:0"):  # a GPU would round convolutions to TF32
            results = self._function(**{name: tf.constant(array) for name, array in feeds.items()})
        outputs = {name: results[name].numpy() for name in names.OUTPUT_NAMES}
        return outputs, {name: results[border(name)].numpy() for name in Stages._fields}

    @cached_property
    def stages(self) -> FunctionStages:
        """The model's own stages."""
        return FunctionStages(self._function.get_concrete_function())


def compare_stages(
    runner: StageCutter,
    feeds: Arrays,
    expected: Arrays,
    model: ModelConfig,
    stages: Sequence[Stage] = STAGES,
) -> Iterator[StageResult]:
    """Feed `stages` of a graph with graph inputs and stage boundary tensors, and compare their outputs."""
    for stage in stages:
        yield from _compare_stage(stage, expected, _run_stage(runner, stage, feeds), model)


def _run_stage(runner: StageCutter, stage: Stage, feeds: Arrays) -> Arrays:
    return runner.run({name: feeds[name] for name in (*names.INPUT_NAMES, *stage.inputs)}, stage.outputs)


def _compare_stage(stage: Stage, expected: Arrays, found: Arrays, model: ModelConfig) -> Iterator[StageResult]:
    for name in stage.outputs:
        tolerance = tolerances.of_stage(name, model)
        yield StageResult(stage.name, name, difference(expected[name], found[name], tolerance), *tolerance)


class Difference:
    """A run in which artifact and model disagree, and whether rounding alone explains it.

    It does if, on this very run, every stage of the artifact agrees with the model on the model's tensors, every stage
    of the model agrees with the artifact on the artifact's tensors, and the inputs of the first selection agree. Then
    both compute the same function, and some selection depended on rounding; `decisions` names it. `objections` has a
    sentence for each tensor that differs by more than rounding.

    `stages` is the artifact's graph; `feeds` and `borders` are graph inputs and the model's tensors in this run.
    """

    def __init__(self, reference: Reference, stages: StageCutter, feeds: Arrays, borders: Arrays) -> None:
        self._model, self._stages, self._feeds = reference.model, reference.stages, feeds
        self._borders, self._other = borders, stages.run(feeds, Stages._fields)
        first, *rest = STAGES  # the first stage takes only images, so both runs have computed it
        model = reference.model.config.model
        compared = [("equal", _compare_stage(first, borders, self._other, model))]
        compared.append(("the model's", compare_stages(stages, borders | feeds, borders, model, rest)))
        of_model = compare_stages(self._stages, self._other | feeds, self._other, model, rest)
        compared.append(("the artifact's", of_model))
        self.objections = [
            f"given {whose} tensors, stage {r.stage!r} differs in {r.tensor} by {r.worst:.1e}"
            for whose, results in compared
            for r in results
            if not r.passed
        ]

    def objections_to(self, found: Mapping[str, npt.NDArray[Any]], row: int) -> list[str]:
        """Return all objections to the artifact's outputs for image `row` of the batch, given without the batch axis.

        They must also be the outputs that its stage boundary tensors lead to.
        """
        own = self._model.contract(Stages(**self._other), self._feeds[names.IMAGES])
        examined = {name: np.asarray(own[name])[row] for name in names.OUTPUT_NAMES}
        foreign = not compare_rows(examined, found).identical
        return self.objections + ["the artifact's outputs do not follow from its own tensors between stages"] * foreign

    @cached_property
    def _on_its_boxes(self) -> Arrays:
        """Classify and segment with the model, on its own levels but at the artifact's boxes."""
        levels = {name: self._borders[name] for name in ("p2", "p3", "p4", "p5")}
        chosen = ("proposals", "detected_boxes", "class_ids", "num_detections")
        given = self._feeds | levels | {name: self._other[name] for name in chosen}
        return self._stages.run(given, ("class_probs", "masks"))

    def decisions(self, row: int, rows: RowDifferences) -> list[str]:
        """Return the close decisions behind the differences in image `row`; empty unless they explain all of them."""
        # The first axis of crops is RoIs, not images, and no decision is made on crops.
        model, other, on_its_boxes = (
            {name: tensor[row] for name, tensor in side.items() if not name.endswith("rois")}
            for side in (self._borders, self._other, self._on_its_boxes)
        )
        size, config = self._feeds[names.IMAGES].shape[1:3], self._model.config
        scale = np.tile(np.array(size, np.float32), 2)  # decisions are explained relative to the input
        continuous = config.model.box_frame == "continuous"
        if continuous:
            model, other = (
                {**side, **{name: side[name] / scale for name in ("proposals", "detected_boxes")}}
                for side in (model, other)
            )
        reasons: list[list[str]] = []
        if not rows.scores_within:
            reasons.append(_explain_scores(rows) or explain_scores(model, other, on_its_boxes))
        if not rows.masks_within:
            reasons.append(explain_masks(model, other, on_its_boxes, size, config.model.roi_level))
        if rows.unmatched or rows.swapped:
            levels = [level.numpy() for level in model_anchors(tf.constant(size), config.model)]
            anchors = np.concatenate(levels) / (scale if continuous else 1)
            numbers = np.repeat(np.arange(len(levels)), [len(level) for level in levels])
            window = tf.constant(self._feeds[names.WINDOWS][row])
            in_frame = box_ops.to_frame(window, tf.constant(size), config.model.box_frame).numpy()
            area = in_frame / (scale if continuous else 1)
            thresholds = [float(self._feeds[n]) for n in (names.SCORE_THRESHOLD, names.NMS_THRESHOLD)]
            rules = config.proposals
            explained = explain_rows(
                model,
                other,
                anchors,
                config,
                thresholds,
                numbers if rules.per_level else None,
                area if rules.clip == "window" else (0.0, 0.0, 1.0, 1.0),
            )
            reasons.append(explained)
        return [sentence for part in reasons for sentence in part] if all(reasons) else []


def _explain_scores(rows: RowDifferences) -> list[str]:
    """Explain scores beyond their tolerance that differ by no more than the box head rounds on equal crops."""
    allowed = tolerances.STAGES["class_probs"].bound
    if rows.scores > allowed:
        return []
    return [
        f"box head: a score differs by {rows.scores:.1e}; on equal crops the head itself may round by {allowed:.0e}"
    ]
