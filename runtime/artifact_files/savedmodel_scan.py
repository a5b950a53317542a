"""What a SavedModel may contain, checked in its parsed description before TensorFlow loads anything.

A SavedModel is a program. Its operators can write files, call Python or start servers, and restored objects can have
resources of their own. So everything that is not on the lists here is refused, and so are calls without end. The lists
are written by hand, because TensorFlow does not mark operators that touch files (`ReadFile` counts as stateless).

Only two functions may touch files: those that save and restore the variables. Loading runs at most the second. Nothing
else may call them, so saving cannot hide in the restoring function, nor file access in the function that runs on
images.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from runtime.errors import ArtifactError

# Pure operators: those of the exported networks, in both samplings and for both targets...
_NETWORK = """
    Abs AddV2 ArgMax AvgPool BatchMatMulV2 BiasAdd BroadcastTo Cast CombinedNonMaxSuppression ConcatV2 Const Conv2D
    Conv2DBackpropInput CropAndResize Equal Exp ExpandDims Fill FloorDiv GatherV2 Greater GreaterEqual Identity Less
    Log LogicalAnd MatMul Max MaxPool Maximum Minimum MirrorPad Mul Neg NoOp NonMaxSuppressionV4 Pack Pad
    PartitionedCall Placeholder PlaceholderWithDefault Range ReadVariableOp RealDiv Relu Reshape ResizeNearestNeighbor
    Round Rsqrt ScatterNd Select SelectV2 Shape Sigmoid Size Softmax SparseTensorDenseMatMul Split Sqrt Squeeze
    StatefulPartitionedCall StopGradient StridedSlice Sub Sum Tile TopKV2 Transpose Unpack Where
"""
# ... and those of other Keras layers, in the forward pass of a user's own backbone. Only functions of their input: no
# random numbers, control flow, text or handles.
_BACKBONES = """
    AddN All Any ArgMin BatchToSpaceND BroadcastArgs Ceil ClipByValue Cos Cumsum DepthToSpace DepthwiseConv2dNative
    DivNoNan Einsum Elu Erf Erfc Expm1 Floor FloorMod FusedBatchNormV3 GatherNd IdentityN LeakyRelu LessEqual Log1p
    LogSoftmax LogicalNot LogicalOr MaxPoolV2 Mean Min NotEqual OneHot OnesLike PadV2 Pow Prod Rank Reciprocal Relu6
    ResizeBilinear ReverseV2 Roll Selu ShapeN Sign Sin Slice Softplus Softsign SpaceToBatchND SpaceToDepth SplitV
    Square SquaredDifference Tanh TensorScatterUpdate ZerosLike
"""
_COMPUTING = frozenset((_NETWORK + _BACKBONES).split())
_SAVING = frozenset(
    ("DisableCopyOnRead", "MergeV2Checkpoints", "SaveV2", "ShardedFilename", "StaticRegexFullMatch", "StringJoin")
)
_RESTORING = frozenset(("AssignVariableOp", "RestoreV2"))
_ALLOWED = {
    "compute": _COMPUTING,
    "graph": _COMPUTING | {"VarHandleOp"},  # by name: in a function it could be a variable of another model
    "save": _COMPUTING | _SAVING,
    "restore": _COMPUTING | _RESTORING,
}
_KINDS = ("user_object", "variable", "function", "bare_concrete_function")
_OBJECTS = ("_generic_user_object", "trackable_list_wrapper", "signature_map")
_DEEPEST_CALL = 16
_MOST_NODES = 1_000_000  # with those of every call; a ResNet-101 has a hundredth
_SWAPPED = "api_implements"  # the optimizer may swap functions with the same value of this attribute


def check_savedmodel(saved_model: Any, path: Path) -> None:
    """Refuse a parsed `saved_model.pb` with anything that an exported network does not need.

    Raises:
        ArtifactError: An operator, object, file or call is not allowed; the message names it.
    """
    for graph in saved_model.meta_graphs:
        for what in (*_foreign_parts(graph), *_foreign_operators(graph), *_endless_calls(graph)):
            raise ArtifactError(
                f"{path} contains {what}, unlike any artifact of maskrcnn-export: it is not loaded, because it could "
                "run any code, or never end; export the checkpoint yourself"
            )


def _foreign_parts(graph: Any) -> Iterator[str]:
    """Describe objects, files and attributes that no export has, for a message."""
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
    """Describe operators that are not allowed where they are, and calls of the saver, for a message."""
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
    """Return what each function of the library is called for; by default, for computing."""
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


def _endless_calls(graph: Any) -> Iterator[str]:
    """Describe functions that call too many others, for a message: two calls in each double the work of the last."""
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    known: dict[str, tuple[int, int]] = {}

    def measure(name: str, depth: int) -> tuple[int, int]:
        """Return the nodes that one call runs in all, and how deep calls are nested in it."""
        if depth > _DEEPEST_CALL:
            return 0, 1
        if name not in known:
            known[name] = 0, _DEEPEST_CALL  # while it is measured: a function that calls itself is too deep
            called = [measure(each, depth + 1) for node in library[name].node_def for each in calls(node)]
            nodes = len(library[name].node_def) + sum(nodes for nodes, _ in called)
            known[name] = nodes, 1 + max((deep for _, deep in called), default=0)
        return known[name]

    def calls(node: Any) -> list[str]:
        return [name for name in _called(node) if name in library]

    nodes, deepest = len(graph.graph_def.node), 0
    for name in library:
        count, deep = measure(name, 1)
        nodes, deepest = nodes + count, max(deepest, deep)
    if deepest > _DEEPEST_CALL:
        yield f"functions that call each other more than {_DEEPEST_CALL} deep"
    if nodes > _MOST_NODES:
        yield f"functions that call each other so often that more than {_MOST_NODES} nodes would run"


def _called(node: Any) -> Iterator[str]:
    """Yield the names of the functions that a node may call; its operator may be one too."""
    yield node.op
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)


def _used(graph: Any) -> Iterator[str]:
    """Yield the names of the nodes that other nodes, signatures and collections refer to."""
    tensors: list[str] = [name for node in graph.graph_def.node for name in node.input]
    for signature in graph.signature_def.values():
        for value in (*signature.inputs.values(), *signature.outputs.values()):
            tensors += _names(value)
    for collection in graph.collection_def.values():
        tensors += collection.node_list.value
    yield from map(_node_of, tensors)


def _names(value: Any) -> Iterable[str]:
    """Return the names of the tensors of a `TensorInfo`."""
    sparse = value.coo_sparse
    parts = [name for component in value.composite_tensor.components for name in _names(component)]
    return [value.name, sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name, *parts]


def _node_of(tensor: str) -> str:
    """Return the name of the node of a tensor or a control input."""
    return tensor.removeprefix("^").split(":")[0]
