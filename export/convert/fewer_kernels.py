"""Rewrite rules for CUDA: the same results from fewer kernels, each of which costs a launch.

They are for graphs of a fixed image size. Like the rules of `rewrites`, they change the graph in place, and a rule that
does not apply changes nothing. Values are moved less often, or computed here instead of in every run, with the same
bits. Two rules may change the last bit: `fold_factors` leaves two roundings out, and an engine may add the products of
a wider convolution, as `join_heads` makes, in another order.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from export.convert.access import Constants, attributes_of, readers_of, shapes_of

_WHOLE = 10**9  # from here on, the end of a slice is the end of any axis
_BOX_SIDES = 4
_Array = npt.NDArray[Any]


def use_fewer_kernels(model: onnx.ModelProto, kept: Collection[str]) -> None:
    """Apply every rule in place; tensors in `kept` must stay, such as those between stages."""
    for rule in RULES:
        apply(rule, model, kept)


def apply(rule: Callable[["_Graph"], None], model: onnx.ModelProto, kept: Collection[str] = ()) -> None:
    """Apply one rule in place, and remove what is not read any more."""
    graph = _Graph(model, kept)
    rule(graph)
    graph.drop_unread()


class _Graph:
    """A graph that is being rewritten."""

    def __init__(self, model: onnx.ModelProto, kept: Collection[str]) -> None:
        self.model, self.nodes = model, model.graph.node
        self.constants, self.readers, self.shapes = Constants(model), readers_of(model), shapes_of(model)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.kept = {*kept, *(value.name for value in model.graph.output)}

    def find(self, operator: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type == operator]

    def maker(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor, if it is of one of some operators."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type in operators else None

    def only_read_by(self, name: str, node: onnx.NodeProto) -> bool:
        return name not in self.kept and all(reader is node for reader in self.readers[name])

    def constant(self, node: onnx.NodeProto) -> tuple[str, _Array] | None:
        """Return the tensor that a node of two inputs combines with a constant, and the constant."""
        for name, other in (node.input, reversed(node.input)):
            value = self.constants.find(other)
            if value is not None:
                return name, value
        return None

    def sides(self, name: str) -> list[int]:
        """Return the sides of a tensor but that of the batch; nothing if some are not known."""
        shape = (self.shapes.get(name) or [])[1:]
        known = [side for side in shape if side is not None]
        return known if len(known) == len(shape) else []

    def last_axis(self, name: str) -> int | None:
        shape = self.shapes.get(name)
        return len(shape) - 1 if shape else None

    def add(self, name: str, value: Any, dtype: npt.DTypeLike = np.float32) -> str:
        """Add a constant whose name begins with that of the tensor it is for."""
        value = np.asarray(value, dtype)
        return self.constants.add(name, value, value.dtype)

    def bypass(self, node: onnx.NodeProto, source: str, index: int = 0) -> None:
        """Let all readers of an output read another tensor instead; not for tensors that must stay."""
        for reader in self.readers[node.output[index]]:
            for place, name in enumerate(reader.input):
                if name == node.output[index]:
                    reader.input[place] = source
        self.readers[source] += self.readers.pop(node.output[index])

    def replace(self, node: onnx.NodeProto, *nodes: onnx.NodeProto) -> None:
        """Put nodes in the place of one; the last ones make its outputs."""
        place = next(index for index, each in enumerate(self.nodes) if each is node)
        del self.nodes[place]
        for offset, each in enumerate(nodes):
            self.nodes.insert(place + offset, each)
            self.makers |= dict.fromkeys(each.output, self.nodes[place + offset])
            for name in each.input:
                self.readers[name] = [*self.readers.get(name, []), self.nodes[place + offset]]

    def drop_unread(self) -> None:
        """Remove nodes whose results are not read, and constants."""
        wanted = {value.name for value in self.model.graph.output}
        for place in reversed(range(len(self.nodes))):  # sorted, so one pass is enough
            if wanted.intersection(self.nodes[place].output):
                wanted.update(self.nodes[place].input)
            else:
                del self.nodes[place]
        self.constants.drop_unread()


def _make(operator: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, outputs, name=f"{outputs[0]}/{operator}", **attributes)


def drop_whole_slices(graph: _Graph) -> None:
    """Skip slices that take everything, which TensorFlow's `x[:, None]` leaves."""
    for node in graph.find("Slice"):
        starts, ends, *rest = (graph.constants.find(name) for name in node.input[1:])
        axes, steps = (*rest, None, None)[:2]
        if starts is None or ends is None or starts.any() or node.output[0] in graph.kept:
            continue
        shape = graph.shapes.get(node.input[0]) or []
        sides = [shape[axis] if shape else None for axis in (axes if axes is not None else [])]
        whole = ends >= _WHOLE
        if len(sides) == len(ends):
            whole |= np.array([side is not None and end >= side for side, end in zip(sides, ends, strict=True)])
        if whole.all() and (steps is None or (steps == 1).all()):
            graph.bypass(node, node.input[0])


