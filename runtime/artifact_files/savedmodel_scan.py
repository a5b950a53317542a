"""What a SavedModel may hold: checked in its parsed description, before TensorFlow loads anything.

A SavedModel is a program. Its operators can write files, call Python or start servers, and a restored object can bring
resources of its own. So whatever is not on the lists here is refused. The lists are written by hand: TensorFlow itself
does not mark operators that touch files (`ReadFile` counts as stateless).

Only two functions may touch files, those that save and restore the variables. Loading runs the second of them at most,
and nothing else may call either, so that saving does not hide in the restoring one, nor any of it in what a picture
goes through.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from runtime.errors import ArtifactError

# Pure operators: what the exported networks compute with, in both samplings...
_NETWORK = """
    AddV2 ArgMax AvgPool BiasAdd BroadcastTo Cast CombinedNonMaxSuppression ConcatV2 Const Conv2D
    Conv2DBackpropInput CropAndResize Equal Exp ExpandDims Fill FloorDiv GatherV2 Greater GreaterEqual Identity Less
    Log LogicalAnd MatMul Max MaxPool Maximum Minimum MirrorPad Mul Neg NoOp Pack Pad PartitionedCall Placeholder
    PlaceholderWithDefault Range ReadVariableOp RealDiv Relu Reshape ResizeNearestNeighbor Round Rsqrt ScatterNd
    Select SelectV2 Shape Sigmoid Size Softmax Split Sqrt Squeeze StatefulPartitionedCall StopGradient StridedSlice
    Sub Sum Tile TopKV2 Transpose Unpack Where
"""
# ... and what further layers of Keras make of the forward pass of a backbone that a user brings. Only functions of
# their input; no random numbers, no control flow, no text, no handles.
_BACKBONES = """
    Abs AddN All Any ArgMin BatchMatMulV2 BatchToSpaceND BroadcastArgs Ceil ClipByValue Cos Cumsum DepthToSpace
    DepthwiseConv2dNative DivNoNan Einsum Elu Erf Erfc Expm1 Floor FloorMod FusedBatchNormV3 GatherNd IdentityN
    LeakyRelu LessEqual Log1p LogSoftmax LogicalNot LogicalOr MaxPoolV2 Mean Min NotEqual OneHot OnesLike PadV2 Pow
    Prod Rank Reciprocal Relu6 ResizeBilinear ReverseV2 Roll Selu ShapeN Sign Sin Slice Softplus Softsign
    SpaceToBatchND SpaceToDepth SplitV Square SquaredDifference Tanh TensorScatterUpdate ZerosLike
"""
_COMPUTING = frozenset((_NETWORK + _BACKBONES).split())
_SAVING = frozenset(
    ("DisableCopyOnRead", "MergeV2Checkpoints", "SaveV2", "ShardedFilename", "StaticRegexFullMatch", "StringJoin")
)
_RESTORING = frozenset(("AssignVariableOp", "RestoreV2"))
_ALLOWED = {
    "compute": _COMPUTING,
    "graph": _COMPUTING | {"VarHandleOp"},  # by name, so inside a function it could be a variable of another model
    "save": _COMPUTING | _SAVING,
    "restore": _COMPUTING | _RESTORING,
}
_KINDS = ("user_object", "variable", "function", "bare_concrete_function")
_OBJECTS = ("_generic_user_object", "trackable_list_wrapper", "signature_map")
_SWAPPED = "api_implements"  # the optimiser may exchange functions that have the same value of this attribute


def check_savedmodel(saved_model: Any, path: Path) -> None:
    """Refuse a SavedModel with anything in it that an exported network has no use for.

    Args:
        saved_model: The parsed `SavedModel` message of `saved_model.pb`.
        path: The folder, for messages.

    Raises:
        ArtifactError: An operator, object, file or call is not allowed; the message names it.
    """
    for graph in saved_model.meta_graphs:
        for what in (*_foreign_parts(graph), *_foreign_operators(graph)):
            raise ArtifactError(
                f"{path} holds {what}, which no artifact of maskrcnn-export does: not loaded, because it could run "
                "anything; export the checkpoint yourself"
            )


def _foreign_parts(graph: Any) -> Iterator[str]:
    """Objects, files and attributes that are not ours; words for a message."""
    for asset in graph.asset_file_def:
        yield f"the asset {asset.filename!r}"
    for item in graph.object_graph_def.nodes:
        kind = item.WhichOneof("kind")
        if kind not in _KINDS:
            yield f"an object of kind {kind!r}"
        if kind == "user_object" and item.user_object.identifier not in _OBJECTS:
            yield f"an object of type {item.user_object.identifier!r}"
        if item.registered_name or item.registered_saver:
            yield f"an object of the registered type {item.registered_name or item.registered_saver!r}"
    for function in graph.graph_def.library.function:
        if _SWAPPED in function.attr:
            yield f"the function {function.signature.name!r} with the attribute {_SWAPPED!r}"


def _foreign_operators(graph: Any) -> Iterator[str]:
    """Operators that are not allowed where they are, and calls of the saver; words for a message."""
    definition = graph.graph_def
    library = {function.signature.name: function for function in definition.library.function}
    saver = {
        _node_of(graph.saver_def.save_tensor_name): "save",
        _node_of(graph.saver_def.restore_op_name): "restore",
    }
    saver.pop("", None)
    yield from (f"a use of {name!r}, which belongs to the saver," for name in _used(graph) if name in saver)
    roles = _roles(graph, library, saver)
    scopes = [("graph", "the graph", definition.node)]
    scopes += [(role, f"function {name!r}", library[name].node_def) for name in library for role in sorted(roles[name])]
    for role, where, nodes in scopes:
        for node in nodes:
            if node.op not in _ALLOWED[role]:
                yield f"the operator {node.op!r} in {where}"


def _roles(graph: Any, library: dict[str, Any], saver: dict[str, str]) -> dict[str, set[str]]:
    """What each function of the library is called for; for computing if nothing says otherwise."""
    roles: defaultdict[str, set[str]] = defaultdict(set)
    waiting = [(name, "compute") for name in graph.object_graph_def.concrete_functions]
    for node in graph.graph_def.node:
        waiting += [(name, saver.get(node.name, "compute")) for name in _called(node)]
    while waiting:
        name, role = waiting.pop()
        if name in library and role not in roles[name]:
            roles[name].add(role)
            waiting += [(called, role) for node in library[name].node_def for called in _called(node)]
    for name in library:
        roles[name] = roles[name] or {"compute"}
    return roles


def _called(node: Any) -> Iterator[str]:
    """Names of the functions that a node may call; its operator may be one, too."""
    yield node.op
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)


def _used(graph: Any) -> Iterator[str]:
    """Names of the nodes that other nodes, signatures and collections lead to."""
    tensors: list[str] = [name for node in graph.graph_def.node for name in node.input]
    for signature in graph.signature_def.values():
        for value in (*signature.inputs.values(), *signature.outputs.values()):
            tensors += _names(value)
    for collection in graph.collection_def.values():
        tensors += collection.node_list.value
    yield from map(_node_of, tensors)


def _names(value: Any) -> Iterable[str]:
    """Names of the tensors of a `TensorInfo`."""
    sparse = value.coo_sparse
    parts = [name for component in value.composite_tensor.components for name in _names(component)]
    return [value.name, sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name, *parts]


def _node_of(tensor: str) -> str:
    """Name of the node that a tensor's name, or that of a control input, begins with."""
    return tensor.removeprefix("^").split(":")[0]
