"""Cut a serialised ONNX model in two at some of its tensors, without the onnx package.

Only graphs without control flow, and the exporter writes no others: what a subgraph takes from outside is not followed.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runtime.artifact_files.protobuf import field, read_fields, varint_field
from runtime.errors import ArtifactError

# Field numbers of onnx.ModelProto, GraphProto, NodeProto, TensorProto, ValueInfoProto and TypeProto.
_GRAPH, _METADATA_PROPS = 7, 14
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME = 1, 2, 3
_INITIALIZER_NAME, _VALUE_NAME, _VALUE_TYPE = 8, 1, 2
_TENSOR_TYPE, _ELEMENT_TYPE, _SHAPE, _DIMENSION, _DIMENSION_VALUE = 1, 1, 2, 1, 1
ELEMENT_TYPES = {"tensor(float)": 1, "tensor(float16)": 10}

Dimensions = Sequence[int | str | None]


@dataclass(frozen=True)
class _Node:
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    encoded: memoryview


class CutModel:
    """A model that is cut at some tensors: what makes them, and what uses them.

    Args:
        model: The serialised model; it is kept as long as this object.
        tensors: Where it may be cut.

    Attributes:
        cut: Those of them that the outputs depend on directly, sorted.

    Raises:
        ArtifactError: A tensor is not in the graph, or the outputs do not depend on any.
    """

    def __init__(self, model: bytes, tensors: Collection[str]) -> None:
        self._rest_of_model, self._graph = _parts(model)
        self._nodes = [_node(payload) for number, payload in self._graph if number == _NODE]
        self._maker = {name: node for node in self._nodes for name in node.outputs}
        missing = sorted(set(tensors) - set(self._maker))
        outputs = [_name(payload, _VALUE_NAME) for number, payload in self._graph if number == _OUTPUT]
        self._after = self._needed(outputs, tensors)
        self.cut = sorted({name for node in self._after.values() for name in node.inputs} & set(tensors))
        if missing or not self.cut:
            what = f"has no tensor {missing[0]!r}" if missing else "does not go through the tensors it is to be cut at"
            raise ArtifactError(f"the graph {what}: export the model again")

    def before(self) -> bytes:
        """The model from the inputs to the cut tensors."""
        outputs = [field(_VALUE_NAME, name.encode()) for name in self.cut]
        return self._model(self._needed(self.cut, ()), [], outputs)

    def after(self, types: Mapping[str, tuple[int, Dimensions]]) -> bytes:
        """The model from the inputs and the cut tensors to the outputs.

        Args:
            types: Of each cut tensor the number of its element type, and its sides, not an integer where they vary.
        """
        inputs = [_value_info(name, *types[name]) for name in self.cut]
        return self._model(self._after, inputs, [payload for number, payload in self._graph if number == _OUTPUT])

    def _needed(self, names: Collection[str], stops: Collection[str]) -> dict[int, _Node]:
        """The nodes that compute some tensors from the inputs and those at which it stops."""
        found: dict[int, _Node] = {}
        waiting = list(names)
        while waiting:
            node = self._maker.get(waiting.pop())
            if node is not None and id(node) not in found:
                found[id(node)] = node
                waiting += [name for name in node.inputs if name not in stops]
        return found

    def _model(
        self, nodes: Mapping[int, _Node], inputs: Sequence[bytes], outputs: Sequence[bytes | memoryview]
    ) -> bytes:
        used = {name for node in nodes.values() for name in node.inputs}
        parts = [field(_NODE, node.encoded) for node in self._nodes if id(node) in nodes]
        for number, payload in self._graph:
            named_at = {_INITIALIZER: _INITIALIZER_NAME, _INPUT: _VALUE_NAME}.get(number)
            if named_at and _name(payload, named_at) in used:
                parts.append(field(number, payload))
        parts += [field(_INPUT, payload) for payload in inputs] + [field(_OUTPUT, payload) for payload in outputs]
        # ONNX wants a graph to have a name.
        return self._rest_of_model + field(_GRAPH, field(2, b"part") + b"".join(parts))


def _parts(model: bytes) -> tuple[bytes, list[tuple[int, memoryview]]]:
    """The model without its graph and metadata, and the graph's fields."""
    rest = b""
    graph: list[tuple[int, memoryview]] = []
    for number, payload, whole in read_fields(model):
        if number == _GRAPH:
            graph += [(inner, part) for inner, part, _ in read_fields(payload)]
        elif number != _METADATA_PROPS:
            rest += whole
    return rest, graph


def _node(payload: memoryview) -> _Node:
    inputs, outputs = (tuple(_texts(payload, number)) for number in (_NODE_INPUT, _NODE_OUTPUT))
    return _Node(inputs, outputs, payload)


def _name(payload: memoryview, number: int) -> str:
    return next(_texts(payload, number), "")


def _texts(payload: memoryview, number: int) -> Iterator[str]:
    return (bytes(part).decode() for found, part, _ in read_fields(payload) if found == number)


def _value_info(name: str, element_type: int, sides: Dimensions) -> bytes:
    shape = b"".join(
        field(_DIMENSION, varint_field(_DIMENSION_VALUE, side) if isinstance(side, int) else b"") for side in sides
    )
    tensor = varint_field(_ELEMENT_TYPE, element_type) + field(_SHAPE, shape)
    return field(_VALUE_NAME, name.encode()) + field(_VALUE_TYPE, field(_TENSOR_TYPE, tensor))
