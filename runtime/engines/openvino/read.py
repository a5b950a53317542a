"""Reads ONNX models so that they mean in OpenVINO what they mean in ONNX."""

from pathlib import Path
from typing import Any

import numpy as np

from runtime.artifact import NMS_THRESHOLD, SCORE_THRESHOLD
from runtime.artifact_files.onnx_cut import ELEMENT_TYPES, CutModel
from runtime.artifact_files.protobuf import map_file
from runtime.engines.openvino.library import core, openvino

_SMALLEST = np.finfo(np.float32).tiny


def read_model(source: str | bytes) -> Any:
    """Read a model from a path or its bytes; thresholds with defaults, as in older artifacts, become plain inputs.

    OpenVINO takes inputs with defaults for constants.
    """
    cut = CutModel(source if isinstance(source, bytes) else map_file(Path(source)))
    optional = cut.optional_inputs & {SCORE_THRESHOLD, NMS_THRESHOLD}
    scalar = (ELEMENT_TYPES["tensor(float)"], ())
    model = core().read_model(cut.part(dict.fromkeys(optional, scalar)) if optional else source)
    for node in model.get_ops():
        if node.get_type_name() == "NonMaxSuppression":
            _suppress_above_threshold(node)
        elif node.get_type_name() == "Add":
            _own_bias(node)
    return model


def _suppress_above_threshold(node: Any) -> None:
    """Raise a node's threshold to the next float32: ONNX suppresses an IoU above it, OpenVINO also one that equals it.

    For a threshold of 0, OpenVINO would suppress boxes that do not even touch.
    """
    ops = openvino.opset13
    threshold = node.input_value(3)
    # Between half a unit in the last place and one and a half, so the sum rounds to the next number.
    unit = ops.multiply(threshold, np.float32(0.6 * 2**-23))
    raised = ops.add(threshold, ops.maximum(unit, _SMALLEST))
    node.input(3).replace_source_output(raised.output(0))


def _own_bias(node: Any) -> None:
    """Give an addition behind a convolution a bias of its own: OpenVINO does not fuse one that levels share.

    Only one number for each channel is a bias.
    """
    for product, port in ((node.input_value(0), node.input(1)), (node.input_value(1), node.input(0))):
        shaped = port.get_source_output().get_node()
        if product.get_node().get_type_name() == "Convolution" and shaped.get_type_name() == "Reshape":
            bias = shaped.input_value(0).get_node()
            if bias.get_type_name() == "Constant" and _is_of_channels(shaped.output(0), product):
                port.replace_source_output(openvino.opset13.constant(bias.data.reshape(1, -1, 1, 1)).output(0))


def _is_of_channels(value: Any, product: Any) -> bool:
    """Return whether a value is [1, C, 1, 1] for the C channels of a convolution."""
    shape, channels = value.get_partial_shape(), product.get_partial_shape()[1]
    return bool(shape.is_static and channels.is_static and list(shape.to_shape()) == [1, channels.get_length(), 1, 1])
