"""Parts of a bitmap: its thick areas, and its connected regions."""

import numpy as np
import numpy.typing as npt

Bitmap = npt.NDArray[np.bool_]


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
    runs: list[tuple[int, int, int]] = []  # row, begin, end
    parents: list[int] = []
    above: list[int] = []

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    for row in np.flatnonzero(mask.any(axis=1)).tolist():
        begins, ends = np.flatnonzero(edges[row] == 1).tolist(), np.flatnonzero(edges[row] == -1).tolist()
        current = []
        for begin, end in zip(begins, ends, strict=True):
            index = len(runs)
            runs.append((row, begin, end))
            parents.append(index)
            current.append(index)
            for other in above:
                if runs[other][0] == row - 1 and runs[other][1] < end and begin < runs[other][2]:
                    parents[max(root(other), root(index))] = min(root(other), root(index))
        above = current
    found: dict[int, Bitmap] = {}
    for index, (row, begin, end) in enumerate(runs):
        found.setdefault(root(index), np.zeros(mask.shape, np.bool_))[row, begin:end] = True
    return list(found.values())
