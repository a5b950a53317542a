"""Anchor grids of all pyramid levels (Faster R-CNN, section 3.1.1; one scale per level, as in FPN)."""

import math
from collections.abc import Sequence

import tensorflow as tf


def level_sides(
    length: tf.Tensor, stride: int, anchor_stride: int, offsets: Sequence[float]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the low and the high side of each anchor along one axis.

    Args:
        length: int32 scalar, input pixels along the axis.
        stride: Input pixels per cell.
        anchor_stride: Cells between anchor centers.
        offsets: Half the anchor's side per ratio, in input pixels.

    Returns:
        float64 [cells, R] pixels: center - offset, center + offset.
    """
    cells = -(-length // stride)  # rounded up, as a network of this stride does
    # The center is the cell's corner, not its middle, because the weights were trained that way.
    centers = tf.cast(tf.range(0, cells, anchor_stride), tf.float64) * stride
    half = tf.constant(offsets, tf.float64)
    return centers[:, None] - half, centers[:, None] + half


def pyramid_anchors(
    image_size: tf.Tensor,
    strides: Sequence[int],
    scales: Sequence[float],
    ratios: Sequence[float],
    anchor_stride: int = 1,
) -> tf.Tensor:
    """Return the anchors of all levels in the order of the RPN's output: level, row, column, ratio.

    Args:
        image_size: int32 [2] height, width of the padded image in pixels.
        strides: Input pixels per cell, one per level.
        scales: Anchor side in pixels, one per level.
        ratios: Width / height.
        anchor_stride: Cells between anchor centers.

    Returns:
        float32 [A, 4] y1, x1, y2, x2, normalized to the padded image; not clipped.
    """
    # Sides are computed per axis in float64 and rounded once. This gives the bits of the original, and computes
    # rows + columns instead of rows x columns values in double precision.
    last = tf.cast(image_size, tf.float64) - 1.0
    levels = []
    for stride, scale in zip(strides, scales, strict=True):
        half_heights = [0.5 * (scale / math.sqrt(ratio)) for ratio in ratios]
        half_widths = [0.5 * (scale * math.sqrt(ratio)) for ratio in ratios]
        y1, y2 = level_sides(image_size[0], stride, anchor_stride, half_heights)
        x1, x2 = level_sides(image_size[1], stride, anchor_stride, half_widths)
        rows = tf.cast(tf.stack([y1 / last[0], (y2 - 1.0) / last[0]], axis=-1), tf.float32)  # [rows, R, 2]
        columns = tf.cast(tf.stack([x1 / last[1], (x2 - 1.0) / last[1]], axis=-1), tf.float32)
        num_rows, num_columns = tf.shape(rows)[0], tf.shape(columns)[0]
        shape = tf.stack([num_rows, num_columns, len(ratios), 2])
        y = tf.broadcast_to(rows[:, None], shape)  # [rows, columns, R, 2]
        x = tf.broadcast_to(columns[None], shape)
        grid = tf.stack([y[..., 0], x[..., 0], y[..., 1], x[..., 1]], axis=-1)
        levels.append(tf.reshape(grid, [-1, 4]))
    return tf.concat(levels, axis=0)
