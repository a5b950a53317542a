"""Files in the safetensors format: the library checks the header, and the values are read from where it says."""

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from maskrcnn.checkpoints.h5_content import RefusedError, check_declared
from maskrcnn.checkpoints.pytorch.tensors import BFLOAT16, DTYPES, itemsize, plain_array
from runtime.errors import MissingPackageError

_DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": BFLOAT16, "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
}


def read_safetensors(path: Path, stream: BinaryIO) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return all arrays of a file and the texts in its header.

    Raises:
        RefusedError: It is truncated or damaged, or has values of a type that is not read.
        MissingPackageError: The package safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - needed for this format only
    except ImportError as error:
        raise MissingPackageError("safetensors", "tf", "reading .safetensors files") from error
    size = stream.seek(0, 2)
    stream.seek(0)
    start = 8 + struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))[0]
    try:
        with safe_open(path, framework="numpy") as file:
            texts = file.metadata() or {}
            described = {name: _described(file.get_slice(name)) for name in file.offset_keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise RefusedError(f"is truncated or damaged: {error}; copy or download it again") from error
    check_declared(sum(count * itemsize(_dtype(name, kind)) for name, (kind, _, count) in described.items()), size)
    arrays: dict[str, NDArray[Any]] = {}
    stream.seek(start)
    for name, (kind, shape, count) in described.items():  # without gaps between them, which the library has checked
        dtype = _dtype(name, kind)
        data = stream.read(count * itemsize(dtype))
        if len(data) != count * itemsize(dtype):
            raise RefusedError(f"is truncated: the values of {name} are missing")
        arrays[name] = plain_array(np.ndarray(shape, f"<{DTYPES[dtype]}", data or bytes(8)), dtype)
    return arrays, texts


def _described(part: Any) -> tuple[str, tuple[int, ...], int]:
    """Return the type, shape and number of values of an array."""
    shape = tuple(part.get_shape())
    return str(part.get_dtype()), shape, math.prod(shape)


def _dtype(name: str, kind: str) -> str:
    if kind not in _DTYPES:
        raise RefusedError(f"has {name} in the type {kind}: expected floating-point weights of 16 bits or more")
    return _DTYPES[kind]
