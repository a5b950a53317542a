"""COCO run-length encoding in NumPy, equal byte for byte to that of pycocotools.

A mask is read column by column; its counts are the lengths of the runs of 0 and 1 in turn, beginning with
0 (a run that may be empty). In the compressed string each count from the fourth on is replaced by its
difference to the count two before it, then written in groups of 5 bits, lowest first: bit 6 says that more
groups follow, 48 is added to make a printable character, and the last group carries the sign.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError

# 7 groups of 5 bits hold the counts of any bitmap that fits into memory, and cannot overflow an int64 sum.
_MAX_GROUPS = 7


class RLE(TypedDict):
    """A mask as COCO writes it: `size` [height, width], `counts` the compressed string."""

    size: list[int]
    counts: str


def encode_crop(crop: npt.NDArray[np.bool_], origin: tuple[int, int], image_size: tuple[int, int]) -> RLE:
    """Encode the mask of a picture that is False outside a crop, without making the full bitmap.

    Args:
        crop: bool [h, w].
        origin: (y, x) of the first pixel of the crop, in picture pixels.
        image_size: (height, width) of the picture.

    Returns:
        The run-length encoding of the full mask, JSON serialisable.

    Raises:
        InputError: the crop is not a bool matrix inside the picture.
    """
    (y, x), (height, width) = origin, image_size
    if crop.ndim != 2 or crop.dtype != np.bool_:
        raise InputError(f"the mask crop is {crop.dtype} {list(crop.shape)}; expected bool [h, w]")
    if min(y, x) < 0 or y + crop.shape[0] > height or x + crop.shape[1] > width:
        raise InputError(f"a mask crop of {list(crop.shape)} at {(y, x)} does not fit into {(height, width)}")
    return {
        "size": [int(height), int(width)],
        "counts": write_counts(_crop_counts(crop, y, x, height, width)),
    }


def _crop_counts(crop: npt.NDArray[np.bool_], y: int, x: int, height: int, width: int) -> npt.NDArray[np.int64]:
    rows, columns = crop.shape
    # A False after each column ends its runs there, so that a flat scan sees each column apart.
    flat = np.zeros(columns * (rows + 1) + 1, np.bool_)
    flat[1:].reshape(columns, rows + 1)[:, :rows] = crop.T
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    column, row = np.divmod(edges, rows + 1)
    places = (x + column) * height + (y + row)  # begin, end, begin, end, ... in the full mask
    # A run that ends at the foot of a column and one that begins at the top of the next are one run.
    apart = np.flatnonzero(places[1:-1:2] != places[2::2])
    between = np.stack([places[1:-1:2], places[2::2]], axis=1)[apart].ravel()
    counts = np.diff(np.concatenate([[0], places[:1], between, places[-1:], [height * width]]))
    # The last count is left out when the mask reaches the last pixel; an empty mask keeps its only one.
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def decode(rle: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """Decode a mask.

    Args:
        rle: `size` [height, width] and `counts`: a compressed string or bytes, or the list of counts.

    Returns:
        bool [height, width].

    Raises:
        InputError: a key is missing, the counts are malformed, or do not add up to height * width.
    """
    (height, width), counts = _parse(rle)
    values = np.zeros(len(counts), np.bool_)
    values[1::2] = True
    return np.repeat(values, counts).reshape(width, height).T


def decode_crop(rle: Mapping[str, Any]) -> tuple[npt.NDArray[np.bool_], tuple[int, int]]:
    """Decode the part of a mask that its pixels span: the inverse of `encode_crop`, without the full bitmap.

    Args:
        rle: as for `decode`.

    Returns:
        bool [h, w], tight around the mask, and the (y, x) of its first pixel; 0 x 0 at (0, 0) of an empty mask.

    Raises:
        InputError: as `decode`.
    """
    (height, _), counts = _parse(rle)
    edges = np.cumsum(counts)
    starts, ends = edges[:-1:2][: len(counts[1::2])], edges[1::2]
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    if not len(starts):
        return np.zeros((0, 0), np.bool_), (0, 0)
    left, right = int(starts[0]) // height, (int(ends[-1]) - 1) // height + 1
    # Runs never touch once empty ones are gone or merge by themselves: a begin and an end may share a place.
    steps = np.zeros((right - left) * height + 1, np.int8)
    np.add.at(steps, starts - left * height, 1)
    np.add.at(steps, ends - left * height, -1)
    columns = np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_).reshape(right - left, height)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return np.ascontiguousarray(columns[:, top:bottom].T), (top, left)


def area(rle: Mapping[str, Any]) -> int:
    """Count the pixels of a mask, without decoding it.

    Args:
        rle: as for `decode`.

    Raises:
        InputError: as `decode`.
    """
    return int(_parse(rle)[1][1::2].sum())


def write_counts(counts: npt.ArrayLike) -> str:
    """Compress the counts int64 [R] of a mask to COCO's string."""
    values = np.array(counts, np.int64)
    values[3:] -= np.asarray(counts, np.int64)[1:-2]
    shifted = values[:, None] >> (5 * np.arange(_MAX_GROUPS + 1))  # [R, groups], arithmetic: keeps the sign
    groups = (shifted & 31).astype(np.uint8)
    # A group is the last one when all the bits above it repeat its own highest bit, the sign.
    sign = np.where(groups[:, :-1] & 16, -1, 0)
    last = np.argmax(shifted[:, 1:] == sign, axis=1)
    place = np.arange(_MAX_GROUPS)
    text = groups[:, :-1] + np.where(place < last[:, None], 32, 0).astype(np.uint8) + np.uint8(48)
    return str(text[place <= last[:, None]].tobytes(), "ascii")


