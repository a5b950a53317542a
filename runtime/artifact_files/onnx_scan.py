"""What an `.onnx` file may contain, checked on its bytes before an engine opens it, without the onnx package.

A graph is a program: it can loop for years, or ask for more memory than there is, some of it while an engine opens it
and computes what depends on no input. So only the operators listed here are allowed, none of which contains a graph;
the exporter's audit asks this list too. What depends on no input may only be moved and converted, and a size that a
constant gives is bounded. Outside of itself, a file can point to other files (values of a tensor) and to libraries
(operators of other domains): both are refused. So are messages that no export has (sparse tensors, local functions,
training). The values of large tensors are not read: the file is mapped into memory, and only the pages with names and
numbers are accessed.
"""

import math
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field as dataclass_field
from pathlib import Path
from typing import NamedTuple

from runtime.artifact_files.protobuf import map_file, read_fields, read_varints
from runtime.errors import ArtifactCorruptError, ArtifactError

# Operators of the exported networks, for every target, precision and sampling...
_NETWORK = """
    Abs Add And ArgMax Cast Concat ConstantOfShape Conv DepthToSpace DequantizeLinear Div Equal Exp Expand Flatten
    Gather GatherND Gemm GlobalMaxPool Greater GreaterOrEqual Identity Less Log MatMul Max MaxPool Min Mul Neg
    NonMaxSuppression NonZero Pad QuantizeLinear Range ReduceMax ReduceSum Relu Reshape Resize RoiAlign Round
    ScatterND Shape Sigmoid Size Slice Softmax Split Sqrt Squeeze Sub Tile TopK Transpose Unsqueeze Where
"""
# ... and of other layers, in a user's own backbone. Only functions of their inputs, without graphs, text and sequences.
_BACKBONES = """
    ArgMin AveragePool BatchNormalization Ceil Clip ConvTranspose Cos CumSum Einsum Elu Erf Floor GatherElements
    GlobalAveragePool HardSigmoid HardSwish InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu LessOrEqual
    LogSoftmax Mod Not OneHot Or PRelu Pow Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean
    ReduceMin ReduceProd ReduceSumSquare ScatterElements Selu Sign Sin Softplus Softsign SpaceToDepth Sum Tanh
    ThresholdedRelu Trilu Xor
"""
OPERATORS = frozenset((_NETWORK + _BACKBONES).split())
# Of constants alone: no larger than they are, except for the type of their elements.
_MOVING = frozenset(("Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))
# Operators whose result has any size, and which of their inputs gives it.
_SIZED_BY = {"ConstantOfShape": (0,), "Expand": (1,), "OneHot": (1,), "Pad": (1,), "Resize": (2, 3), "Tile": (1,)}
_LARGEST_SIZE = 2**26  # product of the numbers in such an input
_LONGEST_SIZE = 512  # bytes of such an input

# Field numbers in the messages of onnx.proto.
_IR_VERSION, _GRAPH, _TRAINING, _FUNCTIONS = 1, 7, 20, 25  # ModelProto
_NODE, _INITIALIZER, _INPUT, _SPARSE_INITIALIZER = 1, 5, 11, 15  # GraphProto
_VALUE_NAME = 1  # ValueInfoProto
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7  # NodeProto
_DATA_TYPE, _FLOATS, _INT32S, _INT64S, _TENSOR_NAME, _RAW = 2, 4, 5, 7, 8, 9  # TensorProto
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
# AttributeProto: one tensor or graph, several, and the sparse ones; sizes, such as pads.
_TENSORS, _GRAPHS, _SPARSE, _INTEGERS = (5, 10), (6, 11), (22, 23), 8
_RAW_FORMATS = {1: "f", 6: "i", 7: "q"}  # of float, int32 and int64
_ONNX = (b"", b"ai.onnx")
_FIRST_IR = 4  # before, an initializer is a constant even if it is an input too


def check_onnx(path: Path) -> None:
    """Refuse an ONNX file with anything that an exported network does not need.

    Raises:
        ArtifactError: A tensor has external data, an operator is not on the list (the message names it), a constant
            asks for too much, or the file cannot be read.
        ArtifactCorruptError: The file is damaged, or not ONNX.
    """
    model = map_file(path)
    try:
        _check_model(model)
    except _RefusedError as refused:
        raise ArtifactError(f"{path} contains {refused}") from None
    except ArtifactCorruptError as error:
        raise ArtifactCorruptError(f"{path}: {error}") from error


def foreign_operators(operators: Iterable[str]) -> list[str]:
    """Return those names that are no operators of an artifact, sorted."""
    return sorted(set(operators) - OPERATORS)


class _RefusedError(Exception):
    """Describes what is refused."""

    def __init__(self, what: str, do: str = "export the checkpoint yourself") -> None:
        super().__init__(
            f"{what}, unlike any artifact of maskrcnn-export: it is not loaded, because it could read other files, run "
            f"other code, or take all time or memory; {do}"
        )


class _Node(NamedTuple):
    operator: str
    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...]


@dataclass
class _Graph:
    """What the parts of a graph hold together: a file may have it in pieces, which readers join."""

    nodes: list[_Node] = dataclass_field(default_factory=list)
    inputs: list[bytes] = dataclass_field(default_factory=list)
    constants: dict[bytes, memoryview] = dataclass_field(default_factory=dict)


def _check_model(model: memoryview) -> None:
    graph = _Graph()
    for number, content, _ in read_fields(model):
        if number == _GRAPH:
            _read_graph(content, graph)
        elif number in (_TRAINING, _FUNCTIONS):
            raise _RefusedError("functions or a training graph of its own")
        elif number == _IR_VERSION and _last(content) < _FIRST_IR:
            raise _RefusedError(f"a graph of ONNX's format before version {_FIRST_IR}")
    computed = _computed(graph)
    for node in graph.nodes:
        if node.operator not in _MOVING and not computed.issuperset(node.outputs):
            raise _RefusedError(f"the operator {node.operator!r} on constants alone")
        for index in _SIZED_BY.get(node.operator, ()):
            name = node.inputs[index] if index < len(node.inputs) else b""
            constant = None if name in computed else graph.constants.get(name)
            if name not in computed and (constant is None or not _is_small(_numbers(constant))):
                raise _RefusedError(f"the operator {node.operator!r} with a constant size that is too large")


def _read_graph(content: memoryview, graph: _Graph) -> None:
    for number, part, _ in read_fields(content):
        if number == _NODE:
            graph.nodes.append(_checked_node(part))
        elif number == _INITIALIZER:
            graph.constants[_check_tensor(part)] = part
        elif number == _INPUT:
            graph.inputs += _texts(part, _VALUE_NAME)
        elif number == _SPARSE_INITIALIZER:
            raise _RefusedError("a sparse initializer")


def _checked_node(content: memoryview) -> _Node:
    parts: dict[int, list[memoryview]] = defaultdict(list)
    for number, part, _ in read_fields(content):
        parts[number].append(part)
    operator, domain = (bytes(parts[number][-1]) if parts[number] else b"" for number in (_NODE_OPERATOR, _NODE_DOMAIN))
    if domain not in _ONNX:
        raise _RefusedError(
            f"the operator {_text(operator)} of the domain {_text(domain)}",
            "if another tool optimized it, open the file that was exported: ONNX Runtime optimizes it on opening, and "
            "EngineOptions(cache=...) keeps the result",
        )
    name = operator.decode(errors="replace")
    if name not in OPERATORS:
        raise _RefusedError(f"the operator {_text(operator)}")
    for attribute in parts[_NODE_ATTRIBUTE]:
        _check_attribute(attribute)
    return _Node(name, *(tuple(map(bytes, parts[number])) for number in (_NODE_INPUT, _NODE_OUTPUT)))


def _check_attribute(attribute: memoryview) -> None:
    integers = bytearray()
    for number, content, _ in read_fields(attribute):
        if number in _TENSORS:
            _check_tensor(content)
        elif number in _GRAPHS:
            raise _RefusedError("a graph in a node")
        elif number in _SPARSE:
            raise _RefusedError("a sparse tensor")
        elif number == _INTEGERS:
            integers += content
    if len(integers) > _LONGEST_SIZE or not _is_small(_integers(integers)):
        raise _RefusedError("a node with an attribute that is too large")


def _check_tensor(tensor: memoryview) -> bytes:
    """Refuse a tensor with its values elsewhere; return the name."""
    name, is_elsewhere = b"", False
    for number, content, _ in read_fields(tensor):
        if number == _TENSOR_NAME:
            name = bytes(content)
        elif number == _EXTERNAL_DATA or (number == _DATA_LOCATION and bytes(content) != b"\0"):
            is_elsewhere = True
    if is_elsewhere:
        raise _RefusedError(f"the tensor {_text(name)} with its values elsewhere (external data)")
    return name


def _computed(graph: _Graph) -> set[bytes]:
    """Return the tensors that depend on an input of the graph."""
    readers: dict[bytes, list[_Node]] = defaultdict(list)
    for node in graph.nodes:
        for name in node.inputs:
            readers[name].append(node)
    found, waiting = {b""}, list(graph.inputs)  # no name: an optional output that is left out
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [output for node in readers[name] for output in node.outputs]
    return found


def _is_small(numbers: Iterable[float]) -> bool:
    """Return whether the product of sizes is not too large; zeros and negative ones have a meaning of their own."""
    return math.prod(max(1.0, abs(number)) for number in numbers) <= _LARGEST_SIZE


def _numbers(tensor: memoryview) -> Iterator[float]:
    """Yield the few numbers of a constant; infinity for values of another type or many of them."""
    fields = [(number, content) for number, content, _ in read_fields(tensor)]
    kind = next((_last(content) for number, content in fields if number == _DATA_TYPE), 0)
    for number, content in fields:
        if number not in (_RAW, _FLOATS, _INT32S, _INT64S):
            continue
        layout = "f" if number == _FLOATS else _RAW_FORMATS.get(kind, "")
        if len(content) > _LONGEST_SIZE or kind not in _RAW_FORMATS:
            yield math.inf
        elif number in (_INT32S, _INT64S):
            yield from _integers(content)
        elif len(content) % struct.calcsize(layout) == 0:
            yield from (value for (value,) in struct.iter_unpack(f"<{layout}", content))
        else:
            yield math.inf


def _integers(content: bytes | bytearray | memoryview) -> Iterator[int]:
    return (value - 2**64 if value >= 2**63 else value for value in read_varints(content))


def _last(content: memoryview) -> int:
    return next(reversed(read_varints(content)), 0)


def _texts(content: memoryview, wanted: int) -> list[bytes]:
    return [bytes(part) for number, part, _ in read_fields(content) if number == wanted]


def _text(name: bytes) -> str:
    """Return an untrusted name, safe to print."""
    return ascii(name[:80].decode(errors="replace"))
