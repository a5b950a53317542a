"""Bilinear resizing of 8-bit images in fixed point: the exact values of `cv2.resize` with `INTER_LINEAR`.

Weights have 11 bits. An image that is halved along both axes is averaged instead, also as OpenCV does it.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError

Pixels = npt.NDArray[np.uint8]

# Rows are made in strips that fit the processor's cache; both larger and smaller ones are slower.
_STRIP_VALUES = 1 << 16
_ONE = 1 << 11  # the weight 1.0
_ROUNDED_UP = (1, 3, 4)  # channels; with these, OpenCV rounds a half up when it averages, and else to even


class _Weights(NamedTuple):
    """For each target pixel of one axis, [T]: two source indices, clipped to the axis, and their weights."""

    lower: npt.NDArray[np.intp]
    upper: npt.NDArray[np.intp]
    lower_weight: npt.NDArray[np.int32]
    upper_weight: npt.NDArray[np.int32]


def resize_opencv(image: Pixels, size: tuple[int, int], out: Pixels | None = None) -> Pixels:
    """Resize an image, uint8 [H, W, C], to `size` (height, width) without anti-aliasing.

    Args:
        image: The image.
        size: (height, width) in pixels.
        out: Where to write the result, [height, width, C], such as a part of a larger image; None for a new array.

    Returns:
        uint8 [height, width, C].

    Raises:
        InputError: `image` has another shape or dtype, or no pixels, or `size` is not positive.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.size == 0:
        raise InputError(f"image is {image.dtype} {list(image.shape)}; expected uint8 [H, W, C] with pixels")
    if min(size) < 1:
        raise InputError(f"size is {tuple(size)}; expected (height, width) of at least one pixel each")
    (height, width, depth), (target_height, target_width) = image.shape, size
    result = np.empty((*size, depth), np.uint8) if out is None else out
    if size == (height, width):
        result[:] = image
    elif (2 * target_height, 2 * target_width) == (height, width):
        _halve(image, result)
    else:
        _mix(image, _weigh(height, target_height), _weigh(width, target_width, stops=True), result)
    return result


def _weigh(source: int, target: int, *, stops: bool = False) -> _Weights:
    """Return the samples of an axis; `stops`: outside the image, the first or last pixel alone is taken."""
    position = ((np.arange(target) + 0.5) * (1.0 / (target / source)) - 0.5).astype(np.float32)
    lower = np.floor(position).astype(np.intp)
    fraction = position - lower.astype(np.float32)
    if stops:
        fraction[(lower < 0) | (lower >= source - 1)] = 0
    first, second = (np.rint(part * np.float32(_ONE)).astype(np.int32) for part in (1 - fraction, fraction))
    last = source - 1
    return _Weights(np.clip(lower, 0, last), np.clip(lower + 1, 0, last), first, second)


def _mix(image: Pixels, rows: _Weights, columns: _Weights, result: Pixels) -> None:
    height, width, depth = result.shape
    left, right = (((side[:, None] * depth) + np.arange(depth)).ravel() for side in (columns.lower, columns.upper))
    left_weight, right_weight = columns.lower_weight.repeat(depth), columns.upper_weight.repeat(depth)
    strip = max(1, _STRIP_VALUES // (width * depth))
    for begin in range(0, height, strip):
        part = slice(begin, begin + strip)
        # Across first, and each row of the image once: enlarging, most are needed by several target rows.
        used, places = np.unique(np.stack([rows.lower[part], rows.upper[part]]), return_inverse=True)
        source = image[used].reshape(len(used), -1)
        across = source.take(left, 1) * left_weight
        across += source.take(right, 1) * right_weight
        across >>= 4
        above, below = across[places[0]], across[places[1]]
        above *= rows.lower_weight[part, None]
        above >>= 16
        below *= rows.upper_weight[part, None]
        below >>= 16
        above += below
        above += 2
        above >>= 2
        result[part] = above.reshape(-1, width, depth)


def _halve(image: Pixels, result: Pixels) -> None:
    height, width, depth = result.shape
    total = image.reshape(height, 2, width, 2, depth).sum(axis=(1, 3), dtype=np.uint16)
    # Half to even: a sum of 4n + 2 gets its half from the parity of n.
    result[:] = (total + 2 >> 2) if depth in _ROUNDED_UP else (total + 1 + (total >> 2 & 1) >> 2)
