"""Trace the model into the function that both exports use, and name the tensors between its stages."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from export.convert.handlers import STANDS_FOR_ROI_ALIGN
from export.target import DYNAMIC, Shape
from maskrcnn.configuration.model import Config, ModelConfig
from maskrcnn.model import MaskRCNN
from maskrcnn.roi_align import LevelSampler
from runtime.artifact import BORDER_PREFIX, IMAGES, NMS_THRESHOLD, SCORE_THRESHOLD, WINDOWS, Thresholds


class Stage(NamedTuple):
    """A part of the graph between stage boundary tensors, which are fields of `maskrcnn.model.Stages`."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


_LEVELS = ("p2", "p3", "p4", "p5", "p6")

STAGES = (
    Stage("backbone", (), _LEVELS),
    Stage("rpn", _LEVELS, ("rpn_probs", "rpn_deltas")),
    Stage("proposals", ("rpn_probs", "rpn_deltas"), ("proposals",)),
    Stage("box roi align", (*_LEVELS[:4], "proposals"), ("box_rois",)),
    Stage("box head", ("box_rois",), ("class_probs", "box_deltas")),
    Stage(
        "detection",
        ("proposals", "class_probs", "box_deltas"),
        ("detected_boxes", "scores", "class_ids", "num_detections"),
    ),
    Stage("mask roi align", (*_LEVELS[:4], "detected_boxes", "num_detections"), ("mask_rois",)),
    Stage("mask head", ("mask_rois", "class_ids", "num_detections"), ("masks",)),
)


def border(name: str) -> str:
    """Return the name of a stage boundary tensor in a graph."""
    return BORDER_PREFIX + name


def input_signature(config: Config, shape: Shape = DYNAMIC) -> list[tf.TensorSpec]:
    """Return the artifact's inputs; of batch, height and width those are dynamic where `shape` has None."""
    return [
        tf.TensorSpec([*shape, config.model.image_channels], config.resize.image_dtype, name=IMAGES),
        tf.TensorSpec([shape[0], 4], tf.float32, name=WINDOWS),
        tf.TensorSpec([], tf.float32, name=SCORE_THRESHOLD),
        tf.TensorSpec([], tf.float32, name=NMS_THRESHOLD),
    ]


def trace(
    model: MaskRCNN,
    with_borders: bool = False,
    every_row: bool = False,
    shape: Shape = DYNAMIC,
    nms_in_steps: bool = False,
    thresholds: Thresholds = "inputs",
    sampler: LevelSampler | None = None,
) -> Any:
    """Trace the model into a `tf.function` from the artifact's inputs to its outputs by name.

    Every stage boundary tensor passes through an identity of its own name, so that stages can be cut out of the graph.

    Args:
        with_borders: Whether the stage boundary tensors are returned too, under `border(name)`.
        every_row: Whether the mask head runs on all rows; see `MaskRCNN.stages`.
        shape: Fixed batch, height and width of the input, each or None. What depends on them alone, such as anchors,
            becomes constant.
        nms_in_steps: See `MaskRCNN.stages`. With `with_borders`, the tensors at which its steps begin and end are
            returned too.
        thresholds: Whether the function has the thresholds as arguments.
        sampler: See `maskrcnn.roi_align`.
    """
    detection = model.config.detection
    values = np.float32(detection.min_score), np.float32(detection.nms_threshold)
    signature = input_signature(model.config, shape)

    # Because these defaults are tensors, they become defaults of the SavedModel's signature.
    def detect(
        images: tf.Tensor,
        windows: tf.Tensor,
        score_threshold: tf.Tensor = tf.constant(values[0]),  # noqa: B008
        nms_threshold: tf.Tensor = tf.constant(values[1]),  # noqa: B008
    ) -> dict[str, tf.Tensor]:
        tapped: dict[str, tf.Tensor] = {}

        def tap(name: str, tensor: tf.Tensor) -> tf.Tensor:
            tapped[border(name)] = tf.identity(tensor, name=border(name))
            return tapped[border(name)]

        stages = model.stages(images, windows, score_threshold, nms_threshold, tap, every_row, nms_in_steps, sampler)
        outputs = model.contract(stages, images)
        return outputs | tapped if with_borders else outputs

    def detect_with_constants(images: tf.Tensor, windows: tf.Tensor) -> dict[str, tf.Tensor]:
        return detect(images, windows, *map(tf.constant, values))  # made here, so that they are part of the graph

    if thresholds == "constants":
        return tf.function(detect_with_constants, input_signature=signature[:2], autograph=False)
    return tf.function(detect, input_signature=signature, autograph=False)


def level_sampler(config: ModelConfig) -> LevelSampler:
    """Return an operator that stands for `RoiAlign` in a graph that is only converted, never run.

    It has `RoiAlign`'s inputs, but it is `CropAndResize` with a name that has the attributes.
    """
    mode = "half_pixel" if config.roi_aligned else "output_half_pixel"
    name = f"{STANDS_FOR_ROI_ALIGN}.{mode}.{config.roi_sampling_ratio}"

    def sample(level: tf.Tensor, boxes: tf.Tensor, image_of: tf.Tensor, bins: int, stride: int) -> tf.Tensor:
        image_of = tf.cast(image_of, tf.int32)
        crops = tf.raw_ops.CropAndResize(
            image=level, boxes=boxes, box_ind=image_of, crop_size=[bins, bins], name=f"{name}.{stride}"
        )
        return tf.transpose(crops, [0, 3, 1, 2])

    return sample
