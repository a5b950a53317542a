"""The operators that a predictor allows are those of the exports: no export has another one, and none is unused."""

import onnx
import pytest

from export.convert.surgery import shape_axes
from export.convert.to_onnx_graph import convert
from export.precision.half import emulate_half, to_half
from export.target import OPSETS, Target
from runtime.artifact_files import onnx_scan
from runtime.artifact_files.onnx_scan import check_onnx

# Those of ONNX Runtime's quantizer, whose graphs tests/exporter/test_to_lower_precision.py opens.
QUANTIZED = {"QuantizeLinear", "DequantizeLinear"}


@pytest.mark.slow
def test_the_list_is_that_of_all_exports(make_tiny, tmp_path):
    found, path = set(QUANTIZED), tmp_path / "model.onnx"
    for sampling in ("roi_align", "crop_and_resize"):
        model = make_tiny(roi_sampling=sampling)
        for target in [Target(engine, opset=opset) for engine in ("cpu", "cuda", "tensorrt") for opset in OPSETS]:
            graph = convert(model, target).artifact
            shape_axes(graph, target.input_shape(model.config.resize))
            half = to_half(graph, [])
            for each in (graph, half, emulate_half(half)):
                onnx.save(each, path)
                check_onnx(path)
                found |= {node.op_type for node in each.graph.node}
    assert found == set(onnx_scan._NETWORK.split())
