"""Bilinear resizing with half-pixel centres and zeros outside the picture.

Worked example, 2 pixels to 4: target pixel i has its centre at (i + 0.5) * 2 / 4 - 0.5 in source pixels,
that is at -0.25, 0.25, 0.75, 1.25. The first takes 0.75 of pixel 0 and 0.25 of the zeros before it.
This is what matterport's `skimage.transform.resize(order=1, mode="constant", anti_aliasing=False)` means.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError

# Rows are made in strips that stay in the processor's cache; larger ones are slower, smaller ones too.
_STRIP_VALUES = 1 << 17


class AxisSamples(NamedTuple):
    """For each target pixel of one axis: two source indices and their weights.

    Attributes:
        lower: int64 [T], source index at or before the sampled position, clipped to the axis.
        upper: int64 [T], the index after it, clipped to the axis.
        lower_weight: float64 [T], 0 where the index before the clip lay outside.
        upper_weight: float64 [T], likewise.
    """

    lower: npt.NDArray[np.int64]
    upper: npt.NDArray[np.int64]
    lower_weight: npt.NDArray[np.float64]
    upper_weight: npt.NDArray[np.float64]


def sample_positions(source: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Say where the pixels of a resized axis come from, free of rounding.

    Args:
        source: number of source pixels.
        target: number of target pixels that cover the same extent.

    Returns:
        int64 [T], the source index at or before each position, -1 before the first pixel; and int64 [T], how far
        after it the position lies, in units of 1 / (2 * target) of a source pixel.
    """
    lower, rest = np.divmod((2 * np.arange(target) + 1) * source - target, 2 * target)
    return lower, rest


def sample_axis(source: int, target: int) -> AxisSamples:
    """Say where the pixels of a resized axis come from.

    Args:
        source: number of source pixels.
        target: number of target pixels that cover the same extent.

    Returns:
        The samples of all target pixels.
    """
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
    """Resize a picture, without anti-aliasing.

    Args:
        image: [H, W] or [H, W, C], any real dtype.
        size: (height, width) of the result, in pixels.

    Returns:
        float64 [height, width] or [height, width, C]. Border pixels mix with the zeros outside, then
        all values are clipped to the range of `image`: a picture that is 200 everywhere stays 200.

    Raises:
        InputError: `image` is not of that shape, has no pixels, or `size` is not positive.
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
