"""A graph in two sessions: the trunk, which CUDA records and replays with one launch, and the rest.

A recording cannot contain a step that waits for a number from the device, as suppression does for the number of boxes
it keeps. So the graph is cut before the proposals: at the features and at the scores and deltas of the anchors.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from runtime.artifact import IMAGES
from runtime.engines.ort.binding import (
    KEPT_SHAPES,
    Arrays,
    BoundRun,
    Device,
    Download,
    Kept,
    Outputs,
    Upload,
    input_names,
    on_host,
)
from runtime.engines.ort.cuda_work import cuda_recording, cuda_work
from runtime.engines.ort.library import ort

# The stage boundary tensors at which the graph is cut.
TRUNK_ENDS = ("p2", "p3", "p4", "p5", "p6", "rpn_probs", "rpn_deltas")
_UNRECORDED = -1


@dataclass(frozen=True)
class _Stages:
    """Tensors and bindings of one shape, which must not move: a recording contains their addresses."""

    upload: Upload
    trunk: BoundRun
    rest: BoundRun
    download: Download

    def run_trunk(self, arrays: Arrays) -> None:
        self.upload(arrays[IMAGES])
        self.trunk(arrays)


class RecordedSession:
    """Runs the trunk, up to the cut tensors, and the rest; the tensors between them never leave the device.

    ONNX Runtime keeps a recording for the thread that made it. So all runs are in one thread, which lives as long as
    this object; threads that call it take turns. It frees recordings with the session only, so the first `KEPT_SHAPES`
    shapes are recorded, and others run without a recording.
    """

    def __init__(self, trunk: Any, rest: Any, outputs: Outputs, device: Device) -> None:
        self._trunk, self._rest, self._outputs, self._device = trunk, rest, outputs, device
        self._recorded: dict[tuple[int, ...], _Stages] = {}
        self._others: Kept[_Stages] = Kept()
        self._number = 0  # of the last recording; not used again, also if it failed
        self._thread = ThreadPoolExecutor(1, "cuda-graph")

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run on host arrays."""
        return self._thread.submit(self._run, on_host(inputs)).result()

    def _run(self, arrays: Arrays) -> Arrays:
        shape = arrays[IMAGES].shape
        stages = self._recorded.get(shape)
        if stages is None and len(self._recorded) < KEPT_SHAPES:
            self._number += 1
            with cuda_recording():
                stages = self._bind(arrays, self._number)
                stages.run_trunk(arrays)
            self._recorded[shape] = stages
        with cuda_work():
            if stages is None:
                stages = self._others.get(shape, lambda: self._bind(arrays, _UNRECORDED))
            stages.run_trunk(arrays)
            stages.rest(arrays)
            return stages.download()

    def _bind(self, arrays: Arrays, recording: int) -> _Stages:
        """Run the trunk once without recording, to get tensors of the right shapes between the parts."""
        upload = Upload(arrays[IMAGES], self._device)
        upload(arrays[IMAGES])
        names = [value.name for value in self._trunk.get_outputs()]
        binding = self._trunk.io_binding()
        binding.bind_ortvalue_input(IMAGES, upload.tensor)
        for name in names:
            binding.bind_output(name, *self._device)
        self._trunk.run_with_iobinding(binding, _recording(_UNRECORDED))
        between = dict(zip(names, binding.get_outputs(), strict=True))
        trunk = BoundRun(self._trunk, {IMAGES: upload.tensor}, between, _recording(recording))
        ready = {IMAGES: upload.tensor, **between}
        inputs = {name: ready[name] for name in input_names(self._rest) if name in ready}
        download = Download(self._outputs, len(arrays[IMAGES]), self._device)
        return _Stages(upload, trunk, BoundRun(self._rest, inputs, download.tensors), download)


def _recording(number: int) -> Any:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
