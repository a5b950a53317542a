"""Anti-aliased bilinear resizing of 8-bit images by Pillow: the exact values of `Image.resize`."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.errors import InputError
from runtime.pictures.read import Picture


def resize_pillow(picture: Picture, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize an image to `size` (height, width).

    Args:
        picture: uint8 [H, W, C], or a PIL image of mode "RGB" or "L". Channels are resized one by one unless there are
            1 or 3, which gives the same values.
        size: (height, width) in pixels.

    Returns:
        uint8 [height, width, C].

    Raises:
        InputError: the array has another shape or dtype, or no pixels, or `size` is not positive.
    """
    if min(size) < 1:
        raise InputError(f"size is {tuple(size)}; expected (height, width) of at least one pixel each")
    if isinstance(picture, Image.Image):
        return _resized(picture, size)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.size == 0:
        raise InputError(f"image is {picture.dtype} {list(picture.shape)}; expected uint8 [H, W, C] with pixels")
    depth = picture.shape[2]
    if depth == 3:
        return _resized(Image.fromarray(picture), size)
    return np.concatenate([_resized(Image.fromarray(picture[:, :, i]), size) for i in range(depth)], axis=2)


def _resized(image: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    pixels = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
