"""One picture's way through the network: every tensor between two stages, and the frames they live in."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from maskrcnn import boxes as box_ops
from maskrcnn.anchors import pyramid_anchors
from maskrcnn.configuration.model import Config
from maskrcnn.model import MaskRCNN, Stages
from maskrcnn.roi_align import LEVELS, assign_levels, build_atlas
from runtime.artifact import OUTPUT_NAMES
from runtime.detections import Detections
from runtime.pictures.letterbox import Letterbox
from runtime.pictures.read import ImageSource, read_image
from runtime.steps import letterbox_picture, to_detections

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StageRun:
    """What the network did with one picture.

    Attributes:
        config: Of the model.
        picture: uint8 [H, W, 3], as it was read.
        letterbox: Where it lies in the input.
        image: uint8 [h, w, C], the network's input.
        tensors: The fields of `maskrcnn.model.Stages` without the batch axis; boxes y1, x1, y2, x2 normalised to the
            input, crops [N, side, side, C].
        score_threshold: Of the run.
        nms_threshold: Of the run.
    """

    config: Config
    picture: npt.NDArray[np.uint8]
    letterbox: Letterbox
    image: npt.NDArray[np.uint8]
    tensors: Mapping[str, npt.NDArray[Any]]
    score_threshold: float
    nms_threshold: float

    @cached_property
    def anchors(self) -> Floats:
        """All anchors, float32 [A, 4] normalised, in the order of the RPN's outputs."""
        model = self.config.model
        return np.asarray(
            pyramid_anchors(
                tf.constant(self.image.shape[:2]),
                model.backbone_strides,
                model.anchor_scales,
                model.anchor_ratios,
                model.anchor_stride,
            )
        )

    @cached_property
    def anchor_levels(self) -> npt.NDArray[np.int64]:
        """The pyramid level of each anchor, int64 [A], 2 to 6."""
        model = self.config.model
        cells = [
            len(range(0, -(-self.image.shape[0] // stride), model.anchor_stride))
            * len(range(0, -(-self.image.shape[1] // stride), model.anchor_stride))
            for stride in model.backbone_strides
        ]
        return np.repeat(np.arange(len(cells)) + LEVELS[0], np.array(cells) * len(model.anchor_ratios))

    @property
    def detections(self) -> Detections:
        """The result, in the frame of the picture."""
        stages = Stages(**{name: tf.constant(self.tensors[name][None]) for name in Stages._fields})
        outputs = MaskRCNN.contract(stages, tf.constant(self.image[None]))
        found = {name: np.asarray(outputs[name])[0] for name in OUTPUT_NAMES}
        return to_detections(found, self.letterbox, self.config.model.class_names, self.config.detection.mask_paste)

    @property
    def shown_input(self) -> npt.NDArray[np.uint8]:
        """The input as a picture uint8 [h, w, 3]; of more than three channels the first ones."""
        return shown(self.image)

    def to_input(self, boxes: Floats) -> npt.NDArray[np.float64]:
        """Normalised boxes [N, 4] as x1, y1, x2, y2 in input pixels."""
        pixels = box_ops.denormalize(tf.constant(boxes, tf.float32), tf.constant(self.image.shape[:2])).numpy()
        return np.asarray(pixels[:, [1, 0, 3, 2]], np.float64)

    def to_picture(self, boxes: Floats) -> npt.NDArray[np.float64]:
        """Normalised boxes [N, 4] as x1, y1, x2, y2 in picture pixels."""
        return self.letterbox.boxes_to_image(self.to_input(boxes))

    def levels(self, boxes: Floats) -> npt.NDArray[np.int32]:
        """The level that each normalised box [N, 4] is cropped from, int32 [N], 2 to 5."""
        return np.asarray(assign_levels(tf.constant(boxes, tf.float32), tf.constant(self.image.shape[:2])))


class StageRunner(Protocol):
    """What can be looked into: a checkpoint's model, or an artifact."""

    config: Config

    def run(self, image: ImageSource) -> StageRun:
        """One picture's way through the network."""

    def masks(self, run: StageRun, boxes: Floats, class_ids: npt.NDArray[np.int32]) -> Floats | None:
        """Mask probabilities [N, M, M] for normalised boxes [N, 4] of a run; None where the runner has no mask head."""


class ModelStages:
    """Runs a model and keeps what is between its stages.

    Args:
        model: The model.
        score_threshold: None takes the configuration's.
        nms_threshold: None takes the configuration's.
    """

    def __init__(
        self, model: MaskRCNN, score_threshold: float | None = None, nms_threshold: float | None = None
    ) -> None:
        detection = model.config.detection
        self.model, self.config = model, model.config
        self.score_threshold = detection.min_score if score_threshold is None else score_threshold
        self.nms_threshold = detection.nms_threshold if nms_threshold is None else nms_threshold
        self._stages = tf.function(model.stages, autograph=False, reduce_retracing=True)

    def run(self, image: ImageSource) -> StageRun:
        """One picture's way through the network.

        Raises:
            ImageError: The picture cannot be used.
        """
        channels = self.config.model.image_channels
        picture = read_image(image, channels)
        letterbox, prepared = letterbox_picture(picture, channels, self.config.resize)
        windows = tf.constant([letterbox.window], tf.float32)
        thresholds = (tf.constant(value, tf.float32) for value in (self.score_threshold, self.nms_threshold))
        found = self._stages(tf.constant(prepared[None]), windows, *thresholds)
        tensors = {n: t.numpy() if n.endswith("rois") else t.numpy()[0] for n, t in found._asdict().items()}
        return StageRun(
            self.config, shown(picture), letterbox, prepared, tensors, self.score_threshold, self.nms_threshold
        )

    def masks(self, run: StageRun, boxes: Floats, class_ids: npt.NDArray[np.int32]) -> Floats | None:
        """Mask probabilities [N, M, M] for normalised boxes [N, 4] of a run and their classes [N]."""
        atlas = build_atlas([tf.constant(run.tensors[name][None]) for name in ("p2", "p3", "p4", "p5")])
        size, pool = tf.constant(run.image.shape[:2]), self.config.model.mask_pool_size
        crops = self.model.crops(atlas, tf.constant(boxes[None]), size, pool)
        masks: Floats = self.model.segment(crops, tf.constant(class_ids)).numpy()
        return masks


def shown(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture of any number of channels as RGB; of more than three the first ones."""
    return read_image(np.ascontiguousarray(picture[..., : 3 if picture.shape[2] >= 3 else 1]))
