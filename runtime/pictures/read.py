"""Image files, bytes, PIL images and arrays to uint8 [H, W, channels].

Images become 8-bit RGB or luminance. Modes without an agreed conversion are refused by name.
"""

import inspect
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from runtime.arguments import shown
from runtime.errors import ImageError, InputError
from runtime.one_line import one_line
from runtime.pictures import header
from runtime.pictures.deep import deep_color, note_native_order, read_bands, read_deep_color, read_pnm, tiff_bands
from runtime.pictures.header import BandsError, check_pixels, opened, shown_path
from runtime.pictures.pixels import PLAIN, PixelPolicy, Samples, choose_bands, note_levels, to_uint8, value_limits


class ImageFile(Protocol):
    """A file opened in binary mode, or an upload of a web framework."""

    def read(self, size: int, /) -> Any:
        """Return bytes."""


ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | npt.NDArray[Any] | ImageFile
# A decoded, upright image: uint8 [H, W, C], or a PIL image of mode "RGB" or "L".
Picture = npt.NDArray[np.uint8] | Image.Image

MAX_PIXELS = header.MAX_PIXELS

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
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")
_BYTES_PER_PIXEL = 16  # that an open file may have at most
_BANDS_PER_PIXEL = 4  # of a TIFF file, for each pixel that is allowed


def log_note(text: str) -> None:
    """Log what was found in an image; in training, `Record.load_image` says it once."""
    _logger.warning("%s", text)


def read_image(
    source: ImageSource,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    pixels: PixelPolicy = PLAIN,
    note: Callable[[str], None] = log_note,
) -> npt.NDArray[np.uint8]:
    """Read an image into an array.

    In files, bytes and PIL images, EXIF orientation is applied; grayscale is repeated to RGB, or RGB converted to
    luminance (ITU-R 601) for `channels == 1`; palette, bilevel, CMYK and YCbCr images are converted; alpha is dropped
    without blending; 16-bit samples keep their high byte unless `pixels` has a value range. Of a file with several
    frames the first is read, with a warning in the log (except for MPO, whose first frame is the photo).

    Args:
        source: a path; an encoded image as bytes, or as a file opened in binary mode or an upload, which is read from
            its beginning (JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, AVIF); a PIL image; or a uint8 array [H, W], [H, W, 1],
            [H, W, 3] RGB or [H, W, 4] RGBA. An array with `channels` channels is used as it is. OpenCV's arrays are
            BGR: turn them with `image[:, :, ::-1]`.
        channels: 3 for RGB, 1 for luminance; other counts are for arrays, and TIFF files, of exactly that many
            channels, or for chosen bands.
        max_pixels: most pixels allowed; checked in a file's header, before any pixel is decoded.
        pixels: how samples of more than 8 bits, also of arrays, become 8-bit ones, and which bands are used.
        note: is told what may surprise, in place of the log.

    Returns:
        uint8 [H, W, channels], C-contiguous; shares memory with `source` if that is such an array.

    Raises:
        ImageError: `source` cannot be read, has more than `max_pixels` pixels, or is of a kind that is not converted.
        InputError: `channels` or `max_pixels` is not a positive integer.
    """
    picture = open_picture(source, channels, max_pixels, pixels, note)
    return picture_pixels(picture) if isinstance(picture, Image.Image) else picture


def open_picture(
    source: ImageSource,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    pixels: PixelPolicy = PLAIN,
    note: Callable[[str], None] = log_note,
) -> Picture:
    """Read an image as `read_image` does, but leave an RGB or luminance image of Pillow in Pillow's memory."""
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
        raise InputError(f"channels is {shown(channels)}; expected a positive integer, 3 for RGB")
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise InputError(f"max_pixels is {shown(max_pixels)}; expected a positive integer")
    reader = _Reader(channels, max_pixels, pixels, note)
    if isinstance(source, memoryview):
        source = np.asarray(source) if source.ndim > 1 else source.tobytes()
    if isinstance(source, np.ndarray):
        return reader.from_array(source)
    if isinstance(source, Image.Image):
        with _decoding("the PIL image"):
            return reader.from_pil(source, "the PIL image")
    if isinstance(source, str | os.PathLike):
        return reader.from_file(_path(source))
    if not isinstance(source, bytes | bytearray):
        source = _content(source, _BYTES_PER_PIXEL * max_pixels + 2**20)
    return reader.from_file(bytes(source))


