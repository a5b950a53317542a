"""Runs with inputs and outputs in device memory, allocated once for each shape and concurrent run."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from runtime.artifact import IMAGES
from runtime.engines.ort.library import ort

_KEPT_SHAPES = 8  # so that images of many sizes do not fill the device

Arrays = dict[str, npt.NDArray[Any]]
Device = tuple[str, int]
_T = TypeVar("_T")


class Kept(Generic[_T]):
    """Values for the shapes used last; others are made again when needed."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, _T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return the value for a key."""
        if key not in self._values:
            while len(self._values) >= _KEPT_SHAPES:  # before making one, so that the memory can be reused
                self._values.popitem(last=False)
            self._values[key] = make()
        self._values.move_to_end(key)
        return self._values[key]


class BoundRun:
    """A session bound to its own tensors for inputs of one shape: fixed addresses, and no allocation during a run.

    Args:
        session: A session of ONNX Runtime.
        examples: Host arrays like those that `__call__` gets.
        batch: Number of images in a run.
        outputs: As `Metadata.outputs` describes them.
        device: "cpu" or "cuda", and the index.
        ready: Inputs that are already on the device.
    """

    def __init__(
        self,
        session: Any,
        examples: Mapping[str, npt.NDArray[Any]],
        batch: int,
        outputs: Mapping[str, Mapping[str, Any]],
        device: Device,
        ready: Mapping[str, Any] | None = None,
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._inputs, self._outputs = {}, {}
        for name, array in examples.items():
            # Images are uploaded as bytes; small inputs are also read by the host, and stay there.
            self._inputs[name] = tensor(array.shape, array.dtype, device if name == IMAGES else ("cpu", 0))
        for name, value in {**self._inputs, **(ready or {})}.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, described in outputs.items():
            shape = [batch if side is None else side for side in described["shape"]]
            self._outputs[name] = tensor(shape, described["dtype"], device)
            self._binding.bind_ortvalue_output(name, self._outputs[name])

    def __call__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run and return copies on the host."""
        for name, value in self._inputs.items():
            value.update_inplace(arrays[name])
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        # On the CPU, `numpy` returns a view of the tensor, which the next run overwrites.
        return {name: np.array(value.numpy()) for name, value in self._outputs.items()}


class BoundSession:
    """Runs a session with any free `BoundRun` of the input shape, for any number of threads at once."""

    def __init__(self, session: Any, outputs: Mapping[str, Mapping[str, Any]], device: Device) -> None:
        self._session, self._outputs, self._device = session, outputs, device
        self._lock = threading.Lock()
        self._free: Kept[list[BoundRun]] = Kept()

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run on host arrays."""
        arrays = on_host(inputs)
        shape = arrays[IMAGES].shape
        with self._lock:
            free: list[BoundRun] = self._free.get(shape, list)
            run = free.pop() if free else None
        if run is None:  # as many are made as run at the same time
            run = BoundRun(self._session, arrays, shape[0], self._outputs, self._device)
        found = run(arrays)
        with self._lock:
            free.append(run)
        return found


def on_host(inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Return inputs as contiguous arrays."""
    return {name: np.asarray(array, order="C") for name, array in inputs.items()}


def tensor(shape: Any, dtype: Any, device: Device) -> Any:
    """Return an uninitialized tensor of ONNX Runtime on a device."""
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype).type, *device)
