"""The backend of OpenVINO."""

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from runtime.artifact import NMS_FIRST, NMS_LAST, NUM_DETECTIONS, OUTPUT_NAMES, Metadata
from runtime.artifact_files.onnx_scan import check_onnx
from runtime.artifact_files.read import recorded_digest
from runtime.engines.cut_stages import CutStages
from runtime.engines.inputs import check_graph_inputs
from runtime.engines.openvino.devices import CPU, properties_of, require_device
from runtime.engines.openvino.graph import GraphOpener
from runtime.engines.openvino.library import MINIMUM, VERSION, openvino
from runtime.engines.options import EngineOptions
from runtime.engines.outputs import check_outputs
from runtime.engines.protocol import Arrays
from runtime.engines.suppression import continue_suppression
from runtime.engines.versions import check_engine
from runtime.placement import Placement


class OpenvinoBackend:
    """An `.onnx` artifact compiled for a device of OpenVINO, such as "CPU" or "GPU", and no other."""

    def __init__(
        self, path: Path, metadata: Metadata, device: str, options: EngineOptions, *, verified: bool = True
    ) -> None:
        check_engine(path, "openvino", VERSION, MINIMUM)
        check_onnx(path)
        self.device = "openvino" if device == CPU else f"openvino:{device}"
        self._path, self._metadata = path, metadata
        require_device(device)
        properties = properties_of(device, options)
        digest = recorded_digest(path)
        self._opener = GraphOpener(path, device, properties, options.cache, verified, options.precision, digest)
        self._finishing = threading.Lock()
        self._finisher: CutStages | None = None
        self._graph = self._opener.open()
        check_graph_inputs(self._graph.types(), metadata, path)

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph."""
        found = self._graph(inputs)
        outputs = {name: found[self._graph.places[name]] for name in OUTPUT_NAMES}
        if NMS_LAST in self._metadata.borders and outputs[NUM_DETECTIONS].min() < 0:
            outputs = self._finish(inputs)
        check_outputs(outputs, inputs, self._metadata, self._path)
        return outputs

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run twice in a graph compiled to measure and report the second run."""
        counts: Counter[tuple[str, str]] = Counter()
        milliseconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        for node in self._opener.open_profiled().profile(inputs):
            if node.status == openvino.ProfilingInfo.Status.EXECUTED:
                key = f"OpenVINO {self._opener.device}", node.node_type
                counts[key] += 1
                milliseconds[key] += node.real_time.total_seconds() * 1000
        return Placement(self.device, dict(counts), dict(milliseconds))

    def borders(self, inputs: Mapping[str, npt.NDArray[Any]], places: Mapping[str, Any]) -> Arrays:
        """Run once, in a graph of its own, and return the tensors between the stages."""
        names = [name for name in places if name not in (NMS_FIRST, NMS_LAST)]
        return self._stages(places).run(inputs, names)

    def _finish(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        with self._finishing:
            self._finisher = self._finisher or self._stages(self._metadata.borders)
            return continue_suppression(self._finisher, inputs, self._path)

    def _stages(self, places: Mapping[str, Any]) -> CutStages:
        return CutStages(self._opener.read(), places, self._opener.open_part)
