"""Inputs of a graph against the metadata, and arguments of a run, checked before an engine gets them.

TensorFlow aborts the process on a wrong rank.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.arguments import count, real, shown
from runtime.artifact import IMAGES, NMS_THRESHOLD, SCORE_THRESHOLD, WINDOWS, Metadata
from runtime.errors import ArtifactError, InputError

_MOST_PIXELS = 2**30  # of a batch of made-up images: at most 3 GiB in uint8


def check_inputs(images: Any, windows: Any, metadata: Metadata) -> npt.NDArray[np.float32]:
    """Refuse a batch that the graph does not accept, with InputError; return `windows` as float32.

    Args:
        images: Expected to be [B, H, W, C] of the type and with the multiples of the artifact's resize policy; if
            float32, finite.
        windows: Expected to be finite numbers [B, 4].
        metadata: Metadata of the artifact.
    """
    for name, array in ((IMAGES, images), (WINDOWS, windows)):
        if not isinstance(array, np.ndarray):
            raise InputError(f"{name} is a {type(array).__name__}: expected a NumPy array")
    channels, dtype, multiple = metadata.image_channels, metadata.resize.image_dtype, metadata.resize.size_multiple
    sound = images.dtype == dtype and images.ndim == 4 and images.shape[-1] == channels
    if not sound or any(side == 0 or side % multiple for side in images.shape[1:3]) or not len(images):
        raise InputError(
            f"images is {images.dtype} {list(images.shape)}: expected {dtype} [B, H, W, {channels}], "
            f"B at least 1, H and W multiples of {multiple}"
        )
    if images.dtype.kind == "f" and not np.isfinite(images.sum()):
        raise InputError("images has a value that is not finite: expected 0 to 255")
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


def check_size(size: Any, max_pixels: int) -> None:
    """Raise InputError unless it is the height and width of an image: positive integers, not too many pixels."""
    try:
        height, width = (count("a side", side) for side in size)
    except (TypeError, ValueError) as error:  # InputError is a ValueError
        raise InputError(f"sizes has {shown(size)}: expected (height, width) in pixels") from error
    if height * width > max_pixels:
        raise InputError(f"sizes has {shown(size)}: expected at most {max_pixels} pixels, the max_pixels of images")


def check_batch(batch_size: int, height: int, width: int) -> None:
    """Raise InputError if a batch of images of a size is too large to try."""
    if batch_size * height * width > _MOST_PIXELS:
        raise InputError(
            f"batch_size is {shown(batch_size)}: expected at most {_MOST_PIXELS // (height * width)} images of "
            f"{height} x {width} pixels"
        )


def allowed_score(value: float | None, metadata: Metadata) -> float:
    """Return a score threshold that the artifact can apply; None is that of its metadata."""
    if value is None:
        return metadata.score_threshold
    number = real(SCORE_THRESHOLD, value)
    if np.float32(number) < np.float32(metadata.lowest_score):  # as the graph compares
        raise InputError(
            f"{SCORE_THRESHOLD} is {number}: this artifact has a constant of {metadata.score_threshold} and does not "
            "return lower scores: use at least that, or export it with --thresholds inputs"
        )
    return number


def allowed_overlap(value: float | None, metadata: Metadata) -> float:
    """Return a threshold of suppression that the artifact can apply; None is that of its metadata."""
    if value is None:
        return metadata.nms_threshold
    number = real(NMS_THRESHOLD, value)
    if metadata.thresholds == "constants" and np.float32(number) != np.float32(metadata.nms_threshold):
        raise InputError(
            f"{NMS_THRESHOLD} is {number}: this artifact has a constant of {metadata.nms_threshold}, which cannot be "
            "changed: leave it out, or export the artifact with --thresholds inputs"
        )
    return number


def check_graph_inputs(found: Mapping[str, tuple[str, int | None]], metadata: Metadata, path: Path) -> None:
    """Refuse a graph whose inputs are not those of its metadata, which every run would feed.

    Args:
        found: NumPy dtype and rank of each input that can be fed; a rank of None is unknown.
        metadata: Metadata of the artifact.
        path: The artifact, for the message.

    Raises:
        ArtifactError: An input is missing, has another type or rank, or is unknown.
    """
    expected = {name: (described["dtype"], len(described["shape"])) for name, described in metadata.inputs().items()}
    wrong = [
        f"no input {name}" if name not in found else f"an input {name} of {found[name][0]} and rank {found[name][1]}"
        for name, (dtype, rank) in expected.items()
        if name not in found or found[name][0] != dtype or found[name][1] not in (rank, None)
    ]
    wrong += [f"an unknown input {name}" for name in found if name not in expected]
    if wrong:
        raise ArtifactError(
            f"the graph of {path} has {', '.join(wrong)}, unlike its metadata, because another tool rewrote it: use "
            "the file as it was exported, or export it again (with --thresholds constants if they are to be constants)"
        )
