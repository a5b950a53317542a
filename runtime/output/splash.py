"""Color splash: the image in gray, with detected objects in color."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.errors import ImageError, InputError
from runtime.masks.paste import MaskCrop
from runtime.pictures.pixels import PLAIN, PixelPolicy
from runtime.pictures.read import MAX_PIXELS, ImageSource, read_image

if TYPE_CHECKING:
    from runtime.detections import Detections


_STRIP_ROWS = 256


def color_splash(image: ImageSource, detections: "Detections") -> Image.Image:
    """Make an image gray except inside the masks.

    Args:
        image: the image that the detections belong to: a path, bytes, a PIL image or a uint8 array.
        detections: if there are none, the whole image becomes gray.

    Returns:
        An RGB image of the same size; `image` itself is not changed.

    Raises:
        ImageError: `image` cannot be read.
        InputError: its size is not `detections.image_size`.
    """
    pixels = read_image_of(detections, image)
    return splash_crops(pixels, (runs.crop() for runs in detections.mask_runs))  # one crop at a time is in memory


def read_image_of(detections: "Detections", image: ImageSource) -> npt.NDArray[np.uint8]:
    """Read the image that detections belong to; raise InputError if it has another size."""
    limit, policy = detections.image_size[0] * detections.image_size[1], PLAIN  # what they are from was not too large
    if detections.remembered is None:
        limit = max(limit, MAX_PIXELS)
    else:  # as the predictor reads it
        channels, most, policy, _ = detections.remembered.reading
        limit, colors = max(limit, most), PixelPolicy(policy.value_range)
        policy = policy if channels in (1, 3) else colors
    try:
        pixels = read_image(image, 3, limit, policy)
    except ImageError:
        if policy.bands is None:
            raise
        pixels = read_image(image, 3, limit, colors)  # an image in RGB has no such bands
    if pixels.shape[:2] != detections.image_size:
        raise InputError(
            f"the image is {pixels.shape[0]} x {pixels.shape[1]} pixels (height x width), but the detections are from "
            f"one of {detections.image_size[0]} x {detections.image_size[1]}; give the same image"
        )
    return pixels


def splash_crops(pixels: npt.NDArray[np.uint8], crops: Iterable[MaskCrop]) -> Image.Image:
    """Return pixels, uint8 [H, W, 3] RGB, in gray (luminance, ITU-R 601) except inside the masks."""
    inside = np.zeros(pixels.shape[:2], np.bool_)
    for crop, (y, x) in crops:
        inside[y : y + crop.shape[0], x : x + crop.shape[1]] |= crop
    result = Image.new("RGB", pixels.shape[1::-1], None)
    for top in range(0, len(pixels), _STRIP_ROWS):  # of a huge image, copies of all of it would fill the memory
        colored = Image.fromarray(pixels[top : top + _STRIP_ROWS])
        strip = colored.convert("L").convert("RGB")
        strip.paste(colored, mask=Image.fromarray(inside[top : top + _STRIP_ROWS]))
        result.paste(strip, (0, top))
    return result
