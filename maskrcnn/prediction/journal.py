"""The journal of a video: a JSON line per predicted frame, appended while the video is predicted."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from runtime.errors import OutputError
from runtime.json_file import LARGEST_JSON, parse_json

Line = dict[str, Any]


class Journal:
    """The journal of one video.

    The first line is the head, which says what the rest depends on. The predicted frames follow in order. Once all are
    written, the last line is `{"frames": number of frames in the video}`. Each line is flushed to the operating system,
    so a killed process loses none; an incomplete last line is dropped when the journal is next opened.

    Args:
        path: The file; it and its folders are created if missing.
        head: Expected first line. A journal with another head is overwritten.

    Attributes:
        written: Number of predicted frames in the journal.
        frames: Number of frames in the video; None until all are written.

    Raises:
        OutputError: The file cannot be read or written.
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
        """Count the valid lines; return their length in bytes, 0 if the head differs."""
        kept = 0
        try:
            with self.path.open("rb") as file:
                for number, text in enumerate(iter(partial(file.readline, LARGEST_JSON), b"")):
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
        """Add a predicted frame: `frame`, `time`, `image_size`, `device`, `detections`."""
        self._write(frame)
        self.written += 1

    def finish(self, frames: int) -> None:
        """Record that all `frames` frames of the video were read."""
        self._write({"frames": frames})
        self.frames = frames

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: Line) -> None:
        try:
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error


def read_journal(path: Path) -> Iterator[Line]:
    """Yield the predicted frames of a complete journal, in order."""
    with path.open("rb") as file:
        for text in file:
            line = json.loads(text)
            if "detections" in line:
                yield line


def _parse(text: bytes) -> Line | None:
    """Return the object on a complete line, or None."""
    if not text.endswith(b"\n"):
        return None
    try:
        line = parse_json(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
