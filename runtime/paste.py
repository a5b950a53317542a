"""Mask probabilities of a detection, [M, M], to pixels of the picture.

A mask is resampled into its box only, as W_y @ probabilities @ W_x.T with one small weight matrix for each
axis, and thresholded in strips: nothing of the size of the picture is made, least of all in floats.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError
from runtime.resize import sample_axis

PasteMode = Literal["matterport", "aligned"]
MaskCrop = tuple[npt.NDArray[np.bool_], tuple[int, int]]

# First pixel of a crop along one axis, and the weights [pixels, M] of its pixels.
_Axis = tuple[int, npt.NDArray[np.float64]]

_THRESHOLD = 0.5
# Beyond 2**24 float32 has no whole pixels; such a box is a fault upstream, not a place in a picture.
MAX_COORDINATE = float(2**24)
# Float values made at a time, 8 MB.
_STRIP_VALUES = 1 << 20


def check_boxes(boxes: npt.NDArray[np.floating]) -> None:
    """Refuse boxes [..., 4] that are not finite, or absurdly far away.

    Raises:
        InputError: naming the first such box.
    """
    bad = ~(np.abs(boxes) < MAX_COORDINATE).all(axis=-1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"box {row} is {boxes.reshape(-1, 4)[row].tolist()}; expected finite picture pixels")


def check_paste_mode(mode: str) -> None:
    """Refuse an unknown paste mode.

    Raises:
        InputError: naming the known ones.
    """
    if mode not in get_args(PasteMode):
        raise InputError(f"paste mode is {mode!r}; expected one of {', '.join(get_args(PasteMode))}")


def paste_mask(
    probabilities: npt.NDArray[np.floating],
    box: npt.ArrayLike,
    image_size: tuple[int, int],
    mode: PasteMode = "matterport",
) -> MaskCrop:
    """Resample one mask into its box and threshold it at 0.5 (a pixel of exactly 0.5 belongs to the mask).

    "matterport": the box is rounded half to even to whole pixels; the probabilities are resized to it by the
    rule of `resize_bilinear`, whose zeros outside eat a little of the border; what lies outside the
    picture is cut off. "aligned": the box is used as it is; a pixel counts if its centre lies in it,
    and is sampled there, with the border values continued outwards.

    Args:
        probabilities: float [M, M], rows from top to bottom of the box.
        box: (x1, y1, x2, y2) in picture pixels; may reach outside the picture.
        image_size: (height, width) of the picture.
        mode: see above.

    Returns:
        bool [h, w] and the (y, x) of its first pixel in the picture; 0 x 0 pixels at (0, 0) if the box has
        no area inside the picture.

    Raises:
        InputError: an argument has another shape, a box is not finite, or the mode is unknown.
    """
    edges = np.asarray(box, np.float64)
    if probabilities.ndim != 2 or probabilities.size == 0 or edges.shape != (4,):
        raise InputError(
            f"probabilities have shape {list(probabilities.shape)}, the box {list(edges.shape)}; "
            f"expected [M, M] and [4]"
        )
    check_boxes(edges)
    check_paste_mode(mode)
    x1, y1, x2, y2 = edges.tolist()
    axis = _matterport_axis if mode == "matterport" else _aligned_axis
    y, rows = axis(y1, y2, probabilities.shape[0], image_size[0])
    x, columns = axis(x1, x2, probabilities.shape[1], image_size[1])
    if not (len(rows) and len(columns)):
        return np.zeros((0, 0), np.bool_), (0, 0)
    # `resize_bilinear` clips to the range of its input; only the lower end can matter to the threshold.
    filled = bool(probabilities.min() >= _THRESHOLD)
    across = probabilities.astype(np.float64) @ columns.T  # [M, w]
    crop = np.empty((len(rows), len(columns)), np.bool_)
    strip = max(1, _STRIP_VALUES // len(columns))
    for begin in range(0, len(rows), strip):
        part = slice(begin, begin + strip)
        crop[part] = filled or rows[part] @ across >= _THRESHOLD
    return crop, (y, x)


def paste_masks(
    probabilities: npt.NDArray[np.floating],
    boxes: npt.ArrayLike,
    image_size: tuple[int, int],
    mode: PasteMode = "matterport",
) -> npt.NDArray[np.bool_]:
    """Paste masks into full-size bitmaps; see `paste_mask`.

    Args:
        probabilities: float [N, M, M].
        boxes: float [N, 4], x1, y1, x2, y2 in picture pixels.
        image_size: (height, width) of the picture.
        mode: see `paste_mask`.

    Returns:
        bool [N, height, width].

    Raises:
        InputError: lengths differ, or as `paste_mask`.
    """
    edges = np.asarray(boxes, np.float64)
    if probabilities.ndim != 3 or edges.shape != (len(probabilities), 4):
        raise InputError(
            f"probabilities have shape {list(probabilities.shape)}, boxes {list(edges.shape)}; "
            f"expected [N, M, M] and [N, 4]"
        )
    crops = [paste_mask(*pair, image_size, mode) for pair in zip(probabilities, edges, strict=True)]
    return place_crops(crops, image_size)


def place_crops(crops: Sequence[MaskCrop], image_size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Put each crop (bool [h, w], (y, x) of its first pixel) into a bitmap: bool [N, height, width]."""
    masks = np.zeros((len(crops), *image_size), np.bool_)
    for mask, (crop, (y, x)) in zip(masks, crops, strict=True):
        mask[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return masks


def _matterport_axis(low: float, high: float, samples: int, limit: int) -> _Axis:
    begin, end = round(low), round(high)  # half to even
    first, last = max(begin, 0), min(end, limit)
    if first >= last:
        return 0, np.zeros((0, samples))
    axis = sample_axis(samples, end - begin, first - begin, last - begin)
    return first, axis.matrix(samples)


def _aligned_axis(low: float, high: float, samples: int, limit: int) -> _Axis:
    # Pixel i has its centre at i + 0.5 and counts if low <= i + 0.5 < high: boxes side by side share none.
    first, last = max(int(np.ceil(low - 0.5)), 0), min(int(np.ceil(high - 0.5)), limit)
    if first >= last:
        return 0, np.zeros((0, samples))
    position = (np.arange(first, last) + 0.5 - low) / (high - low) * samples - 0.5
    inside = np.clip(position, 0, samples - 1)
    # A tent around each sample is bilinear interpolation; clipping the position continues the border.
    weights: npt.NDArray[np.float64] = np.maximum(0.0, 1.0 - np.abs(inside[:, None] - np.arange(samples)))
    return first, weights
