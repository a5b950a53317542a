"""The peer TensorFlow Model Garden, for inference: its Mask R-CNN as a frozen function, with random weights.

Set to our sizes as for training (`garden`), calibrated as the other peer (`calibration`). Frozen, which its own export
is not, it is fifteen percent faster.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from benchmarks import calibration
from benchmarks.garden import task_config
from benchmarks.turns import Call
from maskrcnn.configuration.model import Config

_RESULTS = ("detection_boxes", "detection_scores", "detection_classes", "detection_masks", "num_detections")


@dataclass(frozen=True)
class GardenPeer:
    """A compiled model and what it finds in its picture.

    Attributes:
        network: Runs it on the picture; results are NumPy arrays by the Garden's names.
        proposals: Found in the picture.
        detections: Found in the picture.
    """

    network: Call
    proposals: int
    detections: int


def garden_peer(config: Config, image: npt.NDArray[np.uint8], batched_nms: bool) -> GardenPeer:
    """Build, calibrate and freeze it.

    Args:
        config: Ours; the Garden is set to the same where it can be.
        image: uint8 [H, W, 3], of the input's size.
        batched_nms: Whether TensorFlow's operator suppresses, or the Garden's own loops, its default.
    """
    from official.vision.ops import preprocess_ops  # noqa: PLC0415  (installed only where the peer is measured)
    from official.vision.tasks.maskrcnn import MaskRCNNTask  # noqa: PLC0415

    settings = task_config(config, batched_nms)
    settings.model.roi_generator.test_num_proposals = config.proposals.post_nms_inference
    generator = settings.model.detection_generator
    generator.nms_version = "batched" if batched_nms else "v2"
    generator.max_num_detections = config.detection.max_detections
    tf.random.set_seed(0)
    model = MaskRCNNTask(settings).build_model()
    size = tf.constant([image.shape[:2]], tf.float32)

    def normalized(images: tf.Tensor) -> tf.Tensor:
        values = tf.cast(images, tf.float32)
        mean, deviation = preprocess_ops.MEAN_RGB, preprocess_ops.STDDEV_RGB
        return preprocess_ops.normalize_image(values, offset=mean, scale=deviation)

    @tf.function(input_signature=[tf.TensorSpec([1, *image.shape], tf.uint8)])
    def detect(images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = model.call(normalized(images), image_shape=size, training=False)
        return {name: found[name] for name in _RESULTS}

    proposals = _calibrate(model, normalized(image[None]), size)
    frozen = convert_variables_to_constants_v2(detect.get_concrete_function())
    names = sorted(_RESULTS)  # a frozen function returns a list, in the order of the dictionary's keys

    def run() -> dict[str, npt.NDArray[Any]]:
        return {name: tensor.numpy() for name, tensor in zip(names, frozen(tf.constant(image[None])), strict=True)}

    return GardenPeer(run, proposals, int(run()["num_detections"][0]))


def _calibrate(model: Any, images: tf.Tensor, size: tf.Tensor) -> int:
    """Scale the last layers; the number of proposals in the picture."""
    for layer in model.backbone.layers:
        if hasattr(layer, "_norm3"):  # a residual block with three convolutions
            gamma = layer._norm3.gamma
            gamma.assign(tf.fill(gamma.shape, calibration.RESIDUAL_GAIN))
    features = model.decoder(model.backbone(images))
    scores, deltas = model.rpn_head(features)
    _multiply(model.rpn_head._classifier, calibration.spread(_joined(scores), calibration.OBJECTNESS_STD))
    _multiply(model.rpn_head._box_regressor, calibration.spread(_joined(deltas), calibration.RPN_DELTAS_STD))
    found = model.call(images, image_shape=size, training=False)
    head = model.detection_head[0]
    change = calibration.class_layer(found["cls_outputs"].numpy()[0])
    _multiply(head._classifier, change.factor)
    head._classifier.bias.assign(change.bias)
    _multiply(head._box_regressor, calibration.spread(found["box_outputs"].numpy(), calibration.BOX_DELTAS_STD))
    scores, deltas = model.rpn_head(features)
    anchors = {level: boxes[None] for level, boxes in _anchors(model, images.shape[1:3]).items()}
    boxes = model.roi_generator(deltas, scores, anchors, size, False)[0].numpy()[0]  # rows that are left are zero
    return int(((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1).sum())


def _anchors(model: Any, image_size: tuple[int, int]) -> dict[str, tf.Tensor]:
    from official.vision.ops import anchor  # noqa: PLC0415

    settings = model.get_config()
    names = ("min_level", "max_level", "num_scales", "aspect_ratios", "anchor_size")
    return anchor.Anchor(**{name: settings[name] for name in names}, image_size=image_size).multilevel_boxes


def _multiply(layer: Any, factor: float) -> None:
    layer.kernel.assign(layer.kernel * factor)


def _joined(levels: dict[str, tf.Tensor]) -> npt.NDArray[np.float32]:
    return np.concatenate([level.numpy().reshape(-1) for level in levels.values()])
