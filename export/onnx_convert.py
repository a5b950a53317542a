"""Model to ONNX: trace, convert with our handlers, check, audit."""

import logging
from dataclasses import dataclass

import onnx

from export.audit import GraphFacts, audit
from export.errors import ConversionError
from export.graph import input_signature, trace
from export.onnx_graph import Border, cancel_transposes, find_borders, keep_outputs, name_axes, set_defaults
from export.onnx_handlers import HANDLERS
from export.onnx_rewrites import rewrite
from maskrcnn.model import MaskRCNN
from runtime.artifact import NMS_THRESHOLD, OUTPUT_NAMES, SCORE_THRESHOLD

DEFAULT_OPSET = 17
OPSETS = (17, 18)  # RoiAlign with half-pixel needs 16; from 19 and 22 on CUDA kernels are missing


@dataclass(frozen=True)
class Converted:
    """A converted model.

    Attributes:
        artifact: The graph to ship.
        borders: Where the border tensors live in it.
        facts: What the audit counted.
    """

    artifact: onnx.ModelProto
    borders: dict[str, Border]
    facts: GraphFacts


def convert(model: MaskRCNN, opset: int = DEFAULT_OPSET) -> Converted:
    """Convert and audit a model.

    Raises:
        ConversionError: The opset is not offered, or the graph holds what must not be there.
    """
    if opset not in OPSETS:
        raise ConversionError(f"opset {opset} is not offered: choose one of {', '.join(map(str, OPSETS))}")
    # tf2onnx imports TensorFlow when imported; nothing else here needs it at module level
    from tf2onnx import convert as tf2onnx_convert  # noqa: PLC0415

    # It logs what it does not understand and goes on; the audit below is what decides.
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    staged, _ = tf2onnx_convert.from_function(
        trace(model, with_borders=True),
        input_signature=input_signature(model.config.model.image_channels),
        opset=opset,
        custom_op_handlers=dict(HANDLERS),
    )
    cancel_transposes(staged)
    name_axes(staged)
    borders = find_borders(staged)
    artifact = keep_outputs(staged, OUTPUT_NAMES)
    rewrite(artifact, [place.tensor for place in borders.values()])
    kept = {tensor for node in artifact.graph.node for tensor in node.output}
    lost = [name for name, place in borders.items() if place.tensor not in kept]
    if lost:
        raise ConversionError(f"the converted graph has no border tensor {lost[0]!r}: its stages cannot be verified")
    detection = model.config.detection
    set_defaults(artifact, {SCORE_THRESHOLD: detection.min_score, NMS_THRESHOLD: detection.nms_threshold})
    artifact.producer_name = "maskrcnn-export"
    artifact.graph.name = model.config.name
    return Converted(artifact, borders, audit(artifact, opset))
