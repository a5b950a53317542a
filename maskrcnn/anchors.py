"""Anchor grids of all pyramid levels (Faster R-CNN, section 3.1.1; one scale per level, as in FPN)."""

from collections.abc import Sequence

import tensorflow as tf

from maskrcnn.anchor_grids import half_sides, level_sides
from maskrcnn.configuration.model import AnchorStep, BoxFrame, ModelConfig


def level_anchors(
    image_size: tf.Tensor,
    strides: Sequence[int],
    scales: Sequence[float],
    ratios: Sequence[float],
    anchor_stride: int = 1,
    rounding: bool = False,
    step: AnchorStep = "stride",
    frame: BoxFrame = "inclusive",
) -> list[tf.Tensor]:
    """Return the anchors of each level in the order of the RPN's output: row, column, ratio.

    Args:
        image_size: int32 [2] height, width of the padded image in pixels.
        strides: Input pixels per cell, one per level.
        scales: Anchor side in pixels, one per level.
        ratios: Width / height.
        anchor_stride: Cells between anchor centers.
        rounding: Whether half sides are rounded to pixels.
        step: Pixels between centers, as in the configuration.
        frame: That of the network.

    Returns:
        float32 [A_l, 4] y1, x1, y2, x2 per level, in `frame`; not clipped.
    """
    # Sides are computed per axis in float64 and rounded once. This gives the bits of the original, and computes
    # rows + columns instead of rows x columns values in double precision.
    last = tf.cast(image_size, tf.float64) - 1.0
    levels = []
    for stride, scale in zip(strides, scales, strict=True):
        half_heights, half_widths = half_sides(scale, ratios, rounding, frame)
        y1, y2 = level_sides(image_size[0], stride, anchor_stride, half_heights, step, tf.range, _float64)
        x1, x2 = level_sides(image_size[1], stride, anchor_stride, half_widths, step, tf.range, _float64)
        rows = _in_frame(y1, y2, last[0], frame)  # [rows, R, 2]
        columns = _in_frame(x1, x2, last[1], frame)
        num_rows, num_columns = tf.shape(rows)[0], tf.shape(columns)[0]
        shape = tf.stack([num_rows, num_columns, len(ratios), 2])
        y = tf.broadcast_to(rows[:, None], shape)  # [rows, columns, R, 2]
        x = tf.broadcast_to(columns[None], shape)
        grid = tf.stack([y[..., 0], x[..., 0], y[..., 1], x[..., 1]], axis=-1)
        levels.append(tf.reshape(grid, [-1, 4]))
    return levels


def _float64(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float64)


def _in_frame(low: tf.Tensor, high: tf.Tensor, last: tf.Tensor, frame: BoxFrame) -> tf.Tensor:
    if frame == "inclusive":
        low, high = low / last, (high - 1.0) / last
    return tf.cast(tf.stack([low, high], axis=-1), tf.float32)


def model_anchors(image_size: tf.Tensor, config: ModelConfig) -> list[tf.Tensor]:
    """Return the anchors of each level P2 to P6 of a network; see `level_anchors`."""
    return level_anchors(
        image_size,
        config.backbone_strides,
        config.anchor_scales,
        config.anchor_ratios,
        config.anchor_stride,
        config.anchor_rounding,
        config.anchor_step,
        config.box_frame,
    )
