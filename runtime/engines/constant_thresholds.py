"""A graph that was exported with constant thresholds, for callers that give some."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import NMS_THRESHOLD, NUM_DETECTIONS, SCORE_THRESHOLD, SCORES, Metadata
from runtime.engines.inputs import allowed_overlap, allowed_score
from runtime.engines.protocol import Arrays, Backend
from runtime.errors import InputError
from runtime.placement import Placement


class ConstantThresholds:
    """Runs a graph that has no inputs for thresholds; a higher score threshold is applied to its results.

    That gives exactly what such a threshold in the graph would give: boxes are suppressed only by boxes of a higher
    score, and the best are kept. Other thresholds raise InputError.
    """

    def __init__(self, backend: Backend, metadata: Metadata) -> None:
        self._backend, self._metadata = backend, metadata
        self.device = backend.device

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph."""
        lowest, feeds = self._split(inputs)
        outputs = self._backend(feeds)
        if lowest is None:
            return outputs
        rows = np.arange(outputs[SCORES].shape[1])
        scores = outputs[SCORES]
        enough = scores > lowest if self._metadata.candidates == "every_class" else scores >= lowest
        kept = (rows < outputs[NUM_DETECTIONS][:, None]) & enough
        count = kept.sum(1, dtype=np.int32)
        return {
            name: count if name == NUM_DETECTIONS else np.where(_spread(kept, array), array, np.zeros((), array.dtype))
            for name, array in outputs.items()
        }

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run and report where each node was executed."""
        return self._backend.explain(self._split(inputs)[1])

    def borders(self, inputs: Mapping[str, npt.NDArray[Any]], places: Mapping[str, Any]) -> Arrays:
        """Return the tensors between the stages of the graph, which are those of its own thresholds."""
        lowest, feeds = self._split(inputs)
        if lowest is not None:
            raise InputError(
                f"{SCORE_THRESHOLD} is {lowest}: the tensors between the stages of this artifact are those of its "
                f"constant threshold, {self._metadata.score_threshold}; use that, or export it with --thresholds inputs"
            )
        return self._backend.borders(feeds, places)

    def _split(self, inputs: Mapping[str, npt.NDArray[Any]]) -> tuple[np.float32 | None, Arrays]:
        """Check the thresholds; return the score threshold if it is above the graph's, and the other inputs."""
        feeds = dict(inputs)
        lowest = np.float32(allowed_score(float(feeds.pop(SCORE_THRESHOLD)), self._metadata))
        allowed_overlap(float(feeds.pop(NMS_THRESHOLD)), self._metadata)
        return (lowest if lowest > np.float32(self._metadata.score_threshold) else None), feeds


def _spread(kept: npt.NDArray[np.bool_], array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return `kept`, [B, D], with as many axes as an array."""
    return kept.reshape(kept.shape + (1,) * (array.ndim - kept.ndim))
