"""Tensors of PyTorch: where their values lie in a storage, checked before any array is made."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskrcnn.checkpoints.h5_content import RefusedError

ByteOrder = Literal["<", ">"]
MOST_AXES = 16
LARGEST = 2**48  # of a length, offset or stride
BFLOAT16 = "bfloat16"
# NumPy's type of each type of PyTorch that weights have; bfloat16 is the upper half of a float32.
DTYPES = {
    "float32": "f4",
    "float": "f4",
    "float64": "f8",
    "double": "f8",
    "float16": "f2",
    "half": "f2",
    BFLOAT16: "u2",
    "int64": "i8",
    "long": "i8",
    "int32": "i4",
    "int": "i4",
    "int16": "i2",
    "short": "i2",
    "int8": "i1",
    "uint8": "u1",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
    "bool": "b1",
}


@dataclass(frozen=True)
class Storage:
    """A block of values in a file; `dtype` is PyTorch's name, "uint8" with the count in bytes if it has no type."""

    key: str
    dtype: str
    count: int

    @property
    def nbytes(self) -> int:
        """Return its size in bytes."""
        return self.count * itemsize(self.dtype)


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file, not read; lengths, offset and strides are counted in values and not checked yet."""

    storage: Storage
    dtype: str
    offset: Any
    shape: Any
    strides: Any


def itemsize(dtype: str) -> int:
    """Return the bytes of one value."""
    return np.dtype(DTYPES[dtype]).itemsize


def checked_bytes(name: str, tensor: Tensor) -> int:
    """Check that a tensor lies inside its storage and uses no value of it twice; return the bytes of its values.

    Raises:
        RefusedError: It does not.
    """
    shape, strides, offset = tensor.shape, tensor.strides, tensor.offset
    numbers = (*shape, *strides, offset) if isinstance(shape, tuple) and isinstance(strides, tuple) else (None,)
    if not all(type(number) is int and 0 <= number <= LARGEST for number in numbers):
        raise RefusedError(f"is damaged: shape, strides or offset of {name} are no numbers that a tensor can have")
    if len(shape) != len(strides) or len(shape) > MOST_AXES:
        raise RefusedError(f"is damaged: {name} has {len(shape)} axes and {len(strides)} strides")
    count = math.prod(shape)
    size = itemsize(tensor.dtype)
    if count == 0:
        return 0
    reach = 1
    for length, stride in sorted(zip(shape, strides, strict=True), key=lambda axis: axis[1]):
        if length > 1:
            if stride < reach:
                raise RefusedError(
                    f"has {name} with the shape {shape} and the strides {strides}, which use values twice: save "
                    "tensor.clone() of it"
                )
            reach += (length - 1) * stride
    if (offset + reach) * size > tensor.storage.nbytes:
        raise RefusedError(
            f"is damaged: {name} has the shape {shape}, strides {strides} and offset {offset}, but its storage has "
            f"{tensor.storage.nbytes // size} values"
        )
    return count * size


def to_array(tensor: Tensor, data: bytes, byte_order: ByteOrder) -> NDArray[Any]:
    """Return the values of a checked tensor from the bytes of its storage, as `plain_array` does."""
    dtype = np.dtype(DTYPES[tensor.dtype]).newbyteorder(byte_order)
    if 0 in tensor.shape:
        return plain_array(np.empty(tensor.shape, dtype), tensor.dtype)
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    view: NDArray[Any] = np.ndarray(tensor.shape, dtype, data, tensor.offset * dtype.itemsize, strides)
    array = plain_array(view, tensor.dtype)
    # A small part shall not keep a large storage in memory.
    return array.copy() if np.may_share_memory(array, view) and array.nbytes < len(data) else array


def plain_array(array: NDArray[Any], dtype: str = "") -> NDArray[Any]:
    """Return an array in C order and the machine's byte order, all kinds of floating point as float32."""
    if dtype == BFLOAT16:
        return (np.ascontiguousarray(array).astype(np.uint32) << 16).view(np.float32).reshape(array.shape)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinite values are refused by those who use them
            return np.asarray(array, np.float32, order="C")
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def read_tensors(
    tensors: dict[str, Tensor], read: Callable[[Storage], bytes], byte_order: ByteOrder
) -> dict[str, NDArray[Any]]:
    """Return the values of checked tensors, reading each storage once and keeping one at a time."""
    by_storage: dict[Storage, list[str]] = {}
    for name, tensor in tensors.items():
        by_storage.setdefault(tensor.storage, []).append(name)
    found: dict[str, NDArray[Any]] = {}
    for storage, names in by_storage.items():
        data = read(storage)
        for name in names:
            found[name] = to_array(tensors[name], data, byte_order)
    return {name: found[name] for name in tensors}
