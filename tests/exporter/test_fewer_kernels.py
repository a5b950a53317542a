"""Rules for CUDA: the same values from fewer nodes, and no change where a rule does not apply."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.convert import fewer_kernels as rules

RNG = np.random.default_rng(7)


def node(operator, inputs, *outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs, **attributes)


def model(nodes, constants, inputs, outputs):
    """A graph; inputs and outputs are element type and sides by name, "batch" for the first side of tensors."""

    def values(described):
        return [helper.make_tensor_value_info(name, *each) for name, each in described.items()]

    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "test", values(inputs), values(outputs), initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def operators(each):
    return sorted(made.op_type for made in each.graph.node)


def run(each, feeds):
    onnx.checker.check_model(each, full_check=True)
    session = ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def applied(before, rule, feeds, kept=(), exact=True):
    """Apply a rule, and compare the results before and after."""
    after = onnx.ModelProto.FromString(before.SerializeToString())
    rules.apply(rule, after, kept)
    for ours, theirs in zip(run(after, feeds), run(before, feeds), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-6)
    return operators(after)


def floats(*sides):
    return TensorProto.FLOAT, sides


def random(*sides):
    return RNG.random(sides, np.float32)


@pytest.mark.parametrize(("ends", "left"), [([10**9, 10**9], ["Neg"]), ([5, 7], ["Neg"]), ([4, 7], ["Neg", "Slice"])])
def test_whole_slices(ends, left):
    nodes = [node("Slice", "x starts ends axes", "s"), node("Neg", "s", "y")]
    constants = {"starts": [0, 0], "ends": ends, "axes": [1, 2]}
    before = model(nodes, constants, {"x": floats("batch", 5, 7)}, {"y": floats("batch", None, None)})
    assert applied(before, rules.drop_whole_slices, {"x": random(2, 5, 7)}) == left


def test_a_slice_of_a_tensor_of_unknown_shape_is_kept():
    nodes = [node("Reshape", "x shape", "r"), node("Slice", "r zero two last", "s"), node("Neg", "s", "y")]
    inputs = {"x": floats("batch", 4), "shape": (TensorProto.INT64, ("rank",))}
    before = model(nodes, {"zero": [0], "two": [2], "last": [-1]}, inputs, {"y": floats(None, None, None)})
    feeds = {"x": random(2, 4), "shape": np.int64([2, 2, 2])}
    assert applied(before, rules.drop_whole_slices, feeds) == operators(before)


def test_indices_are_read_as_they_are_made():
    nodes = [
        node("TopK", "x count", "best", "index"),
        node("Cast", "index", "narrow", to=TensorProto.INT32),
        node("Cast", "narrow", "wide", to=TensorProto.INT64),
        node("Unsqueeze", "wide last", "column"),
        node("GatherND", "x column", "y", batch_dims=1),
        node("Gather", "table narrow", "z"),
        node("Cast", "z", "class32", to=TensorProto.INT32),
        node("Cast", "class32", "class64", to=TensorProto.INT64),
        node("Gather", "names class64", "u"),
    ]
    constants = {"count": [3], "last": [-1], "table": np.float32([2, 0, 1, 1, 0]), "names": random(3)}
    outputs = {"y": floats("batch", 3), "u": floats("batch", 3)}
    before = model(nodes, constants, {"x": floats("batch", 5)}, outputs)
    left = applied(before, rules.keep_indices, {"x": random(2, 5)})
    assert left == ["Cast", "Gather", "Gather", "GatherND", "TopK", "Unsqueeze"]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("sizes", "joined"), [([6, 10], True), ([9, 15], True), ([6, 15], False)])
def test_cells_are_repeated_in_the_addition(turned, sizes, joined):
    attributes = {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"}
    nodes = [
        node("Shape", "x", "all"),
        node("Slice", "all zero two", "kept"),
        node("Concat", "kept sizes", "shape", axis=0),
        helper.make_node("Resize", ["x", "", "", "shape"], ["large"], mode="nearest", **attributes),
        node("Add", "f large" if turned else "large f", "y"),
    ]
    inputs = {"x": floats("batch", 4, 3, 5), "f": floats("batch", 4, *sizes)}
    before = model(nodes, {"zero": [0], "two": [2], "sizes": sizes}, inputs, {"y": floats("batch", None, None, None)})
    left = applied(before, rules.upsample_while_adding, {"x": random(2, 4, 3, 5), "f": random(2, 4, *sizes)})
    assert left == (["Add", "Reshape", "Reshape", "Reshape"] if joined else operators(before))


def heads(same_weights=True):
    """Two heads on two levels, as the RPN's."""
    nodes, constants = [], {"unknown": [-1], "zero": [0], "one": [1]}
    for head, width, channels in (("a", 2, 6), ("b", 4, 12)):
        constants[f"{head}_side"] = [width]
        for level in (0, 1):
            name = f"{head}{level}"
            if level and not same_weights:
                constants |= {f"{name}_w": random(channels, 8, 1, 1), f"{name}_b": random(channels)}
            elif not level:
                weights, bias = random(channels, 8, 1, 1), random(channels)
            if not level or same_weights:
                constants |= {f"{name}_w": weights, f"{name}_b": bias}
            nodes += [
                node("Conv", f"x{level} {name}_w {name}_b", f"{name}_map"),
                node("Transpose", f"{name}_map", f"{name}_last", perm=[0, 2, 3, 1]),
                node("Shape", f"{name}_last", f"{name}_all"),
                node("Slice", f"{name}_all zero one", f"{name}_batch"),
                node("Concat", f"{name}_batch unknown {head}_side", f"{name}_shape", axis=0),
                node("Reshape", f"{name}_last {name}_shape", f"{name}_rows"),
            ]
        nodes.append(node("Concat", f"{head}0_rows {head}1_rows", head, axis=1))
    inputs = {"x0": floats("batch", 8, 4, 6), "x1": floats("batch", 8, 2, 3)}
    return model(nodes, constants, inputs, {"a": floats("batch", None, 2), "b": floats("batch", None, 4)})


