"""Sessions of ONNX Runtime: threads, errors on opening, and the cache of optimized graphs."""

import ctypes
import logging
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.artifact import INPUT_NAMES
from runtime.artifact_files.read import require_same
from runtime.engines.errors import first_line, is_engines_own, is_out_of_memory
from runtime.engines.forked import keep_in_children
from runtime.engines.graph_cache import GRAPH, WEIGHTS
from runtime.engines.ort.cache import ArtifactCache
from runtime.engines.ort.cuda_work import cuda_work
from runtime.engines.ort.library import CPU, CUDA, TENSORRT, ort
from runtime.engines.ort.providers import Providers
from runtime.engines.probe_model import probe_model
from runtime.errors import ArtifactError, DeviceError, OutOfMemoryError, OutputError
from runtime.one_line import utf8_path

# Bytes; smaller tensors stay in the graph, because the file of the others is mapped by pages.
_SMALLEST_IN_FILE = 1024
# Bytes of a tensor that is computed on opening, because its inputs or their shapes are constant.
_LARGEST_FOLDED = 2**26
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}  # of the inputs of an artifact
_logger = logging.getLogger(__name__)


_FREE: Mapping[str, int] = {}  # no axis is fixed
_PROVIDERS = {CUDA: ("cuda", "CUDA"), TENSORRT: ("tensorrt", "TensorRT")}


@dataclass(frozen=True)
class SessionOpener:
    """Opens sessions of one `.onnx` file, with a number of threads that compute one operator.

    Attributes:
        digest: The recorded digest that the file must have whenever it is read; None if it does not matter.
    """

    path: Path
    threads: int
    cache: ArtifactCache | None = None
    digest: str | None = None

    def read(self) -> bytes:
        """Return the file; raise ArtifactError if it is no longer the one that was opened."""
        self._source(None)
        return self.path.read_bytes()

    def open(
        self, providers: Providers, sides: Mapping[str, int] = _FREE, part: str = "", content: bytes | None = None
    ) -> Any:
        """Open a session with the first provider preferred, by way of the cache if there is one.

        Args:
            providers: The providers.
            sides: Axes of the graph's inputs to fix, by their names.
            part: Name of a part of the graph, in the cache; "" for the whole.
            content: The part as a serialized model; None for the file.

        Raises:
            DeviceError: The device of the first provider cannot be used.
            OutOfMemoryError: There is too little memory.
            ArtifactError: ONNX Runtime refuses the file, or it is no longer the one that was opened.
            OutputError: The cache cannot be written.
        """
        # A session with TensorRT cannot be saved as a graph; TensorRT caches its engines itself.
        if self.cache is None or providers[0][0] == TENSORRT:
            return self._open(providers, self._options(sides), content)
        cache = self.cache.graph(providers, part, sides)
        graph = cache.find()
        if graph is not None:
            options = self._options(sides)
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            try:
                return _create(graph, options, providers)
            except Exception as error:  # opening the artifact itself shows whether it is sound
                if not is_engines_own(error):
                    raise
                _logger.warning("onnxruntime refuses the cached graph %s: %s", graph, first_line(error))
                return self._open(providers, self._options(sides), content)
        with cache.draft() as draft:
            name = utf8_path(draft / GRAPH)
            if name is None:
                raise OutputError(f"cannot write to the cache {cache.path.parent}: its name is not UTF-8; rename it")
            source, options = self._source(content), self._options(sides)
            options.optimized_model_filepath = name
            prefix = "session.optimized_model_external_initializers"
            options.add_session_config_entry(f"{prefix}_file_name", WEIGHTS)
            options.add_session_config_entry(f"{prefix}_min_size_in_bytes", str(_SMALLEST_IN_FILE))
            try:
                session = _create(source, options, providers)
            except Exception as error:
                if not is_engines_own(error):
                    raise
                self._open(providers, self._options(sides), content)  # raises, unless only writing failed
                raise OutputError(f"cannot write to the cache {cache.path.parent}: {first_line(error)}") from error
            cache.publish(draft)
            return session

    def open_profiled(self, providers: Providers, sides: Mapping[str, int], prefix: str) -> Any:
        """Open a session without the cache that records what its nodes do, in a file whose name begins with `prefix`.

        Raises:
            DeviceError: As `open`.
            OutOfMemoryError: As `open`.
            ArtifactError: As `open`.
        """
        options = self._options(sides)
        options.enable_profiling = True
        options.profile_file_prefix = prefix
        return self._open(providers, options)

    def require_device(self, providers: Providers) -> None:
        """Run a convolution on the device of the providers: sessions open on CUDA even if nothing can run there.

        Raises:
            DeviceError: The device cannot be used.
            OutOfMemoryError: It has too little memory.
        """
        one = np.ones((1, 1, 1, 1), np.float32)
        try:
            with cuda_work():
                _create(probe_model(), self._options(), providers).run(None, {"x": one, "w": one})
        except DeviceError:
            raise
        except Exception as error:
            if not is_engines_own(error):
                raise
            _raise_of_device(error, providers, "at its first run", certain=True)

    def _options(self, sides: Mapping[str, int] = _FREE) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 2 if _logger.isEnabledFor(logging.DEBUG) else 4  # errors are exceptions, too
        options.intra_op_num_threads = self.threads
        # Spinning threads start an operator sooner, but between runs they take the core from the thread that prepares
        # the next image: spin only during a run. docs/runtime.md has the figures.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(_LARGEST_FOLDED))
        for name, side in sides.items():
            options.add_free_dimension_override_by_name(name, side)
        return options

    def _source(self, content: bytes | None) -> Path | bytes:
        if content is None and self.digest is not None:
            require_same(self.path, self.digest)
        return content or self.path

    def _open(self, providers: Providers, options: Any, content: bytes | None = None) -> Any:
        source = self._source(content)
        try:
            return _create(source, options, providers)
        except DeviceError:
            raise
        except Exception as error:
            if not is_engines_own(error):
                raise
            _raise_of_device(error, providers, f"with {self.path}", certain=False)
            raise ArtifactError(f"onnxruntime {ort.__version__} refuses {self.path}: {first_line(error)}") from error


