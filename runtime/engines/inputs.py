"""What may be given to a predictor, checked before an engine sees it: one may end the process over a wrong rank."""

from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import IMAGES, SIZE_MULTIPLE, WINDOWS, Metadata
from runtime.errors import InputError


def check_inputs(images: Any, windows: Any, metadata: Metadata) -> npt.NDArray[np.float32]:
    """Refuse a batch that the graph does not take.

    Args:
        images: Should be uint8 [B, H, W, C], sides multiples of 64.
        windows: Should be [B, 4] y1, x1, y2, x2 of the pictures inside the padding, input pixels.
        metadata: Of the artifact.

    Returns:
        `windows` as float32.

    Raises:
        InputError: A wrong type, rank or size, or a window that is not finite.
    """
    for name, array in ((IMAGES, images), (WINDOWS, windows)):
        if not isinstance(array, np.ndarray):
            raise InputError(f"{name} is a {type(array).__name__}: expected a NumPy array")
    channels = metadata.image_channels
    sound = images.dtype == np.uint8 and images.ndim == 4 and images.shape[-1] == channels
    if not sound or any(side == 0 or side % SIZE_MULTIPLE for side in images.shape[1:3]) or not len(images):
        raise InputError(
            f"images is {images.dtype} {list(images.shape)}: expected uint8 [B, H, W, {channels}], "
            f"B at least 1, H and W multiples of {SIZE_MULTIPLE}"
        )
    sides = metadata.input_shape[1:]
    if any(side not in (None, given) for side, given in zip(sides, images.shape[1:3], strict=True)):
        raise InputError(
            f"images is {images.shape[1]} x {images.shape[2]} pixels: this artifact takes {sides[0]} x {sides[1]}"
        )
    if windows.shape != (len(images), 4) or windows.dtype.kind not in "fiu":
        raise InputError(f"windows is {windows.dtype} {list(windows.shape)}: expected float32 [{len(images)}, 4]")
    with np.errstate(over="ignore"):  # becomes infinite
        converted = np.asarray(windows, np.float32)
    if not np.isfinite(converted).all():
        raise InputError(f"windows is {windows.tolist()}: expected finite numbers")
    return converted


def check_size(size: Any) -> None:
    """Refuse what is not the height and width of a picture.

    Raises:
        InputError: Not a pair of positive integers.
    """
    if not isinstance(size, tuple | list) or [isinstance(side, int) and side > 0 for side in size] != [True] * 2:
        raise InputError(f"sizes has {size!r}: expected (height, width) in pixels")


def threshold(name: str, value: float | None, default: float) -> float:
    """A score or IoU, or its default.

    Raises:
        InputError: Not within 0 and 1.
    """
    value = default if value is None else float(value)
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name} is {value}: expected 0 to 1")
    return value


def limit(name: str, value: int | None, default: int, most: int | None = None) -> int:
    """A count, or its default.

    Args:
        name: Of the argument, for the message.
        value: As given.
        default: In place of None.
        most: Largest that is allowed, which is what the artifact has; None: any.

    Raises:
        InputError: Not an integer from 1 on.
    """
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= (most or value):
        upper = "on" if most is None else f"to {most}, which is what the artifact has"
        raise InputError(f"{name} is {value!r}: expected an integer from 1 {upper}")
    return value
