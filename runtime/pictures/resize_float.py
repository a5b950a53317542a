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
        image: The image; its values are converted to float32.
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
    across, rows = _Across(image, sample_float(width, target_width)), sample_float(height, target_height)
    above, below = np.empty((2, target_width * depth), np.float32)
    for target, lower, upper, weight in zip(result, rows.lower.tolist(), rows.upper.tolist(), rows.weight, strict=True):
        np.multiply(across.row(lower), 1 - weight, out=above)
        np.multiply(across.row(upper), weight, out=below)
        np.add(above.reshape(target.shape), below.reshape(target.shape), out=target)
    return result


class _Across:
    """The rows of an image, resized along their length alone."""

    def __init__(self, image: npt.NDArray[Any], columns: FloatSamples) -> None:
        depth = image.shape[2]
        self._image = image.reshape(len(image), -1)
        # Of each target value, the source to the left, and after these the sources to the right.
        pixels = np.stack([columns.lower, columns.upper])
        self._sources = (pixels[..., None] * depth + np.arange(depth)).ravel()
        self._weights = np.stack([1 - columns.weight, columns.weight]).repeat(depth)
        self._parts = np.empty((2, len(columns.weight) * depth), np.float32)
        self._values = np.empty(self._image.shape[1], np.float32)
        # Of two rows, which a target row lies between, one is odd. Enlarging, the next target row needs them again.
        self._rows, self._numbers = np.empty_like(self._parts), [-1, -1]

    def row(self, number: int) -> Floats:
        """Return a row, float32 [T * C], until one of the same parity is asked for."""
        place = number % 2
        found: Floats = self._rows[place]
        if self._numbers[place] != number:
            np.copyto(self._values, self._image[number], casting="unsafe")
            parts = self._parts.ravel()
            self._values.take(self._sources, out=parts, mode="clip")  # none is outside; other modes are slower
            parts *= self._weights
            np.add(self._parts[0], self._parts[1], out=found)
            self._numbers[place] = number
        return found
