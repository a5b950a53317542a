"""The image that detections are from, found again without keeping its pixels: by path, or by a weak reference.

An array may be written to again, and a file replaced. So a checksum of what the network saw is kept, and compared.
"""

import os
import weakref
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.errors import ImageError, InputError
from runtime.pictures.pixels import PixelPolicy
from runtime.pictures.read import ImageSource, Picture, open_picture, picture_pixels

CURE = "pass the image, as in draw(image)"
_MOST_BYTES = 2**19  # that the checksum reads, a fraction of a millisecond; of a larger input it takes every n-th row

_Prepared = npt.NDArray[np.uint8 | np.float32]
_NEVER_KEPT = ("bytes", "an open file")


class Reading(NamedTuple):
    """How a predictor read an image; `prepare` makes what the network saw, and raises InputError for another size."""

    channels: int
    max_pixels: int
    pixels: PixelPolicy
    prepare: Callable[[Picture], _Prepared]


class RememberedImage:
    """What is needed to find an image again and to know that it is the same.

    A copy is the object itself. When it is pickled, a path stays, and an array or PIL image is left behind.

    Args:
        image: What was given to the predictor.
        prepared: What the network saw.
        reading: How one became the other.
    """

    __slots__ = ("_checksum", "_file", "_find", "_kind", "_reading", "path")

    def __init__(self, image: ImageSource, prepared: _Prepared, reading: Reading) -> None:
        self.path: str | None = None  # absolute
        self._file: str | None = None  # what a PIL image was opened from
        self._find: Callable[[], Any] = lambda: None
        self._kind, self._checksum, self._reading = _kind(image), _checksum(prepared), reading
        if isinstance(image, str | os.PathLike):
            self.path = os.path.abspath(os.fsdecode(image))  # noqa: PTH100  (`Path.absolute` keeps "..")
        elif isinstance(image, np.ndarray):
            self._find = _weakly(image)
        elif isinstance(image, Image.Image):
            self._find = weakref.ref(image)
            file = getattr(image, "filename", None)  # it may have been changed since it was opened; the checksum tells
            self._file = os.path.abspath(file) if file and isinstance(file, str) else None  # noqa: PTH100

    def read(self) -> npt.NDArray[np.uint8]:
        """Return the pixels, uint8 [H, W, 3] RGB.

        Raises:
            ImageError: The image is gone, has changed, or has channels that cannot be shown.
        """
        reading = self._reading
        name = self.path or f"the {self._kind}"
        if reading.channels not in (1, 3):
            raise ImageError(f"{name} has {reading.channels} channels, which are not colors: {CURE}, in RGB")
        source = self.path or self._find()
        if source is None:
            source = self._file
        if source is None:
            raise ImageError(
                f"the image was given as {self._kind}, which detections do not keep: {CURE}"
                if self._kind in _NEVER_KEPT
                else f"the {self._kind} that was predicted no longer exists here: {CURE}"
            )
        try:
            picture = open_picture(
                source, reading.channels, reading.max_pixels, reading.pixels, note=lambda _text: None
            )
        except ImageError as error:
            raise ImageError(f"{error}; it could be read when it was predicted: {CURE}") from error
        if not self._is_same(picture):
            raise ImageError(f"{name} has changed since it was predicted: {CURE}, or predict it again")
        pixels = picture_pixels(picture) if isinstance(picture, Image.Image) else picture
        return pixels if reading.channels == 3 else np.repeat(pixels, 3, axis=2)

    def _is_same(self, picture: Picture) -> bool:
        try:
            return _checksum(self._reading.prepare(picture)) == self._checksum
        except InputError:  # another size
            return False

    def __copy__(self) -> "RememberedImage":
        """Return itself: it cannot be changed."""
        return self

    def __deepcopy__(self, _memo: object) -> "RememberedImage":
        """Return itself, so that a copy finds the same array."""
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Support `pickle`."""
        return _unpickled, (self.path, self._file, self._kind, self._checksum, self._reading)


def _unpickled(path: str | None, file: str | None, kind: str, checksum: int, reading: Reading) -> RememberedImage:
    made = RememberedImage.__new__(RememberedImage)
    made.path, made._file, made._kind, made._checksum, made._reading = path, file, kind, checksum, reading
    made._find = lambda: None
    return made


def _kind(image: ImageSource) -> str:
    if isinstance(image, str | os.PathLike):
        return "file"
    if isinstance(image, np.ndarray):
        return "array"
    if isinstance(image, Image.Image):
        return "PIL image"
    return _NEVER_KEPT[0] if isinstance(image, bytes | bytearray | memoryview) else _NEVER_KEPT[1]


def _weakly(array: npt.NDArray[Any]) -> Callable[[], npt.NDArray[Any] | None]:
    """Refer to an array weakly; of a view, such as `frame[:, :, ::-1]`, to the array whose memory it shows."""
    owner = array.base
    if not isinstance(owner, np.ndarray) or not owner.flags.c_contiguous:
        return weakref.ref(array)
    offset = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    find_owner, shape, dtype, strides = weakref.ref(owner), array.shape, array.dtype, array.strides

    def find() -> npt.NDArray[Any] | None:
        found = find_owner()
        return None if found is None else np.ndarray(shape, dtype, found, offset, strides)

    return find


def _checksum(prepared: _Prepared) -> int:
    step = -(-prepared.nbytes // _MOST_BYTES)
    return zlib.crc32(np.ascontiguousarray(prepared[:: max(step, 1)]).data)
