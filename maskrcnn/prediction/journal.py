"""What was found in a video, a line of JSON per frame: it grows while the video is predicted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.errors import OutputError

Line = dict[str, Any]


class Journal:
    """The journal of one video.

    The first line is the head, which says what the rest depends on; then come the predicted frames in their order;
    the last line, once all are there, is `{"frames": number of frames of the video}`. Each line is handed to the
    system when it is written, so that a killed process loses none; one that was torn is dropped at the next start.

    Args:
        path: Of the file; it and its folders are made.
        head: What must stand in the first line; a journal with another head is begun anew.

    Attributes:
        written: How many frames it holds.
        frames: Of the video, once all are written; None before.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path, head: Line) -> None:
        self.path = path
        self.written = 0
        self.frames: int | None = None
        kept = self._read(head)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if kept else "wb")
            self._file.seek(kept)
            self._file.truncate()
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        if not kept:
            self._write(head)

    def _read(self, head: Line) -> int:
        """Count what is sound; returns its length in bytes, 0 for a journal of something else."""
        kept = 0
        try:
            with self.path.open("rb") as file:
                for number, text in enumerate(file):
                    line = _parse(text)
                    if line is None or self.frames is not None or (number == 0 and line != head):
                        break
                    if number:
                        self.frames = line.get("frames")
                        self.written += "detections" in line
                    kept += len(text)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise OutputError(f"cannot read {self.path}: {error.strerror}") from error
        return kept

    def append(self, frame: Line) -> None:
        """Add a predicted frame: `frame`, `time`, `image_size`, `detections`."""
        self._write(frame)
        self.written += 1

    def finish(self, frames: int) -> None:
        """Note that all frames of the video, `frames` of them, were seen."""
        self._write({"frames": frames})
        self.frames = frames

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _write(self, line: Line) -> None:
        try:
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error


def read_journal(path: Path) -> Iterator[Line]:
    """The predicted frames of a finished journal, in their order."""
    with path.open("rb") as file:
        for text in file:
            line = json.loads(text)
            if "detections" in line:
                yield line


def _parse(text: bytes) -> Line | None:
    """A whole line, or None."""
    if not text.endswith(b"\n"):
        return None
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
