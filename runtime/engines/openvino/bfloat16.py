"""Casts a graph so that its convolutions and matrix products are computed in bfloat16, and all that decides in float32.

OpenVINO's own hint for bfloat16 also rounds coordinates: to 4 pixels at 1000. Here, what to round follows from the
operators and how they are connected, not from their names.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from runtime.engines.openvino.library import openvino

_PRODUCTS = {
    "Convolution",
    "ConvolutionBackpropData",
    "GroupConvolution",
    "GroupConvolutionBackpropData",
    "MatMul",
}
# Moves values but computes none, so it gives the same in either type and is cheaper in the smaller one.
_MOVES = {
    "Concat",
    "DepthToSpace",
    "Gather",
    "Pad",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "StridedSlice",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "VariadicSplit",
}
# May stand between two products.
_BETWEEN = _MOVES | {"Add", "AvgPool", "Clamp", "Interpolate", "MaxPool", "Multiply", "PRelu", "Relu"}
_OF_WEIGHTS = {"Gather", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


def compute_in_bfloat16(model: Any) -> None:
    """Change a float32 model in place; its inputs and outputs stay as they are.

    Products with weights are computed in bfloat16, and so is everything between two of them if it is an activation,
    pooling, addition or the like. The bias behind a last product, such as one for scores, is added in float32.
    """
    graph = _Graph(model.get_ordered_ops())
    lowered = _products_and_between(graph)
    _extend_over_moves(graph, lowered)
    _cast(graph, lowered)
    model.validate_nodes_and_infer_types()


@dataclass
class _Graph:
    """The nodes of a model in the order of computation.

    Attributes:
        weights: Names of nodes that are computed, or taken, from constants alone.
    """

    nodes: list[Any]
    weights: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for node in self.nodes:
            kind, sources = node.get_type_name(), node.input_values()
            taken = [value for value in sources if _is_float(value)] if kind in _OF_WEIGHTS else sources
            constant = bool(taken) and all(value.get_node().get_name() in self.weights for value in taken)
            if kind == "Constant" or (constant and kind not in _PRODUCTS):
                self.weights.add(node.get_name())

    def data(self, node: Any) -> list[str]:
        """Return the names of the nodes whose floats a node computes with, without weights."""
        names = (value.get_node().get_name() for value in node.input_values() if _is_float(value))
        return [name for name in names if name not in self.weights]

    def moves(self, node: Any) -> bool:
        """Return whether a node moves data; what it pads with must be the same in either type: zeros."""
        if node.get_type_name() not in _MOVES or node.get_name() in self.weights:
            return False
        floats = [value.get_node() for value in node.input_values() if _is_float(value)]
        added = [source for source in floats if source.get_name() in self.weights]
        return all(source.get_type_name() == "Constant" and not source.data.any() for source in added)


def _products_and_between(graph: _Graph) -> set[str]:
    """Return the names of the products with weights, and of what stands between two of them."""
    products = {
        node.get_name()
        for node in graph.nodes
        if node.get_type_name() in _PRODUCTS and _is_float(node.output(0)) and len(graph.data(node)) == 1
    }
    fed = set(products)
    for node in graph.nodes:
        data = graph.data(node)
        between = graph.moves(node) if node.get_type_name() in _MOVES else node.get_type_name() in _BETWEEN
        if between and data and fed.issuperset(data):
            fed.add(node.get_name())
    leading: set[str] = set()
    for node in reversed(graph.nodes):
        users = _users(node)
        if node.get_name() in fed and not (leading.isdisjoint(users) and products.isdisjoint(users)):
            leading.add(node.get_name())
    return products | leading


def _extend_over_moves(graph: _Graph, lowered: set[str]) -> None:
    """Add the nodes that only move what comes from or goes to nodes in bfloat16: casts of less data remain."""
    for node in graph.nodes:
        data = graph.data(node)
        if data and lowered.issuperset(data) and graph.moves(node):
            lowered.add(node.get_name())
    for node in reversed(graph.nodes):
        users = _users(node)
        if users and lowered.issuperset(users) and graph.data(node) and graph.moves(node):
            lowered.add(node.get_name())


def _cast(graph: _Graph, lowered: Collection[str]) -> None:
    """Insert a cast wherever a float passes between a node in bfloat16 and one in float32."""
    casts: dict[tuple[str, int], Any] = {}
    crossing = []  # found before the first change: a cast makes no type known until all are there
    for node in graph.nodes:
        inside = node.get_name() in lowered
        for port, value in zip(_casted_ports(node), node.input_values(), strict=False):
            if _is_float(value) and inside != (value.get_node().get_name() in lowered):
                crossing.append((port, value, inside))
    for port, value, inside in crossing:
        key = value.get_node().get_name(), value.get_index()
        if key not in casts:
            to = openvino.Type.bf16 if inside else openvino.Type.f32
            casts[key] = openvino.opset13.convert(value, to).output(0)
        names = value.get_names() if port.get_node().get_type_name() == "Result" else ()
        if names:  # the first of several results has moved them
            value.set_names(set())
            casts[key].set_names(names)
        port.replace_source_output(casts[key])


def _casted_ports(node: Any) -> Iterable[Any]:
    """Return the inputs that must be of a node's own type."""
    if node.get_type_name() == "ShapeOf":
        return ()
    return node.inputs()[:1] if node.get_type_name() == "Interpolate" else node.inputs()


def _users(node: Any) -> set[str]:
    """Return the names of the nodes that use values of a node, not only its shape."""
    users = (port.get_node() for output in node.outputs() for port in output.get_target_inputs())
    return {user.get_name() for user in users if user.get_type_name() != "ShapeOf"}


def _is_float(value: Any) -> bool:
    return bool(value.get_element_type() == openvino.Type.f32)