def inputs_of(session: Any) -> dict[str, tuple[str, int | None]]:
    """Return NumPy dtype and rank of what must be fed, and of thresholds with defaults, as older artifacts have."""
    optional = [value for value in session.get_overridable_initializers() if value.name in INPUT_NAMES]
    return {
        value.name: (_DTYPES.get(value.type, value.type), len(value.shape))
        for value in (*session.get_inputs(), *optional)
    }


def _create(source: Path | bytes, options: Any, providers: Providers) -> Any:
    """Open a session with the first provider, or raise."""
    content = source if isinstance(source, bytes) else utf8_path(source) or source.read_bytes()
    wanted, settings = providers[0]
    with nullcontext() if wanted == CPU else cuda_work():
        # With its fallback, ONNX Runtime would print the error to stdout, and open the session on the CPU.
        session = ort.InferenceSession(content, sess_options=options, providers=providers, enable_fallback=0)
    keep_in_children(session)
    if session.get_providers()[0] != wanted:  # it only logs that libraries do not load
        device, name = _PROVIDERS[wanted]
        raise DeviceError(
            f"device '{device}:{settings['device_id']}' was requested, but the {name} libraries of onnxruntime "
            f"{ort.__version__} cannot be loaded ({_what_does_not_load(name)}): see 'maskrcnn doctor'"
        )
    return session


def _what_does_not_load(name: str) -> str:
    """Return what the loader says of the library of a provider."""
    for library in (Path(ort.__file__).parent / "capi").glob(f"*onnxruntime_providers_{name.lower()}.*"):
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            return str(error).strip()
    return f"CUDA {getattr(ort, 'cuda_version', '') or 'unknown'}"


def _raise_of_device(error: Exception, providers: Providers, when: str, *, certain: bool) -> None:
    """Raise our error if a device is the reason: there is no other, or the message says so."""
    wanted, settings = providers[0]
    if wanted == CPU:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"onnxruntime ran out of memory {when}: {first_line(error)}") from error
        return
    name = f"'{_PROVIDERS[wanted][0]}:{settings['device_id']}'"
    if "Please install TensorRT libraries" in str(error):
        raise DeviceError(f"device {name} cannot be used: {_what_does_not_load('TensorRT')}: see 'maskrcnn doctor'")
    if is_out_of_memory(error):
        raise OutOfMemoryError(
            f"device {name} ran out of memory {when}: end what else uses it, or give another "
            f"EngineOptions(gpu_memory_limit=...); onnxruntime's message: {_reason(error)}"
        ) from error
    if certain or any(word in str(error) for word in ("CUDA", "cuDNN", "CUDNN", "CUBLAS", "TensorRT", "TRT")):
        raise DeviceError(f"device {name} cannot be used: {_reason(error)}: see 'maskrcnn doctor'") from error


def _reason(error: Exception) -> str:
    """Return what a message says without the places in ONNX Runtime's sources where it arose."""
    text = " ".join(str(error).split())
    of_cuda = re.search("CUDA (failure|error) [^;]*", text)
    if of_cuda:
        return of_cuda[0].strip()
    text = re.split(r"\S+\.(?:cc|h|cu|cuh):\d+ |\[ONNXRuntimeError\] : \d+ : \w+ : ", text)[-1]
    return re.sub(r"^[\w:*&<>~,() ]*\w\([^)]*\) (?:const )?", "", text)[:300].rstrip(".")