@pytest.mark.parametrize("same_weights", [True, False])
def test_two_heads_are_one_convolution_per_level(same_weights):
    before = heads(same_weights)
    feeds = {"x0": random(3, 8, 4, 6), "x1": random(3, 8, 2, 3)}
    left = applied(before, rules.join_heads, feeds, {"a", "b"}, exact=False)
    joined = ["Concat", "Conv", "Conv", "Reshape", "Reshape", "Reshape", "Reshape", "Split", "Transpose"]
    assert left == (joined if same_weights else operators(before))


def suppression(rows, wanted):
    """What follows the suppression of proposals: `maskrcnn.nms.suppress` and a gather, for one image."""
    nodes = [
        node("NonMaxSuppression", "boxes ranks most threshold", "selected"),
        node("Mul", "ranks none", "zeros"),
        node("GatherND", "ranks selected", "kept_ranks"),
        node("ScatterND", "zeros selected kept_ranks", "kept"),
        node("Flatten", "kept", "flat", axis=1),
        node("Pad", "flat pads", "padded"),
        node("TopK", "padded most", "best", "index", axis=1),
        node("Greater", "best half", "used"),
        node("Cast", "best", "rank", to=TensorProto.INT32),
        node("Sub", "count rank", "row"),
        node("Where", "used row first", "row_or_first"),
        node("Cast", "row_or_first", "row64", to=TensorProto.INT64),
        node("Unsqueeze", "row64 last", "column"),
        node("GatherND", "boxes column", "gathered", batch_dims=1),
        node("Unsqueeze", "used last", "used_column"),
        node("Where", "used_column gathered none", "y"),
    ]
    constants = {
        "ranks": np.arange(rows, 0, -1, dtype=np.float32)[None, None],
        "none": np.float32(0),
        "half": np.float32(0.5),
        "most": [wanted],
        "threshold": np.float32(0.3),
        "pads": [0, 0, 0, wanted],
        "count": np.int32(rows),
        "first": np.int32(0),
        "last": [-1],
    }
    return model(nodes, constants, {"boxes": floats(1, rows, 4)}, {"y": floats(1, wanted, 4)})


@pytest.mark.parametrize(("rows", "wanted", "fewer"), [(40, 30, 5), (40, 40, 5), (20, 30, 0)])
def test_rows_come_from_top_k(rows, wanted, fewer):
    corners = random(1, rows, 2)
    before = suppression(rows, wanted)
    boxes = np.concatenate([corners, corners + 0.4], axis=-1)
    left = applied(before, rules.read_rows_from_top_k, {"boxes": boxes})
    assert len(left) == len(before.graph.node) - fewer