def keep_indices(graph: _Graph) -> None:
    """Read indices as they are made, int64, or as int32 where that is what a gather reads."""
    indices = {node.output[-1] for node in graph.nodes if node.op_type in ("TopK", "ArgMax")}
    for node in graph.find("Cast"):
        kind = attributes_of(node)["to"]
        if node.output[0] in graph.kept:
            continue
        if node.input[0] in indices and kind in (TensorProto.INT32, TensorProto.INT64):
            for reader in list(graph.readers[node.output[0]]):
                places = [place for place, name in enumerate(reader.input) if name == node.output[0]]
                if reader.op_type == "Cast" or (reader.op_type == "Gather" and places == [1]):
                    reader.input[places[0]] = node.input[0]
                    graph.readers[node.input[0]].append(reader)
                    graph.readers[node.output[0]].remove(reader)
        if (kind == TensorProto.INT64 and node.input[0] in indices) or (
            kind == TensorProto.INT64 and _only_index(graph, node.output[0]) and _is_int32(graph, node.input[0])
        ):
            graph.bypass(node, node.input[0])


def _only_index(graph: _Graph, name: str) -> bool:
    """Return whether a tensor is only read as the indices of gathers."""
    return name not in graph.kept and all(
        (reader.op_type == "Unsqueeze" and reader.input[0] == name and _only_index(graph, reader.output[0]))
        or (reader.op_type == "Gather" and list(reader.input).index(name) == 1)
        for reader in graph.readers[name]
    )


def _is_int32(graph: _Graph, name: str) -> bool:
    node = graph.maker(name, "Cast", "Reshape")
    while node is not None and node.op_type == "Reshape":
        node = graph.maker(node.input[0], "Cast", "Reshape")
    return node is not None and attributes_of(node)["to"] == TensorProto.INT32


def upsample_while_adding(graph: _Graph) -> None:
    """Let an addition repeat the cells of the coarse map, as [H, 1, W, 1], beside the fine one, as [H, r, W, r]."""
    for node in graph.find("Add"):
        for coarse, fine in (node.input, reversed(node.input)):
            resize = graph.maker(coarse, "Resize")
            if resize is None or not graph.only_read_by(coarse, node) or not _repeats_cells(resize):
                continue
            small, large = graph.sides(resize.input[0]), graph.sides(fine)
            if len(small) != len(large) or small[:1] != large[:1] or not small:
                continue
            (channels, height, width), (_, rows, columns) = small, large
            name, times = node.output[0], rows // height
            if (rows, columns) != (times * height, times * width):
                continue
            cells, spread, back = (
                graph.add(f"{name}/{each}_shape", shape, np.int64)
                for each, shape in (
                    ("cells", [-1, channels, height, 1, width, 1]),
                    ("spread", [-1, channels, height, times, width, times]),
                    ("map", [-1, channels, rows, columns]),
                )
            )
            graph.replace(
                node,
                _make("Reshape", [resize.input[0], cells], f"{name}/cells"),
                _make("Reshape", [fine, spread], f"{name}/spread"),
                _make("Add", [f"{name}/cells", f"{name}/spread"], f"{name}/sum"),
                _make("Reshape", [f"{name}/sum", back], name),
            )
            break


def _repeats_cells(resize: onnx.NodeProto) -> bool:
    wanted = {
        "mode": b"nearest",
        "nearest_mode": b"round_prefer_ceil",
        "coordinate_transformation_mode": b"half_pixel",
    }
    return wanted.items() <= attributes_of(resize).items()


