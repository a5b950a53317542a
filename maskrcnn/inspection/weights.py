"""Step 5: the weights of a checkpoint as a table and histograms, next to those of another checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.inspection.charts import histogram_grid

# Larger weights are about to leave the range of half precision, and usually that of sound training.
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
    """Statistics of one array of a checkpoint.

    Attributes:
        name: "<layer>/<variable>".
        dead: Whether all values of a kernel are the same. (Other variables are constant at first.)
        overflow: Whether a value is beyond 1000 or not finite; moving variances, which are squares, may be beyond.
        change: Norm of the difference from the other checkpoint, relative to its norm (absolute if that is 0); None
            if it has no array of the same name and shape.
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


def weight_table(arrays: Arrays, others: Arrays | None = None) -> list[WeightRow]:
    """Return a row for each array of `get_arrays`, compared with `others`, those of another checkpoint."""
    return [_row(name, array, (others or {}).get(name)) for name, array in arrays.items()]


def weight_histograms(arrays: Arrays, others: Arrays | None = None) -> dict[str, Any]:
    """Return histograms of the kernels, a matplotlib figure for each part of the network.

    Args:
        arrays: Weights by "<layer>/<variable>".
        others: Weights of another checkpoint, drawn over them in another color.
    """
    rivals = kernels(others or {})
    return {part: histogram_grid(chosen, rivals) for part, chosen in kernels_by_part(arrays).items()}


def kernels(arrays: Arrays) -> dict[str, npt.NDArray[np.float32]]:
    """Return the kernels among some arrays by the name of their layer."""
    return {name.removesuffix("/kernel"): array for name, array in arrays.items() if name.endswith("/kernel")}


def kernels_by_part(arrays: Arrays) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """Return the kernels among some arrays by the part of the network that they belong to."""
    rest, parts = kernels(arrays), {}
    for part, begins in (*_PARTS, ("other layers", ("",))):
        chosen = {name: rest.pop(name) for name in list(rest) if name.startswith(begins)}
        if chosen:
            parts[part] = chosen
    return parts


def _row(name: str, array: npt.NDArray[np.float32], other: npt.NDArray[np.float32] | None) -> WeightRow:
    values = array.astype(np.float64)
    kind = name.rsplit("/", 1)[-1]
    low, high = float(values.min()), float(values.max())
    finite = bool(np.isfinite([low, high]).all())
    with np.errstate(invalid="ignore"):  # infinite values are flagged as overflow
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
        dead=low == high and array.size > 1 and kind == "kernel",
        overflow=not finite or (max(abs(low), abs(high)) > OVERFLOW and kind != "moving_variance"),
        change=change,
    )
