"""Optimized graphs on disk: one folder per key, used only if complete and undamaged.

    CACHE/graph-1f0c.../entry.json     the key, and size and checksum of the other files
                        graph.onnx     the optimized graph; of OpenVINO, graph.blob with the weights
                        weights.bin    its weights, mapped into memory instead of read

Each writer has a hidden folder with a random name and renames it into place; the first one stays. So no process waits
for another, and none sees half an entry. `runtime.atomic` does not fit: the last writer wins there, and it flushes to
the disk, which is not needed here, because a checksum finds what a crash cut short. It finds damage, not malice: anyone
who can write here can write anything.
"""

import hashlib
import inspect
import json
import logging
import platform
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runtime.errors import OutputError

GRAPH, WEIGHTS = "graph.onnx", "weights.bin"
_ENTRY, _SUFFIX = "entry.json", ".partial"
_ABANDONED_SECONDS = 24 * 3600
_CHUNK = 1 << 22
_logger = logging.getLogger(__name__)


class GraphCache:
    """One entry of the cache in a folder; the key has everything that the optimized graph depends on, as for JSON."""

    def __init__(self, folder: Path, key: Mapping[str, object], file: str = GRAPH) -> None:
        self._key = json.loads(json.dumps(key))
        digest = hashlib.sha256(json.dumps(self._key, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"graph-{digest[:32]}"
        self._file = file

    def find(self) -> Path | None:
        """Return the optimized graph; None if there is no entry or a damaged one, which is logged."""
        try:
            entry = json.loads((self.path / _ENTRY).read_text(encoding="utf-8"))
            is_sound = entry["key"] == self._key and entry["files"] == _describe(self.path)
        except FileNotFoundError:
            if not self.path.exists():
                return None
            is_sound = False
        except (OSError, ValueError, KeyError, TypeError):
            is_sound = False
        if not is_sound:
            _logger.warning("the cached graph %s is damaged and is made again", self.path)
            return None
        return self.path / self._file

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Yield a new folder for `GRAPH` and `WEIGHTS`; it is removed when the block ends, unless it was published."""
        folder = self.path.parent
        draft = folder / f".{self.path.name}.{uuid.uuid4().hex}{_SUFFIX}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder)
            draft.mkdir()
        except OSError as error:
            raise OutputError(f"cannot write to the cache {folder}: {error.strerror}") from error
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def publish(self, draft: Path) -> None:
        """Complete a draft and move it into place, unless there is an undamaged entry."""
        try:
            entry = {"key": self._key, "files": _describe(draft)}
            (draft / _ENTRY).write_text(json.dumps(entry, indent=1), encoding="utf-8")
            if self.path.exists() and self.find() is None:
                shutil.rmtree(self.path, ignore_errors=True)  # another process may be faster
            try:
                draft.rename(self.path)
            except OSError:
                if not self.path.is_dir():
                    raise
        except OSError as error:
            raise OutputError(f"cannot write to the cache {self.path.parent}: {error.strerror}") from error


def processor() -> str:
    """Return a digest of what a graph for the CPU is specific to: the processor and its instruction sets."""
    described = [platform.machine(), platform.processor()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        described += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:32]


def source_digest(*modules: str) -> str:
    """Return a digest of our modules that change a graph before an engine optimizes it, and of our version.

    After an upgrade, an entry that older ones made is not used.
    """
    digest = hashlib.sha256()
    with suppress(PackageNotFoundError):  # a checkout that is not installed
        digest.update(version("maskrcnn-export").encode())
    for name in modules:
        with suppress(OSError):  # a program packed without sources
            digest.update(inspect.getsource(import_module(name)).encode())
    return digest.hexdigest()[:32]


def _describe(folder: Path) -> dict[str, list[int]]:
    """Return size and CRC-32 of each file except `entry.json`."""
    return {path.name: _checksum(path) for path in sorted(folder.iterdir()) if path.name != _ENTRY}


def _checksum(path: Path) -> list[int]:
    size = checksum = 0
    buffer = bytearray(_CHUNK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            size += count
            checksum = zlib.crc32(memoryview(buffer)[:count], checksum)
    return [size, checksum]


def _remove_abandoned(folder: Path) -> None:
    """Remove drafts of processes that were killed at least a day ago."""
    for path in folder.glob(f".graph-*{_SUFFIX}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
