"""An artifact that is given as bytes."""

import os
import tempfile
import weakref
from pathlib import Path

from runtime.errors import OutputError


class MemoryArtifact:
    """The bytes of an `.onnx` file, in a temporary file: engines read files.

    The file is removed by `close`, when nothing refers to this object anymore, or when the process ends.

    Args:
        content: Bytes of an `.onnx` file.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(self, content: bytes | bytearray | memoryview) -> None:
        try:
            descriptor, name = tempfile.mkstemp(".onnx", "maskrcnn-")
            self.path = Path(name)
            self._remove = weakref.finalize(self, _remove, self.path, os.getpid())
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            where = tempfile.gettempdir()
            raise OutputError(f"the artifact cannot be written to {where}: {error.strerror}; set TMPDIR") from error

    def close(self) -> None:
        """Remove the file; closing again does nothing."""
        self._remove()


def _remove(path: Path, process: int) -> None:
    if process == os.getpid():  # a forked child has a copy of the object, but the file belongs to its parent
        path.unlink(missing_ok=True)
