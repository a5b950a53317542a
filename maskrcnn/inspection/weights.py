"""Step 5: the weights of a checkpoint as a table and histograms, and beside those of another checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.inspection.charts import histogram_grid

# Weights beyond this are on their way out of the range of half precision, and usually of training, too.
OVERFLOW = 1000.0
_PARTS = (
    ("backbone", ("conv1", "bn_conv1", "res", "bn")),
    ("FPN", ("fpn_",)),
    ("RPN", ("rpn_",)),
    ("heads", ("mrcnn_",)),
)

Arrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class WeightRow:
    """One array of a checkpoint.

    Attributes:
        name: "<layer>/<variable>".
        shape: Of the array.
        low: Smallest value.
        high: Largest value.
        mean: Of all values.
        std: Of all values.
        dead: Whether all values are the same; biases, which begin so, are excepted.
        overflow: Whether a value is beyond 1000, or not finite.
        change: Norm of the difference from the other checkpoint, relative to the norm there (absolute if that is 0);
            None where there is no array of the same name and shape.
    """

    name: str
    shape: tuple[int, ...]
    low: float
    high: float
    mean: float
    std: float
    dead: bool
    overflow: bool
    change: float | None = None

    def to_dict(self) -> dict[str, object]:
        """JSON serialisable."""
        values = {name: getattr(self, name) for name in ("name", "low", "high", "mean", "std", "dead", "overflow")}
        return {**values, "shape": list(self.shape), "change": self.change}


def weight_table(arrays: Arrays, others: Arrays | None = None) -> list[WeightRow]:
    """A row for each array.

    Args:
        arrays: By "<layer>/<variable>", as `maskrcnn.weights.get_arrays` gives them.
        others: Of the checkpoint to compare with.
    """
    return [_row(name, array, (others or {}).get(name)) for name, array in arrays.items()]


def weight_histograms(arrays: Arrays, others: Arrays | None = None) -> dict[str, Any]:
    """The kernels of convolutions and dense layers as histograms, a matplotlib figure for each part of the network.

    Args:
        arrays: By "<layer>/<variable>".
        others: Drawn over them in another color.
    """
    kernels = {name.removesuffix("/kernel"): array for name, array in arrays.items() if name.endswith("/kernel")}
    rivals = {name.removesuffix("/kernel"): array for name, array in (others or {}).items()}
    figures = {}
    for part, begins in (*_PARTS, ("other layers", ("",))):
        chosen = {name: kernels.pop(name) for name in list(kernels) if name.startswith(begins)}
        if chosen:
            figures[part] = histogram_grid(chosen, rivals)
    return figures


def _row(name: str, array: npt.NDArray[np.float32], other: npt.NDArray[np.float32] | None) -> WeightRow:
    values = array.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    with np.errstate(invalid="ignore"):  # of infinite values, which are flagged
        mean, std = float(values.mean()), float(values.std())
    change = None
    if other is not None and other.shape == array.shape:
        norm = float(np.linalg.norm(other.astype(np.float64)))
        change = float(np.linalg.norm(values - other)) / (norm or 1.0)
    return WeightRow(
        name,
        array.shape,
        low,
        high,
        mean,
        std,
        dead=low == high and array.size > 1 and name.rsplit("/", 1)[-1] not in ("bias", "beta"),
        overflow=not (np.isfinite([low, high]).all() and max(abs(low), abs(high)) <= OVERFLOW),
        change=change,
    )
