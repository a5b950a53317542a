"""Bilinear resizing in float32 with half-pixel centers, repeated edges and no anti-aliasing, as PyTorch does it.

The positions are those of `torch.nn.functional.interpolate` (mode "bilinear", `align_corners=False`) for a given output
size, to the bit: an image that is reduced a lot would otherwise differ by hundredths of a gray level. Sums of four
products differ from it by the rounding of float32.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError

Floats = npt.NDArray[np.float32]

# Rows are made in strips that fit the processor's cache; both larger and smaller ones are slower.
_STRIP_VALUES = 1 << 16


class FloatSamples(NamedTuple):
    """For each target pixel of one axis, [T]: two source indices; the first has the weight 1 - w, the second w."""

    lower: npt.NDArray[np.intp]
    upper: npt.NDArray[np.intp]
    weight: Floats


def sample_float(source: int, target: int) -> FloatSamples:
    """Return the samples of an axis of `source` pixels that is resized to `target` pixels."""
    scale = np.float32(source) / np.float32(target)
    # One multiplication and addition that is rounded once: exact in float64, then rounded to float32.
    position = (np.float64(scale) * (np.arange(target) + 0.5) - 0.5).astype(np.float32)
    np.maximum(position, np.float32(0), out=position)
    lower = np.minimum(position.astype(np.intp), source - 1)
    weight = np.clip(position - lower.astype(np.float32), np.float32(0), np.float32(1))
    return FloatSamples(lower, np.minimum(lower + 1, source - 1), weight)


def resize_float(image: npt.NDArray[Any], size: tuple[int, int], out: Floats | None = None) -> Floats:
    """Resize an image, [H, W, C] of any real dtype, to `size` (height, width).

    Args:
        image: The image.
        size: (height, width) in pixels.
        out: Where to write the result, [height, width, C], such as a part of a larger image; None for a new array.

    Returns:
        float32 [height, width, C], in the units of `image`.

    Raises:
        InputError: `image` has another shape or no pixels, or `size` is not positive.
    """
    if image.ndim != 3 or image.size == 0:
        raise InputError(f"image has shape {list(image.shape)}; expected [H, W, C] with pixels")
    if min(size) < 1:
        raise InputError(f"size is {tuple(size)}; expected (height, width) of at least one pixel each")
    (height, width, depth), (target_height, target_width) = image.shape, size
    result = np.empty((*size, depth), np.float32) if out is None else out
    rows, columns = sample_float(height, target_height), sample_float(width, target_width)
    left, right = (((side[:, None] * depth) + np.arange(depth)).ravel() for side in (columns.lower, columns.upper))
    right_weight = columns.weight.repeat(depth)
    left_weight = 1 - right_weight
    lower_weight = rows.weight[:, None]
    upper_weight = 1 - lower_weight
    strip = max(1, _STRIP_VALUES // (target_width * depth))
    for begin in range(0, target_height, strip):
        part = slice(begin, begin + strip)
        # Across first, and each row of the image once: enlarging, most are needed by several target rows.
        used, places = np.unique(np.stack([rows.lower[part], rows.upper[part]]), return_inverse=True)
        source = image[used].reshape(len(used), -1)
        across = source.take(left, 1) * left_weight
        across += source.take(right, 1) * right_weight
        above, below = across[places[0]], across[places[1]]
        above *= upper_weight[part]
        below *= lower_weight[part]
        np.add(above.reshape(-1, target_width, depth), below.reshape(-1, target_width, depth), out=result[part])
    return result
