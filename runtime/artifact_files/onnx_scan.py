"""What an `.onnx` file may contain, checked on its bytes before an engine opens it, without the onnx package.

An ONNX graph only computes, with three exceptions, which are refused: a tensor can read its values from another file
(or an address in memory); a node can belong to an operator library outside ONNX, which may do anything; and a few nodes
of ONNX Runtime's own domain load files. Messages that no export has (sparse tensors, local functions, training) are
refused entirely, so nothing can hide in them. The values of tensors are not read: the file is mapped into memory, and
only the pages with names and numbers are accessed.
"""

from pathlib import Path

from runtime.artifact_files.protobuf import map_file, read_fields
from runtime.errors import ArtifactCorruptError, ArtifactError

# Field numbers in the messages of onnx.proto.
_GRAPH, _TRAINING, _FUNCTIONS = 7, 20, 25  # ModelProto
_NODE, _INITIALIZER, _SPARSE_INITIALIZER = 1, 5, 15  # GraphProto
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7  # NodeProto
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14  # TensorProto
# AttributeProto: one tensor or graph, several, and the sparse ones.
_TENSORS, _GRAPHS, _SPARSE = (5, 10), (6, 11), (22, 23)
_ONNX = (b"", b"ai.onnx")
_DEEPEST = 8  # graphs in graphs


def check_onnx(path: Path) -> None:
    """Refuse an ONNX file that refers to anything outside itself.

    Raises:
        ArtifactError: A tensor has external data, an operator is not part of ONNX (the message names it), or the file
            cannot be read.
        ArtifactCorruptError: The file is damaged, or not ONNX.
    """
    model = map_file(path)
    try:
        _check_model(model)
    except _RefusedError as refused:
        raise ArtifactError(
            f"{path} contains {refused}, unlike any artifact of maskrcnn-export: it is not loaded, because it could "
            "read other files or run other code; export the checkpoint yourself"
        ) from None
    except ArtifactCorruptError as error:
        raise ArtifactCorruptError(f"{path}: {error}") from error


class _RefusedError(Exception):
    """Describes what is refused."""


def _check_model(model: memoryview) -> None:
    for number, content, _ in read_fields(model):
        if number == _GRAPH:
            _check_graph(content, 0)
        elif number in (_TRAINING, _FUNCTIONS):
            raise _RefusedError("functions or a training graph of its own")


def _check_graph(graph: memoryview, depth: int) -> None:
    if depth > _DEEPEST:
        raise _RefusedError(f"graphs nested more than {_DEEPEST} deep")
    for number, content, _ in read_fields(graph):
        if number == _NODE:
            _check_node(content, depth)
        elif number == _INITIALIZER:
            _check_tensor(content)
        elif number == _SPARSE_INITIALIZER:
            raise _RefusedError("a sparse initializer")


def _check_node(node: memoryview, depth: int) -> None:
    domain = operator = b""
    for number, content, _ in read_fields(node):
        if number == _NODE_ATTRIBUTE:
            _check_attribute(content, depth)
        elif number == _NODE_DOMAIN:
            domain = bytes(content)
        elif number == _NODE_OPERATOR:
            operator = bytes(content)
    if domain not in _ONNX:
        raise _RefusedError(f"the operator {_text(operator)} of the domain {_text(domain)}")


def _check_attribute(attribute: memoryview, depth: int) -> None:
    for number, content, _ in read_fields(attribute):
        if number in _TENSORS:
            _check_tensor(content)
        elif number in _GRAPHS:
            _check_graph(content, depth + 1)
        elif number in _SPARSE:
            raise _RefusedError("a sparse tensor")


def _check_tensor(tensor: memoryview) -> None:
    name, is_elsewhere = b"", False
    for number, content, _ in read_fields(tensor):
        if number == _TENSOR_NAME:
            name = bytes(content)
        elif number == _EXTERNAL_DATA or (number == _DATA_LOCATION and bytes(content) != b"\0"):
            is_elsewhere = True
    if is_elsewhere:
        raise _RefusedError(f"the tensor {_text(name)} with its values elsewhere (external data)")


def _text(name: bytes) -> str:
    """Return an untrusted name, safe to print."""
    return ascii(name[:80].decode(errors="replace"))
