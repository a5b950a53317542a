"""The backend of ONNX Runtime."""

import json
import logging
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import NMS_FIRST, NMS_LAST, NUM_DETECTIONS, OUTPUT_NAMES, Metadata
from runtime.artifact_files.onnx_cut import ELEMENT_TYPES, CutModel
from runtime.artifact_files.onnx_scan import check_onnx
from runtime.engines.inputs import check_graph_inputs
from runtime.engines.options import EngineOptions
from runtime.engines.ort.binding import BoundSession, Device
from runtime.engines.ort.cache import ArtifactCache
from runtime.engines.ort.cuda_graph import TRUNK_ENDS, RecordedSession
from runtime.engines.ort.library import CPU, CUDA, TENSORRT, ort
from runtime.engines.ort.providers import Providers, choose_providers, with_tensorrt
from runtime.engines.ort.session import SessionOpener, inputs_of
from runtime.engines.ort.stages import OnnxStages
from runtime.engines.outputs import check_outputs
from runtime.engines.processors import usable_cores
from runtime.engines.protocol import Arrays
from runtime.engines.versions import check_engine
from runtime.errors import DeviceError
from runtime.placement import Placement

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
        self._opener = SessionOpener(path, options.threads or usable_cores())
        self._providers = self._choose(kind, index)
        self._session = self._start(kind)
        check_graph_inputs(inputs_of(self._session), metadata, path)
        self._run: Callable[[Mapping[str, npt.NDArray[Any]]], Arrays] = _PlainSession(self._session)
        if self._providers[0][0] == CPU:
            self.device = "cpu"
            return
        self.device = f"{'tensorrt' if kind == 'tensorrt' else 'cuda'}:{index}"
        self._run = BoundSession(self._session, metadata.outputs(), ("cuda", index))
        if options.cuda_graph:
            self._run = self._recorded(("cuda", index))
            self._session = None  # frees its memory on the device

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph."""
        outputs = self._run(inputs)
        if NMS_LAST in self._metadata.borders and outputs[NUM_DETECTIONS].min() < 0:
            outputs = self._finish(inputs)
        check_outputs(outputs, inputs, self._metadata, self._path)
        return outputs

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run twice in a profiled session of its own and report the second run."""
        with tempfile.TemporaryDirectory() as folder:
            options = self._opener.options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._opener.open(self._providers, options)
            for _ in range(2):  # the first run also fills caches and selects algorithms
                session.run(list(OUTPUT_NAMES), _feeds(inputs))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
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
        stages = self._stages(places)
        return stages.run(inputs, [name for name in stages.names if name not in (NMS_FIRST, NMS_LAST)])

    def _finish(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run again, continuing NMS where the graph's steps end, until they suffice; see `maskrcnn.nms`."""
        stages = self._stages(self._metadata.borders)
        last = stages.run(inputs, [NMS_LAST])[NMS_LAST]
        found: Arrays = {}
        for _ in range(last.shape[-1]):  # each step decides about one more row at least
            found = stages.run({**inputs, NMS_FIRST: last}, [*OUTPUT_NAMES, NMS_LAST])
            last = found.pop(NMS_LAST)
            if found[NUM_DETECTIONS].min() >= 0:
                break
        return found

    def _stages(self, places: Mapping[str, Any]) -> OnnxStages:
        return OnnxStages(
            self._path.read_bytes(), places, lambda content: self._opener.open(self._providers, content=content)
        )

    def _choose(self, kind: str, index: int) -> Providers:
        providers = choose_providers(kind, index, self._options)
        if providers[0][0] == CPU:
            self._options.require_gpu("cpu")
        if kind != "tensorrt":
            return providers
        engines = self._cache.engines() if self._cache else None
        return with_tensorrt(providers, self._metadata.precision, self._options, engines)

    def _start(self, kind: str) -> Any:
        """Open the session; with "auto", on the CPU if CUDA cannot be used."""
        wanted = self._providers[0][0]
        try:
            session = self._open(self._providers)
            if session.get_providers()[0] == wanted:
                if wanted == TENSORRT:
                    self._require_fixed_size(session)
                return session
            # If the libraries do not load, ONNX Runtime only logs that and uses the CPU.
            name = "TensorRT" if wanted == TENSORRT else "CUDA"
            raise DeviceError(  # noqa: TRY301
                f"device {kind!r} was requested, but the {name} libraries of onnxruntime {ort.__version__} "
                f"cannot be loaded (CUDA {_cuda_version()}): see 'maskrcnn-export doctor'"
            )
        except DeviceError as error:
            if kind != "auto":
                raise
            _logger.warning("device 'auto': running on the CPU, because %s", error)
        self._providers = self._choose("cpu", 0)
        return self._open(self._providers)

    def _recorded(self, device: Device) -> RecordedSession:
        """Open the graph in two parts, the first of which is recorded."""
        places = self._metadata.borders
        model = CutModel(self._path.read_bytes())
        points = model.cut_points({places[name]["tensor"] for name in TRUNK_ENDS if name in places})
        (name, settings), *others = self._providers
        recording = [(name, settings | ({"enable_cuda_graph": 1} if name == CUDA else {})), *others]
        trunk = self._open(recording, "trunk", model.part({}, points))
        types = {value.name: (ELEMENT_TYPES[value.type], value.shape) for value in trunk.get_outputs()}
        rest = self._open(self._providers, "rest", model.part(types))
        return RecordedSession(trunk, rest, self._metadata.outputs(), device)

    def _open(self, providers: Providers, part: str = "whole", content: bytes | None = None) -> Any:
        # A session with TensorRT cannot be saved as a graph; TensorRT caches its engines itself.
        if self._cache is None or providers[0][0] == TENSORRT:
            return self._opener.open(providers, content=content)
        return self._opener.open_cached(providers, self._cache.graph(providers, part), content)

    def _require_fixed_size(self, session: Any) -> None:
        """Refuse dynamic sizes for TensorRT, which takes minutes to build an engine for each input size."""
        for value in session.get_inputs():
            if not all(isinstance(side, int) for side in value.shape):
                raise DeviceError(
                    f"device 'tensorrt' needs a graph of fixed size, but {value.name} of {self._path} is "
                    f"{value.shape}: export it with --target tensorrt, or use device 'cuda'"
                )


class _PlainSession:
    """Runs a session on host arrays; has no reference to the backend, whose last user frees the session."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        outputs = self._session.run(list(OUTPUT_NAMES), _feeds(inputs))
        return dict(zip(OUTPUT_NAMES, outputs, strict=True))


def _feeds(inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {name: np.asarray(array) for name, array in inputs.items()}


def _cuda_version() -> str:
    return str(getattr(ort, "cuda_version", "") or "unknown")
