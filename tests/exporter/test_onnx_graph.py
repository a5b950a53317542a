"""Operations on ONNX graphs; the results run in ONNX Runtime."""

import numpy as np
import onnx.parser
import onnxruntime as ort

from export.convert.surgery import (
    Border,
    cancel_transposes,
    find_borders,
    fix_inputs,
    keep_outputs,
    shape_axes,
)


def model_of(text):
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')


def run(model, **feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def array(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def inputs_of(model):
    return [value.name for value in model.graph.input]


def operators(model):
    return [node.op_type for node in model.graph.node]


CHAIN = """g (float[N] x, float s) => (float[N] first, float[N] second, float[N] third)
<float w = {3.0}, float v = {5.0}> {
    a = Mul(x, w)
    first = Relu(a)
    b = Add(first, v)
    second = Neg(b)
    third = Mul(second, s)
}"""


def test_keep_outputs_prunes_and_orders():
    model = model_of(CHAIN)
    kept = keep_outputs(model, ["second", "first"])
    assert [output.name for output in kept.graph.output] == ["second", "first"]
    assert operators(kept) == ["Mul", "Relu", "Add", "Neg"]
    x = array(4)
    found, whole = run(kept, x=x, s=np.asarray(2, np.float32)), run(model, x=x, s=np.asarray(2, np.float32))
    np.testing.assert_array_equal(found["second"], whole["second"])
    np.testing.assert_array_equal(found["first"], whole["first"])


def test_keep_outputs_drops_weights_nobody_reads():
    kept = keep_outputs(model_of(CHAIN), ["first"])
    assert operators(kept) == ["Mul", "Relu"]
    assert [tensor.name for tensor in kept.graph.initializer] == ["w"]
    assert inputs_of(kept) == ["x", "s"]  # the artifact's inputs stay, used or not


def test_keep_outputs_leaves_the_original_alone():
    model = model_of(CHAIN)
    before = model.SerializeToString()
    keep_outputs(model, ["first"])
    assert model.SerializeToString() == before


BORDERS = """g (float[A, B, C, D] x) => (float[a, b, c, d] stage_p2, float[A, B, C, D] stage_raw,
                                          float[e, f, g, h] stage_twice, float[A, B, C, D] boxes) {
    feature = Relu(x)
    last = Transpose <perm = [0, 2, 3, 1]> (feature)
    stage_p2 = Identity(last)
    raw = Neg(x)
    same = Identity(raw)
    stage_raw = Identity(same)
    once = Transpose <perm = [1, 0, 2, 3]> (feature)
    stage_twice = Transpose <perm = [0, 2, 3, 1]> (once)
    boxes = Neg(feature)
}"""


def test_borders_are_found_behind_identities_and_one_transpose():
    borders = find_borders(model_of(BORDERS))
    assert borders == {
        "p2": Border("feature", (0, 3, 1, 2)),
        "raw": Border("raw", None),
        "twice": Border("once", (0, 3, 1, 2)),  # a second transposition is an operation of the graph
    }


PAIRS = """g (float[A, B, C, D] x) => (float[a, b, c, d] undone, float[e, f, g, h] kept, float[i, j, k, l] once) {
    there = Transpose <perm = [0, 2, 3, 1]> (x)
    back = Transpose <perm = [0, 3, 1, 2]> (there)
    undone = Relu(back)
    again = Transpose <perm = [0, 2, 3, 1]> (there)
    kept = Relu(again)
    once = Relu(there)
}"""


def test_only_transposes_that_undo_each_other_are_cancelled():
    model, x = model_of(PAIRS), array(2, 3, 5, 7)
    before = run(model, x=x)
    cancel_transposes(model)
    readers = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Relu"}
    assert readers == {"undone": "x", "kept": "again", "once": "there"}
    after = run(model, x=x)
    for name, expected in before.items():
        np.testing.assert_array_equal(after[name], expected)
    assert after["kept"].shape == (2, 7, 3, 5)
    assert operators(keep_outputs(model, ["undone"])) == ["Relu"]


def test_output_that_is_an_undone_transpose_stays_computed():
    model = model_of("""g (float[A, B, C] x) => (float[a, b, c] y) {
        there = Transpose <perm = [1, 2, 0]> (x)
        y = Transpose <perm = [2, 0, 1]> (there)
    }""")
    x = array(2, 3, 5)
    cancel_transposes(model)
    np.testing.assert_array_equal(run(model, x=x)["y"], x)


def test_chain_of_four_transposes_keeps_its_value():
    model = model_of("""g (float[A, B, C] x) => (float[a, b, c] y) {
        p = Transpose <perm = [1, 2, 0]> (x)
        q = Transpose <perm = [2, 0, 1]> (p)
        r = Transpose <perm = [1, 2, 0]> (q)
        s = Transpose <perm = [2, 0, 1]> (r)
        y = Neg(s)
    }""")
    x = array(2, 3, 5)
    cancel_transposes(model)
    np.testing.assert_array_equal(run(model, x=x)["y"], -x)


def test_transpose_without_order_is_left_alone():
    model = model_of("""g (float[A, B] x) => (float[a, b] y) { t = Transpose(x) u = Transpose(t) y = Neg(u) }""")
    x = array(2, 3)
    cancel_transposes(model)
    np.testing.assert_array_equal(run(model, x=x)["y"], -x)


def test_axes_are_named():
    model = model_of("""g (uint8[unk_1, unk_2, unk_3, 3] images, float[unk_4, 4] windows, float score_threshold)
    => (float[unk_5, 50, 4] boxes, float[unk_6, 50] scores) {
        boxes = Relu(windows)
        scores = Relu(windows)
    }""")
    shape_axes(model)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "images": ["batch", "height", "width", 3],
        "windows": ["batch", 4],
        "score_threshold": [],
        "boxes": ["batch", 50, 4],
        "scores": ["batch", 50],
    }


def test_inputs_become_constants():
    model = model_of("g (float[N] x, float s, float t) => (float[N] y) { a = Mul(x, s) y = Add(a, t) }")
    fix_inputs(model, {"s": 2.0, "t": 0.25})
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == ["x"]
    assert run(model, x=np.float32([1, 10]))["y"].tolist() == [2.25, 20.25]
