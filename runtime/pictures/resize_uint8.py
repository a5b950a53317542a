"""Bilinear resizing of 8-bit images in integers: the exact values of `resize_bilinear`, truncated to uint8.

Along each axis the weights are fractions with a common denominator, so the weighted sum of four neighbors is an integer
over the product of two denominators; an integer division truncates it. No pixel depends on rounding.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.errors import InputError
from runtime.pictures.read import Picture, picture_pixels
from runtime.pictures.resize import sample_positions

Pixels = npt.NDArray[np.uint8]
# Target rows begin..end to their four neighbors, each uint8 [rows, width * C]: upper left, upper right, lower left,
# lower right. Neighbors outside the image may have any value: their weight is 0.
_Neighbors = Callable[[int, int], tuple[Pixels, Pixels, Pixels, Pixels]]

# Rows are made in strips that fit the processor's cache; both larger and smaller ones are slower.
_STRIP_VALUES = 1 << 17
# Pillow accumulates positions; on longer axes the error could exceed half the distance to the next pixel.
_MAX_SIDE = 1 << 15


class _Weights(NamedTuple):
    """For each target pixel of one axis, [T]: two source indices, clipped to the axis, and their weights."""

    lower: npt.NDArray[np.int64]
    upper: npt.NDArray[np.int64]
    lower_weight: npt.NDArray[np.int64]  # 0 for an index that was outside
    upper_weight: npt.NDArray[np.int64]
    total: int  # sum of both weights inside the image


def resize_truncated(picture: Picture, size: tuple[int, int]) -> Pixels:
    """Resize an image to `size` (height, width): the exact values of `resize_bilinear`, truncated.

    Args:
        picture: uint8 [H, W, C], or a PIL image of mode "RGB" or "L", of which only the sampled pixels are read.
        size: (height, width) in pixels.

    Returns:
        uint8 [height, width, C]. Border pixels mix with the zeros outside, but never fall below the image's minimum.

    Raises:
        InputError: the array has another shape or dtype, or no pixels, or `size` is not positive.
    """
    if isinstance(picture, Image.Image):
        (width, height), depth = picture.size, len(picture.getbands())
    elif picture.dtype == np.uint8 and picture.ndim == 3 and picture.size:
        height, width, depth = picture.shape
    else:
        raise InputError(f"image is {picture.dtype} {list(picture.shape)}; expected uint8 [H, W, C] with pixels")
    if min(size) < 1:
        raise InputError(f"size is {tuple(size)}; expected (height, width) of at least one pixel each")
    rows, columns = _weigh(height, size[0]), _weigh(width, size[1])
    if isinstance(picture, np.ndarray):
        neighbors = _in_array(picture, rows, columns)
    elif max(height, width, *size) <= _MAX_SIDE:
        neighbors = _in_pillow(picture, size)
    else:
        neighbors = _in_array(picture_pixels(picture), rows, columns)
    result = np.empty((*size, depth), np.uint8)
    _mix(neighbors, rows, columns, result)
    if size[0] > height or size[1] > width:  # only then are positions outside
        lowest = picture.min() if isinstance(picture, np.ndarray) else np.min(picture.getextrema())
        np.maximum(result, np.uint8(lowest), out=result)
    return result


def _weigh(source: int, target: int) -> _Weights:
    lower, rest = sample_positions(source, target)
    shared = int(np.gcd.reduce(np.append(rest, 2 * target)))
    upper_weight, total = rest // shared, 2 * target // shared
    last = source - 1
    return _Weights(
        np.maximum(lower, 0),
        np.minimum(lower + 1, last),
        np.where(lower < 0, 0, total - upper_weight),
        np.where(lower >= last, 0, upper_weight),
        total,
    )


def _in_array(pixels: Pixels, rows: _Weights, columns: _Weights) -> _Neighbors:
    depth = pixels.shape[2]
    left, right = (((side[:, None] * depth) + np.arange(depth)).ravel() for side in (columns.lower, columns.upper))

    def neighbors(begin: int, end: int) -> tuple[Pixels, Pixels, Pixels, Pixels]:
        above, below = (pixels[side[begin:end]].reshape(end - begin, -1) for side in (rows.lower, rows.upper))
        return above.take(left, 1), above.take(right, 1), below.take(left, 1), below.take(right, 1)

    return neighbors


def _in_pillow(image: Image.Image, size: tuple[int, int]) -> _Neighbors:
    (height, width), (across, down) = size, (image.width / size[1], image.height / size[0])
    # Positions are multiples of half a target pixel; a quarter added to them keeps rounding errors harmless.
    x, y = 0.25 / width - 0.5, 0.25 / height - 0.5

    def neighbors(begin: int, end: int) -> tuple[Pixels, Pixels, Pixels, Pixels]:
        top = y + begin * down
        found = (
            image.transform(
                (width, end - begin),
                Image.Transform.AFFINE,
                (across, 0.0, x + right, 0.0, down, top + below),
                Image.Resampling.NEAREST,
            )
            for below in (0, 1)
            for right in (0, 1)
        )
        upper_left, upper_right, lower_left, lower_right = (np.asarray(part).reshape(end - begin, -1) for part in found)
        return upper_left, upper_right, lower_left, lower_right

    return neighbors


def _mix(neighbors: _Neighbors, rows: _Weights, columns: _Weights, result: Pixels) -> None:
    height, width, depth = result.shape
    # The smallest types that hold the sums, which are at most 255 times the sum of all weights.
    narrow = np.min_scalar_type(255 * rows.total)
    wide = np.min_scalar_type(255 * rows.total * columns.total)
    above_weight, below_weight = (w[:, None].astype(narrow) for w in (rows.lower_weight, rows.upper_weight))
    left_weight, right_weight = (w.repeat(depth).astype(wide) for w in (columns.lower_weight, columns.upper_weight))
    strip = max(1, _STRIP_VALUES // (width * depth))
    for begin in range(0, height, strip):
        part = slice(begin, min(begin + strip, height))
        upper_left, upper_right, lower_left, lower_right = neighbors(part.start, part.stop)
        left = upper_left * above_weight[part]
        left += lower_left * below_weight[part]
        right = upper_right * above_weight[part]
        right += lower_right * below_weight[part]
        values = left * left_weight
        values += right * right_weight
        values //= wide.type(rows.total * columns.total)
        result[part] = values.reshape(-1, width, depth)
