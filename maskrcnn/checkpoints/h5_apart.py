"""HDF5 files in layouts that Keras does not write, read by the HDF5 library in a process of its own.

A crafted file can make the library crash, loop, or take all memory. So it only ever opens such a file in a child: a
Python that imports NumPy and h5py (a third of a second), gets the file as its standard input, has limits of time and
memory, and sends what it finds as lines of JSON, each followed by the bytes of an array. What it sends is checked too.
"""

import json
import math
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from multiprocessing import spawn
from pathlib import Path
from threading import Timer
from typing import Any, BinaryIO

import numpy as np

from maskrcnn.checkpoints.h5_content import H5Array, H5Content, RefusedError, check_declared

_SECONDS, _BYTES_PER_SECOND = 30, 5_000_000
_MEMORY, _MEMORY_PER_BYTE = 2 * 2**30, 8  # of address space
_LONGEST_LINE = 2**20  # bytes of JSON, on top of the size of the file
_WINDOWS_CRASH = 2**31  # where exit codes of crashes begin; elsewhere they are negative
_DTYPE = re.compile(r"[<>|][fiubc]\d{1,2}")
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from maskrcnn.checkpoints.h5_apart import child; child(int(sys.argv[2]))"
)
# Errors that h5py and NumPy raise for files with a broken structure.
_DAMAGE = (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError)


def read_apart(stream: BinaryIO) -> H5Content:
    """Read a whole file in a child process.

    Raises:
        RefusedError: The file is damaged or unsafe, or the child died of it.
        ModuleNotFoundError: h5py is not installed.
    """
    if find_spec("h5py") is None:
        raise ModuleNotFoundError("No module named 'h5py'", name="h5py")
    size = os.fstat(stream.fileno()).st_size
    seconds = _SECONDS + size // _BYTES_PER_SECOND
    process = start_child(stream, seconds)
    timer, end = Timer(seconds, process.kill), time.monotonic() + seconds
    timer.start()
    try:
        with process.stdout:
            found = _receive(process.stdout, size)
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if found is not None:
        return found
    if time.monotonic() >= end:
        raise RefusedError(f"is damaged: the HDF5 library did not read it within {seconds} seconds")
    if 0 <= code < _WINDOWS_CRASH:
        raise RefusedError(f"cannot be read: the process that should read it stopped early (exit code {code})")
    raise RefusedError(f"is damaged: the HDF5 library crashed while reading it (exit code {code})")


def start_child(stream: BinaryIO, seconds: int) -> Any:
    """Start the process that reads `stream`; it runs `child`."""
    root = str(Path(__file__).resolve().parents[2])
    paths = json.dumps([*(path for path in sys.path if Path(path).is_absolute()), root])
    quiet = {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}  # no plug-ins, no threads
    return subprocess.Popen(  # noqa: S603
        [_interpreter(), "-I", "-S", "-c", _CHILD, paths, str(seconds)],
        stdin=stream,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | quiet,
    )


def _interpreter() -> str:
    """Return the path of a Python; `multiprocessing.set_executable` names another one than the running program."""
    found = os.fsdecode(spawn.get_executable() or "")
    if getattr(sys, "frozen", False) or "python" not in Path(found).name.lower():
        raise RefusedError(
            "has a layout that Keras does not write, and this program is no Python that could read it apart: write the "
            "file again with h5py's default settings"
        )
    return found


def _receive(source: BinaryIO, size: int) -> H5Content | None:
    """Return what a child sends; None if it stops before the end."""
    found, declared = H5Content(), 0
    while line := source.readline(_LONGEST_LINE + size):
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return None
        match message:
            case {"refused": str(reason)}:
                raise RefusedError(reason)
            case {"group": str(path), "attributes": dict(attributes)} if all(map(_is_plain, attributes.values())):
                found.groups[path] = attributes
            case {"text": str(path), "value": str(text)}:
                found.texts[path] = text
            case {"array": str(path), "shape": [*lengths], "dtype": None}:
                found.arrays[path] = H5Array(tuple(lengths), None, partial(np.empty, 0))
            case {"array": str(path), "shape": [*lengths], "dtype": str(name)} if _DTYPE.fullmatch(name):
                dtype, shape = np.dtype(name), tuple(lengths)
                if not all(isinstance(length, int) and length >= 0 for length in shape):
                    return None
                declared += math.prod(shape) * dtype.itemsize
                check_declared(declared, size)
                array = np.empty(math.prod(shape), dtype)
                if source.readinto(array.view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]
                    return None
                found.arrays[path] = H5Array(shape, dtype, partial(array.reshape, shape))
            case {"end": True} if "" in found.groups:
                return found
            case _:
                return None
    return None


def _is_plain(value: object) -> bool:
    return value is None or all(isinstance(text, str) for text in (value if isinstance(value, list) else [value]))


def child(seconds: int) -> None:
    """Send what is in the file at standard input; the whole of a child process."""
    import h5py  # noqa: PLC0415, F401

    stream = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    _limit(seconds, os.fstat(0).st_size)
    with open(1, "wb", closefd=False) as out:
        try:
            _send_all(stream, out)
        except RefusedError as error:
            _send(out, {"refused": str(error)})
        except _DAMAGE as error:
            _send(out, {"refused": f"is truncated or damaged: {error}".split("\n")[0]})


def _limit(seconds: int, size: int) -> None:
    with suppress(ImportError, ValueError, OSError):  # Windows has none, macOS not all
        import resource  # noqa: PLC0415

        for kind, most in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_AS, _MEMORY + _MEMORY_PER_BYTE * size),
        ):
            resource.setrlimit(kind, (most, most))


def _send_all(stream: BinaryIO, out: BinaryIO) -> None:
    import h5py  # noqa: PLC0415

    from maskrcnn.checkpoints.h5_walk import check_heaps, walk  # noqa: PLC0415

    size = os.fstat(0).st_size
    with h5py.File(stream, "r") as file:
        check_heaps(file, stream)
        objects = list(walk(file, size))  # all of it, before anything is read
        for path, item in objects:
            if isinstance(item, h5py.Group):
                attributes = {name: _plain(item.attrs[name]) for name in item.attrs}
                _send(out, {"group": path, "attributes": attributes})
            elif item.dtype.kind == "O" and h5py.check_string_dtype(item.dtype) and item.shape == ():
                _send(out, {"text": path, "value": item[()].decode()})
            else:
                known = item.dtype.str if _DTYPE.fullmatch(item.dtype.str) else None
                values = np.asarray(item[()]).tobytes() if known else b""
                _send(out, {"array": path, "shape": item.shape, "dtype": known})
                out.write(values)
    _send(out, {"end": True})


def _plain(value: Any) -> str | list[str] | None:
    if isinstance(value, str | bytes):
        return value.decode() if isinstance(value, bytes) else value
    if isinstance(value, np.ndarray) and value.size == 0:
        return []
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "SO":
        texts = [_plain(each) for each in value]
        return [text for text in texts if isinstance(text, str)] if None not in texts else None
    return None


def _send(out: BinaryIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message).encode() + b"\n")
