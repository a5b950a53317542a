"""The images and videos that the paths of a command stand for, each with a unique name."""

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from maskrcnn.errors import ArgumentError
from runtime.errors import ImageError
from runtime.one_line import printable_path
from runtime.pictures.header import PICTURE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")

# File systems allow 255 bytes; at most ".", ".jsonl", a random name and ".partial" are added.
_LONGEST_NAME = 200


class Source(NamedTuple):
    """A file to predict.

    Attributes:
        path: Absolute.
        name: The path below the folder, or below the fixed part of the pattern, that the file was found by, with "/"
            between folders; else the file name. Unique in a run; the files made for a source are named after it.
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether the file is read as a video; all others are read as images."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def view_name(self) -> str:
        """The name of its views: that of the source, with .png or .mp4 added if it does not end in it."""
        suffix = ".mp4" if self.is_video else ".png"
        return self.name if self.name.endswith(suffix) else self.name + suffix


class Failure(NamedTuple):
    """A file or folder that could not be used: its name and path as in `Source`, the class and text of the error."""

    name: str
    path: str
    error: str
    message: str

    @classmethod
    def of(cls, source: Source, error: Exception) -> "Failure":
        """Describe the error of a source in one line."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        line = " ".join(str(reason).split()) or "no further description"
        return cls(source.name, printable_path(source.path), type(error).__name__, printable_path(line))


def find_sources(paths: Sequence[str], output: Path, *, once: bool = False) -> tuple[list[Source], list[Failure]]:
    """Find the images and videos of a command, in the order of its paths, each file once.

    Folders are searched recursively, without following links to folders. Hidden files and files with an unknown suffix
    are ignored in folders and for patterns that do not end in a suffix. A file that is named is always taken.

    Args:
        paths: Files, folders, and patterns with `*`, `**`, `?` or `[...]`.
        output: The run folder, or the folder of all runs; files found in it are ignored.
        once: Refuse a file that is found twice.

    Returns:
        The sources, and a failure for each folder that cannot be read.

    Raises:
        ImageError: A path does not exist, or there is nothing to predict.
        ArgumentError: A file is found twice, and `once` refuses that.
    """
    finder = _Finder(Path(os.path.abspath(output)), once)  # noqa: PTH100  (links stay as they are given)
    for text in paths:
        finder.add(text)
    if not finder.sources and not finder.unreadable:
        raise ImageError(
            f"{', '.join(map(repr, paths)) or 'no path'} contains no image or video: expected files that end in "
            f"{', '.join(PICTURE_SUFFIXES + VIDEO_SUFFIXES)}"
        )
    return list(finder.sources.values()), finder.unreadable


class _Finder:
    def __init__(self, output: Path, once: bool) -> None:
        self._once = once
        self.sources: dict[Path, Source] = {}
        self.unreadable: list[Failure] = []
        self._output = output
        self._taken: set[str] = set()

    def add(self, text: str) -> None:
        path = Path(os.path.abspath(text))  # noqa: PTH100
        if path.is_dir():
            self._add_folder(path, path)
        elif os.path.lexists(path):  # a broken link is a file that fails, not a mistyped path
            self._add_file(path, path.parent)
        elif glob.has_magic(text):
            self._add_glob(text)
        else:
            raise ImageError(f"{text!r} does not exist: expected a file, a folder or a pattern such as 'photos/*.jpg'")

    def _add_glob(self, pattern: str) -> None:
        parts = Path(pattern).parts
        fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        base = Path(os.path.abspath(Path(*parts[:fixed])))  # noqa: PTH100
        named = Path(pattern).suffix != "" and not glob.has_magic(Path(pattern).suffix)
        found = [Path(os.path.abspath(match)) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH100, PTH207
        if not found:
            raise ImageError(f"the pattern {pattern!r} matches nothing: expected at least one file or folder")
        for path in found:
            if path.is_dir():
                if "**" not in parts:  # it already matches the files in the folder
                    self._add_folder(path, base)
            elif not path.is_relative_to(self._output) and (named or _is_known(path)):
                self._add_file(path, base)

    def _add_folder(self, folder: Path, base: Path) -> None:
        for path in _walk(folder, self._output, self._note_unreadable(base)):
            self._add_file(path, base)

    def _note_unreadable(self, base: Path) -> Callable[[OSError], None]:
        def note(error: OSError) -> None:
            folder = Path(error.filename or base)
            self.unreadable.append(Failure.of(Source(folder, _relative(folder, base) or folder.name), error))

        return note

    def _add_file(self, path: Path, base: Path) -> None:
        if path in self.sources:
            if self._once:
                raise ArgumentError(f"{str(path)!r} is named twice: each image of a batch is predicted once")
            return
        source = Source(path, _relative(path, base))
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
        folder, _, last = source.name.rpartition("/")
        if len(last.encode()) > _LONGEST_NAME:
            short = last.encode()[: _LONGEST_NAME - 40].decode("utf-8", "ignore")
            source = Source(path, f"{folder}/{short}~{digest}{path.suffix[:8]}".lstrip("/"))
        elif source.view_name.casefold() in self._taken:
            source = Source(path, f"{source.name.removesuffix(path.suffix)}~{digest}{path.suffix}")
        self._taken.add(source.view_name.casefold())
        self.sources[path] = source


def _walk(folder: Path, left_out: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    for place, folders, files in os.walk(folder, onerror=on_error):
        if Path(place).is_relative_to(left_out):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for name in sorted(files) if _is_known(path := Path(place, name)))


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES + VIDEO_SUFFIXES and not path.name.startswith(".")


def _relative(path: Path, base: Path) -> str:
    parts = Path(os.path.relpath(path, base)).parts
    return printable_path("/".join(part for part in parts if part not in (os.pardir, os.curdir)))
