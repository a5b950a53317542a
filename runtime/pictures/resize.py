"""Bilinear resizing with half-pixel centers and zeros outside the image.

Example, 2 pixels to 4: target pixel i has its center at (i + 0.5) * 2 / 4 - 0.5 in source pixels, that is at -0.25,
0.25, 0.75, 1.25. The first takes 0.75 of pixel 0 and 0.25 of the zeros before it. This is how matterport's
`skimage.transform.resize(order=1, mode="constant", anti_aliasing=False)` is defined.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError

# Rows are made in strips that fit the processor's cache; both larger and smaller ones are slower.
_STRIP_VALUES = 1 << 17


class AxisSamples(NamedTuple):
    """For each target pixel of one axis, [T]: two source indices, clipped to the axis, and their weights."""

    lower: npt.NDArray[np.int64]  # at or before the sampled position
    upper: npt.NDArray[np.int64]
    lower_weight: npt.NDArray[np.float64]  # 0 where the index was outside before it was clipped
    upper_weight: npt.NDArray[np.float64]


def sample_positions(source: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where the T pixels of a resized axis are sampled, without rounding.

    Returns:
        int64 [T], the source index at or before each position, -1 before the first pixel; and int64 [T], the distance
        of the position from it, in units of 1 / (2 * target) of a source pixel.
    """
    lower, rest = np.divmod((2 * np.arange(target) + 1) * source - target, 2 * target)
    return lower, rest


def sample_axis(source: int, target: int) -> AxisSamples:
    """Return the samples of an axis of `source` pixels that is resized to `target` pixels."""
    lower, rest = sample_positions(source, target)
    fraction = rest / (2 * target)
    last = source - 1
    return AxisSamples(
        np.maximum(lower, 0),
        np.minimum(lower + 1, last),
        np.where(lower < 0, 0.0, 1.0 - fraction),
        np.where(lower >= last, 0.0, fraction),
    )


def resize_bilinear(image: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Resize an image, [H, W] or [H, W, C] of any real dtype, to `size` (height, width) without anti-aliasing.

    Returns:
        float64 [height, width] or [height, width, C]. Border pixels mix with the zeros outside, then all values are
        clipped to the range of `image`: an image that is 200 everywhere stays 200.

    Raises:
        InputError: `image` has another shape or no pixels, or `size` is not positive.
    """
    if image.ndim not in (2, 3) or image.size == 0:
        raise InputError(f"image has shape {list(image.shape)}; expected [H, W] or [H, W, C] with pixels")
    if min(size) < 1:
        raise InputError(f"size is {tuple(size)}; expected (height, width) of at least one pixel each")
    pixels = image if image.ndim == 3 else image[:, :, None]
    (height, width, depth), (target_height, target_width) = pixels.shape, size
    rows, columns = sample_axis(height, target_height), sample_axis(width, target_width)
    result = np.empty((target_height, target_width, depth))
    strip = max(1, _STRIP_VALUES // (max(width, target_width) * depth))
    for begin in range(0, target_height, strip):
        part = slice(begin, begin + strip)
        across = _mix(
            pixels[rows.lower[part]],
            pixels[rows.upper[part]],
            rows.lower_weight[part, None, None],
            rows.upper_weight[part, None, None],
        )  # [strip, W, C]
        result[part] = _mix(
            across.take(columns.lower, axis=1),
            across.take(columns.upper, axis=1),
            columns.lower_weight[:, None],
            columns.upper_weight[:, None],
        )  # [strip, width, C]
    np.clip(result, image.min(), image.max(), out=result)
    return result if image.ndim == 3 else result[:, :, 0]


def _mix(
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    first_weight: npt.NDArray[np.float64],
    second_weight: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    mixed: npt.NDArray[np.float64] = first * first_weight
    mixed += second * second_weight
    return mixed
