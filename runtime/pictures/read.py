"""Image files, bytes, PIL images and arrays to uint8 [H, W, channels].

Images become 8-bit RGB or luminance. Modes without an agreed conversion are refused by name.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from runtime.errors import ImageError, InputError
from runtime.one_line import one_line
from runtime.pictures.header import opened

ImageSource = str | os.PathLike[str] | bytes | bytearray | Image.Image | npt.NDArray[np.uint8]
# A decoded, upright image: uint8 [H, W, C], or a PIL image of mode "RGB" or "L".
Picture = npt.NDArray[np.uint8] | Image.Image

# The default limit. A file of some 100 KiB can declare 10,000 x 10,000 pixels and take 300 MB once decoded.
# 100 megapixels leave room for the largest cameras.
MAX_PIXELS = 100_000_000

_logger = logging.getLogger(__name__)

# Conversions by `Image.convert` that keep the meaning. Palettes go through RGBA, because a transparent palette entry
# has a color too; alpha is then dropped, not blended.
_STEPS: dict[str, tuple[str, ...]] = {
    "1": ("L",),
    "L": (),
    "LA": ("L",),
    "La": ("LA", "L"),
    "P": ("RGBA", "RGB"),
    "PA": ("RGBA", "RGB"),
    "RGB": (),
    "RGBA": ("RGB",),
    "RGBa": ("RGBA", "RGB"),
    "RGBX": ("RGB",),
    "CMYK": ("RGB",),
    "YCbCr": ("RGB",),
}

# Rows of a PIL image that are packed into an array at a time: a strip that fits the processor's cache is packed four
# times as fast as the whole image.
_STRIP_ROWS = 64
_STRIP_WIDTH = 2**16  # a strip of a wider image would not fit the cache either
_ORIENTATION = ExifTags.Base.Orientation

_REMEDIES = {
    "bool": "np.uint8(image) * 255",
    "uint16": "np.uint8(image >> 8), if it uses all 16 bits",
    "float": "np.uint8(np.clip(image, 0, 255)), after multiplying by 255 if it runs from 0 to 1",
}


def read_image(source: ImageSource, channels: int = 3, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read an image into an array.

    In files, bytes and PIL images, EXIF orientation is applied; grayscale is repeated to RGB, or RGB converted to
    luminance (ITU-R 601) for `channels == 1`; palette, bilevel, CMYK and YCbCr images are converted; alpha is dropped
    without blending; 16-bit samples keep their high byte. Of a file with several frames the first is read, with a
    warning in the log (except for MPO, whose first frame is the photo).

    Args:
        source: a path; an encoded image as bytes (JPEG, PNG, WebP, BMP, TIFF, GIF, PPM); a PIL image; or a uint8 array
            [H, W], [H, W, 1], [H, W, 3] RGB or [H, W, 4] RGBA. An array with `channels` channels is used as it is.
        channels: 3 for RGB, 1 for luminance; other counts are for arrays of exactly that many channels.
        max_pixels: most pixels allowed; checked in a file's header, before any pixel is decoded.

    Returns:
        uint8 [H, W, channels], C-contiguous; shares memory with `source` if that is such an array.

    Raises:
        ImageError: `source` cannot be read, has more than `max_pixels` pixels, or is of a kind that is not converted.
        InputError: `channels` or `max_pixels` is not a positive integer.
    """
    picture = open_picture(source, channels, max_pixels)
    return picture_pixels(picture) if isinstance(picture, Image.Image) else picture