def join_heads(graph: _Graph) -> None:
    """Compute both outputs of the RPN with one convolution per level, and transpose all levels at once."""
    groups: dict[tuple[str, ...], list[tuple[onnx.NodeProto, list[onnx.NodeProto], int]]] = {}
    for node in graph.find("Concat"):
        found = _levels(graph, node)
        if found is not None:
            groups.setdefault(tuple(conv.input[0] for conv in found[0]), []).append((node, *found))
    for heads in groups.values():
        name, levels = heads[0][0].output[0], heads[0][1]
        kernels, biases = ([graph.constants.read(convs[0].input[place]) for _, convs, _ in heads] for place in (1, 2))
        kernel = graph.add(f"{name}/kernel", np.concatenate(kernels))
        bias = graph.add(f"{name}/bias", np.concatenate(biases))
        widths = [len(each) for each in biases]
        nodes, rows = [], []
        for number, conv in enumerate(levels):
            rows.append(f"{name}/level{number}")
            cells = np.prod(graph.sides(conv.output[0])[1:])
            shape = graph.add(f"{rows[-1]}/shape", [-1, sum(widths), cells], np.int64)
            inputs, attributes = [conv.input[0], kernel, bias], attributes_of(conv)
            nodes += [
                _make("Conv", inputs, f"{rows[-1]}/map", **attributes),
                _make("Reshape", [f"{rows[-1]}/map", shape], rows[-1]),
            ]
        parts = [f"{name}/part{number}" for number in range(len(heads))]
        nodes += [
            _make("Concat", rows, f"{name}/levels", axis=2),
            _make("Transpose", [f"{name}/levels"], f"{name}/rows", perm=[0, 2, 1]),
            _make("Split", [f"{name}/rows", graph.add(f"{name}/widths", widths, np.int64)], *parts, axis=2),
        ]
        for (node, _, width), part in zip(heads, parts, strict=True):
            shape = graph.add(f"{node.output[0]}/shape", [0, -1, width], np.int64)
            nodes.append(_make("Reshape", [part, shape], node.output[0]))
        graph.replace(heads[0][0], *nodes)  # the first of them in the graph
        for node, *_ in heads[1:]:
            graph.replace(node)


def _levels(graph: _Graph, node: onnx.NodeProto) -> tuple[list[onnx.NodeProto], int] | None:
    """Return the 1 x 1 convolutions whose results a `Concat` joins as rows, and the values of a row; or None."""
    convs, widths = [], set()
    for name in node.input:
        reshape = graph.maker(name, "Reshape")
        transpose = reshape and graph.maker(reshape.input[0], "Transpose")
        conv = transpose and graph.maker(transpose.input[0], "Conv")
        if not (reshape and transpose and conv) or attributes_of(transpose).get("perm") != [0, 2, 3, 1]:
            return None
        weights = graph.constants.find(conv.input[1])
        if weights is None or weights.shape[2:] != (1, 1) or len(conv.input) < 3 or not graph.sides(conv.output[0]):
            return None
        convs.append(conv)
        widths.add(_row_width(graph, reshape.input[1]))
    first = convs[0] if convs else None
    same = first is not None and all(
        np.array_equal(graph.constants.read(conv.input[place]), graph.constants.read(first.input[place]))
        for conv in convs
        for place in (1, 2)
    )
    width = widths.pop() if len(widths) == 1 else None
    return (convs, width) if same and width and attributes_of(node).get("axis") == 1 else None


def _row_width(graph: _Graph, shape: str) -> int | None:
    """Return the last side of a shape [batch, -1, side]."""
    node = graph.maker(shape, "Cast", "Concat")
    if node is not None and node.op_type == "Cast":
        node = graph.maker(node.input[0], "Concat")
    rows, side = (graph.constants.find(name) for name in node.input[-2:]) if node is not None else (None, None)
    return int(side[0]) if rows is not None and side is not None and rows[0] == -1 else None


