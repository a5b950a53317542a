"""Sessions of ONNX Runtime: threads, errors on opening, and the cache of optimized graphs."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.artifact import INPUT_NAMES
from runtime.engines.errors import is_engines_own
from runtime.engines.forked import keep_in_children
from runtime.engines.ort.graph_cache import GRAPH, WEIGHTS, GraphCache
from runtime.engines.ort.library import CPU, ort
from runtime.engines.ort.providers import Providers
from runtime.errors import ArtifactError, DeviceError, OutputError
from runtime.one_line import utf8_path

# Bytes; smaller tensors stay in the graph, because the file of the others is mapped by pages.
_SMALLEST_IN_FILE = 1024
# Bytes of a tensor that is computed on opening, because its inputs or their shapes are constant.
_LARGEST_FOLDED = 2**26
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}  # of the inputs of an artifact
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionOpener:
    """Opens sessions of one `.onnx` file, with a number of threads that compute one operator."""

    path: Path
    threads: int

    def options(self) -> Any:
        """Return session options with our threads."""
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        # Spinning threads start an operator sooner, but between runs they take the core from the thread that prepares
        # the next image: spin only during a run. docs/runtime.md has the figures.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(_LARGEST_FOLDED))
        return options

    def open(self, providers: Providers, options: Any = None, content: bytes | None = None) -> Any:
        """Open the file, or the serialized model `content` instead, with the first provider preferred.

        Raises:
            DeviceError: The device of the first provider cannot be used.
            ArtifactError: ONNX Runtime refuses the file.
        """
        try:
            return _create(content or self.path, options or self.options(), providers)
        except Exception as error:
            if not is_engines_own(error):
                raise
            reason = str(error).split("\n")[0]
            if providers[0][0] != CPU and any(word in str(error) for word in ("CUDA", "TensorRT", "TRT")):
                raise DeviceError(f"the CUDA device cannot be used: {reason}") from error
            raise ArtifactError(f"onnxruntime {ort.__version__} refuses {self.path}: {reason}") from error

    def open_cached(self, providers: Providers, cache: GraphCache, content: bytes | None = None) -> Any:
        """Open the optimized graph in the cache, after writing it there if it is missing or damaged.

        Raises:
            DeviceError: As `open`.
            ArtifactError: As `open`.
            OutputError: The cache cannot be written.
        """
        graph = cache.find()
        if graph is not None:
            options = self.options()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            try:
                return _create(graph, options, providers)
            except Exception as error:  # opening the artifact itself shows whether it is sound
                if not is_engines_own(error):
                    raise
                _logger.warning("onnxruntime refuses the cached graph %s: %s", graph, str(error).split("\n")[0])
                return self.open(providers, content=content)
        with cache.draft() as draft:
            name = utf8_path(draft / GRAPH)
            if name is None:
                raise OutputError(f"cannot write to the cache {cache.path.parent}: its name is not UTF-8; rename it")
            options = self.options()
            options.optimized_model_filepath = name
            prefix = "session.optimized_model_external_initializers"
            options.add_session_config_entry(f"{prefix}_file_name", WEIGHTS)
            options.add_session_config_entry(f"{prefix}_min_size_in_bytes", str(_SMALLEST_IN_FILE))
            try:
                session = _create(content or self.path, options, providers)
            except Exception as error:
                if not is_engines_own(error):
                    raise
                self.open(providers, content=content)  # raises, unless only writing failed
                reason = str(error).split("\n")[0]
                raise OutputError(f"cannot write to the cache {cache.path.parent}: {reason}") from error
            # Where CUDA cannot be loaded, ONNX Runtime uses the CPU: that graph is not the requested one.
            if session.get_providers()[0] == providers[0][0]:
                cache.publish(draft)
            return session


def inputs_of(session: Any) -> dict[str, tuple[str, int | None]]:
    """Return NumPy dtype and rank of what must be fed, and of thresholds with defaults, as older artifacts have."""
    optional = [value for value in session.get_overridable_initializers() if value.name in INPUT_NAMES]
    return {
        value.name: (_DTYPES.get(value.type, value.type), len(value.shape))
        for value in (*session.get_inputs(), *optional)
    }


def _create(source: Path | bytes, options: Any, providers: Providers) -> Any:
    content = source if isinstance(source, bytes) else utf8_path(source) or source.read_bytes()
    # Its fallback is for GPUs; on the CPU it would try again after any RuntimeError, also a signal handler's.
    fallback = int(providers[0][0] != CPU)
    session = ort.InferenceSession(content, sess_options=options, providers=providers, enable_fallback=fallback)
    keep_in_children(session)
    return session
