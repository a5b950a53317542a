"""One picture through every step: its blocks for each section of the page, and its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from maskrcnn.data.records import Record
from maskrcnn.data.sample import load_sample
from maskrcnn.inspection import step_blocks
from maskrcnn.inspection.final_steps import find_candidates
from maskrcnn.inspection.page_model import Block, Scenes
from maskrcnn.inspection.result_report import result_blocks
from maskrcnn.inspection.scene import Scene
from maskrcnn.inspection.truth import truth_of
from maskrcnn.intermediates.activations import Activation, layer_activations, stage_activations
from maskrcnn.intermediates.stage_run import ModelStages, StageRunner


@dataclass(eq=False)
class PictureReport:
    """What the page shows of one picture.

    Attributes:
        name: Of the picture.
        blocks: By the key of their section.
        figures: The numbers in the page, JSON serialisable.
        scenes: All pictures with shapes, for TensorBoard.
        activations: What the layers answered.
    """

    name: str
    blocks: dict[str, list[Block]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    scenes: list[Scene] = field(default_factory=list)
    activations: list[Activation] = field(default_factory=list)

    def add(self, section: str, blocks: Sequence[Block], figures: Mapping[str, Any] | None = None) -> None:
        """Append blocks to a section, and the numbers in them."""
        self.blocks.setdefault(section, []).extend(blocks)
        self.figures |= figures or {}
        self.scenes += [scene for block in blocks if isinstance(block, Scenes) for scene in block.scenes]


def report_picture(
    runner: StageRunner, name: str, record: Record, annotated: bool, extra_layers: tuple[str, ...] = ()
) -> PictureReport:
    """Run one picture and describe every step.

    Args:
        runner: A checkpoint's model, or an artifact.
        name: Of the picture, for the page.
        record: The picture; the class ids of its objects are the model's.
        annotated: Whether its objects are known; a picture without objects may be annotated, too.
        extra_layers: Layers to be shown beside the usual ones; of a checkpoint only.

    Raises:
        ImageError: The picture cannot be read.
        DatasetError: Its objects do not fit the picture.
        ConfigError: There is no such layer.
    """
    run = runner.run(record.image() if callable(record.image) else record.image)
    report = PictureReport(name)
    # Its objects as training would get them, but through the letterbox of prediction, so that anchors are the same.
    config = replace(run.config, training=replace(run.config.training, resize=None))
    sample = load_sample(record, config, np.random.default_rng(0), training=False) if annotated else None
    truth = truth_of(record, run) if annotated else None
    candidates = find_candidates(run)
    own = layer_activations(runner.model, run, extra_layers) if isinstance(runner, ModelStages) else []
    report.activations = [*own, *stage_activations(run)]
    report.add("anchors", *step_blocks.anchor_blocks(run, sample))
    report.add("refinement", *step_blocks.refinement_blocks(run, candidates, sample))
    report.add("masks", *step_blocks.mask_blocks(run, runner, sample))
    report.add("activations", *step_blocks.activation_blocks(report.activations))
    report.add("result", *result_blocks(run, runner, candidates, truth))
    report.add("data", step_blocks.data_blocks(run, truth, sample, record))
    return report
