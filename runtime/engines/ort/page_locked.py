"""Page-locked host memory, which a GPU copies from and to at full speed, and the queue of such copies."""

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


class Stream:
    """A queue of work on a device, which becomes the current one of the thread.

    Pass its `handle` to the sessions that use it.
    """

    def __init__(self, index: int) -> None:
        place = ctypes.c_void_p()
        not_with_the_default_stream = ctypes.c_uint(1)
        code = _cuda().cudaSetDevice(ctypes.c_int(index))
        code = code or _cuda().cudaStreamCreateWithFlags(ctypes.byref(place), not_with_the_default_stream)
        if code or place.value is None:
            raise EngineError(f"CUDA cannot make a stream (error {code}): open the artifact again")
        self.handle = place.value
        finalize(self, _cuda().cudaStreamDestroy, place).atexit = False

    def copy_to_device(self, array: npt.NDArray[Any], value: Any) -> None:
        """Queue a copy from page-locked memory to a tensor, without waiting.

        Raises:
            EngineError: CUDA refuses, as after an error of an earlier run.
        """
        to_device = 1
        code = self._copy(value.data_ptr(), array.ctypes.data, array.nbytes, to_device)
        if code:
            raise EngineError(f"CUDA cannot copy images to the device (error {code}): open the artifact again")

    def copy_to_host(self, pairs: Iterable[tuple[Any, npt.NDArray[Any]]]) -> None:
        """Copy tensors to arrays in page-locked memory after the work in the queue, and wait once for all.

        Raises:
            EngineError: CUDA refuses, or work in the queue has failed.
        """
        to_host = 2
        codes = [self._copy(array.ctypes.data, value.data_ptr(), array.nbytes, to_host) for value, array in pairs]
        codes.append(_cuda().cudaStreamSynchronize(ctypes.c_void_p(self.handle)))
        if any(codes):
            raise EngineError(f"CUDA cannot copy results to the host (errors {codes}): open the artifact again")

    def _copy(self, target: int, source: int, size: int, kind: int) -> int:
        pointers = ctypes.c_void_p(target), ctypes.c_void_p(source)
        stream = ctypes.c_void_p(self.handle)
        return int(_cuda().cudaMemcpyAsync(*pointers, ctypes.c_size_t(size), ctypes.c_int(kind), stream))


@cache
def _cuda() -> Any:
    """Return CUDA's runtime library, which the CUDA provider has loaded."""
    major = str(ort.cuda_version).split(".", maxsplit=1)[0]
    return ctypes.CDLL(f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}")
