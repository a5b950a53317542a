"""Compiled graphs: opened by way of the cache if there is one, run by any number of threads."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from runtime.artifact_files.onnx_file import content_digest
from runtime.artifact_files.read import require_same
from runtime.engines.errors import is_engines_own, is_out_of_memory, reason_of
from runtime.engines.forked import keep_in_children
from runtime.engines.graph_cache import GraphCache, processor, source_digest
from runtime.engines.openvino.bfloat16 import compute_in_bfloat16
from runtime.engines.openvino.devices import CPU
from runtime.engines.openvino.library import VERSION, core, openvino
from runtime.engines.openvino.read import read_model
from runtime.engines.options import BF16
from runtime.errors import ArtifactError, DeviceError, OutOfMemoryError, OutputError
from runtime.one_line import utf8_path

_BLOB = "graph.blob"  # in the cache
# What changes a graph before OpenVINO compiles it.
_CHANGES = (
    "runtime.artifact_files.onnx_cut",
    "runtime.engines.openvino.bfloat16",
    "runtime.engines.openvino.graph",
    "runtime.engines.openvino.read",
)
_logger = logging.getLogger(__name__)


class CompiledGraph:
    """A compiled graph; each run at the same time has an infer request of its own.

    Attributes:
        inputs: OpenVINO's inputs by name.
        places: Index of each output by name.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free: list[Any] = []
        # Not names of tensors: an input has several where the graph's first step changes nothing.
        self.inputs = {port.node.friendly_name: port for port in compiled.inputs}
        self._count = len(compiled.outputs)
        self.places = {name: index for index, port in enumerate(compiled.outputs) for name in port.names}
        keep_in_children(compiled)

    def __call__(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Return the outputs in the order of the graph, as arrays that no later run changes.

        Args:
            feeds: All inputs, because OpenVINO reads memory that nobody wrote for one that is left out; others are
                ignored.
        """
        return self._run(feeds)[1]

    def profile(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
        """Run twice and return OpenVINO's record of each node of the second run, if it was compiled to keep one."""
        for _ in range(2):  # the first run also chooses kernels
            request, _ = self._run(feeds)
        return list(request.profiling_info)

    def serialized(self) -> bytes:
        """Return the compiled graph as bytes for the cache."""
        content: bytes = self._compiled.export_model().getvalue()
        return content

    def types(self) -> dict[str, tuple[str, int | None]]:
        """Return NumPy dtype and rank of each input; None if the rank is unknown."""
        return {
            name: (port.element_type.to_dtype().name, None if rank.is_dynamic else rank.get_length())
            for name, port in self.inputs.items()
            for rank in [port.partial_shape.rank]
        }

    def _run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> tuple[Any, list[npt.NDArray[Any]]]:
        given = {port: np.asarray(feeds[name]) for name, port in self.inputs.items()}
        try:
            request = self._free.pop()  # in one step, so without a lock
        except IndexError:
            request = self._compiled.create_infer_request()
            keep_in_children(request)
        found = request.infer(given)  # copies inputs and outputs
        arrays = [found[index] for index in range(self._count)]
        self._free.append(request)  # not one that failed
        return request, arrays


@dataclass(frozen=True)
class GraphOpener:
    """Compiles one `.onnx` file for a device.

    Attributes:
        cache: A folder, or None.
        verified: As for `open_backend`.
        precision: As in `EngineOptions`.
        digest: The recorded digest that the file must have whenever it is read; None if it does not matter.
    """

    path: Path
    device: str
    properties: Mapping[str, Any]
    cache: str | Path | None = None
    verified: bool = True
    precision: str | None = None
    digest: str | None = None

    def open(self) -> CompiledGraph:
        """Return the compiled graph, from the cache if it is there.

        Raises:
            ArtifactError: OpenVINO refuses the file.
            DeviceError: The device, if it is not the CPU, cannot run it.
            OutOfMemoryError: There is too little memory.
            OutputError: The cache cannot be written.
        """
        if self.cache is None:
            return self._compile()
        entry = self._entry(self.cache)
        blob = entry.find()
        if blob is not None:
            return self._import(blob) or self._compile()
        with entry.draft() as draft:
            graph = self._compile()
            content = self._serialize(graph)
            if content is None:
                return graph
            try:
                (draft / _BLOB).write_bytes(content)
            except OSError as error:
                raise OutputError(f"cannot write to the cache {self.cache}: {error.strerror}") from error
            entry.publish(draft)
        return graph

    def open_part(self, content: bytes) -> CompiledGraph:
        """Return a compiled part of the graph, a serialized model; errors are those of `open`."""
        return self._compile(content)

    def open_profiled(self) -> CompiledGraph:
        """Return a compiled graph that keeps a record of its nodes; errors are those of `open`."""
        return self._compile(more={"PERF_COUNT": True})

    def read(self) -> bytes:
        """Return the file; raise ArtifactError if it is no longer the one that was opened."""
        self._check()
        return self.path.read_bytes()

    def _check(self) -> None:
        if self.digest is not None:
            require_same(self.path, self.digest)

    def _import(self, blob: Path) -> CompiledGraph | None:
        """Return a graph of the cache; None if it cannot be used, which is logged."""
        try:
            content = blob.read_bytes()
        except OSError as error:  # another process removed it in the meantime
            _logger.warning("cannot read the cached graph %s: %s", blob, error.strerror)
            return None
        try:
            return CompiledGraph(core().import_model(content, self.device, dict(self.properties)))
        except Exception as error:  # compiling the artifact itself shows whether it is sound
            if not is_engines_own(error):
                raise
            _logger.warning("openvino refuses the cached graph %s: %s", blob, reason_of(error))
            return None

    def _serialize(self, graph: CompiledGraph) -> bytes | None:
        """Return a graph for the cache; None if the device cannot export it, which is logged."""
        try:
            return graph.serialized()
        except Exception as error:
            if not is_engines_own(error):
                raise
            if is_out_of_memory(error):
                self._raise_of(error)
            _logger.warning("openvino cannot put the graph of %s into the cache: %s", self.path, reason_of(error))
            return None

    def _compile(self, content: bytes | None = None, more: Mapping[str, Any] = MappingProxyType({})) -> CompiledGraph:
        if content is None:
            self._check()
        source = content or utf8_path(self.path) or self.path.read_bytes()
        try:
            model = read_model(source)
            if self.precision == BF16:
                compute_in_bfloat16(model)
            return CompiledGraph(core().compile_model(model, self.device, {**self.properties, **more}))
        except Exception as error:
            if not is_engines_own(error):
                raise
            self._raise_of(error)

    def _entry(self, folder: str | Path) -> GraphCache:
        key = {
            "artifact": content_digest(self.path, self.verified),
            "openvino": openvino.__version__,
            "changes": source_digest(*_CHANGES),
            "device": [self.device, *self._describe_device()],
            "properties": dict(self.properties),
            "precision": self.precision,
            "processor": processor(),
        }
        return GraphCache(Path(folder), key, _BLOB)

    def _describe_device(self) -> list[str]:
        """Return the name of the device and, except for the CPU, the versions of its driver that OpenVINO tells."""
        try:
            found = [str(core().get_property(self.device, "FULL_DEVICE_NAME"))]
            names = [] if self.device == CPU else core().get_property(self.device, "SUPPORTED_PROPERTIES")
        except Exception as error:
            if not is_engines_own(error):
                raise
            self._raise_of(error)
        for name in sorted(str(name) for name in names):
            if name.endswith("_VERSION"):
                try:
                    found.append(f"{name} {core().get_property(self.device, name)}")
                except Exception as error:  # this driver does not tell it
                    if not is_engines_own(error):
                        raise
        return found

    def _raise_of(self, error: Exception) -> NoReturn:
        """Raise our error for one of OpenVINO's."""
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"openvino ran out of memory with {self.path}: {reason_of(error)}") from error
        if self.device != CPU:
            raise DeviceError(
                f"device 'openvino:{self.device}' cannot run {self.path}: {reason_of(error)}: see 'maskrcnn "
                "doctor', or use device 'openvino'"
            ) from error
        raise ArtifactError(f"openvino {VERSION} refuses {self.path}: {reason_of(error)}") from error
