"""Where in the cache the graphs and engines of an artifact are, and what they depend on."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from runtime.artifact_files.onnx_file import content_digest
from runtime.engines.graph_cache import GraphCache, processor, source_digest
from runtime.engines.ort.library import ort
from runtime.engines.ort.providers import Providers
from runtime.errors import OutputError

# What decides where a graph is cut into parts.
_CUTTERS = ("runtime.artifact_files.onnx_cut", "runtime.engines.ort.cuda_graph", "runtime.engines.ort.gpu_sessions")


class ArtifactCache:
    """The part of a cache for one artifact and one build of ONNX Runtime; `verified` as for `open_backend`."""

    def __init__(self, folder: str | Path, path: Path, *, verified: bool) -> None:
        self._folder, self._path, self._verified = Path(folder), path, verified

    def graph(self, providers: Providers, part: str, sides: Mapping[str, int]) -> GraphCache:
        """Return the entry of the optimized graph for these providers.

        Args:
            providers: The providers.
            part: Name of a part of a cut graph; "" for the whole.
            sides: The axes of its inputs that are fixed.
        """
        key: dict[str, Any] = {"providers": [name for name, _ in providers], "part": part, "sides": dict(sides)}
        if part:
            key["changes"] = source_digest(*_CUTTERS)
        return GraphCache(self._folder, self._key | key | {"processor": processor()})

    def engines(self) -> Path:
        """Create and return the folder for TensorRT's engines."""
        key = json.dumps(self._key | {"tensorrt": _tensorrt_versions()}, sort_keys=True)
        folder = self._folder / f"tensorrt-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write to the cache {self._folder}: {error.strerror}") from error
        return folder

    @cached_property
    def _key(self) -> dict[str, Any]:
        digest = content_digest(self._path, self._verified)
        return {"artifact": digest, "onnxruntime": ort.__version__, "build": ort.get_build_info()}


def _tensorrt_versions() -> dict[str, str]:
    """Return versions by package; if pip did not install TensorRT, only the names of its engines show its version."""
    found = {}
    for package in ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
