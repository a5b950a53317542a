"""The sessions of an artifact on a GPU: one for each batch size, or for each shape of images."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import IMAGES, NMS_LAST, Metadata
from runtime.artifact_files.onnx_cut import ELEMENT_TYPES, CutModel
from runtime.engines.inputs import check_graph_inputs
from runtime.engines.options import EngineOptions
from runtime.engines.ort.binding import Arrays, BoundSession, Device, Kept
from runtime.engines.ort.cuda_graph import TRUNK_ENDS, Part, RecordedSession
from runtime.engines.ort.cuda_work import Held, cuda_work, drop_values_of
from runtime.engines.ort.library import CUDA, TENSORRT
from runtime.engines.ort.page_locked import Stream
from runtime.engines.ort.providers import Providers
from runtime.engines.ort.session import SessionOpener, inputs_of
from runtime.errors import DeviceError

_AXES = ("batch", "height", "width")
_KEPT_SESSIONS = 4  # each has its own copy of the weights on the device

_Run = Callable[[Mapping[str, npt.NDArray[Any]]], Arrays]


class GpuSessions:
    """Opens sessions as shapes of images come, keeps those used last, and runs them.

    Raises:
        DeviceError: The device cannot be used.
        OutOfMemoryError: It has too little memory.
        ArtifactError: ONNX Runtime refuses the artifact.
    """

    def __init__(
        self, opener: SessionOpener, providers: Providers, metadata: Metadata, options: EngineOptions, index: int
    ) -> None:
        self._opener, self._providers, self._metadata, self._options = opener, providers, metadata, options
        self._device: Device = ("cuda", index)
        self._lock = threading.Lock()
        self._kept: Kept[Held[_Run]] = Kept(_KEPT_SESSIONS)
        opener.require_device([each for each in providers if each[0] != TENSORRT])
        # One image or, if the artifact has a fixed batch size, that many; so errors come when the artifact is opened.
        batch, height, width = metadata.input_shape
        side = metadata.resize.max_dim or 0
        self._runner((batch or 1, height or side, width or side))

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run on host arrays."""
        runner = self._runner(np.shape(inputs[IMAGES]))
        try:
            return runner.value(inputs)
        except BaseException as error:
            drop_values_of(error)
            raise

    def sides(self, shape: tuple[int, ...]) -> dict[str, int]:
        """Return the axes that a session has fixed for `images` of a shape: all that change rarely.

        ONNX Runtime then computes what depends on them, anchors among it, when it opens the graph, and runs the rest on
        the device alone. A limit of memory is of one session, so there is one for all shapes.
        """
        if self._providers[0][0] != CUDA or self._options.gpu_memory_limit is not None:
            return {}
        axes = _AXES if self._metadata.resize.mode == "square" else _AXES[:1]
        return dict(zip(axes, shape, strict=False))

    def _runner(self, shape: tuple[int, ...]) -> Held[_Run]:
        sides = self.sides(shape)
        with self._lock, cuda_work():
            return self._kept.get(tuple(sides.items()), lambda: Held(self._open(sides)))

    def _open(self, sides: dict[str, int]) -> _Run:
        if self._options.cuda_graph:
            return self._open_recorded(sides)
        session = self._opener.open(self._providers, sides)
        if self._providers[0][0] == TENSORRT:
            self._require_fixed_size(session)
        check_graph_inputs(inputs_of(session), self._metadata, self._opener.path)
        return BoundSession(session, self._metadata.outputs(), self._device)

    def _open_recorded(self, sides: dict[str, int]) -> RecordedSession:
        """Open the graph in two parts, or in three; see `runtime.engines.ort.cuda_graph`."""
        tensors = {name: str(place["tensor"]) for name, place in self._metadata.borders.items()}
        model = CutModel(self._opener.read())
        points = model.cut_points({tensors[name] for name in TRUNK_ENDS if name in tensors})
        stream = Stream(self._device[1]) if self._device[0] == "cuda" else None
        trunk = self._open_part("trunk", sides, model.part({}, points), stream, recorded=True)
        types = _types(trunk)
        if NMS_LAST not in tensors or len(sides) < len(_AXES):  # sizes that vary are computed on the host
            rest = self._open_part("rest", sides, model.part(types), stream, recorded=False)
            return self._recorded(stream, trunk, rest)
        anchors = {tensors["rpn_probs"], tensors["rpn_deltas"]}
        taken = {name: described for name, described in types.items() if name in anchors}
        middle = self._open_part("proposals", sides, model.part(taken, [tensors["proposals"]]), stream, recorded=False)
        taken = {name: described for name, described in types.items() if name not in anchors} | _types(middle)
        rest = self._open_part("heads", sides, model.part(taken), stream, recorded=True)
        return self._recorded(stream, trunk, middle, rest)

    def _recorded(self, stream: Stream | None, *parts: Part) -> RecordedSession:
        made = {value.name for part in parts for value in part.session.get_outputs()}
        inputs = {name: value for part in parts for name, value in inputs_of(part.session).items() if name not in made}
        check_graph_inputs(inputs, self._metadata, self._opener.path)
        return RecordedSession(parts, self._metadata.outputs(), self._device, stream)

    def _open_part(
        self, name: str, sides: dict[str, int], content: bytes, stream: Stream | None, *, recorded: bool
    ) -> Part:
        (provider, settings), *others = self._providers
        if stream is not None:
            settings = settings | {"enable_cuda_graph": int(recorded), "user_compute_stream": str(stream.handle)}
        return Part(stream, self._opener.open([(provider, settings), *others], sides, name, content), recorded)

    def _require_fixed_size(self, session: Any) -> None:
        """Refuse dynamic sizes for TensorRT, which takes minutes to build an engine for each input size."""
        for value in session.get_inputs():
            if not all(isinstance(side, int) for side in value.shape):
                raise DeviceError(
                    f"device 'tensorrt' needs a graph of fixed size, but {value.name} of {self._opener.path} is "
                    f"{value.shape}: export it with --target tensorrt, or use device 'cuda'"
                )


def _types(part: Part) -> dict[str, tuple[int, Any]]:
    """Return element type and shape of the results of a part, as `CutModel.part` takes them."""
    return {value.name: (ELEMENT_TYPES[value.type], value.shape) for value in part.session.get_outputs()}
