"""Compare two runs: stage boundary tensors, and detections row by row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.verify import tolerances
from export.verify.tolerances import Tolerance
from runtime import artifact as names

Arrays = Mapping[str, npt.NDArray[Any]]


def difference(reference: npt.NDArray[Any], other: npt.NDArray[Any], tolerance: Tolerance) -> float:
    """Return the largest difference in the tolerance's unit; infinite if shapes differ or a value is not finite."""
    if reference.shape != other.shape:
        return float("inf")
    if not reference.size:
        return 0.0
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        worst = float(np.abs(reference.astype(np.float64) - other.astype(np.float64)).max())
    if not np.isfinite(worst):
        return float("inf")
    scale = float(np.abs(reference).max()) if tolerance.relative else 1.0
    return worst / scale if scale else worst


@dataclass(frozen=True)
class RowDifferences:
    """How the detections of reference (`expected`) and artifact (`found`) in one image differ.

    `boxes` (input pixels), `scores` and `masks` (probabilities) are the largest differences over paired rows. `swapped`
    counts pairs at different ranks, `unmatched` the rows of either side without a counterpart.
    """

    expected: int
    found: int
    boxes: float
    scores: float
    masks: float
    swapped: int
    unmatched: int

    @property
    def within(self) -> bool:
        """Whether counts and values agree in any order of rows."""
        return (
            self.expected == self.found
            and self.unmatched == 0
            and self.boxes <= tolerances.BOXES.bound
            and self.scores_within
            and self.masks_within
        )

    @property
    def scores_within(self) -> bool:
        """Whether the scores of paired rows agree."""
        return self.scores <= tolerances.SCORES.bound

    @property
    def masks_within(self) -> bool:
        """Whether the masks of paired rows agree."""
        return self.masks <= tolerances.MASKS.bound

    @property
    def identical(self) -> bool:
        """Whether counts, values and the order of rows agree."""
        return self.within and not self.swapped


def compare_rows(reference: Arrays, other: Arrays) -> RowDifferences:
    """Compare the artifact outputs for one image, without the batch axis.

    Rows of equal class and box are paired one to one: rows of the same rank first, then the nearest rank.
    """
    expected, found = int(reference[names.NUM_DETECTIONS]), int(other[names.NUM_DETECTIONS])
    pairs = _pair_rows(reference, other, expected, found)
    rows, partners = (np.array(side, np.int64) for side in (list(pairs), list(pairs.values())))

    def worst(name: str) -> float:
        if not len(rows):
            return 0.0
        delta = reference[name][rows].astype(np.float64) - other[name][partners].astype(np.float64)
        largest = float(np.abs(delta).max())
        return largest if np.isfinite(largest) else float("inf")

    return RowDifferences(
        expected,
        found,
        worst(names.BOXES),
        worst(names.SCORES),
        worst(names.MASKS),
        swapped=int((rows != partners).sum()),
        unmatched=expected + found - 2 * len(rows),
    )


def _pair_rows(reference: Arrays, other: Arrays, expected: int, found: int) -> dict[int, int]:
    free = set(range(found))
    pairs: dict[int, int] = {}
    for row in range(expected):
        if row in free and _same(reference, other, row, row):
            pairs[row] = row
            free.remove(row)
    for row in range(expected):
        if row in pairs:
            continue
        candidates = [partner for partner in free if _same(reference, other, row, partner)]
        if candidates:
            pairs[row] = min(candidates, key=lambda partner: abs(partner - row))
            free.remove(pairs[row])
    return pairs


def _same(reference: Arrays, other: Arrays, row: int, partner: int) -> bool:
    """Return whether two rows are the same detection: same class, same box. Scores and masks are compared later."""
    boxes = np.abs(reference[names.BOXES][row] - other[names.BOXES][partner]).max()
    same_class = reference[names.CLASS_IDS][row] == other[names.CLASS_IDS][partner]
    return bool(same_class and boxes <= tolerances.BOXES.bound)
