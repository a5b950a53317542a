"""Runs with images and outputs in memory that is allocated once for each shape and concurrent run."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from runtime.artifact import IMAGES, INPUT_NAMES
from runtime.engines.ort.cuda_work import cuda_work
from runtime.engines.ort.library import ort
from runtime.engines.ort.page_locked import PageLocked, Stream

KEPT_SHAPES = 8  # so that images of many sizes do not fill the device

Arrays = dict[str, npt.NDArray[Any]]
Outputs = Mapping[str, Mapping[str, Any]]
Device = tuple[str, int]
_T = TypeVar("_T")


class Kept(Generic[_T]):
    """Values for the keys used last; others are made again when needed."""

    def __init__(self, most: int = KEPT_SHAPES) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, _T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return the value for a key."""
        if key not in self._values:
            while len(self._values) >= self._most:  # before making one, so that the memory can be reused
                self._values.popitem(last=False)
            self._values[key] = make()
        self._values.move_to_end(key)
        return self._values[key]


class Upload:
    """Images of one shape on a device: `tensor`, which stays where it is.

    Args:
        images: Images of the shape.
        device: The device.
        stream: The stream on which work with them is queued; None if each run waits for the copy.
    """

    def __init__(self, images: npt.NDArray[Any], device: Device, stream: Stream | None = None) -> None:
        self.tensor = tensor(images.shape, images.dtype, device)
        self._staging = PageLocked(images.shape, images.dtype) if device[0] == "cuda" else None
        self._stream = stream

    def __call__(self, images: npt.NDArray[Any]) -> None:
        """Copy images to the device, and wait for it, or queue the copy on the stream."""
        if self._staging is not None:
            np.copyto(self._staging.array, images)
            images = self._staging.array
        if self._stream is None:
            self.tensor.update_inplace(images)
        else:
            self._stream.copy_to_device(images, self.tensor)


class Download:
    """Outputs of one shape on the host, written during a run; they stay where they are."""

    def __init__(self, outputs: Outputs, batch: int, device: Device) -> None:
        self.arrays: Arrays = {}
        self._locked = []
        for name, described in outputs.items():
            shape = tuple(batch if side is None else side for side in described["shape"])
            if device[0] == "cuda":
                self._locked.append(PageLocked(shape, described["dtype"]))
                self.arrays[name] = self._locked[-1].array
            else:
                self.arrays[name] = np.empty(shape, described["dtype"])
        self.tensors = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in self.arrays.items()}

    def __call__(self) -> Arrays:
        """Return copies."""
        return {name: array.copy() for name, array in self.arrays.items()}


class DeviceDownload:
    """Outputs of one shape on a CUDA device, where they stay, and their copies on the host."""

    def __init__(self, outputs: Outputs, batch: int, device: Device, stream: Stream) -> None:
        self._host = Download(outputs, batch, device)
        self.tensors = {name: tensor(array.shape, array.dtype, device) for name, array in self._host.arrays.items()}
        self._stream = stream

    def __call__(self) -> Arrays:
        """Copy them to the host when the work on the stream is done, wait for it, and return copies."""
        self._stream.copy_to_host((value, self._host.arrays[name]) for name, value in self.tensors.items())
        return self._host()


class DeviceInputs:
    """Small inputs on a device, where they stay; they are copied there when their values change."""

    def __init__(self, arrays: Arrays, device: Device) -> None:
        self._arrays = {name: np.array(array) for name, array in arrays.items()}
        self.tensors = {name: tensor(array.shape, array.dtype, device) for name, array in arrays.items()}
        for name, array in self._arrays.items():
            self.tensors[name].update_inplace(array)

    def __call__(self, arrays: Arrays) -> None:
        """Copy what has changed, and wait for it."""
        for name, array in self._arrays.items():
            if not np.array_equal(array, arrays[name]):
                self._arrays[name] = arrays[name].copy()
                self.tensors[name].update_inplace(self._arrays[name])


class BoundRun:
    """A session with tensors for its inputs and outputs that stay where they are.

    Args:
        session: A session of ONNX Runtime.
        inputs: Tensors by name. Other inputs come as arrays, small ones: ONNX Runtime takes them where the graph needs
            them, on the host or the device, when they are bound. So they are bound again when their values change.
        outputs: Tensors by name.
        options: Of a run, as for `InferenceSession.run`.
    """

    def __init__(
        self, session: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any], options: Any = None
    ) -> None:
        self._session, self._options = session, options
        self.binding = session.io_binding()
        for name, value in inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            self.binding.bind_ortvalue_output(name, value)
        self._small = [name for name in input_names(session) if name not in inputs]
        self._bound: dict[str, tuple[npt.NDArray[Any], Any]] = {}

    def __call__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Run, and wait until the outputs are there, unless the options of the run say otherwise."""
        for name in self._small:
            if name not in self._bound or not np.array_equal(self._bound[name][0], arrays[name]):
                array = arrays[name].copy()
                self._bound[name] = array, ort.OrtValue.ortvalue_from_numpy(array)
                self.binding.bind_ortvalue_input(name, self._bound[name][1])
        self._session.run_with_iobinding(self.binding, self._options)


class BoundSession:
    """Runs a session with any free `BoundRun` of the input shape, for any number of threads at once."""

    def __init__(self, session: Any, outputs: Outputs, device: Device) -> None:
        self._session, self._outputs, self._device = session, outputs, device
        self._lock = threading.Lock()
        self._free: Kept[list[tuple[Upload, BoundRun, Download]]] = Kept()

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run on host arrays."""
        with cuda_work():
            return self._run(on_host(inputs))

    def _run(self, arrays: Arrays) -> Arrays:
        images = arrays[IMAGES]
        with self._lock:
            free = self._free.get(images.shape, list)
            upload, run, download = free.pop() if free else self._bind(images)  # as many as run at the same time
        upload(images)
        run(arrays)
        found = download()
        with self._lock:
            free.append((upload, run, download))
        return found

    def _bind(self, images: npt.NDArray[Any]) -> tuple[Upload, BoundRun, Download]:
        upload, download = Upload(images, self._device), Download(self._outputs, len(images), self._device)
        return upload, BoundRun(self._session, {IMAGES: upload.tensor}, download.tensors), download


def on_host(inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Return inputs as contiguous arrays."""
    return {name: np.asarray(array, order="C") for name, array in inputs.items()}


def tensor(shape: Any, dtype: Any, device: Device) -> Any:
    """Return an uninitialized tensor of ONNX Runtime on a device."""
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype).type, *device)


def input_names(session: Any) -> list[str]:
    """Return the names of what a session must be fed, and of inputs of artifacts that have a default."""
    optional = [value.name for value in session.get_overridable_initializers() if value.name in INPUT_NAMES]
    return [value.name for value in session.get_inputs()] + optional
