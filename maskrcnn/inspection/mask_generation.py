"""Step 3: from crops to mask probabilities to pixels of the image, and the mask targets of training."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from maskrcnn import boxes as box_ops
from maskrcnn.data.sample import Sample, sample_arrays
from maskrcnn.inspection.strips import cell, cut, strip
from maskrcnn.intermediates.color_map import color_map
from maskrcnn.intermediates.stage_run import StageRun, shown
from maskrcnn.model import MaskRCNN
from maskrcnn.training.model import TrainingModel
from runtime.detections import Detections
from runtime.masks.paste import place_crops
from runtime.pictures.letterbox import Pixels


@dataclass(frozen=True, eq=False)
class MaskTargets:
    """The mask targets of one training image.

    Attributes:
        image: [h, w, C], the training input.
        rois: float64 [P, 4] x1, y1, x2, y2 in input pixels, the proposals that match an object.
        class_ids: int32 [P].
        targets: float32 [P, M, M] of 0 and 1.
        sampled: Number of proposals sampled for the heads, positive and negative.
    """

    image: Pixels
    rois: npt.NDArray[np.float64]
    class_ids: npt.NDArray[np.int32]
    targets: npt.NDArray[np.float32]
    sampled: int

    @property
    def numbers(self) -> dict[str, int]:
        """Number of sampled proposals of each kind, as JSON values."""
        return {"sampled": self.sampled, "positive": len(self.rois), "negative": self.sampled - len(self.rois)}


def mask_targets_of(network: MaskRCNN, sample: Sample, seed: int = 0) -> MaskTargets:
    """Sample the network's proposals for the heads, as a training step does, and return the mask targets."""
    config, size = network.config, (sample.image.shape[0], sample.image.shape[1])
    arrays = sample_arrays(sample, config, np.random.default_rng(seed), size)
    batch = {name: tf.constant(array[None]) for name, array in arrays.items()}
    batch["seeds"] = tf.constant([[seed, seed + 1]], tf.int32)
    training, image_size = TrainingModel(network), tf.constant(size)
    proposals = training.proposals(training.regions(batch["images"], batch["windows"]), image_size, batch["windows"])
    found = training.targets(proposals, batch, image_size)
    class_ids = found.class_ids.numpy()[0, : found.masks.shape[1]]
    rows = np.flatnonzero(class_ids > 0)
    rois = box_ops.to_pixels(tf.constant(found.rois.numpy()[0][rows], tf.float64), image_size, config.model.box_frame)
    return MaskTargets(
        sample.image,
        rois.numpy()[:, [1, 0, 3, 2]],
        class_ids[rows],
        found.masks.numpy()[0][rows],
        int(np.sum(found.valid.numpy())),
    )


def mask_strip(run: StageRun, detections: Detections, row: int) -> Image.Image:
    """Return the image inside a detection's box, its mask probabilities and its mask, side by side."""
    mask = place_crops([detections.mask_crops[row]], detections.image_size)[0]
    plain = cut(run.picture, detections.boxes[row])
    tinted = run.picture.copy()
    tinted[~mask] = tinted[~mask] // 4
    return strip([plain, cell(color_map(detections.mask_probabilities[row])), cut(tinted, detections.boxes[row])])


def target_strip(targets: MaskTargets, row: int) -> Image.Image:
    """Return the image inside a matched proposal and the mask to learn, side by side."""
    return strip([cut(shown(targets.image), targets.rois[row]), cell(color_map(targets.targets[row]))])


def strip_facts(detections: Detections, row: int) -> dict[str, str]:
    """Return class, score, area and unsure share of a detection's mask as texts."""
    probabilities = detections.mask_probabilities[row]
    return {
        "class": detections.names[row],
        "score": f"{detections.scores[row]:.3f}",
        "area": f"{detections.areas[row]} px",
        "unsure": f"{np.mean(np.abs(probabilities - 0.5) < 0.4):.0%}",
    }
