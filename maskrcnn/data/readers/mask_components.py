"""Parts of a mask: its thick areas, and its connected regions."""

import numpy as np
import numpy.typing as npt

from maskrcnn.data.readers.findings import RowError
from runtime.masks.paste import MaskCrop

Bitmap = npt.NDArray[np.bool_]
Values = npt.NDArray[np.int32]
Indices = npt.NDArray[np.intp]

_MOST_RUNS = 4_000_000  # a photo has as many


def thick_part(mask: Bitmap, side: int) -> Bitmap:
    """Return the pixels of a bitmap [H, W] that lie in a full square of `side` pixels; thinner lines vanish."""
    if min(mask.shape) < side:
        return np.zeros_like(mask)
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    full = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side] == side * side
    grown = np.zeros(mask.shape, np.bool_)
    height, width = full.shape
    for shift in range(side):
        grown[shift : shift + height, :width] |= full
    across = np.zeros(mask.shape, np.bool_)
    for shift in range(side):
        across[:, shift : shift + width] |= grown[:, :width]
    return across


def components(mask: Bitmap) -> list[MaskCrop]:
    """Return the 4-connected regions of a bitmap [H, W] as tight crops, in the order of their first rows."""
    return list(crops_by_value(label_regions(mask.astype(np.int32))).values())


def crops_by_value(values: Values, most: int | None = None) -> dict[int, MaskCrop]:
    """Return the pixels of each value of an image [H, W] but 0, as tight crops, in the order of the values.

    Raises:
        RowError: There are more than `most` values.
    """
    begins, ends = _runs(values)
    kinds, owners = np.unique(values.ravel()[begins], return_inverse=True)
    if most is not None and len(kinds) > most:
        message = f"the mask has {len(kinds)} objects; expected at most {most}: is it a photo, or has it many specks?"
        raise RowError("mask-mode", message)
    height, width = values.shape
    tops, lefts, bottoms, rights = (np.full(len(kinds), side) for side in (height, width, 0, 0))
    rows = begins // width
    np.minimum.at(tops, owners, rows)
    np.minimum.at(lefts, owners, begins % width)
    np.maximum.at(bottoms, owners, rows + 1)
    np.maximum.at(rights, owners, (ends - 1) % width + 1)
    boxes = np.stack([tops, lefts, bottoms, rights], axis=1).tolist()
    return {
        kind: (values[top:bottom, left:right] == kind, (top, left))
        for kind, (top, left, bottom, right) in zip(kinds.tolist(), boxes, strict=True)
    }


def label_regions(values: Values) -> Values:
    """Number the 4-connected regions of equal values, int32 [H, W], from 1 in the order of their first rows; 0 stays.

    Raises:
        RowError: There are too many for a mask.
    """
    width = values.shape[1]
    begins, ends = _runs(values)
    if len(begins) > _MOST_RUNS:
        raise RowError("mask-mode", f"the mask has over {_MOST_RUNS} separate lines of one value: is it a photo?")
    kinds = values.ravel()[begins]
    # The lines of the row above that a line touches, from `first` on.
    first = np.searchsorted(ends, begins - width, side="right")
    count = np.maximum(np.searchsorted(begins, ends - width, side="left") - first, 0)
    lines = np.repeat(np.arange(len(begins)), count)
    above = np.arange(len(lines)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    same = kinds[lines] == kinds[above]
    roots = _joined(len(begins), lines[same], above[same])
    labels = np.unique(roots, return_inverse=True)[1] + 1
    # Differences at both ends of each line, summed up: no loop over pixels.
    found = np.zeros(values.size + 1, np.int32)
    found[begins] = labels
    found[ends] -= labels.astype(np.int32)  # where a line begins at the end of another, both count
    return found[:-1].cumsum(dtype=np.int32).reshape(values.shape)


def _runs(values: Values) -> tuple[Indices, Indices]:
    """Return where the lines of one value but 0 begin and end (exclusive), in the flattened image; rows end them."""
    edges = np.ones(values.shape, np.bool_)
    edges[:, 1:] = values[:, 1:] != values[:, :-1]
    begins = np.flatnonzero(edges)
    ends = np.append(begins[1:], values.size)
    filled = values.ravel()[begins] != 0
    return begins[filled], ends[filled]


def _joined(count: int, one: Indices, other: Indices) -> Indices:
    """Return the smallest number that each of 0 to count - 1 is connected with by the pairs `one`, `other`."""
    roots = np.arange(count)
    while len(one):
        low = np.minimum(roots[one], roots[other])
        np.minimum.at(roots, roots[one], low)
        np.minimum.at(roots, roots[other], low)
        while (roots != (shorter := roots[roots])).any():
            roots = shorter
        apart = roots[one] != roots[other]
        one, other = one[apart], other[apart]
    return roots
