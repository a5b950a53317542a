"""ResNet (He et al., arXiv 1512.03385) from pixels to C2..C5, with matterport's layer names.

This is version 1: the stride of a bottleneck is in its first 1 x 1 convolution. Any Keras model that maps
[B, H, W, C] to four feature maps of strides 4, 8, 16, 32 can take its place.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from keras import layers

from maskrcnn.configuration.model import ModelConfig
from maskrcnn.errors import ConfigError

# The default of Keras. Other frameworks use 1e-5; weights trained with one value fail with the other.
BATCH_NORM_EPSILON = 1e-3

_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}

Block = Callable[..., keras.KerasTensor]


class _BatchNorm(layers.BatchNormalization):
    """Batch normalization that computes batch statistics in one operator and whose mode can be fixed.

    Keras composes the statistics of a dozen element-wise operators, which take a tenth of a training step. It also
    lets the mode of the outermost call override a mode given when layers are connected; `train`, if not None,
    overrides both.
    """

    def __init__(self, train: bool | None, name: str) -> None:
        super().__init__(epsilon=BATCH_NORM_EPSILON, name=name)
        self._train = train

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        training = training if self._train is None else self._train
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        nothing = tf.zeros([0])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, tf.float32),
            scale=tf.cast(self.gamma, tf.float32),
            offset=tf.cast(self.beta, tf.float32),
            mean=nothing,
            variance=nothing,
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operator returns the unbiased variance, but Keras keeps the biased one.
        count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
        self._keep(self.moving_mean, mean)
        self._keep(self.moving_variance, variance * (count - 1.0) / count)
        return tf.cast(outputs, self.compute_dtype)

    def _keep(self, moving: keras.Variable, value: tf.Tensor) -> None:
        """Move a running mean toward the value of this batch."""
        moving.assign(moving * self.momentum + tf.stop_gradient(value) * (1.0 - self.momentum))


def batch_norm(name: str, train: bool | None) -> layers.BatchNormalization:
    """Make a batch normalization layer; `train` as in `TrainingConfig.train_batch_norm`."""
    return _BatchNorm(train, name)


def build_backbone(config: ModelConfig, train_batch_norm: bool | None = False) -> keras.Model:
    """Make the model from images float32 [B, H, W, C], mean subtracted, to [C2, C3, C4, C5].

    Raises:
        ConfigError: The backbone is "custom", which cannot be built from the configuration.
    """
    if config.backbone not in _BLOCKS:
        raise ConfigError("backbone is 'custom': give the Keras model as MaskRCNN(config, backbone=...)")
    images = keras.Input((None, None, config.image_channels), name="molded_images")
    x = layers.ZeroPadding2D(3)(images)
    x = layers.Conv2D(config.backbone_width, 7, strides=2, name="conv1")(x)
    x = layers.ReLU()(batch_norm("bn_conv1", train_batch_norm)(x))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    block = _basic_block if config.backbone == "resnet18" else _bottleneck_block
    features = []
    for stage, count in zip((2, 3, 4, 5), _BLOCKS[config.backbone], strict=True):
        for index in range(count):
            x = block(
                x,
                name=f"{stage}{chr(ord('a') + index)}",
                filters=config.backbone_width * 2 ** (stage - 2),
                stride=1 if stage == 2 or index else 2,
                project=index == 0,
                train_batch_norm=train_batch_norm,
            )
        features.append(x)
    return keras.Model(images, features, name="backbone")


def _bottleneck_block(
    x: keras.KerasTensor,
    name: str,
    filters: int,
    stride: int,
    project: bool,
    train_batch_norm: bool | None,
) -> keras.KerasTensor:
    branches = [("2a", filters, 1, stride), ("2b", filters, 3, 1), ("2c", 4 * filters, 1, 1)]
    return _residual(x, name, branches, stride, project, train_batch_norm)


def _basic_block(
    x: keras.KerasTensor,
    name: str,
    filters: int,
    stride: int,
    project: bool,
    train_batch_norm: bool | None,
) -> keras.KerasTensor:
    branches = [("2a", filters, 3, stride), ("2b", filters, 3, 1)]
    return _residual(x, name, branches, stride, project, train_batch_norm)


def _residual(
    x: keras.KerasTensor,
    name: str,
    convolutions: Sequence[tuple[str, int, int, int]],
    stride: int,
    project: bool,
    train_batch_norm: bool | None,
) -> keras.KerasTensor:
    """Apply convolutions (branch, filters, kernel, stride), a projected or identity shortcut, and ReLU."""
    y = x
    for branch, filters, kernel, step in convolutions:
        conv_name = f"res{name}_branch{branch}"
        y = layers.Conv2D(filters, kernel, strides=step, padding="same", name=conv_name)(y)
        y = batch_norm(f"bn{name}_branch{branch}", train_batch_norm)(y)
        if branch != convolutions[-1][0]:
            y = layers.ReLU()(y)
    if project:
        filters = convolutions[-1][1]
        x = layers.Conv2D(filters, 1, strides=stride, name=f"res{name}_branch1")(x)
        x = batch_norm(f"bn{name}_branch1", train_batch_norm)(x)
    return layers.ReLU(name=f"res{name}_out")(layers.Add()([y, x]))