def read_rows_from_top_k(graph: _Graph) -> None:
    """Take the rows that suppression kept from `TopK` itself instead of computing them from their ranks.

    The ranks of N rows are N, N - 1, ... (`maskrcnn.nms.suppress`), so the row of a rank is its place. Unused rows are
    replaced by zeros after they are gathered, so they need no row as long as there are N to choose from.
    """
    for node in graph.find("Sub"):
        count, cast = graph.constants.find(node.input[0]), graph.maker(node.input[1], "Cast")
        best = graph.maker(cast.input[0], "TopK") if cast else None
        if count is None or cast is None or best is None or cast.input[0] != best.output[0]:
            continue
        pad = graph.maker(best.input[0], "Pad")
        flat = graph.maker(best.input[0] if pad is None else pad.input[0], "Flatten")
        scattered = flat and graph.maker(flat.input[0], "ScatterND")
        wanted = graph.constants.find(best.input[1])
        if flat is None or scattered is None or wanted is None or int(count) < wanted[0]:
            continue
        if graph.sides(flat.input[0]) != [1, int(count)] or not graph.maker(scattered.input[1], "NonMaxSuppression"):
            continue
        for choice in graph.readers[node.output[0]]:
            readers = graph.readers[choice.output[0]] if choice is not None and choice.op_type == "Where" else []
            casts = [each for each in readers if each is not None and each.op_type == "Cast"]
            if casts and len(casts) == len(readers) and all(_masked(graph, each.output[0], choice) for each in casts):
                best.input[0] = flat.output[0]
                for each in casts:
                    graph.bypass(each, best.output[1])


def _masked(graph: _Graph, rows: str, choice: onnx.NodeProto) -> bool:
    """Return whether rows are only gathered, and then replaced where the choice did not take them."""
    return rows not in graph.kept and all(
        (reader.op_type in ("Unsqueeze", "GatherND") and _masked(graph, reader.output[0], choice))
        or (
            reader.op_type == "Where"
            and reader.input[1] == rows
            and _unsqueezed(graph, reader.input[0]) == choice.input[0]
        )
        for reader in graph.readers[rows]
    )


def _unsqueezed(graph: _Graph, name: str) -> str:
    node = graph.maker(name, "Unsqueeze")
    return name if node is None else node.input[0]


def join_halves(graph: _Graph) -> None:
    """Compute corners of boxes together, where the same is done to y1, x1 and to y2, x2 before they are joined."""
    for node in graph.find("Concat"):
        if len(node.input) != 2 or attributes_of(node)["axis"] not in (-1, graph.last_axis(node.output[0])):
            continue
        nodes: list[onnx.NodeProto] = []
        joined = _join(graph, node.input[0], node.input[1], node.output[0], nodes)
        if joined and graph.maker(node.input[0], "Mul", "Add", "Sub") is not None:
            nodes[-1].output[0] = node.output[0]
            graph.replace(node, *nodes)


def _join(graph: _Graph, first: str, second: str, name: str, nodes: list[onnx.NodeProto]) -> str | None:
    """Return a tensor with `first` beside `second` that is computed from the boxes; None if they are not twins."""
    value, joined = graph.constants.find(first), f"{name}/{len(nodes)}"
    one, other = (graph.makers.get(each) for each in (first, second))
    if first == second and value is None:
        nodes.append(_make("Concat", [first, first], joined, axis=-1))
    elif first == second and value is not None:
        return first if value.size == 1 else graph.add(f"{joined}/twice", [*value, *value])
    elif one is None or other is None or one.op_type != other.op_type:
        return None
    elif one.op_type == "Slice":
        return one.input[0] if one.input[0] == other.input[0] and _are_halves(graph, one, other) else None
    else:
        inputs = [_join(graph, *pair, name, nodes) for pair in zip(one.input, other.input, strict=True)]
        if one.op_type not in ("Mul", "Add", "Sub") or None in inputs:
            return None
        joined = f"{name}/{len(nodes)}"
        nodes.append(_make(one.op_type, [str(each) for each in inputs], joined))
    return joined


