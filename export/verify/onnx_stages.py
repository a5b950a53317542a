"""An ONNX graph as the verification sees it: with borders, and stage by stage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from export.convert.surgery import Border, cut_stage
from export.convert.trace import STAGES, Stage
from runtime.artifact import INPUT_NAMES

Arrays = dict[str, npt.NDArray[Any]]

_FLOAT, _INT = np.dtype(np.float32), np.dtype(np.int32)


class OnnxStages:
    """Runs stages cut out of an artifact's own graph, on the CPU.

    Args:
        model: The artifact's graph.
        borders: Where its border tensors live.
    """

    def __init__(self, model: onnx.ModelProto, borders: Mapping[str, Border]) -> None:
        self._model = model
        self._borders = borders
        self._sessions: dict[tuple[str, ...], Any] = {}

    def run_stage(self, stage: Stage, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute one stage from border tensors and graph inputs."""
        return self._run(stage.inputs, stage.outputs, feeds)

    def run_borders(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the whole graph and return its border tensors."""
        return self._run((), tuple(name for stage in STAGES for name in stage.outputs), feeds)

    def _run(self, inputs: tuple[str, ...], outputs: tuple[str, ...], feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        if outputs not in self._sessions:
            self._sessions[outputs] = self._open(inputs, outputs, feeds)
        session = self._sessions[outputs]
        given = {name: feeds[name] for name in INPUT_NAMES}
        given |= {self._borders[name].tensor: self._borders[name].lay_out(feeds[name]) for name in inputs}
        known = {value.name for value in session.get_inputs()}
        places = [self._borders[name] for name in outputs]
        results = session.run([p.tensor for p in places], {k: v for k, v in given.items() if k in known})
        return {n: p.restore(a) for n, p, a in zip(outputs, places, results, strict=True)}

    def _open(self, inputs: Sequence[str], outputs: Sequence[str], feeds: Mapping[str, npt.NDArray[Any]]) -> Any:
        model = cut_stage(
            self._model,
            {self._borders[name].tensor: feeds[name].dtype for name in inputs},
            {self._borders[name].tensor: _dtype(name) for name in outputs},
        )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _dtype(border_name: str) -> np.dtype[Any]:
    return _INT if border_name in ("class_ids", "num_detections") else _FLOAT
