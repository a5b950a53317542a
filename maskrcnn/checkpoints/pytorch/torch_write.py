"""Writing a state dict as torch.save does, without PyTorch."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.atomic import atomic_write

_ROOT = "archive"
_ALIGNMENT = 64  # bytes at which PyTorch lets values begin
_LOCAL_HEADER = 30
_STORAGES = {
    "f4": "FloatStorage",
    "f8": "DoubleStorage",
    "f2": "HalfStorage",
    "i8": "LongStorage",
    "i4": "IntStorage",
    "i2": "ShortStorage",
    "i1": "CharStorage",
    "u1": "ByteStorage",
    "b1": "BoolStorage",
}


def write_state(path: str | Path, tensors: Mapping[str, NDArray[Any]], overwrite: bool = False) -> None:
    """Write a state dict that torch.load reads, also with weights_only=True, and PyTorch from 1.6 on.

    Equal arrays give equal bytes.

    Args:
        path: The .pth file, written atomically.
        tensors: By name, in the order of the file: floating point of 16, 32 or 64 bits, signed integers, uint8 or bool.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: The file exists and `overwrite` is False, or it cannot be written.
        ValueError: An array is of another type.
    """
    for name, array in tensors.items():
        if _code(array) not in _STORAGES:
            raise ValueError(f"{name} has the type {array.dtype}: expected one of {', '.join(_STORAGES)}")
    with (
        atomic_write(path, overwrite=overwrite) as temporary,
        temporary.open("wb") as stream,
        zipfile.ZipFile(stream, "w") as archive,
    ):
        _write(archive, stream.tell(), "data.pkl", _pickle(tensors))
        _write(archive, stream.tell(), "byteorder", b"little")
        for index, array in enumerate(tensors.values()):
            values = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
            _write(archive, stream.tell(), f"data/{index}", values.reshape(-1).view(np.uint8).data)
        _write(archive, stream.tell(), "version", b"3\n")


def _write(archive: zipfile.ZipFile, place: int, name: str, data: bytes | memoryview) -> None:
    """Write an entry without compression, its bytes at a multiple of 64 as PyTorch has them."""
    info = zipfile.ZipInfo(f"{_ROOT}/{name}")
    before = place + _LOCAL_HEADER + len(info.filename) + 4
    padding = -before % _ALIGNMENT
    info.extra = b"FB" + pack("<H", padding) + b"Z" * padding
    info.file_size = len(data)
    with archive.open(info, "w") as entry:
        entry.write(data)


def _code(array: NDArray[Any]) -> str:
    return array.dtype.str[1:]


def _pickle(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return an OrderedDict of tensors as PyTorch pickles it."""
    parts = [b"\x80\x02", _global("collections", "OrderedDict"), b")R("]
    for index, (name, array) in enumerate(tensors.items()):
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        parts += [_text(name), _global("torch._utils", "_rebuild_tensor_v2"), b"(("]
        parts += [_text("storage"), _global("torch", _STORAGES[_code(array)]), _text(str(index)), _text("cpu")]
        parts += [_integer(array.size), b"tQ", _integer(0), _integers(array.shape), _integers(strides)]
        parts += [b"\x89", _global("collections", "OrderedDict"), b")RtR"]  # no gradient, no hooks
    return b"".join([*parts, b"u."])


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    return b"J" + pack("<i", value) if value < 2**31 else b"\x8a\x08" + pack("<q", value)


def _integers(values: Any) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
