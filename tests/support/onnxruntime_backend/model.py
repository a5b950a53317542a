"""A stand-in for Triton's onnxruntime backend, written in Python: it makes the checks of the real one before it runs.

As `backends/onnxruntime/model.py` of a Triton server it is a python-based backend. The checks follow `ValidateInputs`,
`ValidateOutputs` and `CompareDimsSupported` of the real backend's `onnxruntime.cc` and `onnxruntime_utils.cc`.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

from runtime.triton import to_tensor

TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32", "tensor(int32)": "TYPE_INT32"}


def check_config(config, session):
    """Refuse a configuration that the real backend would not load this network with."""
    batching = int(config.get("max_batch_size", 0)) > 0
    required = {each.name: each for each in session.get_inputs()}
    settable = required | {each.name: each for each in session.get_overridable_initializers()}
    given = config["input"]
    expected = [each["name"] for each in given if not each.get("optional")]
    if len(expected) != len(required):
        raise ValueError(f"configuration expects {len(expected)} inputs, model provides {len(required)}")
    for each in given:
        if each.get("optional") and batching:
            raise ValueError(f"optional input {each['name']!r} is not supported for models that support batching")
        _check_tensor(each, settable, batching, exact=False)
    for each in config["output"]:
        _check_tensor(each, {value.name: value for value in session.get_outputs()}, batching, exact=True)


def _check_tensor(described, known, batching, *, exact):
    name = described["name"]
    if name not in known:
        raise ValueError(f"unexpected tensor {name!r}; the model has {sorted(known)}")
    if described["data_type"] != TYPES[known[name].type]:
        raise ValueError(f"{name} is {described['data_type']}; the model provides {TYPES[known[name].type]}")
    dims = described["reshape"].get("shape", []) if "reshape" in described else described["dims"]
    if not described["dims"]:
        raise ValueError(f"{name} has no dims")
    dims = [int(side) for side in dims]
    shape = [side if isinstance(side, int) else -1 for side in known[name].shape]
    if not shape:
        if any(side != 1 for side in dims):
            raise ValueError(f"scalar tensor {name!r} should only provide 1, not {dims}")
        return
    if batching:
        if shape[0] != -1:
            raise ValueError(f"the first dimension of {name!r} must be -1 to support batching; it is {shape}")
        dims = [-1, *dims]
    pairs = zip(shape, dims, strict=False)
    if len(shape) != len(dims) or any(ours != theirs for ours, theirs in pairs if exact or ours != -1):
        raise ValueError(f"{name} is {shape} in the model and {dims} in the configuration")


class TritonPythonModel:
    """Runs the network of a model folder on the processor."""

    def initialize(self, args):
        import triton_python_backend_utils as triton

        self._triton, config = triton, json.loads(args["model_config"])
        options = ort.SessionOptions()
        threads = config["parameters"].get("intra_op_thread_count", {}).get("string_value", "0")
        options.intra_op_num_threads = int(threads)
        path = Path(triton.get_model_dir()) / config["default_model_filename"]
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        check_config(config, self._session)
        self._batching = config["max_batch_size"] > 0
        self._names = [each["name"] for each in config["input"]]
        self._scalars = {
            each.name
            for each in (*self._session.get_inputs(), *self._session.get_overridable_initializers())
            if not each.shape
        }
        self._outputs = [each["name"] for each in config["output"]]
        self._flat = [each["name"] for each in config["output"] if "reshape" in each]

    def execute(self, requests):
        if not self._batching:
            return [self._respond(self._run(self._feeds(request))) for request in requests]
        feeds = [self._feeds(request) for request in requests]
        together = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        outputs = self._run(together)
        ends = np.cumsum([len(feed[self._names[0]]) for feed in feeds])[:-1]
        parts = {name: np.split(array, ends) for name, array in outputs.items()}
        return [self._respond({name: arrays[row] for name, arrays in parts.items()}) for row in range(len(requests))]

    def _feeds(self, request):
        found = {name: self._triton.get_input_tensor_by_name(request, name) for name in self._names}
        arrays = {name: np.array(np.from_dlpack(tensor)) for name, tensor in found.items() if tensor is not None}
        return {name: array.reshape(()) if name in self._scalars else array for name, array in arrays.items()}

    def _run(self, feeds):
        return dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))

    def _respond(self, outputs):
        # Triton reshapes what the real backend returns.
        arrays = {name: array[:, None] if name in self._flat else array for name, array in outputs.items()}
        return self._triton.InferenceResponse([to_tensor(self._triton, name, array) for name, array in arrays.items()])