def _are_halves(graph: _Graph, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    """Return whether slices take y1, x1 and y2, x2 of boxes, and all of these."""
    bounds = [graph.constants.find(name) for each in (first, second) for name in each.input[1:3]]
    start, end, next_start, next_end = (int(each[0]) if each is not None else None for each in bounds)
    sides = [(graph.shapes.get(name) or [None])[-1] for name in (first.input[0], first.output[0])]
    return (
        sides == [_BOX_SIDES, 2]
        and (start, end, next_start) == (0, 2, 2)
        and next_end is not None
        and next_end >= _BOX_SIDES
    )


def fold_factors(graph: _Graph) -> None:
    """Drop a factor and its inverse: `crop_and_resize` takes normalized boxes and multiplies them by the size again."""
    for node in graph.find("Mul"):
        last = graph.constant(node)
        reshape = last and graph.maker(last[0], "Reshape")
        before = graph.maker(reshape.input[0] if reshape else last[0], "Mul") if last else None
        first = before and graph.constant(before)
        if last is None or first is None or before is None or node.output[0] in graph.kept:
            continue
        if first[1].shape == last[1].shape and np.abs(first[1].astype(np.float64) * last[1] - 1.0).max() < 2.0**-23:
            if reshape is None:
                graph.bypass(node, first[0])
            elif graph.only_read_by(before.output[0], reshape):
                reshape.input[0] = first[0]
                graph.bypass(node, reshape.output[0])


def clip_once(graph: _Graph) -> None:
    """Clip to two numbers with one operator."""
    for node in graph.find("Max"):
        low = graph.constant(node)
        smaller = low and graph.maker(low[0], "Min")
        high = smaller and graph.constant(smaller)
        if low is None or high is None or smaller is None or not graph.only_read_by(smaller.output[0], node):
            continue
        if all((each[1] == each[1].flat[0]).all() for each in (low, high)):
            name = node.output[0]
            limits = [
                graph.add(f"{name}/{side}", each[1].flat[0], each[1].dtype)
                for side, each in (("low", low), ("high", high))
            ]
            graph.replace(node, _make("Clip", [high[0], *limits], name))


_STEPS: Mapping[str, Callable[[_Array, _Array], _Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Min": np.minimum,
    "Max": np.maximum,
    "Sqrt": lambda x, _: np.sqrt(x),
    "Log": lambda x, _: np.log(x),
    "Round": lambda x, _: np.round(x),
    "Floor": lambda x, _: np.floor(x),
    "Cast": lambda x, _: x,
}


def count_thresholds(graph: _Graph) -> None:
    """Find the pyramid level of a box by comparing its area with the areas at which the level changes.

    They are found here, as the least float32 values from which on the formula gives each level.
    """
    for node in graph.find("Gather"):
        table, source = graph.constants.find(node.input[0]), node.input[1]
        chain: list[tuple[onnx.NodeProto, bool, _Array]] = []
        while (step := graph.maker(source, *_STEPS)) is not None:
            taken = graph.constant(step) if len(step.input) == 2 else (step.input[0], np.zeros(0))
            if taken is None:
                break
            chain.insert(0, (step, step.input[0] == taken[0], taken[1]))
            source = taken[0]
        if table is None or not any(step.op_type == "Log" for step, *_ in chain):
            continue

        def row(area: float, chain: Sequence[tuple[onnx.NodeProto, bool, _Array]] = tuple(chain)) -> int:
            value = np.asarray(area, np.float32)
            with np.errstate(divide="ignore"):
                for step, ahead, other in chain:
                    pair = (value, other) if ahead else (other, value)
                    value = _STEPS[step.op_type](*pair)
            return int(value)

        name, rows = node.input[1], len(table)
        if row(0.0) != 0 or row(float(np.finfo(np.float32).max)) != rows - 1:
            continue
        areas = graph.add(f"{name}/areas", [_first(row, number) for number in range(1, rows)])
        last = graph.add(f"{name}/last_axis", [-1], np.int64)
        maker = graph.makers[name]
        graph.replace(
            maker,
            _make("Unsqueeze", [source, last], f"{name}/column"),
            _make("GreaterOrEqual", [f"{name}/column", areas], f"{name}/reached"),
            _make("Cast", [f"{name}/reached"], f"{name}/steps", to=TensorProto.INT32),
            _make("ReduceSum", [f"{name}/steps", last], name, keepdims=0),
        )


def _first(row: Callable[[float], int], number: int) -> float:
    """Return the least float32 for which `row` is at least a number; the bits of floats are in their order."""
    low, high = 0, int(np.float32(np.finfo(np.float32).max).view(np.int32))
    while high - low > 1:
        middle = (low + high) // 2
        if row(float(np.int32(middle).view(np.float32))) >= number:
            high = middle
        else:
            low = middle
    return float(np.int32(high).view(np.float32))


def compute_tables(graph: _Graph) -> None:
    """Compute what depends on a row of a constant table for all rows here, and gather the results."""
    for node in graph.find("Gather"):
        table, axis = graph.constants.find(node.input[0]), graph.last_axis(node.output[0])
        if table is None or table.ndim != 2 or attributes_of(node).get("axis", 0) != 0:
            continue
        values = {node.output[0]: table}
        inside = [node]
        for each in graph.nodes:
            value = _of_rows(graph, each, values, axis) if each.output[0] not in graph.kept else None
            if value is not None:
                values[each.output[0]] = value
                inside.append(each)
        edge = [
            name for name in values if any(all(reader is not each for each in inside) for reader in graph.readers[name])
        ]
        kinds = {values[name].dtype for name in edge}
        if len(inside) < 2 or node.output[0] in graph.kept or kinds != {np.dtype(np.float32)}:
            continue
        name = node.output[0]
        widths = graph.add(f"{name}/widths", [values[each].shape[1] for each in edge], np.int64)
        rows = graph.add(f"{name}/rows", np.concatenate([values[each] for each in edge], axis=1))
        for each in inside[1:]:
            graph.replace(each)
        new = _make("Gather", [rows, node.input[1]], f"{name}/row", axis=0)
        outputs = edge if len(edge) > 1 else []
        if outputs:
            graph.replace(node, new, _make("Split", [f"{name}/row", widths], *outputs, axis=-1))
        else:
            new.output[0] = edge[0]
            graph.replace(node, new)


def _of_rows(graph: _Graph, node: onnx.NodeProto, values: Mapping[str, _Array], axis: int | None) -> _Array | None:
    """Return what a node computes, if it computes it of rows alone."""
    known = [values.get(name, graph.constants.find(name)) for name in node.input]
    if not any(name in values for name in node.input) or any(each is None for each in known):
        return None
    arrays = [each for each in known if each is not None]
    attributes = attributes_of(node)
    if node.op_type in ("Add", "Sub", "Mul") and all(
        name in values or array.ndim < 2 for name, array in zip(node.input, arrays, strict=True)
    ):
        return np.asarray(_STEPS[node.op_type](arrays[0], arrays[1]))
    if node.op_type == "Cast" and attributes["to"] == TensorProto.FLOAT:
        return arrays[0].astype(np.float32)
    if node.op_type == "Concat" and attributes["axis"] in (-1, axis):
        return np.concatenate(arrays, axis=1)
    if node.op_type == "Slice" and len(arrays) == 4 and arrays[3].tolist() in ([-1], [axis]):
        return arrays[0][:, int(arrays[1][0]) : int(arrays[2][0])]
    return None


def gather_flat(graph: _Graph) -> None:
    """Gather rows of all images from one table, without an offset where there is one image.

    `GatherND` computes the offset of each row in a kernel of its own. Here it is the image's place times the rows of an
    image; when a session has one image, ONNX Runtime finds that all offsets are zero.
    """
    for node in graph.find("GatherND"):
        data, index = node.input[0], graph.maker(node.input[1], "Unsqueeze")
        shape = graph.shapes.get(data)
        if attributes_of(node).get("batch_dims") != 1 or index is None or not shape or None in shape[1:]:
            continue
        if len(shape) != 3:
            continue
        name, rows, width = node.output[0], *shape[1:]
        zero, one, stride = (
            graph.add(f"{name}/{each}", value, np.int64) for each, value in (("zero", 0), ("one", 1), ("stride", rows))
        )
        last, flat = (
            graph.add(f"{name}/{each}", value, np.int64) for each, value in (("last", [-1]), ("flat", [-1, width]))
        )
        graph.replace(
            node,
            _make("Shape", [data], f"{name}/shape"),
            _make("Gather", [f"{name}/shape", zero], f"{name}/images"),
            _make("Range", [zero, f"{name}/images", one], f"{name}/image"),
            _make("Unsqueeze", [f"{name}/image", last], f"{name}/image_column"),
            _make("Mul", [f"{name}/image_column", stride], f"{name}/offset"),
            _make("Add", [index.input[0], f"{name}/offset"], f"{name}/index"),
            _make("Reshape", [data, flat], f"{name}/table"),
            _make("Gather", [f"{name}/table", f"{name}/index"], name, axis=0),
        )


RULES = (
    drop_whole_slices,
    keep_indices,
    upsample_while_adding,
    join_heads,
    read_rows_from_top_k,
    join_halves,
    fold_factors,
    count_thresholds,
    clip_once,
    compute_tables,
    gather_flat,
)
