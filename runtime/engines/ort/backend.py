"""The backend of ONNX Runtime."""

import json
import logging
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import IMAGES, NMS_FIRST, NMS_LAST, NUM_DETECTIONS, OUTPUT_NAMES, Metadata
from runtime.artifact_files.onnx_scan import check_onnx
from runtime.artifact_files.read import recorded_digest
from runtime.engines.inputs import check_graph_inputs
from runtime.engines.options import EngineOptions
from runtime.engines.ort.cache import ArtifactCache
from runtime.engines.ort.cuda_work import Held, cuda_work
from runtime.engines.ort.gpu_sessions import GpuSessions
from runtime.engines.ort.library import CPU, ort
from runtime.engines.ort.providers import Providers, choose_providers, with_tensorrt
from runtime.engines.ort.session import SessionOpener, inputs_of
from runtime.engines.ort.stages import OnnxStages
from runtime.engines.outputs import check_outputs
from runtime.engines.processors import usable_cores
from runtime.engines.protocol import Arrays
from runtime.engines.suppression import continue_suppression
from runtime.engines.versions import check_engine
from runtime.errors import DeviceError
from runtime.placement import Placement

_Run = Callable[[Mapping[str, npt.NDArray[Any]]], Arrays]
_logger = logging.getLogger(__name__)


class OrtBackend:
    """A session on the requested device, and on no other, except for kind "auto"; see `open_backend`."""

    def __init__(
        self, path: Path, metadata: Metadata, kind: str, index: int, options: EngineOptions, *, verified: bool = True
    ) -> None:
        check_engine(path, "onnxruntime", ort.__version__, metadata.engine_minimum.get("onnxruntime"))
        check_onnx(path)
        self._path, self._metadata, self._options = path, metadata, options
        self._cache = ArtifactCache(options.cache, path, verified=verified) if options.cache is not None else None
        self._opener = SessionOpener(path, options.threads or usable_cores(), self._cache, recorded_digest(path))
        self._finishing = threading.Lock()
        self._finisher: Held[OnnxStages] | None = None
        self._providers = self._choose(kind, index)
        self._sides: Callable[[tuple[int, ...]], dict[str, int]] = lambda _shape: {}
        self._run = self._start(kind, index)

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph."""
        outputs = self._run(inputs)
        if NMS_LAST in self._metadata.borders and outputs[NUM_DETECTIONS].min() < 0:
            outputs = self._finish(inputs)
        check_outputs(outputs, inputs, self._metadata, self._path)
        return outputs

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run twice in a profiled session of its own and report the second run."""
        with tempfile.TemporaryDirectory() as folder, self._work():
            events = self._profile(inputs, str(Path(folder) / "profile"))
        begin = [event["ts"] for event in events if event.get("name") == "model_run"][-1]
        counts: Counter[tuple[str, str]] = Counter()
        milliseconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        for event in events:
            arguments = event.get("args", {})
            if event.get("cat") == "Node" and arguments.get("provider") and event["ts"] >= begin:
                key = arguments["provider"], arguments["op_name"]
                counts[key] += 1
                milliseconds[key] += event["dur"] / 1000
        return Placement(self.device, dict(counts), dict(milliseconds))

    def borders(self, inputs: Mapping[str, npt.NDArray[Any]], places: Mapping[str, Any]) -> Arrays:
        """Run once, in a session of its own, and return the tensors between the stages."""
        names = [name for name in places if name not in (NMS_FIRST, NMS_LAST)]
        with self._work():
            return self._stages(places).run(inputs, names)

    def _profile(self, inputs: Mapping[str, npt.NDArray[Any]], prefix: str) -> list[dict[str, Any]]:
        session = self._opener.open_profiled(self._providers, self._sides(np.shape(inputs[IMAGES])), prefix)
        for _ in range(2):  # the first run also fills caches and selects algorithms
            session.run(list(OUTPUT_NAMES), _feeds(inputs))
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return events

    def _finish(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        with self._work(), self._finishing:
            self._finisher = self._finisher or Held(self._stages(self._metadata.borders))
            return continue_suppression(self._finisher.value, inputs, self._path)

    def _stages(self, places: Mapping[str, Any]) -> OnnxStages:
        opener = replace(self._opener, cache=None)
        return OnnxStages(opener.read(), places, lambda content: opener.open(self._providers, content=content))

    def _work(self) -> AbstractContextManager[None]:
        return nullcontext() if self.device == "cpu" else cuda_work()

    def _choose(self, kind: str, index: int) -> Providers:
        providers = choose_providers(kind, index, self._options)
        if providers[0][0] == CPU:
            self._options.refuse_gpu()
        if kind != "tensorrt":
            return providers
        engines = self._cache.engines() if self._cache else None
        return with_tensorrt(providers, self._metadata.precision, self._options, engines)

    def _start(self, kind: str, index: int) -> _Run:
        """Open the artifact; with "auto", on the CPU if CUDA cannot be used."""
        if self._providers[0][0] != CPU:
            try:
                sessions = GpuSessions(self._opener, self._providers, self._metadata, self._options, index)
            except DeviceError as error:
                if kind != "auto":
                    raise
                _logger.warning("device 'auto': running on the CPU, because %s", error)
                self._providers = self._choose("cpu", 0)
            else:
                self.device = f"{'tensorrt' if kind == 'tensorrt' else 'cuda'}:{index}"
                self._sides = sessions.sides
                return sessions
        self.device = "cpu"
        self._session = self._opener.open(self._providers)
        check_graph_inputs(inputs_of(self._session), self._metadata, self._path)
        return _PlainSession(self._session)


class _PlainSession:
    """Runs a session on host arrays; has no reference to the backend, whose last user frees the session."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        outputs = self._session.run(list(OUTPUT_NAMES), _feeds(inputs))
        return dict(zip(OUTPUT_NAMES, outputs, strict=True))


def _feeds(inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {name: np.asarray(array) for name, array in inputs.items()}
