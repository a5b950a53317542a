"""Region proposal network (Faster R-CNN, section 3): its head and its proposals."""

import keras
import tensorflow as tf
from keras import layers

from maskrcnn import boxes as box_ops, nms
from maskrcnn.configuration.model import ModelConfig, ProposalConfig

UNIT_WINDOW = (0.0, 0.0, 1.0, 1.0)


def build_rpn(config: ModelConfig) -> keras.Model:
    """Make the model from one level float32 [B, H, W, C] to class logits [B, H, W, L * A] and deltas [B, H, W, 4A].

    Channels are anchor-major: the L logits (background, object; or object alone, if objectness is "sigmoid") and
    (dy, dx, log dh, log dw) for each anchor.
    """
    anchors = len(config.anchor_ratios)
    x = features = keras.Input((None, None, config.fpn_channels), name="rpn_features")
    for index in range(config.rpn_convolutions):
        x = layers.Conv2D(
            config.rpn_channels,
            3,
            strides=1 if index else config.anchor_stride,
            padding="same",
            activation="relu",
            name=f"rpn_conv_shared{index + 1 if index else ''}",
        )(x)
    # Outputs are float32 even in mixed precision: boxes need more than eleven bits.
    logits = layers.Conv2D(config.objectness_logits * anchors, 1, dtype="float32", name="rpn_class_raw")(x)
    deltas = layers.Conv2D(4 * anchors, 1, dtype="float32", name="rpn_bbox_pred")(x)
    return keras.Model(features, [logits, deltas], name="rpn_model")


def apply_rpn(rpn: keras.Model, features: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Run the head on P2..P6 and join the levels in the order of the anchors.

    Returns:
        Class logits float32 [B, A, 2] (background, object) or, if objectness is "sigmoid", [B, A, 1] (object), and
        deltas [B, A, 4].
    """
    levels = [rpn(feature) for feature in features]
    logits_width = 4 * rpn.outputs[0].shape[-1] // rpn.outputs[1].shape[-1]
    # The number of anchors is read from the tensor, so that a wrong stride or ratio fails here.
    logits = tf.concat([_rows(logits, logits_width) for logits, _ in levels], axis=1)
    deltas = tf.concat([_rows(deltas, 4) for _, deltas in levels], axis=1)
    return logits, deltas


def _rows(level: tf.Tensor, width: int) -> tf.Tensor:
    return tf.reshape(level, tf.stack([tf.shape(level)[0], -1, width]))


def propose(
    probs: tf.Tensor,
    deltas: tf.Tensor,
    anchors: tf.Tensor,
    config: ProposalConfig,
    box_std: tuple[float, ...],
    count: int,
) -> tf.Tensor:
    """Return the `count` best anchors, refined, clipped to the image, and after NMS.

    Args:
        probs: float32 [B, A, 2] background, object.
        deltas: float32 [B, A, 4] in units of `box_std`.
        anchors: float32 [A, 4] normalized.

    Returns:
        float32 [B, count, 4] normalized, best first; zero rows if there are fewer.
    """
    limit = tf.minimum(config.pre_nms_limit, tf.shape(anchors)[0])
    # All levels together, unlike Detectron; equal scores keep the order of the anchors.
    _, best = tf.math.top_k(probs[..., 1], k=limit)
    best_deltas = tf.gather(deltas, best, batch_dims=1) * tf.constant(box_std, tf.float32)
    refined = box_ops.decode(tf.gather(anchors, best), best_deltas)
    refined = box_ops.clip(refined, tf.constant(UNIT_WINDOW))
    valid = tf.ones_like(refined[..., :1], tf.bool)
    rows, kept = nms.suppress(refined, valid, count, config.nms_threshold)
    return tf.where(kept[..., None], tf.gather(refined, rows, batch_dims=1), 0.0)
