"""A graph in parts, of which CUDA records some: it replays all their kernels with one launch.

A recording cannot contain a step that waits for a number from the device, as suppression does for the number of boxes
it keeps. So the graph is cut before the proposals, at the features and at the scores and deltas of the anchors. If
nothing after the proposals waits either (`maskrcnn.nms.suppress_in_steps`), it is cut there too, and both ends are
recorded.

All parts, the upload and, if the last part is recorded, the download are queued on one stream. The host does not wait
for a recorded part. It waits at the end of each other run: only then does ONNX Runtime give back the page-locked memory
that the run copied from. Of runs without a wait, that memory would pile up until the session is freed, and then CUDA
itself would be the last to hold it, which ends the process.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy.typing as npt

from runtime.artifact import IMAGES
from runtime.engines.ort.binding import (
    KEPT_SHAPES,
    Arrays,
    BoundRun,
    Device,
    DeviceDownload,
    DeviceInputs,
    Download,
    Kept,
    Outputs,
    Upload,
    input_names,
    on_host,
)
from runtime.engines.ort.cuda_work import cuda_recording, cuda_work
from runtime.engines.ort.library import ort
from runtime.engines.ort.page_locked import Stream

# The stage boundary tensors at which the graph is cut.
TRUNK_ENDS = ("p2", "p3", "p4", "p5", "p6", "rpn_probs", "rpn_deltas")
_UNRECORDED = -1


class Part(NamedTuple):
    """A part of a graph: a session, which takes results of the parts before it, and whether its run is recorded.

    The stream, which the session uses, is the first field because it must be freed last, as the first of a tuple is.
    """

    stream: Stream | None
    session: Any
    recorded: bool


@dataclass(frozen=True)
class _Bound:
    """Tensors and bindings of one shape, which must not move: a recording contains their addresses."""

    upload: Upload
    inputs: DeviceInputs
    runs: Sequence[BoundRun]
    download: Download | DeviceDownload

    def run(self, arrays: Arrays) -> Arrays:
        self.upload(arrays[IMAGES])
        self.inputs(arrays)
        for run in self.runs:
            run(arrays)
        return self.download()


class RecordedSession:
    """Runs the parts one after the other; the tensors between them never leave the device.

    The parts' sessions must use the stream, which is None in host memory. Of what is freed with this object, the stream
    must be the last.

    ONNX Runtime keeps a recording for the thread that made it. So all runs are in one thread, which lives as long as
    this object; threads that call it take turns. It frees recordings with the session only, so the first `KEPT_SHAPES`
    shapes are recorded, and others run without a recording.
    """

    def __init__(self, parts: Sequence[Part], outputs: Outputs, device: Device, stream: Stream | None) -> None:
        self._parts, self._outputs, self._device = parts, outputs, device
        self._recorded: dict[tuple[int, ...], _Bound] = {}
        self._others: Kept[_Bound] = Kept()
        self._number = 0  # of the last recording; not used again, also if it failed
        self._thread = ThreadPoolExecutor(1, "cuda-graph")
        self._stream = stream

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run on host arrays."""
        return self._thread.submit(self._run, on_host(inputs)).result()

    def _run(self, arrays: Arrays) -> Arrays:
        shape = arrays[IMAGES].shape
        if shape not in self._recorded and len(self._recorded) < KEPT_SHAPES:
            with cuda_recording():
                return self._record(arrays)
        with cuda_work():
            return self._replay(arrays)

    def _record(self, arrays: Arrays) -> Arrays:
        self._number += 1
        bound = self._bind(arrays, self._number)
        found = bound.run(arrays)
        self._recorded[arrays[IMAGES].shape] = bound
        return found

    def _replay(self, arrays: Arrays) -> Arrays:
        shape = arrays[IMAGES].shape
        bound = self._recorded.get(shape) or self._others.get(shape, lambda: self._bind(arrays, _UNRECORDED))
        return bound.run(arrays)

    def _bind(self, arrays: Arrays, recording: int) -> _Bound:
        """Run all parts once without recording, to get tensors of the right shapes between them."""
        upload = Upload(arrays[IMAGES], self._device, self._stream)
        upload(arrays[IMAGES])
        wanted = {name for part in self._parts if part.recorded for name in input_names(part.session)}
        inputs = DeviceInputs({name: arrays[name] for name in wanted - {IMAGES} if name in arrays}, self._device)
        ready = {IMAGES: upload.tensor}
        runs = []
        for _, session, recorded in self._parts:
            taken = ready | (inputs.tensors if recorded else {})
            taken = {name: taken[name] for name in input_names(session) if name in taken}
            if session is self._parts[-1].session:
                download = self._download(len(arrays[IMAGES]), on_device=recorded)
                results = download.tensors
            else:
                results = self._results(session, taken, arrays)
                ready |= results
            if recorded:
                BoundRun(session, taken, results, _options(_UNRECORDED))(arrays)
            runs.append(BoundRun(session, taken, results, _options(recording if recorded else _UNRECORDED)))
        return _Bound(upload, inputs, runs, download)

    def _results(self, session: Any, taken: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
        """Run a part, and return its results on the device."""
        names = [value.name for value in session.get_outputs()]
        run = BoundRun(session, taken, {}, _options(_UNRECORDED))
        for name in names:
            run.binding.bind_output(name, *self._device)
        run(arrays)
        return dict(zip(names, run.binding.get_outputs(), strict=True))

    def _download(self, batch: int, *, on_device: bool) -> Download | DeviceDownload:
        if on_device and self._stream is not None:  # a recording cannot write to the host
            return DeviceDownload(self._outputs, batch, self._device, self._stream)
        return Download(self._outputs, batch, self._device)


def _options(recording: int) -> Any:
    """Return the options of a run: the number of its recording; the host waits only for a run without one."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(recording))
    options.add_run_config_entry("disable_synchronize_execution_providers", str(int(recording != _UNRECORDED)))
    return options
