"""Check what a converted graph contains: standard operators, no control flow, a CUDA kernel for each node.

tf2onnx leaves an operator that it cannot convert in the graph and only logs it, so every export checks every node.
"""

import json
from collections import Counter
from importlib import resources
from typing import NamedTuple

import onnx

from export.errors import ConversionError
from runtime.artifact_files.onnx_scan import foreign_operators

CONTROL_FLOW = ("Loop", "If", "Scan")


class GraphFacts(NamedTuple):
    """Counts of the audit, for the verdict: all nodes, and nodes by operator type."""

    nodes: int
    operators: dict[str, int]


def audit(model: onnx.ModelProto, opset: int) -> GraphFacts:
    """Check a graph and count its nodes.

    Raises:
        ConversionError: The graph has a control flow operator, one that a predictor refuses, one without a CUDA kernel,
            or external data, or the ONNX checker rejects it.
    """
    used = {node.domain for node in model.graph.node} | {entry.domain for entry in model.opset_import}
    domains = sorted(used - {"", "ai.onnx", "ai.onnx.ml"})  # tf2onnx imports the last without using it
    domains += ["ai.onnx.ml"] if any(node.domain == "ai.onnx.ml" for node in model.graph.node) else []
    if domains:
        raise ConversionError(f"the graph has operators of the domain {domains[0]!r}: only standard ONNX is allowed")
    operators = Counter(node.op_type for node in model.graph.node)
    for operator in operators:
        if operator in CONTROL_FLOW:
            raise ConversionError(f"the graph has {operators[operator]} {operator} nodes: no control flow is allowed")
        if not onnx.defs.has(operator, max_inclusive_version=opset):
            raise ConversionError(f"{operator} is not an ONNX operator of opset {opset}: it was not converted")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ConversionError("the graph keeps weights in other files, but an artifact must be one file")
    foreign = foreign_operators(operators)
    if foreign:
        raise ConversionError(f"{foreign[0]} is not among the operators that a predictor runs (see SECURITY.md)")
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionError(f"the ONNX checker rejects the graph: {str(error).splitlines()[0]}") from error
    without_kernel = nodes_without_cuda_kernel(inferred, opset)
    if without_kernel:
        raise ConversionError(
            f"ONNX Runtime has no CUDA kernel at opset {opset} for {', '.join(without_kernel)}: "
            "it would run on the CPU and copy data back and forth"
        )
    return GraphFacts(sum(operators.values()), dict(sorted(operators.items())))


def nodes_without_cuda_kernel(model: onnx.ModelProto, opset: int) -> list[str]:
    """Return operators, with their element type, for which ONNX Runtime's CUDA provider has no kernel.

    Nodes that only compute shapes are left out: ONNX Runtime keeps them on the CPU by design. The types of the model's
    tensors must have been inferred.
    """
    types = _element_types(model.graph)
    table = cuda_kernels()
    on_host = {tensor.name for tensor in model.graph.initializer}
    missing = set()
    for node in model.graph.node:
        if node.op_type in ("Shape", "Size") or all(name in on_host or not name for name in node.input):
            on_host.update(node.output)
            continue
        since = onnx.defs.get_schema(node.op_type, opset, "").since_version
        kind = types.get(node.input[_DATA_INPUT.get(node.op_type, 0)], "unknown")
        if not any(_covers(kernel, since, kind) for kernel in table.get(node.op_type, [])):
            missing.add(f"{node.op_type} ({kind})")
    return sorted(missing)


_DATA_INPUT = {"Where": 1}  # its first input is the condition

Kernel = tuple[int, int | None, list[str]]


def _covers(kernel: Kernel, since: int, kind: str) -> bool:
    """Return whether a kernel serves an operator version; an open range serves only the version it begins with."""
    first, last, kinds = kernel
    return kind in kinds and (first == since if last is None else first <= since <= last)


def _element_types(graph: onnx.GraphProto) -> dict[str, str]:
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {name: onnx.TensorProto.DataType.Name(kind).lower() for name, kind in types.items()}


def cuda_kernels() -> dict[str, list[Kernel]]:
    """Return the kernels of each operator: first opset, last opset or None, element types."""
    text = resources.files("export.convert").joinpath("cuda_kernels.json").read_text(encoding="utf-8")
    return {name: [tuple(row) for row in rows] for name, rows in json.loads(text)["kernels"].items()}
