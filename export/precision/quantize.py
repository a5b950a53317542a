"""Quantize weights and activations to 8 bits: static, per channel, with QuantizeLinear and DequantizeLinear nodes.

ONNX Runtime's quantizer does the work. This module supplies images for the activation ranges, the operators that are
worth it, and the nodes that stay in float32 for accuracy.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from export.verify.pictures import LetterboxedPicture
from export.verify.verify import make_feeds
from runtime.engines.protocol import Arrays
from runtime.predictor import Predictor

# Convolutions and the box head's large products. The two small products at its end, which give class and box, are a
# thousandth of the work and stay in float32.
OPERATORS = ("Conv", "Gemm")

# Quantized along with the product before it: the range of what it returns takes its place. On its own, each would be a
# step from 8 bits to float32 and back, in ONNX Runtime as in OpenVINO, and its input would be rounded once more.
_FOLDED = ("Relu",)

# Parts that can stay in float32 as a whole, with what the names of their nodes or weights contain; the first counts.
PARTS: Mapping[str, tuple[str, ...]] = {
    "RPN outputs": ("rpn_class_raw", "rpn_bbox_pred"),
    "RPN": ("rpn_",),
    "box head": ("box_head",),
    "mask head": ("mask_head",),
    "FPN": ("fpn_",),
    "C2": ("res2",),
    "C3": ("res3",),
    "C4": ("res4",),
    "C5": ("res5",),
    "stem": ("",),
}

_LOG_ERRORS = 3  # ONNX Runtime severity; below it, the quantizer's sessions warn about inputs with defaults


def _feeds(predictor: Predictor, path: Path) -> Arrays:
    letterbox, prepared = predictor.prepare(path)
    picture = LetterboxedPicture(path.name, prepared, letterbox.window)
    return make_feeds([picture], (predictor.score_threshold, predictor.nms_threshold))


class _Pictures(CalibrationDataReader):
    """Supplies the quantizer with letterboxed images, one at a time."""

    def __init__(self, predictor: Predictor, pictures: Sequence[Path]) -> None:
        self._feeds = (_feeds(predictor, path) for path in pictures)

    def get_next(self) -> Arrays | None:
        """Return the next image; None after the last."""
        return next(self._feeds, None)


def quantize(
    model: onnx.ModelProto, predictor: Predictor, pictures: Sequence[Path], in_float: Sequence[str], folder: Path
) -> onnx.ModelProto:
    """Quantize a graph to 8 bits: activations unsigned, weights signed and per channel.

    Args:
        model: Graph in float32.
        predictor: Runs the same graph; supplies its letterbox and thresholds.
        pictures: Images for the ranges of activations, from smallest to largest value.
        in_float: Names of nodes that stay in float32.
        folder: Folder for temporary files; the next call uses the ranges stored there.
    """
    source, target = folder / "float32.onnx", folder / "int8.onnx"
    if not source.exists():
        onnx.save(model, source)
    ort.set_default_logger_severity(_LOG_ERRORS)
    quantize_static(
        source,
        target,
        _Pictures(predictor, pictures),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*OPERATORS, *_FOLDED],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(in_float),
        calibration_cache_path=folder / "ranges.json",
    )
    return onnx.load(target)


def nodes_by_part(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Return the names of the nodes that can be quantized, by part of the network."""
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for node in model.graph.node:
        if node.op_type in OPERATORS:
            # A convolution that tf2onnx joined with its normalization has a name that says nothing.
            names = " ".join((node.name, *node.input[1:]))
            part = next(part for part, words in PARTS.items() if any(word in names for word in words))
            parts[part].append(node.name)
    return {part: nodes for part, nodes in parts.items() if nodes}