def open_picture(source: ImageSource, channels: int = 3, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read an image as `read_image` does, but leave an RGB or luminance image of Pillow in Pillow's memory."""
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
        raise InputError(f"channels is {channels!r}; expected a positive integer, 3 for RGB")
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise InputError(f"max_pixels is {max_pixels!r}; expected a positive integer")
    if isinstance(source, np.ndarray):
        return _from_array(source, channels, max_pixels)
    if not isinstance(source, str | os.PathLike | bytes | bytearray | Image.Image):
        raise ImageError(
            f"cannot read an image from {type(source).__name__}; expected a path, bytes, a PIL image or "
            f"a uint8 array: convert tensors with np.asarray(...)"
        )
    if channels not in (1, 3):
        raise ImageError(
            f"a model with {channels} input channels takes only uint8 arrays [H, W, {channels}]; "
            f"files and PIL images have 1 or 3 channels"
        )
    if isinstance(source, Image.Image):
        with _decoding("the PIL image"):
            return _from_pil(source, channels, max_pixels, "the PIL image")
    return _from_file(source, channels, max_pixels)


def picture_pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Copy a PIL image of mode "RGB" or "L" into an array: uint8 [H, W, 3 or 1]."""
    width, height = image.size
    if width > _STRIP_WIDTH:
        return np.array(image).reshape(height, width, -1)
    pixels = np.empty((height, width, len(image.getbands())), np.uint8)
    strip = Image.new(image.mode, (width, min(_STRIP_ROWS, height)), None)
    for top in range(0, height, _STRIP_ROWS):
        strip.paste(image, (0, -top))  # `Image.crop` would check the process-wide limit of pixels
        pixels[top : top + _STRIP_ROWS] = np.asarray(strip).reshape(-1, width, pixels.shape[2])[: height - top]
    return pixels


def _from_array(array: npt.NDArray[np.uint8], channels: int, max_pixels: int) -> npt.NDArray[np.uint8]:
    described = f"the array of dtype {array.dtype}, shape {list(array.shape)}"
    if array.dtype != np.uint8:
        kind = "float" if array.dtype.kind == "f" else array.dtype.name
        remedy = _REMEDIES.get(kind, "scale it to 0..255, then astype(np.uint8)")
        raise ImageError(f"{described} is not an image: expected dtype uint8; convert it with {remedy}")
    if array.ndim not in (2, 3) or array.size == 0:
        raise ImageError(f"{described} is not an image: expected [H, W] or [H, W, C], none of them zero")
    _check_pixels(array.shape[0], array.shape[1], max_pixels, described)
    pixels = array[:, :, None] if array.ndim == 2 else array
    found = pixels.shape[2]
    if found == channels:
        return np.ascontiguousarray(pixels)
    if channels == 3 and found == 1:
        return np.repeat(pixels, 3, axis=2)
    if channels == 3 and found == 4:
        return np.ascontiguousarray(pixels[:, :, :3])
    expected = "1 (gray), 3 (RGB) or 4 (RGBA)" if channels == 3 else str(channels)
    remedy = "; for channels first use np.moveaxis(image, 0, -1)" if pixels.shape[0] in (1, 3, 4) else ""
    raise ImageError(f"{described} has {found} channels in its last axis; expected {expected}{remedy}")


def _from_file(source: str | os.PathLike[str] | bytes | bytearray, channels: int, max_pixels: int) -> Picture:
    if isinstance(source, bytes | bytearray):
        name = f"the image of {len(source)} bytes"
        encoded: str | bytes | bytearray = source
    else:
        encoded = os.fsdecode(source)
        name = repr(encoded)
    with _decoding(name), opened(encoded, name) as image:
        # Asked first: a GIF looks for its second frame, and would have to decode the first one again afterward.
        several = image.format != "MPO" and getattr(image, "is_animated", False)
        picture = _from_pil(image, channels, max_pixels, name)
    if several:
        _logger.warning("%s has several frames; only the first is used", name)
    return picture


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn the dozen types that decoders raise into one error with a message of one printable line."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise ImageError(f"{name} cannot be read as an image: {one_line(reason)}") from error


def _from_pil(image: Image.Image, channels: int, max_pixels: int, name: str) -> Picture:
    width, height = image.size
    _check_pixels(height, width, max_pixels, name)
    if width * height == 0:
        raise ImageError(f"{name} has {width} x {height} pixels; expected at least one")
    steps = _STEPS.get(image.mode)
    if steps is None and not image.mode.startswith("I;16"):
        raise ImageError(
            f"{name} has mode {image.mode!r}, which has no agreed range of 0..255; "
            f"scale it yourself and pass a uint8 array"
        )
    image.load()
    # Without the check, an image without orientation would be copied.
    upright = image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    if steps is None:
        return _from_array((np.asarray(upright) >> 8).astype(np.uint8), channels, max_pixels)
    for mode in steps:
        upright = upright.convert(mode)
    if channels == 1 and upright.mode != "L":
        upright = upright.convert("L")
    return (
        upright if len(upright.getbands()) == channels else _from_array(picture_pixels(upright), channels, max_pixels)
    )


def _check_pixels(height: int, width: int, max_pixels: int, name: str) -> None:
    if height * width > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels; at most {max_pixels} are allowed: shrink it, or raise max_pixels"
        )
