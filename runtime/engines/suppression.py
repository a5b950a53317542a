"""Continues NMS beyond the steps of a graph, for results that are always those of NMS; see `maskrcnn.nms`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import MASKS, NMS_FIRST, NMS_LAST, NUM_DETECTIONS, OUTPUT_NAMES
from runtime.engines.protocol import Arrays, StageCutter
from runtime.errors import EngineError


def continue_suppression(stages: StageCutter, inputs: Mapping[str, npt.NDArray[Any]], path: Path) -> Arrays:
    """Run a graph again, beginning where its steps ended, until they suffice, and return its outputs.

    Raises:
        EngineError: The graph left candidates out that could make a difference; see `maskrcnn.detection`.
    """
    last = stages.run(inputs, [NMS_LAST])[NMS_LAST]
    found: Arrays = {}
    for _ in range(last.shape[-1]):  # each step decides about one more row at least
        found = stages.run({**inputs, NMS_FIRST: last}, [*OUTPUT_NAMES, NMS_LAST])
        before, last = last, found.pop(NMS_LAST)
        if found[NUM_DETECTIONS].min() >= 0:
            break
        if np.array_equal(before, last):  # nothing is left to decide
            raise EngineError(
                f"{path} found more candidates for detections than it can compare: expected fewer; raise the score "
                "threshold, or export with --target cpu"
            )
    # The tensor between stages is computed for all rows.
    used = np.arange(found[MASKS].shape[1]) < found[NUM_DETECTIONS][:, None]
    return found | {MASKS: np.where(used[..., None, None], found[MASKS], np.float32(0))}
