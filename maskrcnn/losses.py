"""The five losses of Mask R-CNN (sections 3 and 3.1; Faster R-CNN, equation 1).

Each is a sum and its number of terms, so that a batch spread over devices gives the mean over the whole batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from maskrcnn.configuration.training import BoxLossAverage

# The bound that Keras uses for probabilities in a cross-entropy.
_PROBABILITY_EPSILON = 1e-7


class LossSum(NamedTuple):
    """A loss before averaging: its sum and its number of terms, float32 scalars."""

    total: tf.Tensor
    count: tf.Tensor

    def mean(self) -> tf.Tensor:
        """Return the mean; 0 if there are no terms."""
        return tf.math.divide_no_nan(self.total, self.count)


def smooth_l1(targets: tf.Tensor, predictions: tf.Tensor, beta: float = 1.0) -> tf.Tensor:
    """Return 0.5 d^2 / beta where |d| < beta, else |d| - beta / 2 (Fast R-CNN, equation 3), element by element.

    Its beta is 1; 0 gives |d|.
    """
    difference = tf.abs(targets - predictions)
    if beta == 0.0:
        return difference
    return tf.where(difference < beta, 0.5 * difference**2 / beta, difference - 0.5 * beta)


def rpn_class_loss(match: tf.Tensor, logits: tf.Tensor) -> LossSum:
    """Cross-entropy of object or background, over the anchors in use.

    Args:
        match: int32 [B, A]: 1, -1, or 0 for anchors not in use.
        logits: float32 [B, A, 2] background, object; or [B, A, 1] object.
    """
    used = tf.not_equal(match, 0)
    is_object, logits = tf.equal(tf.boolean_mask(match, used), 1), tf.boolean_mask(logits, used)
    if logits.shape[-1] == 1:
        return _sum_of(tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(is_object, tf.float32), logits[:, 0]))
    return _sum_of(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(is_object, tf.int32), logits))


def rpn_bbox_loss(
    targets: tf.Tensor, match: tf.Tensor, deltas: tf.Tensor, beta: float = 1.0, average: BoxLossAverage = "positive"
) -> LossSum:
    """Smooth L1 of the positive anchors' deltas.

    Args:
        targets: float32 [B, T, 4], per image the deltas of its positive anchors in order, then padding.
        match: int32 [B, A].
        deltas: float32 [B, A, 4].
        beta: Of `smooth_l1`.
        average: As in `TrainingConfig.box_loss_average`.
    """
    positive = tf.equal(match, 1)
    per_image = tf.reduce_sum(tf.cast(positive, tf.int32), axis=1)
    rows = tf.range(tf.shape(targets)[1])[None, :] < per_image[:, None]
    losses = smooth_l1(tf.boolean_mask(targets, rows), tf.boolean_mask(deltas, positive), beta)
    return _box_loss(losses, average, tf.not_equal(match, 0))


def mrcnn_class_loss(
    class_ids: tf.Tensor,
    logits: tf.Tensor,
    active: tf.Tensor,
    valid: tf.Tensor,
    original_bugs: bool = False,
    class_weights: Sequence[float] | None = None,
) -> LossSum:
    """Cross-entropy over classes; a row predicted as a class that its image's source does not annotate is left out.

    Args:
        class_ids: int32 [B, R]; 0 is the background.
        logits: float32 [B, R, K].
        active: float32 [B, K], 1 for the classes that the source of the image annotates, and for the background.
        valid: bool [B, R], False for padding.
        original_bugs: Count padding as background, and use the first image's active classes for all images.
        class_weights: K factors, by which a row counts in sum and number of terms according to its class.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(class_ids, logits)
    predicted = tf.argmax(logits, axis=-1, output_type=tf.int32)
    weights = tf.gather(active[0], predicted) if original_bugs else tf.gather(active, predicted, batch_dims=1)
    if not original_bugs:
        weights *= tf.cast(valid, tf.float32)
    if class_weights is not None:
        weights *= tf.gather(tf.constant(class_weights, tf.float32), class_ids)
    return LossSum(tf.reduce_sum(losses * weights), tf.reduce_sum(weights))


def mrcnn_bbox_loss(
    targets: tf.Tensor,
    class_ids: tf.Tensor,
    deltas: tf.Tensor,
    valid: tf.Tensor,
    beta: float = 1.0,
    average: BoxLossAverage = "positive",
) -> LossSum:
    """Smooth L1 of the deltas of each positive row's class.

    Args:
        targets: float32 [B, R, 4].
        class_ids: int32 [B, R], 0 for background and padding.
        deltas: float32 [B, R, K, 4].
        valid: bool [B, R], False for padding.
        beta: Of `smooth_l1`.
        average: As in `TrainingConfig.box_loss_average`.
    """
    positive = class_ids > 0
    of_class = tf.gather(tf.boolean_mask(deltas, positive), tf.boolean_mask(class_ids, positive), batch_dims=1)
    return _box_loss(smooth_l1(tf.boolean_mask(targets, positive), of_class, beta), average, valid)


def mrcnn_mask_loss(targets: tf.Tensor, masks: tf.Tensor, positive: tf.Tensor) -> LossSum:
    """Binary cross-entropy of the mask of each row's class.

    Args:
        targets: float32 [N, M, M], 0 to 1.
        masks: float32 [N, M, M] probabilities.
        positive: float32 [N], 1 for rows that count.
    """
    bounded = tf.clip_by_value(masks, _PROBABILITY_EPSILON, 1.0 - _PROBABILITY_EPSILON)
    losses = -(targets * tf.math.log(bounded) + (1.0 - targets) * tf.math.log(1.0 - bounded))
    weights = positive[:, None, None] * tf.ones_like(losses)
    return LossSum(tf.reduce_sum(losses * weights), tf.reduce_sum(weights))


def weight_penalty(variables: list[tf.Variable], factor: float) -> tf.Tensor:
    """Return the original's L2 term: factor * sum(w^2) / size(w) of all variables except batch normalization's."""
    terms = [tf.reduce_mean(tf.square(v)) for v in variables if v.name not in ("gamma", "beta")]
    return factor * tf.add_n(terms) if terms else tf.constant(0.0)


def _box_loss(losses: tf.Tensor, average: BoxLossAverage, sampled: tf.Tensor) -> LossSum:
    """Return the loss of positive rows; `sampled` marks all rows that were drawn."""
    total, count = _sum_of(losses)
    return LossSum(total, count if average == "positive" else tf.reduce_sum(tf.cast(sampled, tf.float32)))


def _sum_of(losses: tf.Tensor) -> LossSum:
    return LossSum(tf.reduce_sum(losses), tf.cast(tf.size(losses), tf.float32))
