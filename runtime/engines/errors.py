"""Errors that engines raise in a run, translated to ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import EngineError, OutOfMemoryError, RuntimeLibraryError, comes_from

# ONNX Runtime's arenas, OpenVINO on processors and GPUs, CUDA and its libraries, the C++ allocator, TensorFlow's
# ResourceExhaustedError.
_OUT_OF_MEMORY = re.compile(
    r"failed to allocate (?:[0-9]+ bytes of )?memory|CL_OUT_OF_|CL_MEM_OBJECT_ALLOCATION|max size of memory"
    r"|bfc_?arena|out of memory|bad_alloc|bad allocation|_ALLOC_FAILED|OOM when allocating"
    r"|smaller than requested bytes|ResourceExhausted",
    re.IGNORECASE,
)
_PLACES = re.compile(r"Exception from \S+:\d+:|Check '.*' failed at \S+:\d+:|FrontEnd API failed with \w+:")
_LONGEST = 300  # characters of an engine's message; some include a stack


# Packages of the engines and of what they call. Their exceptions have no common base, and many are built in.
_ENGINES = ("onnxruntime", "openvino", "tensorflow", "keras", "google", "numpy", "runtime")


def is_engines_own(error: Exception) -> bool:
    """Return whether an exception comes from an engine, and not from a signal handler that ran in the meantime."""
    return comes_from(error, _ENGINES)


@contextmanager
def engine_errors(engine: str, path: Path) -> Iterator[None]:
    """Translate what an engine raises to OutOfMemoryError or EngineError; our own errors and any others pass."""
    try:
        yield
    except RuntimeLibraryError:
        raise
    except Exception as error:
        if not is_engines_own(error):
            raise
        reason = reason_of(error)
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"{engine} ran out of memory with {path}: use smaller images or a smaller batch_size, or on a GPU "
                f"another EngineOptions(gpu_memory_limit=...); its message: {reason}"
            ) from error
        raise EngineError(
            f"{engine} failed in a run of {path}: export the artifact again if it happens with every image; "
            f"its message: {reason}"
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an engine ran out of memory, on the host or on a device."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"))


def reason_of(error: Exception) -> str:
    """Return an engine's message on one line, without the places in OpenVINO's sources where it arose."""
    return " ".join(_PLACES.sub("", str(error)).split())[:_LONGEST].rstrip(".") or type(error).__name__


def first_line(error: Exception) -> str:
    """Return the beginning of an engine's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_LONGEST]
