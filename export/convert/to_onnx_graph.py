"""Convert a model to ONNX: trace, convert with our handlers, rewrite, audit."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import onnx

from export.convert.audit import GraphFacts, audit
from export.convert.handlers import handlers_for
from export.convert.rewrites import rewrite
from export.convert.surgery import Border, cancel_transposes, find_borders, fix_inputs, keep_outputs, shape_axes
from export.convert.trace import input_signature, trace
from export.errors import ConversionError
from export.target import CPU, Target
from maskrcnn.configuration.model import DetectionConfig
from maskrcnn.model import MaskRCNN
from runtime.artifact import NMS_THRESHOLD, OUTPUT_NAMES, SCORE_THRESHOLD


class Converted(NamedTuple):
    """A converted model: the graph to ship, still with dynamic axes, and where it holds stage boundary tensors."""

    artifact: onnx.ModelProto
    borders: dict[str, Border]
    facts: GraphFacts


def convert(model: MaskRCNN, target: Target = CPU) -> Converted:
    """Convert and audit a model.

    Raises:
        ConversionError: The graph contains something forbidden or lacks a stage boundary tensor.
    """
    size = target.input_shape(model.config.resize)[1:]
    from tf2onnx import convert as tf2onnx_convert  # noqa: PLC0415  (imports TensorFlow)

    # It only logs what it cannot convert; the audit below decides.
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with _strict_optimizer():
        staged, _ = tf2onnx_convert.from_function(
            trace(model, True, target.every_row, size, nms_in_steps=target.every_row),
            input_signature=input_signature(model.config, size),
            opset=target.opset,
            custom_op_handlers=handlers_for(target),
        )
    cancel_transposes(staged)
    shape_axes(staged)
    borders = find_borders(staged)
    artifact = keep_outputs(staged, OUTPUT_NAMES)
    rewrite(artifact, [place.tensor for place in borders.values()])
    kept = {tensor for node in artifact.graph.node for tensor in node.output}
    lost = [name for name, place in borders.items() if place.tensor not in kept]
    if lost:
        raise ConversionError(
            f"the converted graph lacks the tensor {lost[0]!r} between stages, so they cannot be verified"
        )
    if target.thresholds == "constants":
        fix_thresholds(artifact, model.config.detection)
    artifact.producer_name = "maskrcnn-export"
    artifact.graph.name = model.config.name
    return Converted(artifact, borders, audit(artifact, target.opset))


def fix_thresholds(artifact: onnx.ModelProto, detection: DetectionConfig) -> None:
    """Replace the thresholds' inputs by constants, in place."""
    fix_inputs(artifact, {SCORE_THRESHOLD: detection.min_score, NMS_THRESHOLD: detection.nms_threshold})


@contextmanager
def _strict_optimizer() -> Iterator[None]:
    """Have tf2onnx raise if an optimization fails; otherwise it copies the graph before each, a quarter of the time."""
    name = "TF2ONNX_CATCH_ERRORS"
    before = os.environ.get(name)
    os.environ[name] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
