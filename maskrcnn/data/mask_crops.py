"""Masks of objects on their way into a batch, each as a tight crop: the work is that of the objects' pixels.

A `MaskCrop` is bool [h, w] and the (y, x) of its first pixel; one without pixels is 0 x 0 at (0, 0).
"""

import numpy as np
import numpy.typing as npt

from runtime.masks.paste import MaskCrop, PasteMode, crop_of, place_crops
from runtime.pictures.letterbox import Letterbox
from runtime.pictures.resize import resize_bilinear

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

EMPTY: MaskCrop = (np.zeros((0, 0), np.bool_), (0, 0))


def letterbox_crop(crop: MaskCrop, letterbox: Letterbox, paste: PasteMode) -> MaskCrop:
    """A mask of the picture as a mask of the network's input, tight again.

    Pixels are repeated or left out, never mixed. "matterport" takes the grid of `scipy.ndimage.zoom`, which
    maps the first pixel to the first and the last to the last; "aligned" takes the grid of the picture itself.
    """
    pixels, (y, x) = crop
    if not pixels.size:
        return EMPTY
    rows = _sources(letterbox.image_size[0], letterbox.resized_size[0], paste)
    columns = _sources(letterbox.image_size[1], letterbox.resized_size[1], paste)
    top, bottom = np.searchsorted(rows, [y, y + pixels.shape[0]])
    left, right = np.searchsorted(columns, [x, x + pixels.shape[1]])
    resized = pixels[rows[top:bottom] - y][:, columns[left:right] - x]
    return cut(resized, (top + letterbox.offset[0], left + letterbox.offset[1]), letterbox.input_size)


def _sources(source: int, target: int, paste: PasteMode) -> npt.NDArray[np.int64]:
    """Source pixel of each target pixel along one axis."""
    places = np.arange(target)
    if target in (source, 1):
        return places if source == target else np.zeros(1, np.int64)
    if paste == "aligned":
        return ((2 * places + 1) * source) // (2 * target)
    return np.minimum(np.floor(places * ((source - 1) / (target - 1)) + 0.5).astype(np.int64), source - 1)


def cut(pixels: Bools, origin: tuple[int, int], size: tuple[int, int]) -> MaskCrop:
    """The tight part of a mask at `origin` that lies within a frame of `size` (height, width)."""
    (y, x), (height, width) = (int(origin[0]), int(origin[1])), size
    inside = pixels[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
    return crop_of(inside, (max(y, 0), max(x, 0)))


def boxes_of(crops: list[MaskCrop]) -> npt.NDArray[np.int32]:
    """Boxes int32 [N, 4] y1, x1, y2, x2 of tight crops, far sides exclusive; zeros of an empty one."""
    sides = [(y, x, y + pixels.shape[0], x + pixels.shape[1]) for pixels, (y, x) in crops]
    return np.array(sides, np.int32).reshape(-1, 4)


def minimize_mask(pixels: Bools, size: tuple[int, int], paste: PasteMode) -> Bools:
    """Stretch a tight mask over a small grid.

    "matterport" mixes the border with zeros outside, as the original: small objects lose their corners.
    "aligned" continues the border outwards.

    Args:
        pixels: bool [h, w], not empty.
        size: (height, width) of the result.
        paste: Which.

    Returns:
        bool [height, width].
    """
    if paste == "matterport":
        return np.rint(resize_bilinear(pixels.astype(np.float64), size)) > 0
    (top, bottom, down), (left, right, across) = (_between(n, m) for n, m in zip(pixels.shape, size, strict=True))
    # Indices, not matrix products: those would start a thread pool for a few thousand multiplications.
    values = pixels.astype(np.float32)
    rows = values[top] * (1 - down[:, None]) + values[bottom] * down[:, None]
    return np.asarray(rows[:, left] * (1 - across) + rows[:, right] * across > 0.5)


def _between(source: int, target: int) -> tuple[Indices, Indices, npt.NDArray[np.float32]]:
    """The two source cells around each target cell's centre and the weight of the second; the border is repeated."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    lower = np.minimum(position.astype(np.int64), max(source - 2, 0))
    return lower, np.minimum(lower + 1, source - 1), (position - lower).astype(np.float32)


def expand_mask(mini: Bools, box: npt.NDArray[np.integer], image_size: tuple[int, int]) -> Bools:
    """Bring a mini mask back into its box (y1, x1, y2, x2, pixels): bool [H, W], as the original does to look at it."""
    y1, x1, y2, x2 = (int(side) for side in box)
    pixels = np.rint(resize_bilinear(mini.astype(np.float64), (y2 - y1, x2 - x1))) > 0
    return place_crops([(pixels, (y1, x1))], image_size)[0]