def read_counts(text: str | bytes) -> npt.NDArray[np.int64]:
    """Read what `write_counts` wrote.

    Returns:
        int64 [R]; not yet checked for sign and sum.

    Raises:
        InputError: a character that the code does not have, or a count cut off or too long.
    """
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise InputError(f"RLE counts have the character {text[error.start]!r}; expected ASCII 48..111") from error
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return codes
    if codes.min() < 0 or codes.max() > 63:
        raise InputError("RLE counts have a character outside ASCII 48..111; expected COCO's compressed string")
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if ends.size == 0 or ends[-1] != codes.size - 1 or (ends - starts).max() >= _MAX_GROUPS:
        raise InputError("RLE counts end in the middle of a number, or hold one of over 35 bits")
    lengths = ends - starts + 1
    places = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * places), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)
    # From the fourth on, each value is the difference to the one two before: two interleaved sums.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _parse(rle: Mapping[str, Any]) -> tuple[tuple[int, int], npt.NDArray[np.int64]]:
    if not isinstance(rle, Mapping) or not {"size", "counts"} <= set(rle):
        raise InputError("the RLE is not a mapping with the keys 'size' and 'counts'")
    size, counts = rle["size"], rle["counts"]
    if not _are_whole(size) or len(size) != 2 or min(size) < 0:
        raise InputError(f"RLE size is {size!r}; expected [height, width]")
    if isinstance(counts, str | bytes):
        values = read_counts(counts)
    elif _are_whole(counts) and all(abs(count) < 2**40 for count in counts):
        values = np.array(counts, np.int64).reshape(-1)
    else:
        raise InputError("RLE counts are neither a string nor a list of integers")
    height, width = int(size[0]), int(size[1])
    if (values < 0).any() or int(values.sum()) != height * width:
        raise InputError(
            f"RLE counts add up to {int(values.sum())}, or one is negative; "
            f"expected {height * width} for {height} x {width}"
        )
    return (height, width), values


def _are_whole(values: object) -> bool:
    return isinstance(values, Sequence | np.ndarray) and all(
        isinstance(value, int | np.integer) and not isinstance(value, bool) for value in values
    )
