"""Step 1 in training: which anchors count as objects, which as background, and which as neither."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from maskrcnn import boxes as box_ops
from maskrcnn.anchor_grids import anchor_grids
from maskrcnn.data.sample import Sample
from maskrcnn.inspection.proposal_steps import level_facts
from maskrcnn.inspection.scene import NEGATIVE, NEUTRAL, POSITIVE, TRUTH, Scene, Shape, box_of
from maskrcnn.intermediates.prepared import shown
from maskrcnn.intermediates.stage_run import StageRun
from maskrcnn.rpn_targets import rpn_targets
from runtime.output.draw import Color

SHOWN = 60  # boxes that a scene of many shows


@dataclass(frozen=True, eq=False)
class AnchorMatches:
    """The match of an image's anchors to its objects in training.

    Attributes:
        match: int32 [A], before sampling: 1 positive, 0 neutral, -1 negative.
        used: int32 [A], after sampling: 1 and -1 take part in the loss.
        moved: float64 [P, 4], where the target moves each positive anchor; x1, y1, x2, y2 in input pixels.
        deltas: float64 [P, 4], the targets (dy, dx, dh, dw) of the positive anchors in units of `model.rpn_box_std`.
    """

    match: npt.NDArray[np.int32]
    used: npt.NDArray[np.int32]
    moved: npt.NDArray[np.float64]
    deltas: npt.NDArray[np.float64]

    @property
    def numbers(self) -> dict[str, int]:
        """Number of anchors of each kind, as JSON values."""
        return {
            "positive": int(np.sum(self.match == 1)),
            "neutral": int(np.sum(self.match == 0)),
            "negative": int(np.sum(self.match == -1)),
            "used_positive": int(np.sum(self.used == 1)),
            "used_negative": int(np.sum(self.used == -1)),
        }


def match_anchors(run: StageRun, sample: Sample, seed: int = 0) -> AnchorMatches:
    """Match the anchors of a run to the objects of its sample.

    Args:
        sample: The same image as training would get it, at the same input size.
        seed: Seed of the sampling.
    """
    config = run.config
    grids = anchor_grids(config.model, (run.image.shape[0], run.image.shape[1]))
    found = []
    for limit in (2 * len(run.anchors), config.training.anchors_per_image):  # no limit, then the real one
        found.append(
            rpn_targets(
                grids,
                sample.boxes,
                sample.class_ids < 0,
                limit,
                config.model.rpn_box_std,
                np.random.default_rng(seed),
                config.training.original_bugs,
            )
        )
    everything, used = found
    positive = np.flatnonzero(everything.match == 1)
    deltas = everything.deltas[: len(positive)]
    moves = deltas * np.array(config.model.rpn_box_std)
    # Targets are deltas of pixel boxes, so they are decoded as pixel boxes.
    pixels = run.to_input(run.anchors[positive])[:, [1, 0, 3, 2]]
    moved = np.asarray(box_ops.decode(tf.constant(pixels, tf.float64), tf.constant(moves, tf.float64)))
    return AnchorMatches(everything.match, used.match, moved[:, [1, 0, 3, 2]], deltas)


def match_scenes(run: StageRun, matches: AnchorMatches, sample: Sample, seed: int = 0) -> list[Scene]:
    """Return scenes of the positive anchors and where they should move, and of some negative and some neutral ones."""
    objects = [Shape(box_of(b), TRUTH, facts={"object": "annotated"}) for b in sample.boxes[:, [1, 0, 3, 2]]]
    counts = matches.numbers
    positive = np.flatnonzero(matches.match == 1)
    rows = some(len(positive), SHOWN, seed)
    anchors = run.to_input(run.anchors[positive[rows]])
    shapes = [
        Shape(box_of(anchor), POSITIVE, True, facts=level_facts(run, positive[row]), target=box_of(matches.moved[row]))
        for anchor, row in zip(anchors, rows, strict=True)
    ]
    scenes = [
        Scene(
            "anchors/positive",
            "Positive anchors",
            f"{counts['positive']} of {len(matches.match)} anchors overlap an object enough to count as one; "
            f"{len(rows)} are shown (dotted). Arrows lead to the object (blue) that each should learn to move to.",
            shown(sample.image),
            objects + shapes,
            0.06,
        )
    ]
    kinds: tuple[tuple[str, int, Color], ...] = (("negative", -1, NEGATIVE), ("neutral", 0, NEUTRAL))
    for kind, value, color in kinds:
        candidates = np.flatnonzero((matches.used if value else matches.match) == value)
        chosen = candidates[some(len(candidates), SHOWN, seed)]
        drawn = zip(run.to_input(run.anchors[chosen]), chosen, strict=True)
        what = (
            f"{counts['negative']} anchors are background, {counts['used_negative']} of them are used in the loss"
            if value
            else f"{counts['neutral']} anchors are neither: they overlap an object, but not enough to count as one"
        )
        scenes.append(
            Scene(
                f"anchors/{kind}",
                f"{kind.capitalize()} anchors",
                f"{what}; {len(chosen)} random ones are shown.",
                scenes[0].image,
                [*objects, *(Shape(box_of(b), color, True, facts=level_facts(run, i)) for b, i in drawn)],
                0.06,
            )
        )
    return scenes


def some(total: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return up to `count` random rows of `total`, in order."""
    if total <= count:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
