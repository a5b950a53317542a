"""Step 2 in training: the proposals that a training step samples for the heads, and what they should learn."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from maskrcnn import boxes as box_ops
from maskrcnn.data.sample import Sample
from maskrcnn.data.sample_arrays import sample_arrays
from maskrcnn.evaluation.metrics import box_iou
from maskrcnn.head_targets import POSITIVE_IOU
from maskrcnn.inspection.anchor_matches import SHOWN, some
from maskrcnn.inspection.scene import NEGATIVE, TRUTH, Scene, Shape, box_of
from maskrcnn.intermediates.color_map import color_map
from maskrcnn.intermediates.prepared import shown
from maskrcnn.intermediates.stage_run import Floats
from maskrcnn.intermediates.strips import cell, cut, strip
from maskrcnn.model import MaskRCNN
from maskrcnn.training.model import TrainingModel
from runtime.output.draw import instance_color
from runtime.pictures.letterbox import Pixels


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """The proposals (ROIs) that a training step samples for the heads of one image; P of R are positive.

    Attributes:
        image: [h, w, C], the training input.
        rois: float64 [R, 4] x1, y1, x2, y2 in input pixels, positives first.
        class_ids: int32 [R], 0 for the background.
        objects: float32 [G, 4], the boxes of the objects, x1, y1, x2, y2 in input pixels; no more than
            `training.max_instances`, and without crowds.
        overlaps: float64 [R], the largest IoU with one of them in the frame of the network, by which proposals are
            sampled; empty without objects.
        moved: float64 [P, 4], where the targets move the positives; x1, y1, x2, y2 in input pixels.
        deltas: float32 [P, 4], the targets (dy, dx, dh, dw) in units of `model.box_std`.
        predicted: float32 [P, 4], the deltas that the box head predicts for the class of the target, in the same units.
        masks: float32 [P, M, M] of 0 and 1, the mask targets.
        class_names: Names by class id.
    """

    image: Pixels
    rois: npt.NDArray[np.float64]
    class_ids: npt.NDArray[np.int32]
    objects: Floats
    overlaps: npt.NDArray[np.float64]
    moved: npt.NDArray[np.float64]
    deltas: Floats
    predicted: Floats
    masks: Floats
    class_names: Sequence[str]

    @property
    def numbers(self) -> dict[str, Any]:
        """Number of proposals of each kind and class, and the share of positives (None without any), as JSON values."""
        sampled, positive = len(self.rois), len(self.deltas)
        counts = Counter(self.class_names[class_id] for class_id in self.class_ids)
        return {
            "sampled": sampled,
            "positive": positive,
            "negative": sampled - positive,
            "positive_ratio": positive / sampled if sampled else None,
            "per_class": {name: counts[name] for name in self.class_names},
        }


def training_step(network: MaskRCNN, sample: Sample, seed: int = 0) -> TrainingStep:
    """Sample the network's proposals for the heads of one image, as a training step does.

    Args:
        sample: The image as training gets it.
        seed: Seed of the sampling.
    """
    config, size = network.config, (sample.image.shape[0], sample.image.shape[1])
    arrays = sample_arrays(sample, config, np.random.default_rng(seed), size)
    batch = {name: tf.constant(array[None]) for name, array in arrays.items()}
    batch["seeds"] = tf.constant([[seed, seed + 1]], tf.int32)
    training, image_size = TrainingModel(network), tf.constant(size)
    regions = training.regions(batch["images"], batch["windows"])
    proposals = training.proposals(regions, image_size, batch["windows"])
    found = training.targets(proposals, batch, image_size)
    heads = training.heads(regions, found, image_size)
    class_ids = found.class_ids.numpy()[0][found.valid.numpy()[0]]
    positive = np.flatnonzero(class_ids > 0)
    rois = tf.boolean_mask(found.rois[0], found.valid[0])
    deltas = found.deltas.numpy()[0][positive]
    moves = tf.constant(deltas * np.array(config.model.box_std, np.float32))
    moved = box_ops.decode(tf.gather(rois, positive), moves, config.model.box_frame, config.model.log_sizes)
    corners, targets = (
        box_ops.to_pixels(tf.cast(boxes, tf.float64), image_size, config.model.box_frame).numpy()[:, [1, 0, 3, 2]]
        for boxes in (rois, moved)
    )
    objects = np.asarray(arrays["boxes"], np.float32)[np.asarray(arrays["class_ids"], np.int32) > 0]
    framed = box_ops.to_frame(tf.constant(objects), image_size, config.model.box_frame).numpy()
    overlaps = box_iou(rois.numpy(), framed)
    return TrainingStep(
        sample.image,
        corners,
        class_ids,
        objects[:, [1, 0, 3, 2]],
        overlaps.max(axis=1) if len(objects) else np.zeros(0),
        targets,
        deltas,
        heads.deltas.numpy()[0][positive, class_ids[positive]],
        found.masks.numpy()[0][positive],
        config.model.class_names,
    )


def roi_scenes(step: TrainingStep, seed: int = 0) -> list[Scene]:
    """Return scenes of the positive proposals and where they should move, and of random negative ones."""
    counts, count = step.numbers, len(step.deltas)
    objects = [Shape(box_of(box), TRUTH, facts={"object": "annotated"}) for box in step.objects]
    overlaps = [{"IoU": f"{iou:.2f}"} for iou in step.overlaps] or [{}] * len(step.rois)
    positives = []
    for row, class_id in enumerate(step.class_ids[:count].tolist()):
        name = step.class_names[class_id]
        facts = {"class": name, **overlaps[row]}
        color, target = instance_color(class_id), box_of(step.moved[row])
        positives.append(Shape(box_of(step.rois[row]), color, True, facts=facts, group=name, target=target))
    chosen = count + some(counts["negative"], SHOWN, seed)
    negatives = [Shape(box_of(step.rois[row]), NEGATIVE, True, facts=overlaps[row]) for row in chosen]
    picture = shown(step.image)
    return [
        Scene(
            "rois/positive",
            "Positive proposals",
            f"{count} of {counts['sampled']} sampled proposals match an object (IoU of at least {POSITIVE_IOU}): "
            "dotted, in the color of its class. Arrows lead to the object (blue) that each should learn to move to.",
            picture,
            [*objects, *positives],
            0.06,
        ),
        Scene(
            "rois/negative",
            "Negative proposals",
            f"{counts['negative']} of {counts['sampled']} sampled proposals are background (IoU below {POSITIVE_IOU} "
            f"with every object, which are blue); {len(chosen)} are shown.",
            picture,
            [*objects, *negatives],
            0.06,
        ),
    ]


def target_strip(step: TrainingStep, row: int) -> Image.Image:
    """Return the image inside a positive proposal and the mask to learn, side by side."""
    return strip([cut(shown(step.image), step.rois[row]), cell(color_map(step.masks[row]))])
