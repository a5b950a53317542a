"""From proposals and the output of the box head to the final detections."""

import tensorflow as tf

from maskrcnn import boxes as box_ops, nms
from maskrcnn.configuration.model import Config
from maskrcnn.nms import Tap


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

    Args:
        proposals: float32 [B, N, 4] normalized; zero rows take part, as in the original.
        probs: float32 [B, N, K]; class 0 is the background.
        deltas: float32 [B, N, K, 4] in units of the configuration's `box_std`.
        windows: float32 [B, 4] normalized, where the image lies inside the padding.
        score_threshold: Scalar, lowest score kept.
        nms_threshold: Scalar, largest IoU within a class.
        tap: If given, NMS is `nms.suppress_in_steps` with it, else `nms.suppress`.

    Returns:
        Boxes float32 [B, D, 4] normalized, scores float32 [B, D], class ids int32 [B, D], all zero in
        unused rows, and the number of used rows int32 [B]. Best first; equal scores keep the order of the proposals.
        The number is -1, and all rows are unused, if the steps do not suffice.
    """
    class_ids = tf.argmax(probs, axis=-1, output_type=tf.int32)
    scores = tf.reduce_max(probs, axis=-1)
    best_deltas = tf.gather(deltas, class_ids, batch_dims=2) * tf.constant(config.model.box_std, tf.float32)
    refined = box_ops.clip(box_ops.decode(proposals, best_deltas), windows[:, None, :])

    kept = (class_ids > 0) & (scores >= score_threshold)
    if config.detection.drop_empty_boxes:
        kept &= box_ops.areas(refined) > 0.0
    _, order = tf.math.top_k(tf.where(kept, scores, -1.0), k=proposals.shape[1] or tf.shape(scores)[1])
    # One float table, gathered once: ONNX Runtime has no CUDA kernel that gathers int32 or bool by batch.
    flags = tf.where(kept, tf.cast(class_ids, tf.float32), 0.0)
    table = tf.gather(tf.concat([refined, flags[..., None], scores[..., None]], axis=-1), order, batch_dims=1)

    boxes, kept_ids, _ = tf.split(table, [4, 1, 1], axis=-1)
    most = config.detection.max_detections
    if tap is None:
        of_class = kept_ids == tf.range(1.0, float(probs.shape[-1]))  # [B, N, K - 1], no background
        rows, used = nms.suppress(boxes, of_class, most, nms_threshold)
        count = _count(used)
    else:
        rows, used, final = nms.suppress_in_steps(boxes, kept_ids[..., 0], most, nms_threshold, tap)
        count = tf.where(final, _count(used), -1)
    table = tf.where(used[..., None], tf.gather(table, rows, batch_dims=1), 0.0)
    return table[..., :4], table[..., 5], tf.cast(table[..., 4], tf.int32), count


def _count(used: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(used, tf.int32), axis=1)
