"""Color splash: the picture in gray, what was found on it in color."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.errors import InputError
from runtime.masks.paste import MaskCrop
from runtime.pictures.read import ImageSource, read_image

if TYPE_CHECKING:
    from runtime.detections import Detections


def color_splash(image: ImageSource, detections: "Detections") -> Image.Image:
    """Make a picture gray except where a mask lies.

    Args:
        image: the picture that `detections` belong to, as `read_image` takes it.
        detections: N of them; with none the whole picture becomes gray.

    Returns:
        An RGB image of the size of the picture; `image` itself is not changed.

    Raises:
        ImageError: `image` cannot be read.
        InputError: its size is not `detections.image_size`.
    """
    pixels = read_image(image)
    if pixels.shape[:2] != detections.image_size:
        raise InputError(
            f"the picture is {pixels.shape[0]} x {pixels.shape[1]} pixels high and wide, the detections are "
            f"of one of {detections.image_size[0]} x {detections.image_size[1]}; give the same picture"
        )
    # One detection at a time, so that one crop is held and not all.
    return splash_crops(pixels, (crop for each in detections for crop in each.mask_crops))


def splash_crops(pixels: npt.NDArray[np.uint8], crops: Iterable[MaskCrop]) -> Image.Image:
    """Make pixels gray except where a mask lies.

    Args:
        pixels: uint8 [H, W, 3] RGB, left as they are.
        crops: masks inside the picture.

    Returns:
        An RGB image [H, W]; gray is luminance (ITU-R 601).
    """
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    result = np.repeat(gray[:, :, None], 3, axis=2)
    for crop, (y, x) in crops:
        place = np.s_[y : y + crop.shape[0], x : x + crop.shape[1]]
        result[place][crop] = pixels[place][crop]
    return Image.fromarray(result)
