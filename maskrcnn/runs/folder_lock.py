"""The lock that keeps a second run out of a run folder."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import MissingPackageError, OutputError

LOCK = ".lock"
# Errors of file systems without the locks of the kernel. There, the lock is a file that names its owner.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)
_SECONDS = 3  # to find that the owner of such a file is dead


@contextmanager
def locked(folder: Path, extra: str, name: str = LOCK) -> Iterator[None]:
    """Make a folder if it is missing, and lock it against other runs for the time of a block.

    The kernel releases the lock of a killed process, and all containers of a machine share it. On a file system without
    such locks, a file names the owner. If that process ran on this machine, in the same container, and is gone, its
    file is replaced; otherwise nobody can tell, and the run is refused.

    Args:
        folder: The run folder.
        extra: Extra of the command, for the message about a missing package.
        name: Of the file that is locked; a folder has one for each use.

    Raises:
        OutputError: Another run uses the folder, or it cannot be made or locked.
        MissingPackageError: filelock is not installed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from error
    lock = _acquire(folder, extra, name)
    try:
        yield
    finally:
        lock.release()


def _acquire(folder: Path, extra: str, name: str) -> Any:
    try:
        import filelock  # noqa: PLC0415  (comes with the command line)
    except ModuleNotFoundError as error:
        if error.name != "filelock":
            raise
        raise MissingPackageError("filelock", extra, "locking the folder of a run") from error
    in_use = f"{folder} is in use by another run: wait for it, or choose another folder"
    lock = filelock.FileLock(folder / name, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise OutputError(in_use) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OutputError(f"cannot lock {folder}: {error.strerror or error}") from error
    else:
        return lock
    owner = folder / f"{name}-owner"
    lock = filelock.SoftFileLock(owner)
    try:
        lock.acquire(timeout=_SECONDS, poll_interval=0.2)
    except filelock.Timeout as error:
        raise OutputError(
            f"{in_use}. This file system has no locks: if that run no longer exists, delete {owner}"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot lock {folder}: {error.strerror or error}") from error
    return lock
