"""A converted graph as the verification sees it: with borders, and stage by stage."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper

from export.graph import STAGES, Stage, border
from export.onnx_convert import Converted
from export.onnx_graph import cut_stage
from runtime.artifact import INPUT_NAMES

Arrays = dict[str, npt.NDArray[Any]]


class OnnxStages:
    """Runs stages cut out of a converted graph, on the CPU.

    Args:
        converted: The graph.
    """

    def __init__(self, converted: Converted) -> None:
        self._graph = converted.staged
        self._borders = converted.borders

    def run_stage(self, stage: Stage, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute one stage from border tensors and graph inputs."""
        inputs: Arrays = {}
        described = {}
        for name in stage.inputs:
            place, array = self._borders[name], feeds[name]
            laid_out = array if place.permutation is None else array.transpose(place.permutation)
            inputs[place.tensor] = np.ascontiguousarray(laid_out)
            dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
            described[place.tensor] = helper.make_tensor_value_info(place.tensor, dtype, [None] * array.ndim)
        model = cut_stage(self._graph, described, [border(name) for name in stage.outputs])
        return _run(model, inputs | {name: feeds[name] for name in INPUT_NAMES}, stage.outputs)

    def run_borders(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the whole graph and return its border tensors."""
        names = tuple(name for stage in STAGES for name in stage.outputs)
        return _run(self._graph, {name: feeds[name] for name in INPUT_NAMES}, names)


def _run(model: onnx.ModelProto, feeds: Arrays, outputs: tuple[str, ...]) -> Arrays:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    known = {value.name for value in session.get_inputs()}
    names = [border(name) for name in outputs]
    results = session.run(names, {name: array for name, array in feeds.items() if name in known})
    return dict(zip(outputs, results, strict=True))
