"""Which operators of a SavedModel TensorFlow has no GPU kernel for: it runs them on the CPU, and says nothing.

Kernels that are registered for a GPU and take int32 from host memory, as for arithmetic on shapes, count as kernels.
"""

from collections.abc import Iterable
from typing import Any

# One row for each operator that a SavedModel may contain (`savedmodel_scan`) and attribute: the element types that have
# a kernel for the CPU and none for a GPU. Source: the kernels that TensorFlow 2.21 registers; a test compares them.
_WITHOUT = """
    AddN T uint8
    ArgMax T int32 int64 uint8
    ArgMax Tidx int64
    ArgMin T int32 int64 uint8
    ArgMin Tidx int64
    BatchMatMulV2 T int32 int64
    BatchToSpaceND T int32 int64 uint8
    BiasAdd T int64 uint8
    BroadcastTo T uint8
    CombinedNonMaxSuppression
    CropAndResize T int32 int64 uint8
    Cumsum T uint8
    DepthToSpace T float64 int32 int64 uint8 bool
    Einsum T int32 int64
    FloorMod T bfloat16
    GatherNd Tparams uint8 bool
    GatherV2 Tparams uint8
    MatMul T int32 int64
    Max T uint8
    MaxPool T int32 int64 uint8
    MaxPoolV2 T int32 int64 uint8
    Mean T int32 int64 uint8
    Min T int64 uint8
    MirrorPad T int32 int64 uint8 bool
    NonMaxSuppressionV4 T float16
    OneHot T uint8
    Pack T uint8
    Pad T int64
    PadV2 T int64
    Pow T int32
    Prod T uint8
    Relu T int32
    Relu6 T int32 int64 uint8
    ResizeBilinear T int32 int64 uint8
    ResizeNearestNeighbor T int32 int64 uint8
    ReverseV2 T int64
    Roll T uint8 bool
    ScatterNd T bool
    Select T uint8
    Slice T uint8
    Softplus T bfloat16
    Softsign T bfloat16
    SpaceToBatchND T int32 int64 uint8
    SpaceToDepth T float64 int32 int64 bool
    SparseTensorDenseMatMul T bfloat16 int32
    Split T int32 int64 uint8 bool
    SplitV T int64 uint8 bool
    Sum T uint8
    TensorScatterUpdate T float16 bfloat16 uint8 bool
    Tile T uint8
    TopKV2 index_type int64
    Where T float16 bfloat16
"""
_ROWS = [row.split() for row in _WITHOUT.strip().splitlines()]
_NO_KERNEL = {row[0] for row in _ROWS if len(row) == 1}
_MISSING_TYPES = {(operator, name): kinds for operator, name, *kinds in (row for row in _ROWS if len(row) > 1)}
# Of the enumeration `DataType` in TensorFlow's types.proto.
_TYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    19: "float16",
}


def without_gpu_kernel(graphs: Iterable[Any]) -> list[str]:
    """Return the operators of parsed `GraphDef`s that have no GPU kernel, such as "ArgMax (int64)", sorted."""
    found = set()
    for graph in graphs:
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            for node in nodes:
                if node.op in _NO_KERNEL:
                    found.add(node.op)
                for name, value in node.attr.items():
                    kind = _TYPES.get(value.type, "")
                    if kind in _MISSING_TYPES.get((node.op, name), ()):
                        found.add(f"{node.op} ({kind})")
    return sorted(found)
