"""Parts of a mask: its thick areas, and its connected regions."""

import numpy as np
import numpy.typing as npt

from maskrcnn.data.readers.findings import RowError

Bitmap = npt.NDArray[np.bool_]

_MOST_RUNS = 1_000_000  # a photo has as many; they are joined one by one


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


def components(mask: Bitmap) -> list[Bitmap]:
    """Return the 4-connected regions of a bitmap [H, W], each bool [H, W], in the order of their first rows."""
    regions = label_regions(mask.astype(np.int32))
    return [regions == number for number in range(1, int(regions.max(initial=0)) + 1)]


def label_regions(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Number the 4-connected regions of equal values, int32 [H, W], from 1 in the order of their first rows; 0 stays.

    Raises:
        RowError: There are too many for a mask.
    """
    height, width = values.shape
    edges = np.ones((height, width), np.bool_)
    edges[:, 1:] = values[:, 1:] != values[:, :-1]
    begins = np.flatnonzero(edges)
    ends = np.append(begins[1:], height * width)
    filled = values.ravel()[begins] != 0
    begins, ends = begins[filled], ends[filled]
    if len(begins) > _MOST_RUNS:
        raise RowError("mask-mode", f"the mask has over {_MOST_RUNS} separate lines of one value: is it a photo?")
    rows = (begins // width).tolist()
    lefts, rights = (begins % width).tolist(), ((ends - 1) % width + 1).tolist()
    kinds = values.ravel()[begins].tolist()
    parents = list(range(len(rows)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    above = 0  # the first run of the row above that may touch
    for index, row in enumerate(rows):
        while rows[above] < row - 1 or (rows[above] == row - 1 and rights[above] <= lefts[index]):
            above += 1
        other = above
        while rows[other] == row - 1 and lefts[other] < rights[index]:
            if kinds[other] == kinds[index]:
                ours, theirs = root(index), root(other)
                parents[max(ours, theirs)] = min(ours, theirs)
            other += 1
    numbers: dict[int, int] = {}
    labels = np.array([numbers.setdefault(root(index), len(numbers) + 1) for index in range(len(rows))], np.int32)
    found = np.zeros(height * width + 1, np.int32)
    # Differences at both ends of each run, summed up: no loop over pixels.
    np.add.at(found, begins, labels)
    np.subtract.at(found, ends, labels)
    return found[:-1].cumsum(dtype=np.int32).reshape(height, width)
