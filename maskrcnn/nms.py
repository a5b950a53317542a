"""Non-maximum suppression with fixed-size output, one operator for all images and classes.

This is greedy suppression (Girshick et al. 2014; strict IoU > threshold) over rows that are already sorted. Each row's
score is its rank, so that no engine ever sees two equal scores: the order, and with it the result, is that of the
sort, with the lower index first among equal scores. Ranks are integers below 2^24, which float32 represents exactly.
The operator returns the scores of the rows that it kept, and these ranks identify the rows.

`CombinedNonMaxSuppression` is the only TensorFlow operator with an image axis and a class axis; `export` lowers it to
ONNX `NonMaxSuppression`, which has both too.
"""

import tensorflow as tf


def suppress(
    boxes: tf.Tensor,
    valid: tf.Tensor,
    max_output: int,
    iou_threshold: tf.Tensor | float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Keep the best rows of each class that do not overlap a better one of the same class.

    A box without area neither suppresses nor is suppressed.

    Args:
        boxes: float32 [B, N, 4] y1, x1, y2, x2, best row first.
        valid: bool [B, N, K], whether row n takes part in class k.
        max_output: Rows kept per image, over all classes.
        iou_threshold: Scalar; a row is dropped if its IoU with a kept row is larger.

    Returns:
        Row indices int32 [B, max_output] in ascending order (best first), and bool [B, max_output], which is False
        (and the index 0) where there is no row.
    """
    num_rows = tf.shape(boxes)[1]
    rank = tf.cast(num_rows - tf.range(num_rows), tf.float32)  # N, N - 1, ..., 1
    _, kept_rank, _, _ = tf.image.combined_non_max_suppression(
        boxes[:, :, None, :],
        tf.where(valid, rank[None, :, None], 0.0),
        max_output_size_per_class=max_output,
        max_total_size=max_output,
        iou_threshold=iou_threshold,
        score_threshold=0.5,
        pad_per_class=False,
        clip_boxes=False,
    )
    kept = kept_rank > 0.5
    rows = tf.where(kept, num_rows - tf.cast(kept_rank, tf.int32), 0)
    return rows, kept
