"""Host memory that the operating system does not move, so that a GPU copies from and to it at full speed."""

import ctypes
import math
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any
from weakref import finalize

import numpy as np
import numpy.typing as npt

from runtime.engines.ort.library import ort
from runtime.errors import EngineError, OutOfMemoryError


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


def copy_from_device(pairs: Iterable[tuple[Any, npt.NDArray[Any]]]) -> None:
    """Copy tensors of a CUDA device to arrays in page-locked memory, and wait once for all.

    Raises:
        EngineError: CUDA refuses, as after an error of an earlier run.
    """
    to_host = ctypes.c_int(2)
    codes = [
        _cuda().cudaMemcpyAsync(
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_void_p(value.data_ptr()),
            ctypes.c_size_t(array.nbytes),
            to_host,
            None,  # the default stream: the run that made the tensors has ended
        )
        for value, array in pairs
    ]
    if any([*codes, _cuda().cudaStreamSynchronize(None)]):
        raise EngineError(f"CUDA cannot copy results to the host (errors {codes}): open the artifact again")


@cache
def _cuda() -> Any:
    """Return CUDA's runtime library, which the CUDA provider has loaded."""
    major = str(ort.cuda_version).split(".", maxsplit=1)[0]
    return ctypes.CDLL(f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}")
