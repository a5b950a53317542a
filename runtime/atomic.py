"""Files and folders that appear complete or not at all.

Everything is written under a hidden sibling name, flushed to the disk, and renamed into place. A kill at any moment
leaves what stood there before, or the new, and a sibling that the next writer to the same path removes. (Folders on a
system that cannot exchange two of them: for a moment nothing stands there, see `_move_into_place`.)
"""

import ctypes
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import OutputError

_SUFFIX, _ASIDE = ".partial", ".old"
_WINDOWS = os.name == "nt"
_AT_WORKING_FOLDER = -100  # AT_FDCWD: paths are as the caller gives them
_RENAME_EXCHANGE = 2


@contextmanager
def atomic_write(
    path: str | Path, *, overwrite: bool, directory: bool = False, marker: str | None = None
) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to `path` when the block ends without an error.

    Args:
        path: Where the file (or folder) shall appear. Its parent folders are made.
        overwrite: Whether something that stands there may be replaced.
        directory: The block writes a folder; it gets an existing empty one.
        marker: See `check_output`.

    Raises:
        OutputError: Something stands there, or the disk refuses: no permission, no space, too large.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite, directory=directory, marker=marker)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        check_output(path, overwrite=overwrite, directory=directory, marker=marker)  # something may have come back
        if directory:
            temporary.mkdir()
        yield temporary
        for item in [temporary, *sorted(temporary.rglob("*"))] if temporary.is_dir() else [temporary]:
            _flush(item)
        _move_into_place(temporary, path)
    except OSError as error:
        if isinstance(error, OutputError) or error.errno is None:
            raise
        raise OutputError(f"cannot write {path}: {os.strerror(error.errno)}") from error
    finally:
        _remove(temporary)


def check_output(path: str | Path, *, overwrite: bool, directory: bool = False, marker: str | None = None) -> None:
    """Refuse an output path early, before minutes are spent on what to write there.

    Args:
        path: Where something shall appear.
        overwrite: Whether something of the same kind that stands there may be replaced.
        directory: Whether that is a folder.
        marker: A file that folders of this kind hold; a folder without it is never replaced, unless empty.

    Raises:
        OutputError: Something stands there and may not be replaced, or its folder cannot be written.
    """
    path = Path(path)
    if not path.name or "\0" in path.name:
        raise OutputError(f"{str(path)!r} names no file: give the path to write")
    try:
        exists = path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    if exists and not overwrite:
        raise OutputError(f"{path} already exists: choose another path, or replace it with --force (overwrite=True)")
    if exists and path.is_dir() and not directory:
        raise OutputError(f"{path} is a folder: give the path of a file, such as {path / 'model'}")
    if exists and directory and not path.is_dir():
        raise OutputError(f"{path} is a file: give the path of a folder")
    if exists and marker and not (path / marker).exists() and any(path.iterdir()):
        raise OutputError(f"{path} is a folder with other things in it (it has no {marker}): it is never replaced")
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: {parent} is a file, not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: no permission in {parent}")


def _flush(path: Path) -> None:
    """Flush a file or folder to the disk. Windows flushes no folders, and only files that are open for writing."""
    if _WINDOWS and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_into_place(temporary: Path, path: Path) -> None:
    if not temporary.is_dir() or not (path.exists() or path.is_symlink()):
        temporary.replace(path)
    elif not exchange(temporary, path):  # what stood there is now called `temporary`, and is removed by that name
        # Two steps, with a moment between them in which nothing stands there: the old one comes back by the next run.
        aside = path.with_name(f".{path.name}.{os.getpid()}{_ASIDE}{_SUFFIX}")
        path.rename(aside)
        try:
            temporary.rename(path)
        except OSError:
            aside.rename(path)
            raise
        _remove(aside)
    with suppress(OSError):  # some file systems cannot flush a folder; the rename itself has happened
        _flush(path.parent)


def exchange(one: Path, other: Path) -> bool:
    """Let two files or folders of one file system change places, at once for everybody who looks.

    Returns:
        Whether that was done; False where the system or the file system cannot do it, and nothing has changed.
    """
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library without it
        return False
    done: int = rename(
        _AT_WORKING_FOLDER, os.fsencode(one), _AT_WORKING_FOLDER, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)
    )
    return done == 0


def _remove(path: Path) -> None:
    if os.path.isdir(path) and not path.is_symlink():  # noqa: PTH112  (False, not an error, for a name too long)
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # clean-up never hides the error that led to it
            path.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove what a killed writer left beside `path`; what it had moved aside comes back if nothing is there."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.([0-9]+)({re.escape(_ASIDE)})?{re.escape(_SUFFIX)}")
    prefix = f".{path.name}."
    with os.scandir(path.parent) as entries:  # a folder may hold a hundred thousand results: no objects for them
        names = [entry.name for entry in entries if entry.name.startswith(prefix)]
    for name in names:
        match = ours.fullmatch(name)
        if match and not _is_writing(int(match[1])):
            if match[2] and not path.exists():
                (path.parent / name).rename(path)
            _remove(path.parent / name)


def _is_writing(process_id: int) -> bool:
    if process_id == os.getpid():  # an earlier process had our id, as happens in containers
        return False
    if _WINDOWS:  # `os.kill` would end that process: what it may have left stays
        return True
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
