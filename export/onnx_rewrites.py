"""Rewrites of the converted graph that change its speed and not its result, each one rule with its reason.

They act on the graph in place, before it is audited and verified: what they break, the parity gate refuses.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

_PER_CHANNEL = ("Mul", "Add")


def rewrite(model: onnx.ModelProto, kept: Iterable[str]) -> None:
    """Apply every rule.

    Args:
        model: Changed in place.
        kept: Tensors that must stay, such as the borders between stages.
    """
    fold_batch_norms(model, set(kept))
    turn_whole_convolutions_into_gemm(model)
    turn_deconvolutions_into_convolutions(model)


def fold_batch_norms(model: onnx.ModelProto, kept: set[str]) -> None:
    """Put the factor and the offset that follow a convolution into its weights.

    The engines do so when they load a file; those that quantize it, or read it elsewhere, do not. Folded in float64
    and rounded once.

    Args:
        model: Changed in place.
        kept: Tensors that must stay as they are.
    """
    constants = _Constants(model)
    readers = _readers(model)
    for node in list(model.graph.node):
        if node.op_type != "Conv":
            continue
        while (follower := _per_channel(node, readers, constants)) is not None and node.output[0] not in kept:
            operator, other = follower
            value = constants.read(other).astype(np.float64).reshape(-1)
            weights = constants.read(node.input[1]).astype(np.float64)
            bias = constants.read(node.input[2]).astype(np.float64) if len(node.input) > 2 else np.zeros(len(weights))
            if operator.op_type == "Mul":
                weights, bias = weights * value[:, None, None, None], bias * value
            else:
                bias = bias + value
            name = f"{operator.output[0]}/folded"
            inputs = [node.input[0], constants.add(f"{name}/kernel", weights), constants.add(f"{name}/bias", bias)]
            del node.input[:]
            node.input.extend(inputs)
            readers[operator.output[0]] = readers.pop(operator.output[0], [])
            node.output[0] = operator.output[0]
            model.graph.node.remove(operator)
    constants.drop_unread()


def turn_whole_convolutions_into_gemm(model: onnx.ModelProto) -> None:
    """A convolution whose kernel covers its whole input is a matrix product, and engines know products better.

    The box head's first layer sees 1000 crops of 7 x 7 x 256: ONNX Runtime's convolution takes five times as long for
    it as its matrix product (0.71 s against 0.13 s on two cores).
    """
    constants = _Constants(model)
    shapes = _shapes(model)
    nodes = []
    for node in model.graph.node:
        weights = constants.find(node.input[1]) if node.op_type == "Conv" else None
        if weights is None or not _covers_input(node, weights.shape, shapes.get(node.input[0])):
            nodes.append(node)
            continue
        name, outputs = node.output[0], len(weights)
        flat, product = f"{name}/rows", f"{name}/product"
        row = constants.add(f"{name}/row_shape", np.array([-1, weights[0].size], np.int64))
        map_ = constants.add(f"{name}/map_shape", np.array([-1, outputs, 1, 1], np.int64))
        kernel = constants.add(f"{name}/matrix", weights.reshape(outputs, -1))
        nodes += [
            helper.make_node("Reshape", [node.input[0], row], [flat], name=f"{flat}/reshape"),
            helper.make_node("Gemm", [flat, kernel, *node.input[2:]], [product], name=product, transB=1),
            helper.make_node("Reshape", [product, map_], [name], name=f"{name}/reshape"),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    constants.drop_unread()


def turn_deconvolutions_into_convolutions(model: onnx.ModelProto) -> None:
    """A transposed convolution whose steps do not overlap is a 1 x 1 convolution whose channels are spread over space.

    Worked for kernel and stride 2: cell (2 i + a, 2 j + b) of output o is the dot product of input cell (i, j) with
    the weights [:, o, a, b]. Engines have fast convolutions in every precision, and slow transposed ones, above all in
    int8, where ONNX Runtime has none.
    """
    constants = _Constants(model)
    nodes = []
    for node in model.graph.node:
        weights = constants.find(node.input[1]) if node.op_type == "ConvTranspose" else None
        if weights is None or not _tiles_output(node, weights.shape):
            nodes.append(node)
            continue
        name, side = node.output[0], weights.shape[2]
        kernel = weights.transpose(1, 2, 3, 0).reshape(-1, weights.shape[0], 1, 1)  # [O * side * side, C, 1, 1]
        inputs = [node.input[0], constants.add(f"{name}/kernel", kernel)]
        if len(node.input) > 2:
            inputs.append(constants.add(f"{name}/bias", np.repeat(constants.read(node.input[2]), side * side)))
        nodes += [
            helper.make_node("Conv", inputs, [f"{name}/cells"], name=f"{name}/cells"),
            helper.make_node(
                "DepthToSpace", [f"{name}/cells"], [name], name=f"{name}/spread", blocksize=side, mode="CRD"
            ),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    constants.drop_unread()


def _tiles_output(node: onnx.NodeProto, weights: tuple[int, ...]) -> bool:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    side = weights[2]
    plain = not any(attributes.get("pads", [])) and not any(attributes.get("output_padding", []))
    plain = plain and attributes.get("group", 1) == 1 and "output_shape" not in attributes
    plain = plain and attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    return plain and weights[2:] == (side, side) and list(attributes.get("strides", [1, 1])) == [side, side]


def _covers_input(node: onnx.NodeProto, weights: tuple[int, ...], shape: list[int | None] | None) -> bool:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = not any(attributes.get("pads", [])) and attributes.get("group", 1) == 1
    plain = plain and attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    return plain and shape is not None and shape[1:] == list(weights[1:])


class _Constants:
    """The initializers of a graph, read and added by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def find(self, name: str) -> npt.NDArray[Any] | None:
        """The value of a constant; None for what is none."""
        return numpy_helper.to_array(self._tensors[name]) if name in self._tensors else None

    def read(self, name: str) -> npt.NDArray[Any]:
        """The value of a constant."""
        return numpy_helper.to_array(self._tensors[name])

    def add(self, name: str, value: npt.NDArray[Any]) -> str:
        """Add a constant; what is floating becomes float32."""
        value = value.astype(np.float32) if value.dtype.kind == "f" else value
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        self._graph.initializer.append(tensor)
        self._tensors[name] = tensor
        return name

    def drop_unread(self) -> None:
        """Remove constants that no node reads and that are no default of an input."""
        read = {name for node in self._graph.node for name in node.input} | {i.name for i in self._graph.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)


def _readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    readers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    for output in model.graph.output:
        readers[output.name].append(None)  # read from outside
    return readers


def _per_channel(
    node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]], constants: _Constants
) -> tuple[onnx.NodeProto, str] | None:
    """The only reader of a convolution, if it multiplies or adds one constant per channel; and that constant."""
    following = readers.get(node.output[0], [])
    if len(following) != 1 or following[0] is None or following[0].op_type not in _PER_CHANNEL:
        return None
    other = next((name for name in following[0].input if name != node.output[0]), "")
    value, weights = constants.find(other), constants.find(node.input[1])
    if value is None or weights is None or value.shape != (1, len(weights), 1, 1):
        return None
    return following[0], other


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    """Shapes of the tensors as far as they can be inferred; None for a dynamic axis."""
    inferred = onnx.shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.input]
    return {
        value.name: [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
        for value in values
    }
