"""Host memory that the operating system does not move, so that a GPU copies from and to it at full speed."""

import ctypes
import math
import sys
from functools import cache
from typing import Any
from weakref import finalize

import numpy as np
import numpy.typing as npt

from runtime.engines.ort.library import ort
from runtime.errors import OutOfMemoryError


class PageLocked:
    """An array in page-locked memory, which lives as long as this object.

    Memory is locked for the current device of the thread: allocate something on the device first.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        kind = np.dtype(dtype)
        size = max(1, math.prod(shape) * kind.itemsize)
        place = ctypes.c_void_p()
        code = _cuda().cudaHostAlloc(ctypes.byref(place), ctypes.c_size_t(size), ctypes.c_uint(0))
        if code or place.value is None:
            raise OutOfMemoryError(f"CUDA cannot lock {size} bytes of host memory (error {code}): use smaller batches")
        finalize(self, _cuda().cudaFreeHost, place).atexit = False
        buffer = (ctypes.c_uint8 * size).from_address(place.value)
        self.array: npt.NDArray[Any] = np.frombuffer(memoryview(buffer), kind, math.prod(shape)).reshape(shape)


@cache
def _cuda() -> Any:
    """Return CUDA's runtime library, which the CUDA provider has loaded."""
    major = str(ort.cuda_version).split(".", maxsplit=1)[0]
    return ctypes.CDLL(f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}")
