"""Mask head: from the crop of a detection to its mask (Mask R-CNN, section 3, figure 4)."""

import keras
import tensorflow as tf
from keras import layers

from maskrcnn.backbone import batch_norm
from maskrcnn.configuration.model import MASK_DECONVOLUTIONS, ModelConfig


def build_mask_head(config: ModelConfig, train_batch_norm: bool | None = False) -> keras.Model:
    """Make the model from crops float32 [N, S, S, C] to mask probabilities [N, M, M, K], one channel per class."""
    side, width = config.mask_pool_size, config.mask_head_channels
    x = crops = keras.Input((side, side, config.fpn_channels), name="mask_crops")
    normed = config.head_batch_norm
    biased = config.bias_before_batch_norm or not normed
    for index in range(1, 5):
        x = layers.Conv2D(width, 3, padding="same", use_bias=biased, name=f"mrcnn_mask_conv{index}")(x)
        if normed:
            x = batch_norm(f"mrcnn_mask_bn{index}", train_batch_norm, config.batch_norm_epsilon)(x)
        x = layers.ReLU()(x)
    for name in MASK_DECONVOLUTIONS[: config.mask_head_deconvolutions]:
        x = layers.Conv2DTranspose(width, 2, strides=2, activation="relu", name=name)(x)
    # float32 even in mixed precision: a half-precision sigmoid is 1 from a logit of 8 on, and its logarithm 0.
    masks = layers.Conv2D(config.num_classes, 1, activation="sigmoid", dtype="float32", name="mrcnn_mask")(x)
    return keras.Model(crops, masks, name="mask_head")


def masks_of_class(mask_head: keras.Model, crops: tf.Tensor, class_ids: tf.Tensor) -> tf.Tensor:
    """Return the mask of one class per crop: probabilities float32 [N, M, M].

    Args:
        crops: float32 [N, S, S, C].
        class_ids: int32 [N].
    """
    masks = tf.transpose(mask_head(crops), [0, 3, 1, 2])  # [N, K, M, M]
    return tf.gather(masks, class_ids, batch_dims=1)
