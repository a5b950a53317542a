"""Files and folders that appear complete or not at all.

Everything is written under a hidden sibling name, flushed to disk, and renamed into place. A process that is killed at
any moment leaves the old content or the new, and perhaps a sibling, which the next writer to the same path removes.
(Where the system cannot exchange two folders, there is a moment without either, see `_move_into_place`. On Windows, a
process cannot tell whether another one still runs, so siblings of others stay.)
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
    """Yield a temporary path to write to; it replaces `path` when the block ends without an error.

    Args:
        path: the file or folder; parent folders are created.
        overwrite: whether an existing one may be replaced.
        directory: the block writes a folder, and gets an empty one.
        marker: see `check_output`.

    Raises:
        OutputError: the path exists and may not be replaced, or cannot be written (no permission, no space, too large).
    """
    path = Path(path)
    check_output(path, overwrite=overwrite, directory=directory, marker=marker)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        check_output(path, overwrite=overwrite, directory=directory, marker=marker)  # an old folder may have come back
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
    """Refuse an output path early, before time is spent on its content.

    Args:
        path: the file or folder to write.
        overwrite: whether an existing one of the same kind may be replaced.
        directory: whether it is a folder.
        marker: a file in every folder of this kind; a folder without it is never replaced, unless it is empty.

    Raises:
        OutputError: the path exists and may not be replaced, or its parent folder cannot be written.
    """
    path = Path(path)
    if not path.name or "\0" in path.name:
        raise OutputError(f"{str(path)!r} is not the name of a file: give the path to write")
    try:
        exists = path.exists()
    except OSError as error:  # the name is too long, or a folder may not be entered
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    if exists and not overwrite:
        raise OutputError(f"{path} already exists: choose another path, or replace it with --force (overwrite=True)")
    if exists and path.is_dir() and not directory:
        raise OutputError(f"{path} is a folder: give the path of a file, such as {path / 'model'}")
    if exists and directory and not path.is_dir():
        raise OutputError(f"{path} is a file: give the path of a folder")
    if exists and marker and not (path / marker).exists() and any(path.iterdir()):
        raise OutputError(
            f"{path} is a folder with other files in it (it has no {marker}) and is never replaced: choose another path"
        )
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
    elif not exchange(temporary, path):  # otherwise the old folder is now at `temporary`, and is removed there
        # Two steps, with a moment without a folder between them; after a crash there, the next run restores the old
        # one.
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
    """Swap two files or folders of one file system atomically; return False, with no change, if that is impossible."""
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
        with suppress(OSError):  # cleaning up must not hide the error that led to it
            path.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the files of killed writers next to `path`; restore a folder that one had moved aside if none is there."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.([0-9]+)({re.escape(_ASIDE)})?{re.escape(_SUFFIX)}")
    prefix = f".{path.name}."
    with os.scandir(path.parent) as entries:  # a folder may hold a hundred thousand results, so no Path for each
        names = [entry.name for entry in entries if entry.name.startswith(prefix)]
    for name in names:
        match = ours.fullmatch(name)
        if match and not _is_writing(int(match[1])):
            if match[2] and not path.exists():
                (path.parent / name).rename(path)
            _remove(path.parent / name)


def _is_writing(process_id: int) -> bool:
    if process_id == os.getpid():  # an earlier process had our id, as in containers
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
