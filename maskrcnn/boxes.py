"""Box algebra: frames, clipping, and the box codec (encode and decode side by side).

Boxes here are y1, x1, y2, x2. *Pixel* boxes have exclusive y2, x2. *Normalised* boxes are float32 in [0, 1]
over the padded image, with inclusive y2, x2: (pixel - [0, 0, 1, 1]) / [H - 1, W - 1, H - 1, W - 1].

Inside the network, boxes are in its frame (`ModelConfig.box_frame`): "inclusive" are normalized boxes, "continuous"
are pixel boxes, because weights from PyTorch round in that unit.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from maskrcnn.configuration.model import MAX_LOG_SIZE, BoxFrame

UNIT_WINDOW = (0.0, 0.0, 1.0, 1.0)


def grid_size(grid: tf.Tensor) -> tf.Tensor:
    """Return height and width int32 [2] of images or features [B, H, W, C]; a constant if they are static."""
    height, width = grid.shape[1:3]
    return tf.shape(grid)[1:3] if height is None or width is None else tf.constant([height, width])


def pixel_shift_and_scale(image_size: tf.Tensor, dtype: tf.DType = tf.float32) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the constants that convert pixel and normalized boxes, for an image of size [2] (height, width)."""
    last = tf.cast(image_size, dtype) - 1.0
    scale = tf.concat([last, last], axis=0)
    return tf.constant([0.0, 0.0, 1.0, 1.0], dtype), scale


def normalize(boxes: tf.Tensor, image_size: tf.Tensor) -> tf.Tensor:
    """Convert pixel boxes [..., 4] to normalized boxes."""
    shift, scale = pixel_shift_and_scale(image_size, boxes.dtype)
    return (boxes - shift) / scale


def denormalize(boxes: tf.Tensor, image_size: tf.Tensor) -> tf.Tensor:
    """Convert normalized boxes [..., 4] to pixel boxes in float, not rounded."""
    shift, scale = pixel_shift_and_scale(image_size, boxes.dtype)
    return boxes * scale + shift


def to_frame(boxes: tf.Tensor, image_size: tf.Tensor, frame: BoxFrame) -> tf.Tensor:
    """Convert pixel boxes [..., 4] to the frame of a network."""
    return boxes if frame == "continuous" else normalize(boxes, image_size)


def to_pixels(boxes: tf.Tensor, image_size: tf.Tensor, frame: BoxFrame) -> tf.Tensor:
    """Convert boxes [..., 4] in the frame of a network to pixel boxes in float, not rounded."""
    return boxes if frame == "continuous" else denormalize(boxes, image_size)


def whole_input(image_size: tf.Tensor, frame: BoxFrame) -> tf.Tensor:
    """Return the box float32 [4] of the whole input in the frame of a network."""
    if frame == "inclusive":
        return tf.constant(UNIT_WINDOW)
    return tf.concat([tf.zeros([2]), tf.cast(image_size, tf.float32)], axis=0)


def clip(boxes: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
    """Clip boxes [..., 4] to windows [..., 4] (broadcast), both y1, x1, y2, x2 in the same frame."""
    low = tf.concat([windows[..., :2], windows[..., :2]], axis=-1)
    high = tf.concat([windows[..., 2:], windows[..., 2:]], axis=-1)
    return tf.maximum(tf.minimum(boxes, high), low)


def areas(boxes: tf.Tensor) -> tf.Tensor:
    """Return the areas [...] of boxes [..., 4]."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return sides[..., 0] * sides[..., 1]


def encode(boxes: Any, targets: Any) -> Any:
    """Return the deltas (dy, dx, log dh, log dw) that move `boxes` [..., 4] onto `targets` [..., 4], unscaled.

    Faster R-CNN (arXiv 1506.01497), equation 2. Tensors give tensors; NumPy arrays (of the input pipeline) give
    arrays of their own precision.
    """
    concat, log = (np.concat, np.log) if isinstance(boxes, np.ndarray) else (tf.concat, tf.math.log)
    sizes = boxes[..., 2:] - boxes[..., :2]
    target_sizes = targets[..., 2:] - targets[..., :2]
    centers = boxes[..., :2] + 0.5 * sizes
    target_centers = targets[..., :2] + 0.5 * target_sizes
    return concat([(target_centers - centers) / sizes, log(target_sizes / sizes)], axis=-1)


def decode(
    boxes: tf.Tensor,
    deltas: tf.Tensor,
    frame: BoxFrame = "inclusive",
    log_sizes: tuple[float | None, float] = (None, MAX_LOG_SIZE),
) -> tf.Tensor:
    """Invert `encode`: move `boxes` [..., 4] by unscaled `deltas` [..., 4].

    Size deltas outside the two `log_sizes` count as the nearer one. The far side is rounded as where the frame comes
    from.
    """
    sizes = boxes[..., 2:] - boxes[..., :2]
    centers = boxes[..., :2] + 0.5 * sizes
    centers += deltas[..., :2] * sizes
    smallest, largest = log_sizes
    growth = tf.minimum(deltas[..., 2:], largest)
    sizes *= tf.exp(growth if smallest is None else tf.maximum(growth, smallest))
    top_left = centers - 0.5 * sizes
    far = top_left + sizes if frame == "inclusive" else centers + 0.5 * sizes
    return tf.concat([top_left, far], axis=-1)


def long_enough(boxes: tf.Tensor, min_side: float | None) -> tf.Tensor:
    """Return bool [..., 1], whether both sides of boxes [..., 4] reach `min_side` and are not 0; True without one."""
    if min_side is None:
        return tf.ones_like(boxes[..., :1], tf.bool)
    shorter = tf.reduce_min(boxes[..., 2:] - boxes[..., :2], axis=-1, keepdims=True)
    return (shorter >= min_side) & (shorter > 0.0)
