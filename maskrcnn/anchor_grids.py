"""Sides of anchors per row and column of each pyramid level, without TensorFlow where nothing is traced."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from maskrcnn.configuration.model import AnchorStep, BoxFrame, ModelConfig

Floats = npt.NDArray[np.float64]


class LevelGrid(NamedTuple):
    """The anchors of one pyramid level, float64 input pixels, not clipped.

    Attributes:
        y1: [rows, R], upper side per row and ratio.
        y2: [rows, R], lower side.
        x1: [columns, R], left side.
        x2: [columns, R], right side.
        first: Index of its first anchor among all levels.
    """

    y1: Floats
    y2: Floats
    x1: Floats
    x2: Floats
    first: int


def half_sides(
    scale: float, ratios: Sequence[float], rounding: bool = False, frame: BoxFrame = "inclusive"
) -> tuple[list[float], list[float]]:
    """Return half the heights and half the widths of a level's anchors, one per ratio, in input pixels."""
    if rounding:  # in float32 and half to even, as in torchvision
        roots = np.sqrt(1 / np.array(ratios, np.float32))
        heights, widths = np.float32(scale) * roots, np.float32(scale) * (1 / roots)
        return np.round(heights / 2).tolist(), np.round(widths / 2).tolist()
    half_heights = [0.5 * (scale / math.sqrt(ratio)) for ratio in ratios]
    half_widths = [0.5 * (scale * math.sqrt(ratio)) for ratio in ratios]
    if frame == "continuous":  # where this frame comes from, they are float32 before they are added to the centers
        return np.array(half_heights, np.float32).tolist(), np.array(half_widths, np.float32).tolist()
    return half_heights, half_widths


def level_sides(
    length: Any,
    stride: int,
    anchor_stride: int,
    offsets: Sequence[float],
    step: AnchorStep = "stride",
    arange: Callable[..., Any] = np.arange,
    float64: Callable[[Any], Any] = np.float64,
) -> tuple[Any, Any]:
    """Return the low and the high side of each anchor along one axis.

    Args:
        length: Input pixels along the axis.
        stride: Input pixels per cell.
        anchor_stride: Cells between anchor centers.
        offsets: Half the anchor's side per ratio, in input pixels.
        step: As in the configuration.
        arange: Of NumPy, or `tf.range`, for which `length` is an int32 scalar.
        float64: Converts an array or a tensor.

    Returns:
        float64 [cells, R] pixels: center - offset, center + offset.
    """
    # Rounded up, as a network of this stride does; ONNX would round a negative quotient towards zero.
    cells = (length + (stride - 1)) // stride
    # The center is the cell's corner, not its middle, because the weights were trained that way.
    centers = float64(arange(0, cells, anchor_stride))
    centers *= stride if step == "stride" else float64(length // cells)
    half = np.array(offsets, np.float64)
    return centers[:, None] - half, centers[:, None] + half


@lru_cache(maxsize=64)
def anchor_grids(config: ModelConfig, image_size: tuple[int, int]) -> tuple[LevelGrid, ...]:
    """Return the anchors of an image of (height, width) input pixels."""
    grids, first = [], 0
    for stride, scale in zip(config.backbone_strides, config.anchor_scales, strict=True):
        halves = half_sides(scale, config.anchor_ratios, config.anchor_rounding, config.box_frame)
        (y1, y2), (x1, x2) = (
            level_sides(length, stride, config.anchor_stride, offsets, config.anchor_step)
            for length, offsets in zip(image_size, halves, strict=True)
        )
        grids.append(LevelGrid(y1, y2, x1, x2, first))
        first += y1.size * len(x1)
    return tuple(grids)
