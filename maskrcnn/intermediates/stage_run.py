"""Run one image through the network and keep every stage boundary tensor, with conversions between frames."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from maskrcnn import boxes as box_ops
from maskrcnn.anchor_grids import anchor_grids
from maskrcnn.anchors import model_anchors
from maskrcnn.configuration.model import Config
from maskrcnn.intermediates.prepared import PreparedImage, shown
from maskrcnn.model import MaskRCNN, Stages, contract
from maskrcnn.roi_align import LEVELS, assign_levels
from runtime.arguments import real
from runtime.artifact import OUTPUT_NAMES
from runtime.detections import Detections
from runtime.pictures.read import ImageSource, read_image
from runtime.steps import letterbox_picture, to_detections

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StageRun(PreparedImage):
    """The run of one image through the network.

    Attributes:
        tensors: The fields of `maskrcnn.model.Stages` without the batch axis; boxes are y1, x1, y2, x2 in the
            network's frame, crops [N, side, side, C].
    """

    tensors: Mapping[str, npt.NDArray[Any]]
    score_threshold: float
    nms_threshold: float

    @cached_property
    def anchors(self) -> Floats:
        """All anchors, float32 [A, 4] in the frame of the network, in the order of the RPN's outputs."""
        return np.concatenate(model_anchors(tf.constant(self.image.shape[:2]), self.config.model))

    @cached_property
    def anchor_levels(self) -> npt.NDArray[np.int64]:
        """The pyramid level of each anchor, int64 [A], 2 to 6."""
        grids = anchor_grids(self.config.model, (self.image.shape[0], self.image.shape[1]))
        return np.repeat(np.arange(len(grids)) + LEVELS[0], [grid.y1.size * len(grid.x1) for grid in grids])

    @property
    def detections(self) -> Detections:
        """The detections, in the frame of the image as it was read."""
        stages = Stages(**{name: tf.constant(self.tensors[name][None]) for name in Stages._fields})
        outputs = contract(stages, tf.constant(self.image[None]), self.config.model.box_frame)
        found = {name: np.asarray(outputs[name])[0] for name in OUTPUT_NAMES}
        return to_detections(found, self.letterbox, self.config.model.class_names, self.config.detection.mask_paste)

    def to_input(self, boxes: Floats) -> npt.NDArray[np.float64]:
        """Convert boxes [N, 4] of the network's frame to x1, y1, x2, y2 in input pixels."""
        size, frame = tf.constant(self.image.shape[:2]), self.config.model.box_frame
        pixels = box_ops.to_pixels(tf.constant(boxes, tf.float32), size, frame).numpy()
        return np.asarray(pixels[:, [1, 0, 3, 2]], np.float64)

    def to_picture(self, boxes: Floats) -> npt.NDArray[np.float64]:
        """Convert boxes [N, 4] of the network's frame to x1, y1, x2, y2 in pixels of the image as it was read."""
        return self.letterbox.boxes_to_image(self.to_input(boxes))

    def levels(self, boxes: Floats) -> npt.NDArray[np.int32]:
        """Return the pyramid level, int32 [N] 2 to 5, from which each normalized box [N, 4] is cropped."""
        size = tf.constant(self.image.shape[:2])
        return np.asarray(assign_levels(tf.constant(boxes, tf.float32), size, self.config.model))


class StageRunner(Protocol):
    """What can be inspected: a checkpoint's model or an artifact."""

    config: Config

    def run(self, image: ImageSource) -> StageRun:
        """Run one image through the network."""

    def masks(self, run: StageRun, boxes: Floats, class_ids: npt.NDArray[np.int32]) -> Floats | None:
        """Predict masks [N, M, M] for normalized boxes [N, 4] of a run; None if the runner cannot."""


class ModelStages:
    """Runs a model and keeps its stage boundary tensors; thresholds of None are the configuration's."""

    def __init__(
        self, model: MaskRCNN, score_threshold: float | None = None, nms_threshold: float | None = None
    ) -> None:
        detection = model.config.detection
        self.model, self.config = model, model.config
        self.score_threshold = (
            detection.min_score if score_threshold is None else real("score_threshold", score_threshold)
        )
        self.nms_threshold = detection.nms_threshold if nms_threshold is None else real("nms_threshold", nms_threshold)
        self._stages = tf.function(model.stages, autograph=False, reduce_retracing=True)

    def run(self, image: ImageSource) -> StageRun:
        """Run one image through the network."""
        channels = self.config.model.image_channels
        picture = read_image(image, channels, pixels=self.config.pixels)
        letterbox, prepared = letterbox_picture(picture, channels, self.config.resize)
        windows = tf.constant([letterbox.window], tf.float32)
        thresholds = (tf.constant(value, tf.float32) for value in (self.score_threshold, self.nms_threshold))
        found = self._stages(tf.constant(prepared[None]), windows, *thresholds)
        tensors = {n: t.numpy() if n.endswith("rois") else t.numpy()[0] for n, t in found._asdict().items()}
        return StageRun(
            self.config, shown(picture), letterbox, prepared, tensors, self.score_threshold, self.nms_threshold
        )

    def masks(self, run: StageRun, boxes: Floats, class_ids: npt.NDArray[np.int32]) -> Floats | None:
        """Predict masks [N, M, M] for normalized boxes [N, 4] of a run and their classes [N]."""
        pyramid = self.model.pyramid([tf.constant(run.tensors[name][None]) for name in ("p2", "p3", "p4", "p5")])
        size, pool = tf.constant(run.image.shape[:2]), self.config.model.mask_pool_size
        crops = self.model.crops(pyramid, tf.constant(boxes[None]), size, pool)
        masks: Floats = self.model.segment(crops, tf.constant(class_ids)).numpy()
        return masks
