"""ResNet (He et al., arXiv 1512.03385) and ResNeXt from pixels to C2..C5, with matterport's layer names.

By default, this is version 1: the stride of a bottleneck is in its first 1 x 1 convolution. Any Keras model that maps
[B, H, W, C] to four feature maps of strides 4, 8, 16, 32 can take its place.
"""

from typing import NamedTuple

import keras
import tensorflow as tf
from keras import layers

from maskrcnn.configuration.model import ModelConfig
from maskrcnn.errors import ConfigError

_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
BASIC_BACKBONES = ("resnet18", "resnet34")  # of blocks with two 3 x 3 convolutions


class _BatchNorm(layers.BatchNormalization):
    """Batch normalization that computes batch statistics in one operator and whose mode can be fixed.

    Keras composes the statistics of a dozen element-wise operators, which take a tenth of a training step. It also
    lets the mode of the outermost call override a mode given when layers are connected; `train`, if not None,
    overrides both.
    """

    def __init__(self, train: bool | None, epsilon: float, name: str) -> None:
        super().__init__(epsilon=epsilon, name=name)
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


def batch_norm(name: str, train: bool | None, epsilon: float = 1e-3) -> layers.BatchNormalization:
    """Make a batch normalization layer; `train` as in `TrainingConfig.train_batch_norm`.

    Weights trained with one epsilon fail with another: Keras has 1e-3, other frameworks 1e-5.
    """
    return _BatchNorm(train, epsilon, name)


class _GroupedConv2D(layers.Conv2D):
    """A convolution in groups. Keras' own is a function compiled by XLA, which exports could not use."""

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(inputs, kernel, self.strides, self.padding.upper())


class Block(NamedTuple):
    """A residual block: `name` as in "4b", its stage 2..5, its place from 0 within the stage, and its convolutions."""

    name: str
    stage: int
    place: int
    branches: tuple[str, ...]  # names of its convolutions, in order
    projected: bool  # whether its shortcut has a convolution, "1"


def residual_blocks(config: ModelConfig) -> list[Block]:
    """Return the blocks of a backbone, in order.

    Raises:
        ConfigError: The backbone is "custom", which cannot be built from the configuration.
    """
    if config.backbone not in _BLOCKS:
        raise ConfigError("backbone is 'custom': give the Keras model as MaskRCNN(config, backbone=...)")
    basic = config.backbone in BASIC_BACKBONES
    branches = ("2a", "2b") if basic else ("2a", "2b", "2c")
    return [
        Block(
            f"{stage}{_letters(index)}",
            stage,
            index,
            branches,
            index == 0 and not (basic and stage == 2 and config.backbone_shortcut == "identity"),
        )
        for stage, count in zip((2, 3, 4, 5), _BLOCKS[config.backbone], strict=True)
        for index in range(count)
    ]


def _letters(index: int) -> str:
    """Return a, b, ..., z, aa, ab, ..."""
    first, last = divmod(index, 26)
    return (chr(ord("a") + first - 1) if first else "") + chr(ord("a") + last)


def build_backbone(config: ModelConfig, train_batch_norm: bool | None = False) -> keras.Model:
    """Make the model from images float32 [B, H, W, C], mean subtracted, to [C2, C3, C4, C5].

    Raises:
        ConfigError: The backbone is "custom", which cannot be built from the configuration.
    """
    blocks = residual_blocks(config)
    images = keras.Input((None, None, config.image_channels), name="molded_images")
    build = BackboneLayers(config, train_batch_norm)
    x = layers.ZeroPadding2D(3)(images)
    x = build.convolution(x, "conv1", "bn_conv1", config.backbone_width, 7, 2, padding="valid")
    x = build.pool(layers.ReLU()(x))
    features = []
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        x = build.block(x, block)
        if following is None or following.place == 0:
            features.append(x)
    return keras.Model(images, features, name="backbone")


class BackboneLayers:
    """Makes the layers of a backbone as its configuration says."""

    def __init__(self, config: ModelConfig, train_batch_norm: bool | None) -> None:
        self.config = config
        self.train_batch_norm = train_batch_norm

    def block(self, x: keras.KerasTensor, block: Block) -> keras.KerasTensor:
        """Apply the convolutions, a projected or identity shortcut, and ReLU."""
        stride = 1 if block.stage == 2 or block.place else 2
        convolutions = self._convolutions(block, stride)
        y = x
        for branch, (filters, kernel, step, groups) in convolutions.items():
            names = f"res{block.name}_branch{branch}", f"bn{block.name}_branch{branch}"
            y = self.convolution(y, *names, filters, kernel, step, groups)
            if branch != block.branches[-1]:
                y = layers.ReLU()(y)
        if block.projected:
            filters = convolutions[block.branches[-1]][0]
            x = self.convolution(x, f"res{block.name}_branch1", f"bn{block.name}_branch1", filters, 1, stride)
        return layers.ReLU(name=f"res{block.name}_out")(layers.Add()([y, x]))

    def _convolutions(self, block: Block, stride: int) -> dict[str, tuple[int, int, int, int]]:
        """Return filters, kernel, stride and groups of each branch."""
        config, scale = self.config, 2 ** (block.stage - 2)
        filters = config.backbone_width * scale
        if len(block.branches) == 2:
            return {"2a": (filters, 3, stride, 1), "2b": (filters, 3, 1, 1)}
        groups = config.backbone_groups
        width = config.backbone_width * config.backbone_group_width // 64 * groups * scale
        first, second = (stride, 1) if config.stride_in_1x1 else (1, stride)
        return {"2a": (width, 1, first, 1), "2b": (width, 3, second, groups), "2c": (4 * filters, 1, 1, 1)}

    def convolution(
        self,
        x: keras.KerasTensor,
        name: str,
        norm: str,
        filters: int,
        kernel: int,
        stride: int,
        groups: int = 1,
        padding: str = "same",
    ) -> keras.KerasTensor:
        """Apply a convolution and its batch normalization."""
        if kernel == 3 and stride > 1 and self.config.backbone_padding == "symmetric":
            x, padding = layers.ZeroPadding2D(1)(x), "valid"
        kind = layers.Conv2D if groups == 1 else _GroupedConv2D
        biased = self.config.bias_before_batch_norm
        x = kind(filters, kernel, strides=stride, padding=padding, groups=groups, use_bias=biased, name=name)(x)
        return batch_norm(norm, self.train_batch_norm, self.config.batch_norm_epsilon)(x)

    def pool(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Apply the stem's 3 x 3 pooling to values that are not negative, so that zeros may pad them."""
        if self.config.backbone_padding == "symmetric":
            return layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
        return layers.MaxPooling2D(3, strides=2, padding="same")(x)
