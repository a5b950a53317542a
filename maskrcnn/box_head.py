"""Box head: from the crop of a proposal to its class and its refined box (Mask R-CNN, section 3)."""

import keras
from keras import layers

from maskrcnn.backbone import batch_norm
from maskrcnn.configuration.model import ModelConfig


def build_box_head(config: ModelConfig, train_batch_norm: bool | None = False) -> keras.Model:
    """Make the model from crops float32 [N, P, P, C] to class logits [N, K] and deltas [N, K, 4], one per class.

    The fully connected layers are convolutions, as in the published weights; the first covers the whole crop.
    """
    side, width, classes = config.box_pool_size, config.box_head_channels, config.num_classes

    def convolution(
        x: keras.KerasTensor, filters: int, kernel: int, names: tuple[str, str], normed: bool, padding: str = "valid"
    ) -> keras.KerasTensor:
        biased = config.bias_before_batch_norm or not normed
        x = layers.Conv2D(filters, kernel, padding=padding, use_bias=biased, name=names[0])(x)
        return layers.ReLU()(batch_norm(names[1], train_batch_norm, config.batch_norm_epsilon)(x) if normed else x)

    x = crops = keras.Input((side, side, config.fpn_channels), name="box_crops")
    for index in range(1, config.box_head_convolutions + 1):
        names = f"mrcnn_box_conv{index}", f"mrcnn_box_bn{index}"
        x = convolution(x, config.fpn_channels, 3, names, config.head_batch_norm, "same")
    normed = config.head_batch_norm and not config.box_head_convolutions
    for index in range(1, config.box_head_layers + 1):
        names = f"mrcnn_class_conv{index}", f"mrcnn_class_bn{index}"
        x = convolution(x, width, side if index == 1 else 1, names, normed)
    x = layers.Flatten(name="pool_squeeze")(x)
    # float32 even in mixed precision, as in the RPN.
    logits = layers.Dense(classes, dtype="float32", name="mrcnn_class_logits")(x)
    deltas = layers.Dense(4 * classes, dtype="float32", name="mrcnn_bbox_fc")(x)
    deltas = layers.Reshape((classes, 4), dtype="float32", name="mrcnn_bbox")(deltas)
    return keras.Model(crops, [logits, deltas], name="box_head")
