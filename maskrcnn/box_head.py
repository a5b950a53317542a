"""Box head: from the crop of a proposal to its class and its refined box (Mask R-CNN, section 3)."""

import keras
from keras import layers

from maskrcnn.backbone import batch_norm
from maskrcnn.configuration.model import ModelConfig


def build_box_head(config: ModelConfig, train_batch_norm: bool | None = False) -> keras.Model:
    """Make the model from crops float32 [N, P, P, C] to class logits [N, K] and deltas [N, K, 4], one per class.

    The two fully connected layers are convolutions, as in the published weights; the first covers the whole crop.
    """
    side, width, classes = config.box_pool_size, config.box_head_channels, config.num_classes
    crops = keras.Input((side, side, config.fpn_channels), name="box_crops")
    x = layers.Conv2D(width, side, name="mrcnn_class_conv1")(crops)
    x = layers.ReLU()(batch_norm("mrcnn_class_bn1", train_batch_norm)(x))
    x = layers.Conv2D(width, 1, name="mrcnn_class_conv2")(x)
    x = layers.ReLU()(batch_norm("mrcnn_class_bn2", train_batch_norm)(x))
    x = layers.Flatten(name="pool_squeeze")(x)
    # float32 even in mixed precision, as in the RPN.
    logits = layers.Dense(classes, dtype="float32", name="mrcnn_class_logits")(x)
    deltas = layers.Dense(4 * classes, dtype="float32", name="mrcnn_bbox_fc")(x)
    deltas = layers.Reshape((classes, 4), dtype="float32", name="mrcnn_bbox")(deltas)
    return keras.Model(crops, [logits, deltas], name="box_head")
