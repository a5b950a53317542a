"""What a graph returned, checked before anything is made of it: a file can declare one thing and compute another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import BOXES, CLASS_IDS, IMAGES, MASKS, NUM_DETECTIONS, SCORES, WINDOWS, Metadata
from runtime.errors import EngineError

_ROUNDING = 1e-4  # by which a probability may leave 0..1


class NotFiniteError(EngineError):
    """An output is infinite or no number: something overflowed."""


def check_outputs(
    outputs: Mapping[str, npt.NDArray[Any]], inputs: Mapping[str, npt.NDArray[Any]], metadata: Metadata, path: Path
) -> None:
    """Raise EngineError unless the outputs of a run have the types, shapes and ranges of the format.

    It is a NotFiniteError for values that are not finite, which are looked for first: other outputs depend on them.

    Args:
        outputs: By name, for the whole batch.
        inputs: What the graph was run on.
        metadata: Metadata of the artifact.
        path: The artifact, for the message.
    """
    batch = len(inputs[IMAGES])
    for name, described in metadata.outputs().items():
        shape = [batch if side is None else side for side in described["shape"]]
        found = outputs[name]
        if found.dtype != described["dtype"] or list(found.shape) != shape:
            raise _error(path, f"{name} as {found.dtype} {list(found.shape)}", f"{described['dtype']} {shape}")
    for name in (SCORES, MASKS):
        least, most = outputs[name].min(), outputs[name].max()  # NaN if there is one
        if not -_ROUNDING <= least <= most <= 1 + _ROUNDING:
            raise _error(path, f"{name} from {least:g} to {most:g}", "0 to 1", least, most)
    largest = np.abs(outputs[BOXES]).max()
    if not largest <= max(*inputs[IMAGES].shape[1:3], np.abs(inputs[WINDOWS]).max()) + 1:
        raise _error(path, "boxes outside the image, or not finite", "input pixels", largest)
    counts, ids = outputs[NUM_DETECTIONS], outputs[CLASS_IDS]
    if counts.min() < 0 or counts.max() > metadata.max_detections:
        raise _error(path, f"num_detections {counts.tolist()[:8]}", f"0 to {metadata.max_detections}")
    used = np.arange(metadata.max_detections) < counts[:, None]
    if ids.min() < 0 or ids.max() >= len(metadata.class_names) or not ids.all(where=used):
        raise _error(path, "class_ids out of range", f"1 to {len(metadata.class_names) - 1}, in unused rows 0")


def _error(path: Path, what: str, expected: str, *values: np.floating[Any]) -> EngineError:
    """Make the error about an output with these extreme values."""
    kind = EngineError if np.isfinite(values).all() else NotFiniteError
    return kind(f"{path} returned {what}: expected {expected}; export the checkpoint again")
