"""Feature pyramid network (Lin et al., arXiv 1612.03144): C2..C5 to P2..P6."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from keras import layers

from maskrcnn.boxes import grid_size


class NearestUpsampling(layers.Layer):
    """Doubles height and width by repeating cells.

    Keras' own layer tiles and transposes, and these operators would remain in an exported graph.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return [B, 2H, 2W, C] of [B, H, W, C]."""
        return tf.image.resize(inputs, 2 * grid_size(inputs), method="nearest")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the result."""
        batch, height, width, channels = input_shape
        return batch, height and 2 * height, width and 2 * width, channels


def build_fpn(
    in_channels: Sequence[int], channels: int, normalize: Callable[[str], keras.Layer] | None = None
) -> keras.Model:
    """Make the model from [C2, C3, C4, C5] to [P2, P3, P4, P5, P6], each float32 [B, H_l, W_l, channels].

    P6 is every second cell of P5, and only the RPN uses it. `normalize` makes the batch normalization of each
    convolution from its name; the convolutions have no bias then.
    """

    def convolution(x: keras.KerasTensor, kernel: int, name: str) -> keras.KerasTensor:
        padding, biased = "same" if kernel > 1 else "valid", normalize is None
        x = layers.Conv2D(channels, kernel, padding=padding, use_bias=biased, name=name)(x)
        return x if normalize is None else normalize(f"{name}_bn")(x)

    def merge(coarse: keras.KerasTensor, fine: keras.KerasTensor, level: int) -> keras.KerasTensor:
        upsampled = NearestUpsampling(name=f"fpn_p{level + 1}upsampled")(coarse)
        lateral = convolution(fine, 1, f"fpn_c{level}p{level}")
        return layers.Add(name=f"fpn_p{level}add")([upsampled, lateral])

    inputs = [keras.Input((None, None, c), name=f"c{i}") for i, c in enumerate(in_channels, start=2)]
    c2, c3, c4, c5 = inputs
    p5 = convolution(c5, 1, "fpn_c5p5")
    p4 = merge(p5, c4, 4)
    p3 = merge(p4, c3, 3)
    p2 = merge(p3, c2, 2)
    outputs = [convolution(p, 3, f"fpn_p{level}") for level, p in zip((2, 3, 4, 5), (p2, p3, p4, p5), strict=True)]
    outputs.append(layers.MaxPooling2D(1, strides=2, name="fpn_p6")(outputs[-1]))
    return keras.Model(inputs, outputs, name="fpn")