def _path(source: str | os.PathLike[str]) -> str:
    path = os.fsdecode(source)
    if path.startswith("data:"):
        raise ImageError(
            f"{shown_path(path)} is a data URL, not a path; decode it: base64.b64decode(url.partition(',')[2])"
        )
    if _URL.match(path) and not os.path.exists(path):  # noqa: PTH110  (a str, kept as given)
        raise ImageError(
            f"{shown_path(path)} is a URL, not a path; download it, as with urllib.request.urlopen(url).read(), "
            "and pass the bytes"
        )
    return path


def _content(source: Any, most: int) -> bytes:
    """Read an open file, or the file of an upload, from its beginning."""
    kind = type(source).__name__
    for each in (source, getattr(source, "file", None)):  # the second, where reading the first must be awaited
        read = getattr(each, "read", None)
        if each is None or not callable(read) or inspect.iscoroutinefunction(read):
            continue
        try:
            seekable = getattr(each, "seekable", None)
            if seekable() if callable(seekable) else hasattr(each, "seek"):
                each.seek(0)
            content = read(most + 1)
        except Exception as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            raise ImageError(f"the file object of type {kind} cannot be read: {one_line(reason)[:200]}") from error
        if isinstance(content, bytes | bytearray | memoryview):
            if len(content) > most:
                raise ImageError(f"the file object of type {kind} has more than {most} bytes; raise max_pixels")
            return bytes(content)
        if inspect.iscoroutine(content):
            content.close()
        elif isinstance(content, str):
            raise ImageError(f"the file object of type {kind} gives text; open the file in binary mode, with 'rb'")
    if callable(getattr(source, "read", None)):
        raise ImageError(f"reading the {kind} must be awaited; pass the bytes: await file.read()")
    raise ImageError(f"cannot read an image from {kind}; {_other_kind(source)}")


def _other_kind(source: object) -> str:
    """Return what to do about an object that is no image."""
    if source is None:
        return "cv2.imread returns None for a file that it cannot read: pass the path itself"
    if callable(getattr(source, "permute", None)):
        return "convert the tensor [C, H, W] of 0..1 with (image * 255).byte().permute(1, 2, 0).cpu().numpy()"
    if isinstance(source, list | tuple):
        return "pass one image at a time, or convert nested lists with np.array(image, np.uint8)"
    return (
        "expected a path, bytes, a file in binary mode, a PIL image or a uint8 array: convert tensors with "
        "np.asarray(...)"
    )


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