def test_rows_that_are_read_unmasked_are_computed_as_before():
    before = suppression(40, 30)
    before.graph.output.append(helper.make_tensor_value_info("gathered", TensorProto.FLOAT, (1, 30, 4)))
    left = applied(before, rules.read_rows_from_top_k, {"boxes": random(1, 40, 4)})
    assert left == operators(before)


def place(second="Mul"):
    """The place of boxes on a canvas, where corners are computed apart, with a table of levels."""
    nodes = [
        node("Gather", "places level", "whole"),
        node("Cast", "whole", "place", to=TensorProto.FLOAT),
        node("Slice", "place zero two last", "origin"),
        node("Slice", "place two end last", "side"),
        node("Sub", "side unit", "cells"),
        node("Slice", "x zero two last", "low"),
        node("Slice", "x two end last", "high"),
    ]
    for name, operator in (("low", "Mul"), ("high", second)):
        nodes += [
            node(operator, f"{name} cells", f"{name}_cells"),
            node("Add", f"{name}_cells origin", f"{name}_place"),
            node("Mul", f"{name}_place scale", f"{name}_in"),
        ]
    nodes += [node("Concat", "low_in high_in", "joined", axis=2), node("Neg", "joined", "y")]
    constants = {
        "places": RNG.integers(1, 99, (4, 4)).astype(np.int32),
        "zero": [0],
        "two": [2],
        "end": [2**31 - 1],
        "last": [2],
        "unit": np.float32(1),
        "scale": np.float32([1 / 257, 1 / 387]),
    }
    inputs = {"x": floats("batch", 9, 4), "level": (TensorProto.INT64, ("batch", 9))}
    return model(nodes, constants, inputs, {"y": floats("batch", 9, 4)})


def places_fed():
    return {"x": random(2, 9, 4), "level": RNG.integers(0, 4, (2, 9))}


def test_corners_are_computed_together():
    left = applied(place(), rules.join_halves, places_fed())
    assert left == sorted(["Gather", "Cast", *["Slice"] * 2, "Sub", *["Concat"] * 2, "Mul", "Add", "Mul", "Neg"])
    assert applied(place("Sub"), rules.join_halves, places_fed()) == operators(place("Sub"))


@pytest.mark.parametrize(("sides", "axis", "joined"), [((4, 4), 2, True), ((4, 6), 2, False), ((4, 4), 1, False)])
def test_corners_are_halves_of_boxes_that_have_nothing_else(sides, axis, joined):
    nodes = [
        node("Slice", "x zero two axis", "low"),
        node("Slice", "x two four axis", "high"),
        node("Mul", "low factor", "low_in"),
        node("Mul", "high factor", "high_in"),
        node("Concat", "low_in high_in", "joined", axis=2),
        node("Neg", "joined", "y"),
    ]
    constants = {"zero": [0], "two": [2], "four": [4], "axis": [axis], "factor": np.float32(3)}
    before = model(nodes, constants, {"x": floats("batch", *sides)}, {"y": floats("batch", None, None)})
    left = applied(before, rules.join_halves, {"x": random(2, *sides)})
    assert left == (["Mul", "Neg"] if joined else operators(before))


def test_what_depends_on_a_row_of_a_table_is_computed_for_the_table():
    together = place()
    rules.apply(rules.join_halves, together)
    assert applied(together, rules.compute_tables, places_fed()) == ["Add", "Gather", "Mul", "Mul", "Neg", "Split"]
    kept = applied(place(), rules.compute_tables, places_fed(), kept={"place"})
    assert kept == operators(place())


@pytest.mark.parametrize(("inverse", "left"), [(1 / 257, ["Neg"]), (1 / 256.9, ["Mul", "Mul", "Neg", "Reshape"])])
def test_a_factor_and_its_inverse(inverse, left):
    nodes = [
        node("Mul", "x inverse", "small"),
        node("Reshape", "small shape", "rows"),
        node("Mul", "rows factor", "back"),
        node("Neg", "back", "y"),
    ]
    constants = {"inverse": np.float32([inverse] * 4), "factor": np.float32([257] * 4), "shape": [-1, 4]}
    before = model(nodes, constants, {"x": floats("batch", 9, 4)}, {"y": floats(None, 4)})
    expected = left if len(left) > 1 else ["Neg", "Reshape"]
    assert applied(before, rules.fold_factors, {"x": random(2, 9, 4)}, exact=False) == expected


