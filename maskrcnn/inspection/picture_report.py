"""Everything that the page shows of one image: its blocks in each section, and its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.data.records import Record
from maskrcnn.data.sample import load_sample
from maskrcnn.inspection import step_blocks
from maskrcnn.inspection.anchor_matches import match_anchors
from maskrcnn.inspection.box_refinement import DELTA_NAMES, BoxDeltas, head_deltas, rpn_deltas
from maskrcnn.inspection.data_report import sample_blocks
from maskrcnn.inspection.final_steps import find_candidates
from maskrcnn.inspection.page_model import Block, Scenes
from maskrcnn.inspection.result_report import result_blocks
from maskrcnn.inspection.scene import Scene
from maskrcnn.inspection.training_step import training_step
from maskrcnn.inspection.truth import truth_of
from maskrcnn.intermediates.activations import Activation, layer_activations, stage_activations
from maskrcnn.intermediates.stage_run import ModelStages, StageRunner


@dataclass(eq=False)
class PictureReport:
    """What the page shows of one image.

    Attributes:
        blocks: Blocks by the key of their section.
        figures: The numbers on the page, as JSON values.
        scenes: All scenes, for TensorBoard.
        activations: All activations, for TensorBoard.
        histograms: Other arrays by name, for TensorBoard.
    """

    name: str
    blocks: dict[str, list[Block]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    scenes: list[Scene] = field(default_factory=list)
    activations: list[Activation] = field(default_factory=list)
    histograms: dict[str, npt.NDArray[np.floating]] = field(default_factory=dict)

    def add(self, section: str, blocks: Sequence[Block], figures: Mapping[str, Any] | None = None) -> None:
        """Add blocks to a section, and the numbers in them."""
        self.blocks.setdefault(section, []).extend(blocks)
        self.figures |= figures or {}
        self.scenes += [scene for block in blocks if isinstance(block, Scenes) for scene in block.scenes]

    def add_deltas(self, section: str, deltas: BoxDeltas, *names: str) -> None:
        """Add the deltas of a stage to its section; `names` as for `step_blocks.delta_blocks`."""
        self.add(section, step_blocks.delta_blocks(deltas, *names), {f"{section}.deltas": deltas.numbers})
        for group, values in deltas.groups.items():
            self.histograms |= {f"{section}/{group}/{n}": values[:, column] for column, n in enumerate(DELTA_NAMES)}


def report_picture(
    runner: StageRunner, name: str, record: Record, annotated: bool, extra_layers: tuple[str, ...] = ()
) -> PictureReport:
    """Run one image and describe every step.

    Args:
        record: The image; the class ids of its objects are the model's.
        annotated: Whether its objects are known. An annotated image may have none.
        extra_layers: Layers to show besides the usual ones, for a checkpoint only.
    """
    run = runner.run(record.load_image(runner.config.model.image_channels, runner.config.pixels))
    report = PictureReport(name)
    # Objects as in training, but in the input of prediction, so that the anchors are the same.
    config = replace(run.config, training=replace(run.config.training, resize=None))
    sample = load_sample(record, config, np.random.default_rng(0), training=False) if annotated else None
    truth = truth_of(record, run) if annotated else None
    candidates = find_candidates(run)
    own = layer_activations(runner.model, run, extra_layers) if isinstance(runner, ModelStages) else []
    report.activations = [*own, *stage_activations(run)]
    matches = None if sample is None else match_anchors(run, sample)
    step = training_step(runner.model, sample) if isinstance(runner, ModelStages) and sample is not None else None
    report.add("anchors", *step_blocks.anchor_blocks(run, sample, matches))
    report.add_deltas("anchors", rpn_deltas(run, matches), "the RPN", "positive anchors", "all anchors")
    report.add("refinement", *step_blocks.refinement_blocks(run, candidates, sample))
    moved = ("positive proposals of a training step", "proposals classified as an object")
    report.add_deltas("refinement", head_deltas(run, step), "the box head", *moved)
    if step is not None:
        report.add("refinement", *step_blocks.roi_blocks(step, config.training.roi_positive_ratio))
    report.add("masks", *step_blocks.mask_blocks(run, step))
    report.add("activations", *step_blocks.activation_blocks(report.activations))
    report.add("result", *result_blocks(run, runner, candidates, truth))
    report.add("data", *sample_blocks(run, truth, sample, record))
    return report
