"""Files and folders that appear complete or not at all, also if several threads and processes write to one path.

Everything is written in a hidden folder next to the path, which has a random name and belongs to this one write. What
is finished is flushed to disk and renamed out of it. A process that is killed at any moment leaves the old content or
the new, and perhaps its hidden folder. (Where the system cannot exchange two folders, there is a moment without either,
see `_replace_folder`.)

A writer holds a lock (`flock`) on its hidden folder. The kernel releases it with the process, and all containers of a
machine see it. The next writer to the same path removes the hidden folders that nobody holds. Where there are no such
locks (Windows, NFS), nobody can tell whether a writer still lives, so they stay.
"""

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    _LOCKS = False
else:
    _LOCKS = True

_SUFFIX, _ASIDE = ".partial", ".old"
_WINDOWS = os.name == "nt"
_AT_WORKING_FOLDER = -100  # AT_FDCWD: paths are as the caller gives them
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
REPLACE = "overwrite=True"  # ends the message about a path that exists
_MOST_TRIES = 1000  # of a step that another writer can be in the way of


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        check_output(path, overwrite=overwrite, directory=directory, marker=marker)  # an old folder may have come back
        with _hidden_folder(path) as folder:
            temporary = folder / path.name
            if directory:
                temporary.mkdir()
            yield temporary
            for item in [temporary, *sorted(temporary.rglob("*"))] if temporary.is_dir() else [temporary]:
                if not item.is_symlink():  # it leads somewhere from its final place only
                    _flush(item)
            _move_into_place(temporary, path, overwrite=overwrite)
    except OSError as error:
        if isinstance(error, OutputError) or error.errno is None:
            raise
        raise OutputError(f"cannot write {path}: {os.strerror(error.errno)}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, and replace an existing one.

    Halves of surrogate pairs, which are not UTF-8, become Python escapes, which are also JSON's.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


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
        raise _exists(path)
    if exists and path.is_dir() and not directory:
        raise OutputError(f"{path} is a folder: give the path of a file, such as {path / 'model'}")
    if exists and directory and not path.is_dir():
        raise OutputError(f"{path} is a file: give the path of a folder")
    if exists and marker and _is_unrelated(path, marker):
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


def _is_unrelated(folder: Path, marker: str) -> bool:
    """Return whether a folder has files, but not the marker."""
    try:
        return not (folder / marker).exists() and any(folder.iterdir())
    except FileNotFoundError:  # another writer has moved it aside, see `_replace_folder`
        return False


def _flush(path: Path) -> None:
    """Flush a file or folder to the disk. Windows flushes no folders, and only files that are open for writing."""
    if _WINDOWS and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exists(path: Path) -> OutputError:
    return OutputError(f"{path} already exists: choose another path, or replace it with {REPLACE}")


@contextmanager
def _hidden_folder(path: Path) -> Iterator[Path]:
    """Make a folder next to `path`, locked and for this user alone; remove it when the block ends."""
    for _ in range(_MOST_TRIES):
        folder = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_SUFFIX}")
        folder.mkdir(mode=0o700)
        with suppress(BlockingIOError, FileNotFoundError):  # another writer took it for abandoned before it was locked
            lock = _lock(folder)
            break
    else:
        raise OutputError(f"cannot write {path}: its temporary files were removed again and again by other processes")
    try:
        yield folder
    finally:
        _remove(folder)
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder; return the open descriptor that holds the lock, or None where there are no locks.

    Raises:
        BlockingIOError: Someone else holds the lock.
        FileNotFoundError: The folder has been removed.
    """
    if not _LOCKS:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.stat()  # its last holder may have removed it before it let go
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _move_into_place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        _move_to_free_name(temporary, path)
    elif temporary.is_dir():
        _replace_folder(temporary, path)
    else:
        temporary.replace(path)
    with suppress(OSError):  # some file systems cannot flush a folder; the rename itself has happened
        _flush(path.parent)


def _move_to_free_name(temporary: Path, path: Path) -> None:
    """Rename to a name that another writer may have taken since it was looked at."""
    found = _renameat2(temporary, path, _RENAME_NOREPLACE)
    if found == errno.EEXIST:
        raise _exists(path)
    if found != 0:  # a system without this; its rename replaces a file that appears between these two lines
        check_output(path, overwrite=False)
        temporary.rename(path)


def _replace_folder(temporary: Path, path: Path) -> None:
    """Put a folder where another may stand; what stood there is removed with the hidden folder.

    Two folders that cannot be exchanged take two steps, with a moment without either. After a crash there, the next
    writer restores the old one. Other writers may do the same at the same time.
    """
    aside = temporary.with_name(path.name + _ASIDE)
    for _ in range(_MOST_TRIES):
        if os.path.lexists(path):
            if exchange(temporary, path):
                return
            _remove(aside)
            with suppress(FileNotFoundError):  # another writer has moved it aside
                path.rename(aside)
        try:
            temporary.rename(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another writer was faster
                continue
            if os.path.lexists(aside):
                aside.rename(path)
            raise
        return
    raise OutputError(f"cannot write {path}: other processes replace it again and again")


def exchange(one: Path, other: Path) -> bool:
    """Swap two files or folders of one file system atomically; return False, with no change, if that is impossible."""
    return _renameat2(one, other, _RENAME_EXCHANGE) == 0


def _renameat2(one: Path, other: Path, flag: int) -> int | None:
    """Rename as Linux can; return 0 or the number of the error, and None on other systems."""
    if sys.platform != "linux":
        return None
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library without it
        return None
    done: int = rename(
        _AT_WORKING_FOLDER, os.fsencode(one), _AT_WORKING_FOLDER, os.fsencode(other), ctypes.c_uint(flag)
    )
    return 0 if done == 0 else ctypes.get_errno()


def _remove(path: Path) -> None:
    if os.path.isdir(path) and not path.is_symlink():  # noqa: PTH112  (False, not an error, for a name too long)
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # cleaning up must not hide the error that led to it
            path.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the hidden folders of killed writers next to `path`; restore a folder that one had moved aside."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}{re.escape(_SUFFIX)}")
    prefix = f".{path.name}."
    with os.scandir(path.parent) as entries:  # a folder may hold a hundred thousand results, so no Path for each
        names = [entry.name for entry in entries if entry.name.startswith(prefix)]
    for folder in (path.parent / name for name in names if ours.fullmatch(name)):
        _remove_if_abandoned(folder, path)


def remove_abandoned_below(folder: Path) -> None:
    """Remove the hidden folders of killed writers at any depth, also beside what they had put in place."""
    hidden = re.compile(rf"\.(.+)\.[0-9a-f]{{16}}{re.escape(_SUFFIX)}", re.DOTALL)
    for place, names, _ in os.walk(folder):
        for match in list(filter(None, map(hidden.fullmatch, names))):
            names.remove(match[0])
            _remove_if_abandoned(Path(place, match[0]), Path(place, match[1]))


def _remove_if_abandoned(folder: Path, path: Path) -> None:
    """Remove a hidden folder of `path`, unless its writer lives or nobody can tell."""
    with suppress(OSError):  # its writer lives, or it is someone else's
        lock = _lock(folder)
        if lock is None:
            return
        try:
            aside = folder / (path.name + _ASIDE)
            if os.path.lexists(aside) and not os.path.lexists(path):
                aside.rename(path)
            _remove(folder)
        finally:
            os.close(lock)
