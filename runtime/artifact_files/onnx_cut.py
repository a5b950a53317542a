"""Cut parts out of a serialized ONNX model, from some of its tensors to others, without the onnx package.

Only for graphs without control flow, which are all that the exporter writes: a subgraph's use of outer tensors is not
followed.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runtime.artifact_files.protobuf import field, read_fields, varint_field
from runtime.errors import ArtifactError

# Field numbers of onnx.ModelProto, GraphProto, NodeProto, TensorProto, ValueInfoProto and TypeProto.
_GRAPH, _METADATA_PROPS = 7, 14
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT = 1, 2
_INITIALIZER_NAME, _VALUE_NAME, _VALUE_TYPE = 8, 1, 2
_TENSOR_TYPE, _ELEMENT_TYPE, _SHAPE, _DIMENSION, _DIMENSION_VALUE = 1, 1, 2, 1, 1
ELEMENT_TYPES = {"tensor(float)": 1, "tensor(int32)": 6, "tensor(float16)": 10}

Dimensions = Sequence[int | str | None]


@dataclass(frozen=True)
class _Node:
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    encoded: memoryview


class CutModel:
    """A model to cut parts from; it keeps the serialized model in memory."""

    def __init__(self, model: bytes | memoryview) -> None:
        self._rest_of_model, self._graph = _parts(model)
        self._nodes = [_node(payload) for number, payload in self._graph if number == _NODE]
        self._maker = {name: node for node in self._nodes for name in node.outputs}
        values = [payload for number, payload in self._graph if number == _OUTPUT]
        self._outputs = {_name(payload, _VALUE_NAME): payload for payload in values}

    @property
    def optional_inputs(self) -> set[str]:
        """Names of inputs that have a default."""
        named = {_INPUT: _VALUE_NAME, _INITIALIZER: _INITIALIZER_NAME}
        inputs, defaults = (
            {_name(payload, name_field) for number, payload in self._graph if number == kind}
            for kind, name_field in named.items()
        )
        return inputs & defaults

    def cut_points(self, tensors: Collection[str]) -> list[str]:
        """Return those of the tensors that the model's outputs depend on directly, sorted.

        Raises:
            ArtifactError: a tensor is not in the graph, or the outputs do not depend on any.
        """
        missing = sorted(set(tensors) - set(self._maker))
        nodes = self._needed(self._outputs, tensors).values()
        points = sorted({name for node in nodes for name in node.inputs} & set(tensors))
        if missing or not points:
            what = f"has no tensor {missing[0]!r}" if missing else "does not go through the tensors to cut it at"
            raise ArtifactError(f"the graph {what}: export the model again")
        return points

    def part(self, inputs: Mapping[str, tuple[int, Dimensions | None]], outputs: Iterable[str] | None = None) -> bytes:
        """Return the model that computes some tensors from others.

        Args:
            inputs: tensors to feed, with the number of the element type and the sides (sides that are no integers vary;
                None if the rank is unknown). Inputs of the whole model that are still needed remain inputs.
            outputs: tensors to compute; None for the outputs of the whole model.
        """
        outputs = list(self._outputs if outputs is None else dict.fromkeys(outputs))
        nodes = self._needed(outputs, inputs)
        used = {name for node in nodes.values() for name in node.inputs}
        parts = [field(_NODE, node.encoded) for node in self._nodes if id(node) in nodes]
        for number, payload in self._graph:
            named_at = {_INITIALIZER: _INITIALIZER_NAME, _INPUT: _VALUE_NAME}.get(number)
            if named_at and _name(payload, named_at) in used - set(inputs):
                parts.append(field(number, payload))
        parts += [field(_INPUT, _value_info(name, *described)) for name, described in inputs.items()]
        # ONNX Runtime infers the types of tensors that are not outputs of the whole model.
        parts += [field(_OUTPUT, self._outputs.get(name, field(_VALUE_NAME, name.encode()))) for name in outputs]
        # ONNX requires a graph to have a name.
        return self._rest_of_model + field(_GRAPH, field(2, b"part") + b"".join(parts))

    def _needed(self, names: Iterable[str], stops: Collection[str]) -> dict[int, _Node]:
        """Return the nodes that compute some tensors from the model's inputs and from the tensors to stop at."""
        found: dict[int, _Node] = {}
        waiting = list(names)
        while waiting:
            node = self._maker.get(waiting.pop())
            if node is not None and id(node) not in found:
                found[id(node)] = node
                waiting += [name for name in node.inputs if name not in stops]
        return found


def _parts(model: bytes | memoryview) -> tuple[bytes, list[tuple[int, memoryview]]]:
    """Return the model without its graph and metadata, and the fields of the graph."""
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


def _value_info(name: str, element_type: int, sides: Dimensions | None) -> bytes:
    tensor = varint_field(_ELEMENT_TYPE, element_type)
    if sides is not None:
        dimensions = (varint_field(_DIMENSION_VALUE, side) if isinstance(side, int) else b"" for side in sides)
        tensor += field(_SHAPE, b"".join(field(_DIMENSION, dimension) for dimension in dimensions))
    return field(_VALUE_NAME, name.encode()) + field(_VALUE_TYPE, field(_TENSOR_TYPE, tensor))
