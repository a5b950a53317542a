"""Masks as tight crops, so that the work depends on the size of the objects and not of the image.

A `MaskCrop` is bool [h, w] and the (y, x) of its first pixel.
"""

import numpy as np
import numpy.typing as npt

from runtime.masks.edges import PasteMode
from runtime.masks.paste import MaskCrop, crop_of, place_crops
from runtime.pictures.letterbox import Letterbox
from runtime.pictures.resize import resize_bilinear

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

EMPTY: MaskCrop = (np.zeros((0, 0), np.bool_), (0, 0))  # a mask without pixels


def letterbox_crop(crop: MaskCrop, letterbox: Letterbox, paste: PasteMode) -> MaskCrop:
    """Resize a mask from image pixels to input pixels, by nearest neighbor, and make it tight again.

    "matterport" samples on the grid of `scipy.ndimage.zoom`, which maps the first pixel to the first and the last to
    the last. "torchvision" samples at the first corner of a pixel, the other modes at its center.
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
    """Return the source pixel of each target pixel along one axis."""
    places = np.arange(target)
    if target in (source, 1):
        return places if source == target else np.zeros(1, np.int64)
    if paste == "torchvision":
        return places * source // target
    if paste != "matterport":
        return ((2 * places + 1) * source) // (2 * target)
    return np.minimum(np.floor(places * ((source - 1) / (target - 1)) + 0.5).astype(np.int64), source - 1)


def cut(pixels: Bools, origin: tuple[int, int], size: tuple[int, int]) -> MaskCrop:
    """Return the tight part of a mask at `origin` (y, x) that lies inside a frame of `size` (height, width)."""
    (y, x), (height, width) = (int(origin[0]), int(origin[1])), size
    inside = pixels[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
    return crop_of(inside, (max(y, 0), max(x, 0)))


def boxes_of(crops: list[MaskCrop]) -> npt.NDArray[np.int32]:
    """Return the boxes of tight crops, int32 [N, 4] y1, x1, y2, x2, far sides exclusive; zeros for `EMPTY`."""
    sides = [(y, x, y + pixels.shape[0], x + pixels.shape[1]) for pixels, (y, x) in crops]
    return np.array(sides, np.int32).reshape(-1, 4)


def minimize_mask(pixels: Bools, size: tuple[int, int], paste: PasteMode) -> Bools:
    """Resize a tight, non-empty mask to `size` (height, width).

    "matterport" interpolates with zeros outside, as the original does, so small objects lose their corners. The others
    repeat the edge.
    """
    if paste == "matterport":
        return np.rint(resize_bilinear(pixels.astype(np.float64), size)) > 0
    (top, bottom, down), (left, right, across) = (_between(n, m) for n, m in zip(pixels.shape, size, strict=True))
    # Indexing, because a matrix product would start a thread pool for a few thousand multiplications.
    values = pixels.astype(np.float32)
    rows = values[top] * (1 - down[:, None]) + values[bottom] * down[:, None]
    return np.asarray(rows[:, left] * (1 - across) + rows[:, right] * across > 0.5)


def _between(source: int, target: int) -> tuple[Indices, Indices, npt.NDArray[np.float32]]:
    """Return the two source cells around each target center and the weight of the second; edges are repeated."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    lower = np.minimum(position.astype(np.int64), max(source - 2, 0))
    return lower, np.minimum(lower + 1, source - 1), (position - lower).astype(np.float32)


def expand_mask(mini: Bools, box: npt.NDArray[np.integer], image_size: tuple[int, int]) -> Bools:
    """Resize a mini mask back to its box (y1, x1, y2, x2, input pixels) as the original does: bool [H, W]."""
    y1, x1, y2, x2 = (int(side) for side in box)
    pixels = np.rint(resize_bilinear(mini.astype(np.float64), (y2 - y1, x2 - x1))) > 0
    return place_crops([(pixels, (y1, x1))], image_size)[0]
