"""What engines raise in a run, as one of our errors of one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import EngineError, OutOfMemoryError, RuntimeLibraryError

# ONNX Runtime's arenas, CUDA and its libraries, the C++ allocator, TensorFlow's ResourceExhaustedError.
_OUT_OF_MEMORY = re.compile(
    r"failed to allocate memory|bfc_?arena|out of memory|bad_alloc|bad allocation|_ALLOC_FAILED|OOM when allocating"
    r"|smaller than requested bytes|ResourceExhausted",
    re.IGNORECASE,
)
_LONGEST = 300  # characters of an engine's own words; some go on with a stack


@contextmanager
def engine_errors(engine: str, path: Path) -> Iterator[None]:
    """Translate whatever an engine raises within; our own errors pass.

    Args:
        engine: Its name, for messages.
        path: Of the artifact, for messages.

    Raises:
        OutOfMemoryError: There was too little memory.
        EngineError: Anything else.
    """
    try:
        yield
    except RuntimeLibraryError:
        raise
    except Exception as error:  # types of their own, without a common base
        reason = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
            raise OutOfMemoryError(
                f"{engine} ran out of memory with {path}: give smaller pictures or a smaller batch_size, or on a GPU "
                f"another EngineOptions(gpu_memory_limit=...); it says: {reason}"
            ) from error
        raise EngineError(
            f"{engine} failed in a run of {path}: export the artifact again if it happens with every picture; "
            f"it says: {reason}"
        ) from error
