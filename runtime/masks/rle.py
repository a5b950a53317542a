"""COCO run-length encoding in NumPy, equal byte for byte to that of pycocotools.

A mask is read column by column. Its counts are the lengths of alternating runs of 0 and 1, starting with 0 (that run
may be empty). `runtime.masks.rle_string` writes them as text. Functions that read an RLE take `size` [height, width]
and `counts`, which is a compressed string, its bytes, or the list of counts. They raise InputError for a missing key,
malformed counts, or counts that do not add up to height * width.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError
from runtime.masks.regions import crop_runs, runs_box
from runtime.masks.rle_string import read_counts, write_all_counts


class RLE(TypedDict):
    """A mask as COCO writes it: `size` [height, width] and `counts`, the compressed string. JSON serializable."""

    size: list[int]
    counts: str


def encode_crop(crop: npt.NDArray[np.bool_], origin: tuple[int, int], image_size: tuple[int, int]) -> RLE:
    """Encode the full mask of an image that is False outside a crop, bool [h, w] with its first pixel at origin (y, x).

    Raises:
        InputError: the crop is not a bool matrix inside the image.
    """
    (y, x), (height, width) = origin, image_size
    if crop.ndim != 2 or crop.dtype != np.bool_:
        raise InputError(f"the mask crop is {crop.dtype} {list(crop.shape)}; expected bool [h, w]")
    if min(y, x) < 0 or y + crop.shape[0] > height or x + crop.shape[1] > width:
        raise InputError(f"a mask crop of {list(crop.shape)} at {(y, x)} does not fit into {(height, width)}")
    return encode_edges([_crop_edges(crop, y, x, height)], image_size)[0]


def encode_edges(edges: Sequence[npt.NDArray[np.int64]], image_size: tuple[int, int]) -> list[RLE]:
    """Encode masks given by their edges, per mask int64 [2 R] from `runtime.masks.edges.mask_edges`, all at once."""
    height, width = int(image_size[0]), int(image_size[1])
    ends = (np.zeros(1, np.int64), np.full(1, height * width))
    # Every mask begins with a 0 of its own; the difference before it is no run.
    places = np.concatenate([ends[1], *(part for own in edges for part in (ends[0], own, ends[1]))])
    lengths = np.array([len(own) + 1 for own in edges], np.int64)
    begins = np.cumsum(lengths + 1) - lengths - 1
    counted = np.ones(len(places) - 1, np.bool_)
    counted[begins] = False
    # The last count is omitted if the mask reaches the last pixel; an empty mask keeps its only one.
    reached = np.array([len(own) > 0 and own[-1] == height * width for own in edges], np.bool_)
    counted[(begins + lengths)[reached]] = False
    counts = np.diff(places)[counted]
    return [{"size": [height, width], "counts": text} for text in write_all_counts(counts, lengths - reached)]


def _crop_edges(crop: npt.NDArray[np.bool_], y: int, x: int, height: int) -> npt.NDArray[np.int64]:
    rows, columns = crop.shape
    # A False after each column ends its runs there, so a flat scan sees each column separately.
    flat = np.zeros(columns * (rows + 1) + 1, np.bool_)
    flat[1:].reshape(columns, rows + 1)[:, :rows] = crop.T
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    column, row = np.divmod(edges, rows + 1)
    places = (x + column) * height + (y + row)  # begin, end, begin, end, ... in the full mask
    # A run that ends at the bottom of a column and one that begins at the top of the next are one run.
    apart = np.flatnonzero(places[1:-1:2] != places[2::2])
    between = np.stack([places[1:-1:2], places[2::2]], axis=1)[apart].ravel()
    return np.concatenate([places[:1], between, places[-1:]])


def decode(rle: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """Decode a mask: bool [height, width]."""
    (height, width), counts = _parse(rle)
    values = np.zeros(len(counts), np.bool_)
    values[1::2] = True
    return np.repeat(values, counts).reshape(width, height).T


def decode_crop(rle: Mapping[str, Any]) -> tuple[npt.NDArray[np.bool_], tuple[int, int]]:
    """Decode the rectangle that a mask's pixels span, bool [h, w], and the (y, x) of its first pixel.

    The full bitmap is not made. An empty mask is 0 x 0 at (0, 0).
    """
    (height, _), counts = _parse(rle)
    starts, ends = _runs(counts)
    return crop_runs(starts, ends, height)


def mask_box(rle: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return the bounding box x1, y1, x2, y2 of a mask, x2 and y2 exclusive, without decoding it; 0s if it is empty."""
    (height, _), counts = _parse(rle)
    starts, ends = _runs(counts)
    return runs_box(starts, ends, height) if len(starts) else (0, 0, 0, 0)


def _runs(counts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the begins and ends (exclusive) of the runs of 1, without empty ones."""
    edges = np.cumsum(counts)
    starts, ends = edges[:-1:2][: len(counts[1::2])], edges[1::2]
    filled = ends > starts
    return starts[filled], ends[filled]


def edges(rle: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Return where a scan, column by column, enters and leaves a mask: int64 [2 R], as `runtime.masks.edges` makes."""
    starts, ends = _runs(_parse(rle)[1])
    apart = starts[1:] != ends[:-1]
    kept = np.concatenate([starts[:1], starts[1:][apart]]), np.concatenate([ends[:-1][apart], ends[-1:]])
    return np.stack(kept, axis=1).ravel()


def area(rle: Mapping[str, Any]) -> int:
    """Count the pixels of a mask without decoding it."""
    return int(_parse(rle)[1][1::2].sum())


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
            f"expected a sum of {height * width} for {height} x {width} pixels"
        )
    return (height, width), values


def _are_whole(values: object) -> bool:
    return isinstance(values, Sequence | np.ndarray) and all(
        isinstance(value, int | np.integer) and not isinstance(value, bool) for value in values
    )
