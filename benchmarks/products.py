"""Matrix products of known size: the rate at which this machine multiplies, which bounds every engine in float32."""

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from benchmarks.turns import THREADS, Call

SIDE = 4096
GFLOP = 2 * SIDE**3 / 1e9
NUMPY, ORT = "NumPy, product", "ONNX Runtime, product"


def product_calls() -> dict[str, Call]:
    """One product of square float32 matrices, by who computes it."""
    first, second = (np.random.default_rng(seed).random((SIDE, SIDE), np.float32) for seed in (0, 1))
    result = np.empty_like(first)
    session, feeds = _session(), {"a": first, "b": second}
    return {
        NUMPY: lambda: np.matmul(first, second, out=result),
        ORT: lambda: session.run(None, feeds),
    }


def _session() -> ort.InferenceSession:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
