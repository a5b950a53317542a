"""ONNX Runtime. The only file that imports it."""

import json
import logging
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import OUTPUT_NAMES
from runtime.backends import Arrays, Placement, check_engine
from runtime.errors import ArtifactError, DeviceError, MissingPackageError
from runtime.onnx_file import further_outputs

try:
    import onnxruntime as ort
except ImportError as error:
    raise MissingPackageError("onnxruntime", "onnx", "running an ONNX artifact") from error

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_logger = logging.getLogger(__name__)


class OrtBackend:
    """A session on one device; anything else than the asked device is an error.

    Args:
        path: The `.onnx` file.
        kind: "auto", "cpu" or "cuda".
        index: Of the CUDA device.
        minimum_version: Lowest ONNX Runtime that has the graph's kernels.

    Raises:
        DeviceError: CUDA was asked for and cannot be used.
        ArtifactError: ONNX Runtime is too old, or refuses the file.
    """

    def __init__(self, path: Path, kind: str, index: int, minimum_version: str | None) -> None:
        check_engine(path, "onnxruntime", ort.__version__, minimum_version)
        self._path = path
        self._providers = self._choose(kind, index)
        try:
            self._session = self._open(ort.SessionOptions())
        except DeviceError as error:
            if kind == "cuda":
                raise
            _logger.warning("device 'auto': running on the CPU, because %s", error)
            self._providers = self._choose("cpu", 0)
            self._session = self._open(ort.SessionOptions())
        actual = self._session.get_providers()[0]
        if self._providers[0][0] == _CUDA and actual != _CUDA:
            # ONNX Runtime only logs when the CUDA libraries do not load, and goes on with the CPU.
            message = f"the CUDA libraries of onnxruntime {ort.__version__} cannot be loaded (CUDA {_cuda_version()})"
            if kind == "cuda":
                raise DeviceError(f"device 'cuda' was asked for, but {message}: see 'maskrcnn-export doctor'")
            _logger.warning("device 'auto': running on the CPU, because %s", message)
        self.device = f"cuda:{index}" if actual == _CUDA else "cpu"

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph."""
        return self._run(self._session, inputs)

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run twice under the profiler, in a session of its own; the second run counts."""
        with tempfile.TemporaryDirectory() as folder:
            options = ort.SessionOptions()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._open(options)
            for _ in range(2):  # the first run also fills caches and chooses algorithms
                self._run(session, inputs)
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
        """Run once with the border tensors as further outputs, in a session of its own."""
        tensors = sorted({place["tensor"] for place in places.values()} - set(OUTPUT_NAMES))
        content = self._path.read_bytes() + further_outputs(tensors)
        session = self._open(ort.SessionOptions(), content)
        names = [place["tensor"] for place in places.values()]
        found = dict(zip(names, session.run(names, {k: np.asarray(v) for k, v in inputs.items()}), strict=True))
        return {name: _usual(found[place["tensor"]], place["permutation"]) for name, place in places.items()}

    def _choose(self, kind: str, index: int) -> list[tuple[str, dict[str, Any]]]:
        cpu: tuple[str, dict[str, Any]] = (_CPU, {})
        if kind == "cpu":
            return [cpu]
        if _CUDA not in ort.get_available_providers():
            if kind == "cuda":
                raise DeviceError(
                    f"device 'cuda' was asked for, but onnxruntime {ort.__version__} is a build without CUDA: "
                    "pip uninstall onnxruntime, then pip install 'maskrcnn-export[onnx-gpu]'"
                )
            _logger.info("device 'auto': running on the CPU, this onnxruntime has no CUDA")
            return [cpu]
        if hasattr(ort, "preload_dlls"):  # finds the CUDA libraries that pip installed beside it
            ort.preload_dlls(directory="")
        # The default search times every algorithm again for each new picture size.
        return [(_CUDA, {"device_id": index, "cudnn_conv_algo_search": "HEURISTIC"}), cpu]

    def _open(self, options: Any, content: bytes | None = None) -> Any:
        options.log_severity_level = 3
        try:
            return ort.InferenceSession(content or str(self._path), sess_options=options, providers=self._providers)
        except Exception as error:  # its own exception types have no common base
            if self._providers[0][0] == _CUDA and "CUDA" in str(error):
                first_line = str(error).split("\n")[0]
                raise DeviceError(f"the CUDA device cannot be used: {first_line}") from error
            reason = str(error).split("\n")[0]
            raise ArtifactError(f"onnxruntime {ort.__version__} refuses {self._path}: {reason}") from error

    @staticmethod
    def _run(session: Any, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        outputs = session.run(list(OUTPUT_NAMES), {k: np.asarray(v) for k, v in inputs.items()})
        return dict(zip(OUTPUT_NAMES, outputs, strict=True))


def _usual(tensor: npt.NDArray[Any], permutation: list[int] | None) -> npt.NDArray[Any]:
    """A border tensor as `Predictor.borders` promises it: in the usual layout, float32 where it is half."""
    tensor = tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor
    return tensor.transpose(np.argsort(permutation)) if permutation else tensor


def _cuda_version() -> str:
    return str(getattr(ort, "cuda_version", "") or "unknown")
