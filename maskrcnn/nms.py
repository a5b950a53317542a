"""Non-maximum suppression with fixed-size output, one operator for all images and classes.

This is greedy suppression (Girshick et al. 2014; strict IoU > threshold) over rows that are already sorted. Each row's
score is its rank, so that no engine ever sees two equal scores: the order, and with it the result, is that of the
sort, with the lower index first among equal scores. Ranks are integers below 2^24, which float32 represents exactly.
The operator returns the scores of the rows that it kept, and these ranks identify the rows.

`CombinedNonMaxSuppression` is the only TensorFlow operator with an image axis and a class axis; `export` lowers it to
ONNX `NonMaxSuppression`, which has both too.

On a GPU that operator waits for the device at every image and class. `suppress_in_steps` has fixed shapes and no waits.
TensorFlow has no GPU kernel for it at all; `suppress_one_class` and `suppress_in_steps` use operators that have one.
"""

from collections.abc import Callable

import tensorflow as tf

from runtime.artifact import NMS_FIRST, NMS_LAST

# Of `suppress_in_steps`. The decisions among 1000 random boxes of one class need up to 11, and one step that changes
# nothing; those among the demo model's detections need 2. Where these are too few, the caller continues, which is slow.
STEPS = 12
Tap = Callable[[str, tf.Tensor], tf.Tensor]
Suppress = Callable[[tf.Tensor, tf.Tensor, int, tf.Tensor | float], tuple[tf.Tensor, tf.Tensor]]  # `suppress`


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


def suppress_one_class(
    boxes: tf.Tensor,
    valid: tf.Tensor,
    max_output: int,
    iou_threshold: tf.Tensor | float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Do what `suppress` does, for one class, with an operator for each image.

    Rows that do not take part get the lowest rank, so that they suppress nothing, and are dropped afterwards.

    Args:
        boxes: As for `suppress`; B must be static.
        valid: bool [B, N, 1].
        max_output: As for `suppress`.
        iou_threshold: As for `suppress`.

    Returns:
        Rows and marks as from `suppress`.
    """
    # As floats, because most of TensorFlow's GPU kernels for int32 run on the host.
    takes_part = tf.cast(valid[..., 0], tf.float32)
    num_rows = tf.shape(boxes)[1]
    ranks = tf.cast(num_rows - tf.range(num_rows), tf.float32) * takes_part
    found = [
        tf.raw_ops.NonMaxSuppressionV4(
            boxes=of_image,
            scores=rank,
            max_output_size=max_output,
            iou_threshold=iou_threshold,
            score_threshold=tf.float32.min,  # with any other, the GPU kernel waits for the device once more
            pad_to_max_output_size=True,
        )
        for of_image, rank in zip(tf.unstack(boxes), tf.unstack(ranks), strict=True)
    ]
    counts = tf.stack([tf.cast(each.valid_outputs, tf.float32) for each in found])
    rows = tf.cast(tf.stack([tf.cast(each.selected_indices, tf.float32) for each in found]), tf.int32)
    kept = (tf.range(float(max_output)) < counts[:, None]) & (tf.gather(takes_part, rows, batch_dims=1) > 0.5)
    return tf.where(kept, rows, 0), kept


def suppress_in_steps(
    boxes: tf.Tensor,
    class_ids: tf.Tensor,
    max_output: int,
    iou_threshold: tf.Tensor | float,
    tap: Tap = lambda _name, tensor: tensor,
    first_are_enough: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Do what `suppress` does, for rows of at most one class each, in a fixed number of matrix products.

    A row is kept unless a kept row before it overlaps it. Starting from all rows, each step applies this rule to the
    rows that the step before kept. Step n is right for every row whose decision hangs on fewer than n others in
    sequence, and once a step changes nothing, all rows are right. After `STEPS` steps without that, the caller may
    continue: step n + 1 of this function begins where step n ended.

    A step is k = relu(k A), one product and one relu. Of a row's column in A, the first number is 1 if the row takes
    part, and each row that would suppress it is a -1. The first row is always kept, because no other is before it, so
    it adds that 1 in every step. Sums of ones are exact in any precision used.

    Args:
        boxes: float32 [B, N, 4] y1, x1, y2, x2, best row first.
        class_ids: float32 [B, N], 0 for rows that do not take part, which come last.
        max_output: As for `suppress`.
        iou_threshold: As for `suppress`.
        tap: Called with `NMS_FIRST` and the rows that the first step keeps, float32 [B, 1, N], and with `NMS_LAST` and
            the result of the last step; later operations use what it returns.
        first_are_enough: Whether rows are final where the rows to be returned are before the first row that the last
            step changed: rows depend on earlier ones only. For thousands of rows, of which few are returned.

    Returns:
        Row indices int32 [B, max_output] in ascending order, and bool [B, max_output], which is False (and the index
        that of any row) where there is no row; and bool [B], whether they are final.
    """
    rows_known = boxes.shape[1] is not None and boxes.shape[1] >= max_output
    num_rows = tf.shape(boxes)[1]
    with tf.name_scope("suppression"):
        low, high = tf.split(boxes, 2, axis=-1)
        shared = tf.minimum(high[:, :, None], high[:, None]) - tf.maximum(low[:, :, None], low[:, None])
        both, areas = (tf.multiply(*tf.unstack(sides, axis=-1)) for sides in (tf.nn.relu(shared), high - low))
        # Without area, 0 / 0 is no number, and that is not above the threshold.
        above = both / (areas[:, :, None] + areas[:, None, :] - both) > iou_threshold
        index = tf.range(num_rows)
        above &= (class_ids[:, :, None] == class_ids[:, None, :]) & (index[:, None] < index[None, :])
        start = tf.cast(class_ids > 0.0, tf.float32)[:, None, :]  # [B, 1, N]
        first = tf.cast(index == 0, tf.float32)[:, None]
        step = tf.where(above, -1.0, first * start)  # [B, N, N]
        kept = tap(NMS_FIRST, tf.nn.relu(start @ step))
        before = kept
        for _ in range(STEPS - 1):
            kept, before = tf.nn.relu(kept @ step), kept
        kept = tap(NMS_LAST, kept)
        final = tf.reduce_max(tf.abs(kept - before), axis=[1, 2]) < 0.5
        if first_are_enough:
            changed = tf.abs(kept - before)[:, 0] > 0.5
            settled = index < tf.reduce_min(tf.where(changed, index, num_rows), axis=1)[:, None]
            final |= tf.reduce_sum(tf.where(settled, kept[:, 0], 0.0), axis=1) > max_output - 0.5
        rank = tf.cast(num_rows - index, tf.float32) * kept[:, 0]
        best, rows = tf.math.top_k(rank if rows_known else tf.pad(rank, [[0, 0], [0, max_output]]), k=max_output)
        used = (best > 0.5) & final[:, None]
        return rows if rows_known else tf.where(used, rows, 0), used, final
