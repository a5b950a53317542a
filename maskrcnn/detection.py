"""From proposals and the output of the box head to the final detections."""

import tensorflow as tf

from maskrcnn import boxes as box_ops, nms
from maskrcnn.configuration.model import Config
from maskrcnn.nms import Tap

# The steps of NMS compare all candidates with each other, so of those of every class only the best take part. Runs in
# which that could make a difference are refused.
MOST_CANDIDATES = 2048


def detect(
    proposals: tf.Tensor,
    probs: tf.Tensor,
    deltas: tf.Tensor,
    windows: tf.Tensor,
    config: Config,
    score_threshold: tf.Tensor | float,
    nms_threshold: tf.Tensor | float,
    tap: Tap | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Give each proposal its best class, refine and clip its box, apply NMS per class, and keep the best.

    With `candidates` "every_class", a proposal counts as one of each class whose score is above the threshold.

    Args:
        proposals: float32 [B, N, 4] in the frame of the network; zero rows take part, as in the original.
        probs: float32 [B, N, K]; class 0 is the background.
        deltas: float32 [B, N, K, 4] in units of the configuration's `box_std`.
        windows: float32 [B, 4] in the frame of the network, where the image lies inside the padding.
        score_threshold: Scalar, lowest score kept; with "every_class", scores are above it, as in other packages.
        nms_threshold: Scalar, largest IoU within a class.
        tap: If given, NMS is `nms.suppress_in_steps` with it, else `nms.suppress`.

    Returns:
        Boxes float32 [B, D, 4] in the frame of the network, scores float32 [B, D], class ids int32 [B, D], all zero in
        unused rows, and the number of used rows int32 [B]. Best first; equal scores keep the order of the proposals.
        The number is -1, and all rows are unused, if the steps do not suffice.
    """
    if config.detection.candidates == "every_class" and probs.shape[-1] > 1:  # with the background alone, there is none
        return _detect_every_class(proposals, probs, deltas, windows, config, score_threshold, nms_threshold, tap)
    class_ids = tf.argmax(probs, axis=-1, output_type=tf.int32)
    scores = tf.reduce_max(probs, axis=-1)
    best_deltas = tf.gather(deltas, class_ids, batch_dims=2) * tf.constant(config.model.box_std, tf.float32)
    refined = box_ops.clip(_decode(proposals, best_deltas, config), windows[:, None, :])

    ids = tf.cast(class_ids, tf.float32)  # TensorFlow's GPU kernels that compare or add int32 run on the host
    kept = (ids > 0.0) & (scores >= score_threshold)
    if config.detection.drop_empty_boxes:
        kept &= box_ops.areas(refined) > 0.0
    if config.detection.min_side is not None:
        kept &= box_ops.long_enough(refined, config.detection.min_side)[..., 0]
    _, order = tf.math.top_k(tf.where(kept, scores, -1.0), k=proposals.shape[1] or tf.shape(scores)[1])
    # One float table, gathered once: ONNX Runtime has no CUDA kernel that gathers int32 or bool by batch.
    flags = tf.where(kept, ids, 0.0)
    table = tf.gather(tf.concat([refined, flags[..., None], scores[..., None]], axis=-1), order, batch_dims=1)

    boxes, kept_ids, _ = tf.split(table, [4, 1, 1], axis=-1)
    most = config.detection.max_detections
    if tap is None:
        of_class = kept_ids == tf.range(1.0, float(probs.shape[-1]))  # [B, N, K - 1], no background
        rows, used = nms.suppress(boxes, of_class, most, nms_threshold)
        count = _count(used)
    else:
        rows, used, final = nms.suppress_in_steps(boxes, kept_ids[..., 0], most, nms_threshold, tap)
        count = tf.where(final, _count(used), -1.0)
    table = tf.where(used[..., None], tf.gather(table, rows, batch_dims=1), 0.0)
    return table[..., :4], table[..., 5], tf.cast(table[..., 4], tf.int32), tf.cast(count, tf.int32)


def _detect_every_class(
    proposals: tf.Tensor,
    probs: tf.Tensor,
    deltas: tf.Tensor,
    windows: tf.Tensor,
    config: Config,
    score_threshold: tf.Tensor | float,
    nms_threshold: tf.Tensor | float,
    tap: Tap | None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Do what `detect` does, where a proposal is a candidate of each class whose score is above the threshold.

    Each class has its own box, and equal scores keep the order of proposals, then of classes. Rows of proposals without
    area, which stand for no proposal, are no candidates.
    """
    rules, most = config.detection, config.detection.max_detections
    scores = probs[..., 1:]
    box_deltas = deltas[..., 1:, :] * tf.constant(config.model.box_std, tf.float32)
    refined = _decode(proposals[:, :, None, :], box_deltas, config)  # [B, N, K - 1, 4]
    refined = box_ops.clip(refined, windows[:, None, None, :])
    kept = (scores > score_threshold) & (box_ops.areas(proposals) > 0.0)[..., None]
    if rules.drop_empty_boxes:
        kept &= box_ops.areas(refined) > 0.0
    if rules.min_side is not None:
        kept &= box_ops.long_enough(refined, rules.min_side)[..., 0]
    classes, rows = probs.shape[-1] - 1, proposals.shape[1] or tf.shape(probs)[1]
    ids = tf.broadcast_to(tf.range(1.0, float(probs.shape[-1])), tf.shape(scores))
    # One float table: ONNX Runtime has no CUDA kernel that gathers int32 or bool by batch.
    flags = tf.where(kept, ids, 0.0)
    table = tf.concat([refined, flags[..., None], scores[..., None]], axis=-1)  # [B, N, K - 1, 6]
    key = tf.where(kept, scores, -1.0)
    if tap is None:
        table, key = tf.transpose(table, [0, 2, 1, 3]), tf.transpose(key, [0, 2, 1])
        number = tf.cast(tf.range(rows)[None, :] * classes + tf.range(classes)[:, None], tf.float32)
        numbers = tf.broadcast_to(number, tf.shape(key))
        _, order = tf.math.top_k(key, k=rows)
        table = tf.gather(tf.concat([table, numbers[..., None]], axis=-1), order, batch_dims=2)
        table = tf.reshape(table, [-1, rows, 7])  # classes are images for NMS, because each has its own boxes
        found, used = nms.suppress(table[..., :4], table[..., 4:5] > 0.5, most, nms_threshold)
        table = tf.where(used[..., None], tf.gather(table, found, batch_dims=1), 0.0)
        table = tf.reshape(table, [-1, classes * most, 7])
        # By number, then by score: rows of equal scores stay in order, and unused rows come last.
        _, order = tf.math.top_k(-table[..., 6], k=classes * most)
        table = tf.gather(table, order, batch_dims=1)
        _, order = tf.math.top_k(tf.where(table[..., 4] > 0.5, table[..., 5], -1.0), k=classes * most)
        table = tf.gather(table, order, batch_dims=1)
        table = tf.pad(table[:, :most, :6], [[0, 0], [0, max(most - classes * most, 0)], [0, 0]])
        count = _count(table[..., 4] > 0.5)
    else:
        key, table = tf.reshape(key, [tf.shape(probs)[0], -1]), tf.reshape(table, [tf.shape(probs)[0], -1, 6])
        static = isinstance(rows, int)
        most_rows = min(MOST_CANDIDATES, rows * classes) if static else tf.minimum(MOST_CANDIDATES, rows * classes)
        _, order = tf.math.top_k(key, k=most_rows)
        table = tf.gather(table, order, batch_dims=1)
        found, used, final = nms.suppress_in_steps(table[..., :4], table[..., 4], most, nms_threshold, tap, True)
        # Candidates that are left out are worse than all others: they are missed only if there are rows for them.
        count = _count(used)
        final &= (count == most) | (_count(tf.reshape(kept, [tf.shape(probs)[0], -1])) <= MOST_CANDIDATES)
        table = tf.where(used[..., None] & final[:, None, None], tf.gather(table, found, batch_dims=1), 0.0)
        count = tf.where(final, count, -1.0)
    return table[..., :4], table[..., 5], tf.cast(table[..., 4], tf.int32), tf.cast(count, tf.int32)


def _decode(proposals: tf.Tensor, deltas: tf.Tensor, config: Config) -> tf.Tensor:
    return box_ops.decode(proposals, deltas, config.model.box_frame, config.model.log_sizes)


def _count(used: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(used, tf.float32), axis=1)
