"""Operations on an ONNX graph: prune it, set axes, replace inputs by constants."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from runtime.artifact import BORDER_PREFIX, IMAGES


@dataclass(frozen=True)
class Border:
    """Where the graph holds a stage boundary tensor.

    Attributes:
        tensor: Name of the tensor that later stages read.
        permutation: Order of axes that turns the boundary's layout into the tensor's; the converter keeps feature maps
            as [B, C, H, W]. None where the layouts are the same.
    """

    tensor: str
    permutation: tuple[int, ...] | None


def find_borders(model: onnx.ModelProto) -> dict[str, Border]:
    """Return the borders of a graph that has them as outputs, by name without the prefix."""
    producers = {output: node for node in model.graph.node for output in node.output}
    borders = {}
    for output in model.graph.output:
        if not output.name.startswith(BORDER_PREFIX):
            continue
        tensor, permutation = output.name, None
        while (node := producers[tensor]).op_type in ("Identity", "Transpose"):
            if node.op_type == "Transpose":
                if permutation is not None:
                    break
                order = list(helper.get_node_attr_value(node, "perm"))
                permutation = tuple(order.index(axis) for axis in range(len(order)))
            tensor = node.input[0]
        borders[output.name.removeprefix(BORDER_PREFIX)] = Border(tensor, permutation)
    return borders


def cancel_transposes(model: onnx.ModelProto) -> None:
    """Skip pairs of transpositions that cancel each other, in place; the converter leaves them around every border."""
    orders = {
        node.output[0]: (node.input[0], list(helper.get_node_attr_value(node, "perm")))
        for node in model.graph.node
        if node.op_type == "Transpose" and len(node.attribute)
    }
    original = {}
    for output, (source, order) in orders.items():
        if source in orders:
            first_source, first_order = orders[source]
            if [first_order[axis] for axis in order] == sorted(order):
                original[output] = first_source
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = original.get(name, name)


def keep_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy with only these outputs, in the given order, and the nodes they need."""
    graph = model.graph
    values = {output.name: output for output in graph.output}
    outputs = [values[name] for name in names]
    needed = {output.name for output in outputs}
    nodes = []
    for node in reversed(graph.node):  # sorted, so one backward pass is enough
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    needed -= {value.name for value in graph.input}  # without defaults: some clients ignore what replaces them
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    kept = helper.make_graph(nodes[::-1], graph.name, list(graph.input), outputs, initializers)
    return helper.make_model(kept, opset_imports=model.opset_import, ir_version=model.ir_version)


def shape_axes(model: onnx.ModelProto, shape: tuple[int | None, int | None, int | None] = (None, None, None)) -> None:
    """Set batch, height and width of an artifact's inputs and outputs, in place; None makes an axis dynamic."""
    names = ("batch", "height", "width")
    for value in [*model.graph.input, *model.graph.output]:
        axes = value.type.tensor_type.shape.dim
        for axis in range(min(len(axes), 3 if value.name == IMAGES else 1)):
            if shape[axis] is None:
                axes[axis].dim_param = names[axis]
            else:
                axes[axis].dim_value = shape[axis]


def fix_inputs(model: onnx.ModelProto, values: Mapping[str, float]) -> None:
    """Replace scalar float inputs by constants, in place."""
    inputs = [value for value in model.graph.input if value.name not in values]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