@pytest.mark.parametrize(("high", "left"), [([1, 1, 1, 1], ["Clip"]), ([1, 1, 1, 2], ["Max", "Min"])])
@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_clipping_to_two_numbers(high, left, kind):
    nodes = [node("Min", "x high", "m"), node("Max", "m low", "y")]
    constants = {"high": kind(high), "low": kind([0.2] * 4)}
    described = helper.np_dtype_to_tensor_dtype(np.dtype(kind)), ("batch", 4)
    before = model(nodes, constants, {"x": described}, {"y": described})
    x = np.float32([[-1, 0.2, 0.5, 3], [0, 1, 1.5, 9]]).astype(kind)
    assert applied(before, rules.clip_once, {"x": x}) == left


def test_levels_are_those_of_the_formula_also_around_each_threshold():
    nodes = [
        node("Sqrt", "x", "side"),
        node("Mul", "side scale", "relative"),
        node("Log", "relative", "log"),
        node("Mul", "log per_octave", "octaves"),
        node("Round", "octaves", "round"),
        node("Add", "four round", "level"),
        node("Min", "level five", "at_most"),
        node("Max", "at_most two", "clipped"),
        node("Cast", "clipped", "whole", to=TensorProto.INT32),
        node("Sub", "whole lowest", "row"),
        node("Gather", "table row", "y"),
    ]
    constants = {
        "scale": np.float32(1024 / 224),
        "per_octave": np.float32(1 / np.log(2)),
        "four": np.float32(4),
        "five": np.float32(5),
        "two": np.float32(2),
        "lowest": np.int32(2),
        "table": random(4, 3),
    }
    before = model(nodes, constants, {"x": floats("batch")}, {"y": floats("batch", 3)})
    exact = [(224 / 1024 * 2.0**octave) ** 2 for octave in (-1.5, -0.5, 0.5)]
    # Where it falls within rounding errors of a threshold is up to each engine's logarithm.
    around = [area * (1 + sign * 1e-5) for area in exact for sign in (-1, 1)]
    x = np.float32([0, *around, 1, *10 ** RNG.uniform(-6, 0, 20_000)])
    left = applied(before, rules.count_thresholds, {"x": x})
    assert left == ["Cast", "Gather", "GreaterOrEqual", "ReduceSum", "Unsqueeze"]


@pytest.mark.parametrize("batch", [1, 3])
def test_rows_of_all_images_are_gathered_from_one_table(batch):
    nodes = [node("Unsqueeze", "index last", "column"), node("GatherND", "x column", "y", batch_dims=1)]
    inputs = {"x": floats("batch", 7, 4), "index": (TensorProto.INT64, ("batch", 5))}
    before = model(nodes, {"last": [-1]}, inputs, {"y": floats("batch", 5, 4)})
    feeds = {"x": random(batch, 7, 4), "index": RNG.integers(0, 7, (batch, 5))}
    assert "GatherND" not in applied(before, rules.gather_flat, feeds)


def test_rows_that_are_numbers_are_gathered_as_before():
    nodes = [node("Unsqueeze", "index last", "column"), node("GatherND", "x column", "y", batch_dims=1)]
    inputs = {"x": floats("batch", 7), "index": (TensorProto.INT64, ("batch", 5))}
    before = model(nodes, {"last": [-1]}, inputs, {"y": floats("batch", 5)})
    feeds = {"x": random(2, 7), "index": RNG.integers(0, 7, (2, 5))}
    assert applied(before, rules.gather_flat, feeds) == operators(before)


def test_with_one_image_there_is_one_node_for_a_gather(tmp_path):
    nodes = [
        node("TopK", "scores count", "best", "index"),
        node("Unsqueeze", "index last", "column"),
        node("GatherND", "x column", "y", batch_dims=1),
    ]
    inputs = {"x": floats("batch", 7, 4), "scores": floats("batch", 7)}
    made = model(nodes, {"last": [-1], "count": [5]}, inputs, {"y": floats("batch", 5, 4)})
    rules.apply(rules.gather_flat, made)
    options = ort.SessionOptions()
    options.add_free_dimension_override_by_name("batch", 1)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert operators(onnx.load(options.optimized_model_filepath)) == ["Gather", "Reshape", "TopK"]
