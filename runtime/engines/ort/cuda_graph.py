"""A graph in two sessions: the trunk, which CUDA records and replays with one launch, and the rest.

A recording cannot contain a step that waits for a number from the device, as suppression does for the number of boxes
it keeps. So the graph is cut before the proposals: at the features and at the scores and deltas of the anchors.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from runtime.artifact import IMAGES
from runtime.engines.ort.binding import Arrays, BoundRun, Device, Kept, on_host, tensor
from runtime.engines.ort.library import ort

# The stage boundary tensors at which the graph is cut.
TRUNK_ENDS = ("p2", "p3", "p4", "p5", "p6", "rpn_probs", "rpn_deltas")
_UNRECORDED = -1


@dataclass(frozen=True)
class _Stages:
    """Tensors and bindings of one shape, which must not move: a recording contains their addresses."""

    images: Any
    trunk: Any
    options: Any
    rest: BoundRun


class RecordedSession:
    """Runs the trunk, up to the cut tensors, and the rest; the tensors between them never leave the device.

    Threads may share it but take turns, because a recording has one set of tensors.
    """

    def __init__(self, trunk: Any, rest: Any, outputs: Mapping[str, Mapping[str, Any]], device: Device) -> None:
        self._trunk, self._rest, self._outputs, self._device = trunk, rest, outputs, device
        self._rest_inputs = {value.name for value in (*rest.get_inputs(), *rest.get_overridable_initializers())}
        self._lock = threading.Lock()
        self._kept: Kept[_Stages] = Kept()
        self._recordings = 0

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run on host arrays."""
        arrays = on_host(inputs)
        with self._lock:
            stages = self._kept.get(arrays[IMAGES].shape, lambda: self._prepare(arrays))
            stages.images.update_inplace(arrays[IMAGES])
            stages.trunk.synchronize_inputs()
            self._trunk.run_with_iobinding(stages.trunk, stages.options)
            return stages.rest(arrays)

    def _prepare(self, arrays: Arrays) -> _Stages:
        """Run the trunk once without recording, to get tensors of the right shapes between the parts."""
        images = tensor(arrays[IMAGES].shape, arrays[IMAGES].dtype, self._device)
        images.update_inplace(arrays[IMAGES])
        names = [value.name for value in self._trunk.get_outputs()]
        binding = self._trunk.io_binding()
        binding.bind_ortvalue_input(IMAGES, images)
        for name in names:
            binding.bind_output(name, *self._device)
        binding.synchronize_inputs()
        self._trunk.run_with_iobinding(binding, _recording(_UNRECORDED))
        binding.synchronize_outputs()
        between = dict(zip(names, binding.get_outputs(), strict=True))
        trunk = self._trunk.io_binding()
        trunk.bind_ortvalue_input(IMAGES, images)
        for name, value in between.items():
            trunk.bind_ortvalue_output(name, value)
        self._recordings += 1  # numbers are not reused, because a recording writes to the tensors of its shape
        ready = {name: value for name, value in {IMAGES: images, **between}.items() if name in self._rest_inputs}
        examples = {name: arrays[name] for name in arrays if name in self._rest_inputs and name not in ready}
        rest = BoundRun(self._rest, examples, len(arrays[IMAGES]), self._outputs, self._device, ready)
        return _Stages(images, trunk, _recording(self._recordings), rest)


def _recording(number: int) -> Any:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
