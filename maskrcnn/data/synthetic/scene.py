"""Synthetic images: squares, circles and triangles that occlude each other on a cluttered background.

A pixel belongs to a shape if its center lies inside. In the image, edges are smoothed over one pixel.
"""

import numpy as np
import numpy.typing as npt

from maskrcnn.data.records import Image
from maskrcnn.data.synthetic.clutter import Pixels, clutter, sensor_noise
from maskrcnn.data.synthetic.geometry import Shape, draw_shape
from maskrcnn.errors import DatasetError

CLASS_NAMES = ("BG", "square", "circle", "triangle")

Mask = npt.NDArray[np.bool_]

_SIZES = (160, 256)  # side of an image, in pixels
_SIDES = (16.0, 130.0)  # side of a shape, in pixels
_MOST_SHAPES = 7
_EMPTY_PICTURES = 0.03
# Visible share and pixels that a shape needs to be recognizable; a shape that would hide more is moved.
_LEAST_VISIBLE = 0.35
_LEAST_PIXELS = 60
_PLACES_TRIED = 12
# Least distance in RGB from whatever is beneath a shape, so that its edge is clear.
_CONTRAST = 110.0


def draw_shapes(
    seed: int, index: int, size: tuple[int, int] | None = None, shares: tuple[float, ...] | None = None
) -> tuple[Image, list[Mask], list[int]]:
    """Draw one image of the dataset; the result depends only on the arguments.

    Args:
        seed: Seed of the dataset, at least 0.
        index: Index of the image, at least 0.
        size: (height, width) in pixels; by default, random sides from 160 to 256.
        shares: Share of each class in the shapes, in the order of their ids and in any unit; by default, all are equal.

    Returns:
        The image, uint8 [height, width, 3]; the visible part of each of 0 to 7 shapes, bool [height, width]; and their
        class ids. Of every shape, at least 35 % and 60 pixels are visible.

    Raises:
        DatasetError: A side is shorter than 32 pixels.
    """
    rng = np.random.default_rng([seed, index])
    if size is None:
        height, width = rng.integers(_SIZES[0], _SIZES[1] + 1, 2).tolist()
    else:
        height, width = size
    if min(height, width) < 2 * _SIDES[0]:
        raise DatasetError(f"the image size is {(height, width)}: expected sides of at least 32 pixels")
    pixels = clutter(rng, (height, width))
    masks: list[Mask] = []
    class_ids: list[int] = []
    whole: list[int] = []  # pixels of each shape, hidden or not
    count = 0 if rng.random() < _EMPTY_PICTURES else int(rng.integers(1, _MOST_SHAPES + 1))
    for _ in range(count):
        class_id = _class_id(rng, shares)
        placed = _place(rng, class_id, masks, whole, (height, width))
        if placed is None:
            continue
        shape, area = placed
        _paint(rng, pixels, shape)
        for mask in masks:
            mask[shape.window] &= ~shape.inside
        masks.append(np.zeros((height, width), np.bool_))
        masks[-1][shape.window] = shape.inside
        class_ids.append(class_id)
        whole.append(area)
    pixels += sensor_noise(rng, (height, width))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), masks, class_ids


def _class_id(rng: np.random.Generator, shares: tuple[float, ...] | None) -> int:
    if shares is None:
        return int(rng.integers(1, len(CLASS_NAMES)))
    return 1 + int(rng.choice(len(shares), p=np.divide(shares, sum(shares))))


def _place(
    rng: np.random.Generator, class_id: int, masks: list[Mask], whole: list[int], size: tuple[int, int]
) -> tuple[Shape, int] | None:
    """Place a shape so that it and all beneath stay recognizable; return it clipped, and its unclipped pixel count."""
    low, high = _SIDES
    side = float(np.exp(rng.uniform(np.log(low), np.log(min(high, 0.7 * min(size))))))
    for _ in range(_PLACES_TRIED):
        center = rng.uniform(0.08, 0.92, 2) * size
        drawn = draw_shape(class_id, side, center, rng)
        area = _pixels(drawn.inside)
        shape = drawn.clip(size)
        left = [_pixels(mask) - _pixels(mask[shape.window] & shape.inside) for mask in masks]
        left.append(_pixels(shape.inside))
        if all(_recognizable(*pair) for pair in zip(left, [*whole, area], strict=True)):
            return shape, area
    return None


def _pixels(mask: Mask) -> int:
    return int(np.count_nonzero(mask))


def _recognizable(visible: int, whole: int) -> bool:
    return visible >= max(_LEAST_PIXELS, _LEAST_VISIBLE * whole)


def _paint(rng: np.random.Generator, pixels: Pixels, shape: Shape) -> None:
    """Blend the shape into float32 [H, W, 3], in a lightly shaded color that contrasts with everything beneath."""
    part = pixels[shape.window]
    beneath = part[::4, ::4].reshape(-1, 3)
    candidates = rng.uniform(10, 245, (32, 3)).astype(np.float32)
    distances = np.linalg.norm(candidates[:, None] - beneath, axis=2).min(axis=1)
    good = np.flatnonzero(distances >= _CONTRAST)
    color = candidates[good[0] if len(good) else np.argmax(distances)]
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape.inside.shape)
    slopes = rng.uniform(-12, 12, 2).astype(np.float32)
    shaded = color + (y[:, None] * slopes[0] + x * slopes[1])[:, :, None]
    part += shape.coverage[:, :, None] * (shaded - part)
