"""Augmentation: random changes of a training image and, along with it, of its masks.

All geometry works by indexing into the image and into the mask crops. No pixel is interpolated, and the time does not
grow with the image size times the number of objects.
"""

from collections.abc import Sequence
from math import log, sqrt

import numpy as np

from maskrcnn.configuration.training import AugmentationConfig
from maskrcnn.data.color import change_colors, mean_color
from maskrcnn.data.mask_crops import EMPTY, cut
from maskrcnn.data.records import Image
from runtime.masks.paste import MaskCrop
from runtime.pictures.read import MAX_PIXELS

_WINDOWS_TRIED = 10


def augment(
    image: Image, masks: Sequence[MaskCrop], config: AugmentationConfig, rng: np.random.Generator
) -> tuple[Image, list[MaskCrop]]:
    """Randomly scale, rotate and flip an image and its masks, then change colors, blur and noise.

    This runs before letterboxing, so the scale only matters with resize policies that scale images to the input
    ("square", or with a `min_dim`). When zooming in, a window that misses all objects is redrawn up to ten times.

    Disabled changes draw no random numbers.

    Args:
        image: uint8 [H, W, C]; not changed.
        masks: Tight crops, or `EMPTY`; not changed.

    Returns:
        The image, uint8 [h, w, C], and one tight mask per input mask, `EMPTY` if nothing is left of it. The input
        arrays themselves if nothing is enabled.
    """
    crops = [crop if crop[0].size else EMPTY for crop in masks]
    if tuple(config.scale) != (1.0, 1.0):
        factor = float(np.exp(rng.uniform(log(config.scale[0]), log(config.scale[1]))))
        image, crops = _zoom_in(image, crops, factor, rng) if factor > 1 else _zoom_out(image, crops, factor, rng)
    if config.rotate_90 and rng.random() < config.rotate_90:
        image, crops = _turn(image, crops, int(rng.integers(1, 4)))
    if config.flip_horizontal and rng.random() < config.flip_horizontal:
        crops = [_mirror(crop, image.shape[1], 1) for crop in crops]
        image = image[:, ::-1]
    if config.flip_vertical and rng.random() < config.flip_vertical:
        crops = [_mirror(crop, image.shape[0], 0) for crop in crops]
        image = image[::-1]
    return np.ascontiguousarray(change_colors(image, config, rng)), crops


def _zoom_in(
    image: Image, crops: list[MaskCrop], factor: float, rng: np.random.Generator
) -> tuple[Image, list[MaskCrop]]:
    """Cut out a window with 1 / factor of each side."""
    height, width = (max(1, round(side / factor)) for side in image.shape[:2])
    y, x, inside = 0, 0, crops
    for _ in range(_WINDOWS_TRIED):
        y = int(rng.integers(image.shape[0] - height + 1))
        x = int(rng.integers(image.shape[1] - width + 1))
        inside = [cut(pixels, (top - y, left - x), (height, width)) for pixels, (top, left) in crops]
        if any(pixels.size for pixels, _ in inside) or not any(pixels.size for pixels, _ in crops):
            break
    return image[y : y + height, x : x + width], inside


def _zoom_out(
    image: Image, crops: list[MaskCrop], factor: float, rng: np.random.Generator
) -> tuple[Image, list[MaskCrop]]:
    """Place the image on a canvas with 1 / factor of each side, limited to the largest allowed image."""
    height, width = image.shape[:2]
    factor = min(1.0, max(factor, sqrt(height * width / MAX_PIXELS)))
    rows, columns = int(height / factor), int(width / factor)
    y, x = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    canvas = np.empty((rows, columns, image.shape[2]), np.uint8)
    canvas[:] = np.rint(mean_color(image))
    canvas[y : y + height, x : x + width] = image
    return canvas, [(pixels, (top + y, left + x)) if pixels.size else EMPTY for pixels, (top, left) in crops]


def _turn(image: Image, crops: list[MaskCrop], quarters: int) -> tuple[Image, list[MaskCrop]]:
    """Rotate counterclockwise by 1, 2 or 3 quarter turns."""
    height, width = image.shape[:2]
    if quarters == 2:
        return image[::-1, ::-1], [_mirror(_mirror(crop, height, 0), width, 1) for crop in crops]
    crops = [(pixels.T, (x, y)) for pixels, (y, x) in crops]
    image = image.swapaxes(0, 1)
    if quarters == 1:
        return image[::-1], [_mirror(crop, width, 0) for crop in crops]
    return image[:, ::-1], [_mirror(crop, height, 1) for crop in crops]


def _mirror(crop: MaskCrop, length: int, axis: int) -> MaskCrop:
    """Flip a crop along an axis of the image, which has `length` pixels along it."""
    pixels, (y, x) = crop
    if not pixels.size:
        return EMPTY
    if axis == 0:
        return pixels[::-1], (length - y - pixels.shape[0], x)
    return pixels[:, ::-1], (y, length - x - pixels.shape[1])
