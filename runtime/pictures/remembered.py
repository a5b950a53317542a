"""The image that detections are from, found again without keeping its pixels: by path, or by a weak reference.

An array may be written to again, and a file replaced. So a checksum of what the network saw is kept, and compared.
"""

import os
import weakref
import zlib
from collections.abc import Callable
from io import IOBase
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.errors import ImageError, InputError
from runtime.pictures.pixels import PixelPolicy
from runtime.pictures.read import ImageSource, Picture, open_picture, picture_pixels

CURE = "pass the image, as in draw(image)"
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

    `file` is the absolute path of the file that it is from, if that is known; `reading` is how it was read.

    A copy is the object itself. When it is pickled, a path stays, and an array or PIL image is left behind.

    Args:
        image: What was given to the predictor.
        prepared: What the network saw.
        reading: How one became the other.
    """

    __slots__ = ("_checksum", "_find", "_kind", "file", "reading")

    def __init__(self, image: ImageSource, prepared: _Prepared, reading: Reading) -> None:
        self._find: Callable[[], Any] = lambda: None
        self._kind, self._checksum, self.reading = _kind(image), _checksum(prepared), reading
        # Of a PIL image, what it was opened from; it may have been changed since then: the checksum tells.
        self.file = file_of(image)
        if isinstance(image, np.ndarray):
            self._find = _weakly(image)
        elif isinstance(image, Image.Image):
            self._find = weakref.ref(image)

    @property
    def path(self) -> str | None:
        """The absolute path, if that was given."""
        return self.file if self._kind == "file" else None

    def read(self) -> npt.NDArray[np.uint8]:
        """Return the pixels, uint8 [H, W, 3] RGB, read-only: they may be those of the caller's array.

        Raises:
            ImageError: The image is gone, has changed, or has channels that cannot be shown.
        """
        reading = self.reading
        name = self.path or f"the {self._kind}"
        if reading.channels not in (1, 3):
            raise ImageError(f"{name} has {reading.channels} channels, which are not colors: {CURE}, in RGB")
        picture = self._find_same(name)
        if picture is None:
            raise ImageError(
                f"the image was given as {self._kind}, which detections do not keep: {CURE}"
                if self._kind in _NEVER_KEPT
                else f"the {self._kind} that was predicted no longer exists here: {CURE}"
            )
        pixels = picture_pixels(picture) if isinstance(picture, Image.Image) else picture
        pixels = pixels.view() if reading.channels == 3 else np.repeat(pixels, 3, axis=2)
        pixels.flags.writeable = False
        return pixels

    def _find_same(self, name: str) -> Picture | None:
        """Return what was predicted, or None if there is nothing to read; raise ImageError for something else."""
        found = self._find()
        sources = [found] if found is not None else []
        if self._kind in ("file", "PIL image") and self.file is not None:
            sources.append(self.file)
        error: ImageError | None = None
        for source in sources:
            try:
                picture = open_picture(source, *self.reading[:3], note=lambda _text: None)
                if _checksum(self.reading.prepare(picture)) == self._checksum:
                    return picture
            except ImageError as failure:  # a PIL image may be closed
                error = ImageError(f"{failure}; it could be read when it was predicted: {CURE}")
                error.__cause__ = failure
                continue
            except InputError:  # another size
                pass
            error = ImageError(f"{name} has changed since it was predicted: {CURE}, or predict it again")
        if error is not None:
            raise error
        return None

    def __copy__(self) -> "RememberedImage":
        """Return itself: it cannot be changed."""
        return self

    def __deepcopy__(self, _memo: object) -> "RememberedImage":
        """Return itself, so that a copy finds the same array."""
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Support `pickle`."""
        return _unpickled, (self.file, self._kind, self._checksum, self.reading)


def _unpickled(file: str | None, kind: str, checksum: int, reading: Reading) -> RememberedImage:
    made = RememberedImage.__new__(RememberedImage)
    made.file, made._kind, made._checksum, made.reading = file, kind, checksum, reading
    made._find = lambda: None
    return made


def file_of(image: object) -> str | None:
    """Return the absolute path of the file that an image is, or is from, if that is known."""
    file: Any = None
    if isinstance(image, str | os.PathLike):
        file = image
    elif isinstance(image, Image.Image):
        file = getattr(image, "filename", None) or getattr(getattr(image, "fp", None), "name", None)
    elif isinstance(image, np.memmap):
        file = image.filename
    elif isinstance(image, IOBase):  # an upload has the name that it had elsewhere
        file = getattr(image, "name", None)
    if not file or not isinstance(file, str | bytes | os.PathLike):
        return None
    return os.path.abspath(os.fsdecode(file))  # noqa: PTH100  (`Path.absolute` keeps "..")


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
    if not isinstance(owner, np.ndarray) or not (owner.flags.c_contiguous or owner.flags.f_contiguous):
        return weakref.ref(array)
    offset = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    find_owner, shape, dtype, strides = weakref.ref(owner), array.shape, array.dtype, array.strides

    def find() -> npt.NDArray[Any] | None:
        found = find_owner()
        if found is None:
            return None
        return np.ndarray(shape, dtype, found if found.flags.c_contiguous else found.T, offset, strides)

    return find


def _checksum(prepared: _Prepared) -> int:
    return zlib.crc32(np.ascontiguousarray(prepared).data)
