"""Small operations on an ONNX graph: prune, cut stages out, shape axes, give inputs defaults."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from runtime.artifact import BORDER_PREFIX, IMAGES


@dataclass(frozen=True)
class Border:
    """Where a border tensor lives in the graph.

    Attributes:
        tensor: Name of the tensor that later stages read.
        permutation: Axes order that turns the border's layout into the tensor's; the converter keeps
            feature maps as [B, C, H, W].
    """

    tensor: str
    permutation: tuple[int, ...] | None

    def lay_out(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The border's layout to the graph's."""
        return array if self.permutation is None else np.ascontiguousarray(array.transpose(self.permutation))

    def restore(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Inverse of `lay_out`."""
        return array if self.permutation is None else array.transpose(np.argsort(self.permutation))


def find_borders(model: onnx.ModelProto) -> dict[str, Border]:
    """Borders by their name without the prefix, from a graph converted with its borders as outputs."""
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
    """Let readers of a transposition that undoes another read the original, in place.

    The converter leaves such pairs around every border tensor.
    """
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
    """A copy with only these outputs and what they need, outputs in the given order."""
    outputs = {output.name: output for output in model.graph.output}
    graph = model.graph
    return _build(model, _ancestors(graph, names, set()), list(graph.input), [outputs[n] for n in names])


def cut_stage(
    model: onnx.ModelProto,
    inputs: Mapping[str, np.dtype[Any]],
    outputs: Mapping[str, np.dtype[Any]],
) -> onnx.ModelProto:
    """A model from some tensors of the graph to others; graph inputs it still needs stay inputs.

    Args:
        model: The whole graph.
        inputs: Tensors to feed, with their types.
        outputs: Tensors to compute, with their types.
    """
    nodes = _ancestors(model.graph, outputs, set(inputs))
    read = {name for node in nodes for name in node.input}
    graph_inputs = [i for i in model.graph.input if i.name in read and i.name not in inputs]
    described = [
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(t), None) for n, t in side.items()]
        for side in (inputs, outputs)
    ]
    return _build(model, nodes, [*described[0], *graph_inputs], described[1])


def _ancestors(graph: onnx.GraphProto, outputs: Iterable[str], stop: set[str]) -> list[onnx.NodeProto]:
    """Nodes that `outputs` depend on, in graph order; tensors in `stop` are taken as given."""
    needed = set(outputs)
    kept = []
    for node in reversed(graph.node):  # sorted, so one backward pass is enough
        if any(output in needed and output not in stop for output in node.output):
            kept.append(node)
            needed.update(name for name in node.input if name not in stop)
    return kept[::-1]


def _build(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    read = {name for node in nodes for name in node.input}
    given = {value.name for value in inputs}
    initializers = [t for t in model.graph.initializer if t.name in read and t.name not in given]
    graph = helper.make_graph(nodes, model.graph.name, inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def shape_axes(model: onnx.ModelProto, shape: tuple[int | None, int | None, int | None] = (None, None, None)) -> None:
    """Fix batch, height and width of inputs and outputs, in place; those that are None become dynamic.

    Args:
        model: A graph over the artifact's inputs and outputs.
        shape: Of `images`, without its channels.
    """
    names = ("batch", "height", "width")
    for value in [*model.graph.input, *model.graph.output]:
        axes = value.type.tensor_type.shape.dim
        for axis in range(min(len(axes), 3 if value.name == IMAGES else 1)):
            if shape[axis] is None:
                axes[axis].dim_param = names[axis]
            else:
                axes[axis].dim_value = shape[axis]


def set_defaults(model: onnx.ModelProto, defaults: Mapping[str, float]) -> None:
    """Give scalar float inputs a default: an initializer of the same name, which a feed overrides."""
    for name, value in defaults.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