class _Reader:
    """What the caller asked for, and how each kind of source becomes it."""

    def __init__(self, channels: int, max_pixels: int, pixels: PixelPolicy, note: Callable[[str], None]) -> None:
        self.channels, self.max_pixels, self.pixels, self.note = channels, max_pixels, pixels, note

    def from_array(self, array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        described = f"the array of dtype {array.dtype}, shape {list(array.shape)}"
        if array.ndim not in (2, 3) or array.size == 0:
            raise ImageError(f"{described} is not an image: expected [H, W] or [H, W, C], none of them zero")
        check_pixels((array.shape[1], array.shape[0]), self.max_pixels, described)
        samples = array[:, :, None] if array.ndim == 2 else array
        if self.pixels.bands is not None and samples.shape[2] != self.channels:
            samples = choose_bands(samples, self.pixels.bands, described)
        if samples.dtype != np.uint8:
            if self.pixels.value_range is None or samples.dtype.kind not in "iuf":
                remedy = _array_remedy(samples) + _channels_first(samples)
                raise ImageError(f"{described} is not an image: expected dtype uint8; {remedy}")
            samples = to_uint8(samples, self.pixels, described, self.note)
        return self._channels_of(samples, described)

    def _channels_of(self, pixels: npt.NDArray[np.uint8], described: str) -> npt.NDArray[np.uint8]:
        found = pixels.shape[2]
        if found == self.channels:
            return np.ascontiguousarray(pixels)
        if self.channels == 3 and found == 1:
            return np.repeat(pixels, 3, axis=2)
        if self.channels == 3 and found == 4:
            return np.ascontiguousarray(pixels[:, :, :3])
        expected = "1 (gray), 3 (RGB) or 4 (RGBA)" if self.channels == 3 else str(self.channels)
        raise ImageError(
            f"{described} has {found} channels in its last axis; expected {expected}{_channels_first(pixels)}"
        )

    def from_file(self, source: str | bytes) -> Picture:
        name = f"the image of {len(source)} bytes" if isinstance(source, bytes) else shown_path(source)
        with _decoding(name):
            try:
                with opened(source, name, max_pixels=self.max_pixels) as image:
                    # Asked first: a GIF looks for its second frame, and would have to decode the first one again
                    # afterward.
                    several = image.format != "MPO" and getattr(image, "is_animated", False)
                    check_pixels(image.size, self.max_pixels, name, image.format or "", animated=several)
                    picture, several = self._from_opened(image, source, name, several)
            except BandsError as error:
                if self.pixels.bands is None and error.bands.count not in (1, self.channels):
                    raise
                picture, several = self._from_bands(source, name), False
        if several:
            self.note(f"{name} has several frames; only the first is used")
        return picture

    def _from_opened(self, image: Image.Image, source: str | bytes, name: str, several: bool) -> tuple[Picture, bool]:
        """Decode a file; also return whether it has frames that are not used."""
        if image.format == "TIFF" and self.pixels.bands is not None:
            if several and len(image.getbands()) == 1:
                return self._from_pages(image, name), False
            found = tiff_bands(BytesIO(_bytes_of(source)))
            if found is None or found.bits != 8 or found.count != len(image.getbands()):
                return self._from_bands(source, name), several
        if image.format == "PPM" and (declared := read_pnm(_bytes_of(source))) is not None:
            return self._from_pnm(*declared, name), several
        if self.pixels.value_range is not None and deep_color(image):
            with opened(source, name, max_pixels=self.max_pixels) as again:
                samples = read_deep_color(image, again)
            return self._from_samples(_turned(samples, _orientation(image)), name, self.pixels, 16), several
        deep = deep_color(image)
        picture = self.from_pil(image, name)
        if deep:
            colors = np.asarray(image)[:, :, :3]
            low, high = int(colors.min()), int(colors.max())
            note_levels(low << 8, (high << 8) + 255, low, high, name, self.note)
        return picture, several

    def _from_pnm(self, samples: Samples, most: int, name: str) -> npt.NDArray[np.uint8]:
        """Scale by the maximum that the file declares; deep samples by the value range, if there is one."""
        if most > 255 and self.pixels.value_range is not None:
            return self._from_samples(samples, name, self.pixels, 16)
        if most > 255:
            low, high = (int(value) for value in value_limits(samples))
            note_levels(low, high, low * 255 // most, high * 255 // most, name, self.note)
        return self._from_samples(samples.astype(np.uint16), name, PixelPolicy((0, most), self.pixels.bands), 16)

    def _from_bands(self, source: str | bytes, name: str) -> npt.NDArray[np.uint8]:
        file = _bytes_of(source)
        found = tiff_bands(BytesIO(file))
        if found is None:
            raise ImageError(f"{name} cannot be read as an image: its tags are damaged")
        check_pixels((found.width, found.height), self.max_pixels, name)
        used = found.count if self.pixels.bands is None else max(found.count, len(self.pixels.bands))
        if used * found.width * found.height > _BANDS_PER_PIXEL * self.max_pixels:
            raise ImageError(
                f"{name} is {found.described} and {found.width} x {found.height} pixels: too large; cut it"
            )
        try:
            samples = read_bands(file, found, self.pixels.bands)
        except ImageError as error:
            raise ImageError(f"{name} {error}") from error
        return self._from_samples(
            _turned(samples, found.orientation), name, PixelPolicy(self.pixels.value_range), found.bits
        )

    def _from_pages(self, image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
        bands, pages = self.pixels.bands or (), []
        count = getattr(image, "n_frames", 1)
        if max(bands) > count:
            raise ImageError(f"{name} has {count} pages; band {max(bands)} was asked for: choose from 1 to {count}")
        for band in bands:
            image.seek(band - 1)
            note_native_order(image)
            check_pixels(image.size, self.max_pixels, name)
            pages.append(np.array(image))
            if pages[-1].shape != pages[0].shape or pages[-1].dtype != pages[0].dtype:
                raise ImageError(f"{name} has pages of different sizes or depths; expected equal ones as bands")
        bits = 8 if pages[0].dtype == np.uint8 else 16
        return self._from_samples(np.stack(pages, axis=2), name, PixelPolicy(self.pixels.value_range), bits)

    def _from_samples(self, samples: Samples, name: str, policy: PixelPolicy, bits: int) -> npt.NDArray[np.uint8]:
        if policy.bands is not None:
            samples = choose_bands(samples, policy.bands, name)
        if (
            samples.dtype == np.uint8
            and policy.value_range is not None
            and policy.value_range != self.pixels.value_range
        ):
            samples = samples.astype(np.uint16)  # 8-bit samples with a maximum of their own
        pixels = to_uint8(samples.astype(samples.dtype.newbyteorder("="), copy=False), policy, name, self.note, bits)
        if self.channels == 1 and pixels.shape[2] >= 3 and policy.bands is None and self.pixels.bands is None:
            return self._from_luminance(Image.fromarray(np.ascontiguousarray(pixels[:, :, :3])), name)
        return self._channels_of(pixels, name)

    def _from_luminance(self, image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
        return self._channels_of(picture_pixels(image.convert("L")), name)

    def from_pil(self, image: Image.Image, name: str) -> Picture:
        width, height = image.size
        check_pixels(image.size, self.max_pixels, name)
        if width * height == 0:
            raise ImageError(f"{name} has {width} x {height} pixels; expected at least one")
        steps = _STEPS.get(image.mode)
        if steps is None and not image.mode.startswith("I;16") and image.mode not in ("I", "F"):
            raise ImageError(
                f"{name} has mode {image.mode!r}, which has no agreed range of 0..255; "
                f"scale it yourself and pass a uint8 array"
            )
        if image.mode in ("I", "F") and self.pixels.value_range is None:
            raise ImageError(
                f"{name} has mode {image.mode!r}, 32 bits, which has no agreed range of 0..255; give the range of its "
                "values, as in value_range=(0, 4095) or --value-range 0 4095, or pass a uint8 array"
            )
        bits = _bits_of(image)
        image.load()
        upright = _upright(image)
        if steps is None:
            return self._from_samples(np.asarray(upright)[:, :, None], name, self.pixels, bits)
        if self.pixels.bands is not None:
            plain = {"P": "RGB", "PA": "RGB", "1": "L"}.get(upright.mode)
            samples = np.asarray(upright if plain is None else upright.convert("RGBA").convert(plain))
            return self._from_samples(samples.reshape(*samples.shape[:2], -1), name, self.pixels, 8)
        for mode in steps:
            upright = upright.convert(mode)
        if self.channels not in (1, 3):
            raise ImageError(
                f"{name} has {len(upright.getbands())} channels; a model with {self.channels} input channels takes "
                f"uint8 arrays [H, W, {self.channels}] and TIFF files with as many bands"
            )
        if self.channels == 1 and upright.mode != "L":
            upright = upright.convert("L")
        if len(upright.getbands()) == self.channels:
            return upright
        return self._channels_of(picture_pixels(upright), name)


def _channels_first(samples: Samples) -> str:
    turned = samples.shape[2] not in (1, 3, 4) and samples.shape[0] in (1, 3, 4)
    return "; for channels first use np.moveaxis(image, 0, -1)" if turned else ""


def _array_remedy(samples: Samples) -> str:
    """Return the sentence that says how an array becomes uint8."""
    kind = samples.dtype.kind
    if kind == "b":
        return "convert it with np.uint8(image) * 255"
    if kind not in "iuf":
        return "convert it with image.astype(np.uint8), after scaling its values to 0..255"
    low, high = value_limits(samples)
    found = f"its values run from {low:.6g} to {high:.6g}"
    if samples.dtype == np.uint16:
        return (
            f"{found}: give the range of the sensor, as in value_range=(0, 4095) for 12 bits, or convert it with "
            "np.uint8(image >> 8) if it uses all 16 bits"
        )
    if 0 <= low <= high <= 255 and (kind != "f" or high > 1):
        return f"{found}, so convert it with image.astype(np.uint8)"
    if kind == "f":
        scaled = "255 * image" if 0 <= low <= high <= 1 else "image"
        return f"{found}: convert it with np.uint8(np.clip({scaled}, 0, 255)), after replacing NaN if there is any"
    return f"{found}: give the range that becomes 0..255, as in value_range=(0, 4095) for 12 bits, or scale it to uint8"


def _bytes_of(source: str | bytes) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _bits_of(image: Image.Image) -> int:
    """Return how many bits a 16-bit image that is not decoded yet uses in its file."""
    modes = [tile[3][0] if isinstance(tile[3], tuple) else tile[3] for tile in getattr(image, "tile", ())]
    return 12 if "I;12" in modes else 16


def _orientation(image: Image.Image) -> int:
    found = image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) else 1


def _upright(image: Image.Image) -> Image.Image:
    # Not `ImageOps.exif_transpose`, which copies an image without orientation, and parses all of its EXIF.
    method = _UPRIGHT.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _turned(samples: Samples, orientation: int) -> Samples:
    """Apply an EXIF orientation to an array [H, W, C]."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


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
