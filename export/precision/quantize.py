"""Weights and activations in 8 bits: static, per channel, as QuantizeLinear and DequantizeLinear around operators.

ONNX Runtime's own quantizer does it; here is what it is given: pictures for the ranges, the operators that are worth
it, and the nodes that stay in float because they cost too much accuracy.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from runtime import artifact as names
from runtime.predictor import Predictor

# Convolutions, and the box head's large products. The two small products at its end, which say what things are and
# where, are a thousandth of the work and stay in float.
OPERATORS = ("Conv", "Gemm")

# Parts that may be left in float together, by what the names of their nodes contain; the first that fits counts.
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

_LOG_ERRORS = 3  # a severity of ONNX Runtime; the quantizer's sessions say much about inputs with defaults

Feeds = dict[str, npt.NDArray[Any]]


class _Pictures(CalibrationDataReader):
    """Letterboxed pictures, one at a time."""

    def __init__(self, predictor: Predictor, pictures: Sequence[Path]) -> None:
        self._feeds = self._read(predictor, pictures)

    @staticmethod
    def _read(predictor: Predictor, pictures: Sequence[Path]) -> Iterator[Feeds]:
        for path in pictures:
            letterbox, prepared = predictor.prepare(path)
            yield {
                names.IMAGES: prepared[None],
                names.WINDOWS: np.array([letterbox.window], np.float32),
                names.SCORE_THRESHOLD: np.array(predictor.score_threshold, np.float32),
                names.NMS_THRESHOLD: np.array(predictor.nms_threshold, np.float32),
            }

    def get_next(self) -> Feeds | None:
        """The next picture; None after the last."""
        return next(self._feeds, None)


def quantize(
    model: onnx.ModelProto, predictor: Predictor, pictures: Sequence[Path], in_float: Sequence[str], folder: Path
) -> onnx.ModelProto:
    """Quantize a graph to 8 bits: activations unsigned, weights signed and per channel.

    Args:
        model: In float32.
        predictor: With the same graph; its letterbox and thresholds are used.
        pictures: For the ranges of the activations, smallest to largest value.
        in_float: Names of nodes to be left in float32.
        folder: For temporary files; ranges that were found are kept there and used again.

    Raises:
        ImageError: A picture cannot be used.
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
        op_types_to_quantize=list(OPERATORS),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(in_float),
        calibration_cache_path=folder / "ranges.json",
    )
    return onnx.load(target)


def nodes_by_part(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Names of the nodes that can be quantized, by the part of the network that they belong to."""
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for node in model.graph.node:
        if node.op_type in OPERATORS:
            part = next(part for part, words in PARTS.items() if any(word in node.name for word in words))
            parts[part].append(node.name)
    return {part: nodes for part, nodes in parts.items() if nodes}
