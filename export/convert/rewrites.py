"""Rewrite rules that make the converted graph faster without changing its result.

They change the graph in place, before it is audited and verified, so the parity check catches what they break.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from export.convert.access import Constants, attributes_of, readers_of, replace_nodes, shapes_of

_PER_CHANNEL = ("Mul", "Add")


def rewrite(model: onnx.ModelProto, kept: Iterable[str]) -> None:
    """Apply every rule in place; tensors in `kept` must stay, such as those between stages."""
    fold_paddings(model, set(kept))
    fold_batch_norms(model, set(kept))
    turn_whole_convolutions_into_gemm(model)
    turn_deconvolutions_into_convolutions(model)
    pick_class_before_spreading(model)


def fold_paddings(model: onnx.ModelProto, kept: set[str]) -> None:
    """Give zeros that are put around the result of a ReLU, equally many on all sides, to the max pooling that reads it.

    For its own padding, the operator takes minus infinity, and each of its windows has a value that is not negative.
    tf2onnx does the same for convolutions.
    """
    constants = Constants(model)
    readers = readers_of(model)
    sources = {output: node for node in model.graph.node for output in node.output}
    for node in list(model.graph.node):
        padding = _padding_all_round(node, constants)
        following = readers.get(node.output[0], [])
        if not padding or len(following) != 1 or following[0] is None or node.output[0] in kept:
            continue
        pooling, source = following[0], sources.get(node.input[0])
        if pooling.op_type != "MaxPool" or source is None or source.op_type != "Relu":
            continue
        own = attributes_of(pooling)
        if not _is_plain(own) or own.get("ceil_mode", 0) or padding >= min(own["kernel_shape"]):
            continue
        others = [each for each in pooling.attribute if each.name not in ("pads", "auto_pad")]
        del pooling.attribute[:]
        pooling.attribute.extend([*others, helper.make_attribute("pads", [padding] * 4)])
        pooling.input[0] = node.input[0]
        model.graph.node.remove(node)
    constants.drop_unread()


def _padding_all_round(node: onnx.NodeProto, constants: Constants) -> int:
    """Return how many zeros a node puts on each side of rows and columns [B, C, H, W]; 0 if it does anything else."""
    if node.op_type != "Pad" or attributes_of(node).get("mode", b"constant") != b"constant" or len(node.input) > 3:
        return 0
    widths = constants.find(node.input[1])
    value = constants.find(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(())
    if widths is None or value is None or value.any() or len(widths) != 8:
        return 0
    padding = int(widths[2])
    return padding if widths.tolist() == [0, 0, padding, padding] * 2 and padding > 0 else 0


def fold_batch_norms(model: onnx.ModelProto, kept: set[str]) -> None:
    """Fold the factor and the offset that follow a convolution into its weights, in float64, rounded once.

    Engines do this when they load a file; quantizers and other readers do not.
    """
    constants = Constants(model)
    readers = readers_of(model)
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
    """Turn each convolution whose kernel covers its whole input into a matrix product.

    Engines are faster at products. The box head's first layer sees 1000 crops of 7 x 7 x 256: in ONNX Runtime, the
    convolution takes 0.71 s on two cores, the product 0.13 s.
    """
    constants = Constants(model)
    shapes = shapes_of(model)
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
    replace_nodes(model, nodes)
    constants.drop_unread()


def turn_deconvolutions_into_convolutions(model: onnx.ModelProto) -> None:
    """Turn each transposed convolution without overlap into a 1 x 1 convolution whose channels are spread over space.

    With kernel and stride 2, cell (2 i + a, 2 j + b) of output o is the dot product of input cell (i, j) with the
    weights [:, o, a, b]. Engines have fast convolutions in every precision but slow transposed ones; in int8, ONNX
    Runtime has none.
    """
    constants = Constants(model)
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
    replace_nodes(model, nodes)
    constants.drop_unread()


def pick_class_before_spreading(model: onnx.ModelProto) -> None:
    """Compute the mask head's last layer for one class: it makes a map for each of K classes, but one is used.

    The layer is 1 x 1, so its result for a cell does not depend on the cell's position. So channels are spread over
    space (`DepthToSpace`) after it, when 1 is left, and not before it, when there are 256.
    """
    constants, readers, shapes = Constants(model), readers_of(model), shapes_of(model)
    sources = {output: node for node in model.graph.node for output in node.output}
    for node in list(model.graph.node):
        chain = _class_choice(node, sources, readers)
        if chain is None:
            continue
        spread, layer = chain[0], chain[2]
        weights, cells = constants.find(layer.input[1]), shapes.get(spread.input[0])
        if weights is None or weights.shape[2:] != (1, 1) or cells is None or None in cells[1:]:
            continue
        sizes = attributes_of(spread)["blocksize"], cells[2] or 0, cells[3] or 0
        replacement = _one_class(node, spread.input[0], layer, weights, sizes, constants)
        place = list(model.graph.node).index(node)
        for offset, each in enumerate(replacement):
            model.graph.node.insert(place + offset, each)
        for each in (node, *chain):
            model.graph.node.remove(each)
    constants.drop_unread()


def _class_choice(
    node: onnx.NodeProto, sources: Mapping[str, onnx.NodeProto], readers: Mapping[str, list[onnx.NodeProto]]
) -> tuple[onnx.NodeProto, ...] | None:
    """Return the nodes from `DepthToSpace` up to `node`, which chooses a class; None if `node` ends no such chain."""
    if node.op_type != "GatherND" or attributes_of(node).get("batch_dims") != 1:
        return None
    chain: list[onnx.NodeProto] = []
    for operator in ("Sigmoid", "Conv", "Relu", "DepthToSpace"):
        tensor = (chain[0] if chain else node).input[0]
        source = sources.get(tensor)
        if source is None or source.op_type != operator or len(readers[tensor]) != 1:
            return None
        chain.insert(0, source)
    return tuple(chain) if attributes_of(chain[0]).get("mode") == b"CRD" else None


def _one_class(
    node: onnx.NodeProto,
    cells: str,
    layer: onnx.NodeProto,
    weights: npt.NDArray[Any],
    sizes: tuple[int, ...],
    constants: Constants,
) -> list[onnx.NodeProto]:
    """Return the nodes for ReLU, the layer's row of the chosen class, sigmoid, and then the spreading."""
    name, (side, height, width), channels = node.output[0], sizes, weights.shape[1]
    bias = constants.read(layer.input[2]) if len(layer.input) > 2 else np.zeros(len(weights), np.float32)
    flat = constants.add(f"{name}/flat_shape", np.array([-1, channels, side * side * height * width], np.int64))
    maps = constants.add(f"{name}/maps_shape", np.array([-1, side * side, height, width], np.int64))
    matrix = constants.add(f"{name}/matrix", weights.reshape(len(weights), channels))
    offsets = constants.add(f"{name}/offsets", bias)
    one, last = (constants.add(f"{name}/axis_{axis}", np.array([axis], np.int64)) for axis in (1, 2))

    def make(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", **attributes)

    return [
        make("Relu", [cells], f"{name}/relu"),
        make("Reshape", [f"{name}/relu", flat], f"{name}/flat"),  # [R, C, cells]
        make("Gather", [matrix, node.input[1]], f"{name}/row"),  # [R, 1, C]
        make("Gather", [offsets, node.input[1]], f"{name}/offset"),  # [R, 1]
        make("Unsqueeze", [f"{name}/offset", last], f"{name}/offset_column"),
        make("MatMul", [f"{name}/row", f"{name}/flat"], f"{name}/product"),  # [R, 1, cells]
        make("Add", [f"{name}/product", f"{name}/offset_column"], f"{name}/logits"),
        make("Sigmoid", [f"{name}/logits"], f"{name}/probabilities"),
        make("Reshape", [f"{name}/probabilities", maps], f"{name}/maps"),
        make("DepthToSpace", [f"{name}/maps"], f"{name}/map", blocksize=side, mode="CRD"),  # [R, 1, 2M, 2M]
        make("Squeeze", [f"{name}/map", one], name),
    ]


def _tiles_output(node: onnx.NodeProto, weights: tuple[int, ...]) -> bool:
    attributes = attributes_of(node)
    side = weights[2]
    plain = _is_plain(attributes) and not any(attributes.get("output_padding", [])) and "output_shape" not in attributes
    return plain and weights[2:] == (side, side) and list(attributes.get("strides", [1, 1])) == [side, side]


def _covers_input(node: onnx.NodeProto, weights: tuple[int, ...], shape: list[int | None] | None) -> bool:
    return _is_plain(attributes_of(node)) and shape is not None and shape[1:] == list(weights[1:])


def _is_plain(attributes: Mapping[str, Any]) -> bool:
    """Return whether a convolution has neither padding nor groups."""
    padded = any(attributes.get("pads", [])) or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    return not padded and attributes.get("group", 1) == 1


def _per_channel(
    node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]], constants: Constants
) -> tuple[onnx.NodeProto, str] | None:
    """Return a convolution's only reader and its constant, if it multiplies or adds one constant per channel."""
    following = readers.get(node.output[0], [])
    if len(following) != 1 or following[0] is None or following[0].op_type not in _PER_CHANNEL:
        return None
    other = next((name for name in following[0].input if name != node.output[0]), "")
    value, weights = constants.find(other), constants.find(node.input[1])
    if value is None or weights is None or value.shape != (1, len(weights), 1, 1):
        return None
    return following[0], other
