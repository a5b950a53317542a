"""Two paths change places in one step, where the system can do that."""

import ctypes
import os
import sys
from pathlib import Path

_AT_WORKING_FOLDER = -100  # AT_FDCWD: paths are as the caller gives them
_RENAME_EXCHANGE = 2


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
