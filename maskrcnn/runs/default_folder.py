"""The folders of commands without --output: `runs/predict`, `runs/predict-2`, ...; never one that exists."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from maskrcnn.runs.folder_lock import locked
from runtime.errors import OutputError

RUNS = Path("runs")
_COMMAND = ".command.json"  # what the folder was made for
_CLAIM = ".command.lock"  # held for as long as a process works on that


def folders(kind: str) -> list[Path]:
    """Return the folders of earlier commands of a kind, the newest first."""
    found = []
    with suppress(OSError):
        for path in RUNS.iterdir():
            match = re.fullmatch(rf"{kind}(?:-([1-9]\d*))?", path.name)
            if match is not None:
                found.append((int(match[1] or 1), path))
    return [path for _, path in sorted(found, reverse=True)]


@contextmanager
def new_folder(kind: str) -> Iterator[Path]:
    """Make the next folder, which no other process gets. If a block ends with an error and without a file, remove it.

    Raises:
        OutputError: It cannot be made.
    """
    folder = _make(kind)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            if all(path.name.startswith(".") for path in folder.iterdir()):
                shutil.rmtree(folder)
                RUNS.rmdir()  # if this was the first
        raise


def folder_for(output: Path | None, kind: str) -> Any:
    """Return a context manager that gives the output of a command: the one named, or a new folder."""
    return new_folder(kind) if output is None else nullcontext(output)


def not_input(paths: Sequence[str], folder: Path) -> Path:
    """Return the folder whose files are results, not input: that of all runs for one of them, if no path is in it."""
    runs = RUNS.absolute()
    inside = any(Path(path).absolute().is_relative_to(runs) for path in paths)
    return runs if folder.absolute().parent == runs and not inside else folder


@contextmanager
def resumed_or_new(kind: str, command: Mapping[str, Any], done: Callable[[Path], bool], extra: str) -> Iterator[Path]:
    """Give the newest folder in which the same command was interrupted, else a new one.

    Args:
        kind: Of the command.
        command: Its arguments, as JSON values; equal ones are the same command.
        done: Returns whether the command has finished in a folder.
        extra: Extra of the command, for the message about a missing package.

    Raises:
        OutputError: A folder cannot be made.
        MissingPackageError: filelock is not installed.
    """
    text = json.dumps(command, sort_keys=True)
    with ExitStack() as stack:
        for folder in folders(kind):
            if _read(folder / _COMMAND) != text or done(folder):
                continue
            with suppress(OutputError), ExitStack() as claim:  # unless another process works on it
                claim.enter_context(locked(folder, extra, _CLAIM))
                if not done(folder):
                    stack.push(claim.pop_all())
                    break
        else:
            folder = stack.enter_context(new_folder(kind))
            stack.enter_context(locked(folder, extra, _CLAIM))
            (folder / _COMMAND).write_text(text, encoding="utf-8")
        yield folder


def _make(kind: str) -> Path:
    newest = next(iter(folders(kind)), None)
    number = 1 if newest is None else 1 + _number(newest)
    while True:
        folder = RUNS / (kind if number == 1 else f"{kind}-{number}")
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            if not os.path.lexists(folder):
                raise OutputError(f"cannot write {folder}: {error.strerror}: give another folder with -o") from error
            number += 1
        else:
            return folder


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2]) if "-" in folder.name else 1


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
