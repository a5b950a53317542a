"""Region proposal network (Faster R-CNN, section 3): its head and its proposals."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from maskrcnn import boxes as box_ops, nms
from maskrcnn.configuration.model import Config, ModelConfig
from maskrcnn.nms import Suppress

_LOWEST = float(np.finfo(np.float32).min)


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
    scores: tf.Tensor,
    deltas: tf.Tensor,
    anchors: Sequence[tf.Tensor],
    config: Config,
    area: tf.Tensor,
    training: bool = False,
    image_by_image: bool = False,
) -> tf.Tensor:
    """Return the best anchors, refined, clipped, and after NMS.

    Args:
        scores: float32 [B, A], probabilities or logits: only their order counts. Equal scores keep the order of the
            anchors.
        deltas: float32 [B, A, 4] in units of the configuration's `rpn_box_std`.
        anchors: float32 [A_l, 4] of each level, in the frame of the network.
        config: Its `proposals` are the rules.
        area: Where the boxes are clipped, in the frame of the network, float32 [4], or [B, 1, 4].
        training: Which limits count.
        image_by_image: Whether NMS is `nms.suppress_one_class` instead of `nms.suppress`.

    Returns:
        float32 [B, N, 4] in the frame of the network, best first; zero rows if there are fewer.
    """
    rules, model = config.proposals, config.model
    limit = (training and rules.pre_nms_training) or rules.pre_nms_limit
    count = rules.post_nms_training if training else rules.post_nms_inference
    joined = tf.concat(anchors, axis=0)
    if rules.per_level:
        best, best_scores, present = _best_of_levels(scores, [tf.shape(level)[0] for level in anchors], limit)
    else:
        # Equal scores keep the order of the anchors.
        _, best = tf.math.top_k(scores, k=tf.minimum(limit, tf.shape(joined)[0]))
    best_deltas = tf.gather(deltas, best, batch_dims=1) * tf.constant(model.rpn_box_std, tf.float32)
    refined = box_ops.decode(tf.gather(joined, best), best_deltas, model.box_frame, model.log_sizes)
    refined = box_ops.clip(refined, area)
    valid = box_ops.long_enough(refined, rules.min_side)
    suppress = nms.suppress_one_class if image_by_image else nms.suppress
    if rules.per_level:
        valid &= present[:, None]
        return _suppress_levels(refined, best_scores, valid, len(anchors), count, rules.nms_threshold, suppress)
    rows, kept = suppress(refined, valid, count, rules.nms_threshold)
    return tf.where(kept[..., None], tf.gather(refined, rows, batch_dims=1), 0.0)


def _best_of_levels(
    scores: tf.Tensor, sizes: Sequence[tf.Tensor], limit: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the `limit` best anchors of each level: index and score [B, L * limit], and which exist, [L * limit].

    A level of fewer anchors repeats its last one, which does not exist again.
    """
    found, firsts, first = [], [], tf.constant(0)
    for size in sizes:  # sliced: for parts of other lengths, ONNX Runtime's CUDA kernel of Split copies a table
        level = tf.slice(scores, [0, first], [-1, size])
        level.set_shape([scores.shape[0], None])
        padded = tf.pad(level, [[0, 0], [0, tf.maximum(limit - size, 0)]], constant_values=_LOWEST)
        found.append(tf.math.top_k(padded, k=limit))
        firsts.append(first)
        first += size
    best, index = (tf.stack(parts, axis=1) for parts in zip(*found, strict=True))  # [B, L, limit]
    length, first = tf.stack(sizes)[:, None], tf.stack(firsts)[:, None]
    total = len(sizes) * limit
    index = tf.reshape(tf.minimum(index, length - 1) + first, [-1, total])
    return index, tf.reshape(best, [-1, total]), tf.reshape(tf.range(limit) < length, [total])


def _suppress_levels(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    valid: tf.Tensor,
    levels: int,
    count: int,
    nms_threshold: float,
    suppress: Suppress,
) -> tf.Tensor:
    """Apply NMS to each level of boxes [B, L * limit, 4], and return the `count` best of all, [B, count, 4].

    Levels are images for NMS, and not classes, which would share rows: a GPU compares all rows that it is given.
    """
    limit = boxes.shape[1] // levels
    most = min(limit, count)
    boxes = tf.reshape(boxes, [-1, limit, 4])  # [B * L, limit, 4]
    rows, kept = suppress(boxes, tf.reshape(valid, [-1, limit, 1]), most, nms_threshold)
    # One float table, gathered once: ONNX Runtime has no CUDA kernel that gathers int32 or bool by batch.
    table = tf.concat([boxes, tf.reshape(scores, [-1, limit, 1])], axis=-1)
    table = tf.gather(table, rows, batch_dims=1)
    key = tf.where(kept, table[..., 4], _LOWEST)
    table = tf.concat([table[..., :4], tf.cast(kept, tf.float32)[..., None]], axis=-1)
    table = tf.reshape(table, [-1, levels * most, 5])
    _, best = tf.math.top_k(tf.reshape(key, [-1, levels * most]), k=min(count, levels * most))
    table = tf.gather(table, best, batch_dims=1)
    found = tf.where(table[..., 4:] > 0.5, table[..., :4], 0.0)
    return tf.pad(found, [[0, 0], [0, count - found.shape[1]], [0, 0]]) if count > levels * most else found
