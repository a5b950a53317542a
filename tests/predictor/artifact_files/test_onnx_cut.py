"""Parts cut out of a serialized model; what comes out is run in ONNX Runtime."""

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest

from runtime.artifact_files.onnx_cut import CutModel
from runtime.errors import ArtifactError

FLOAT = 1, None  # the element type's number, and a rank that is not known

CHAIN = """g (float[N] x, float s) => (float[N] first, float[N] second, float[N] third)
<float w = {3.0}, float v = {5.0}> {
    a = Mul(x, w)
    first = Relu(a)
    b = Add(first, v)
    second = Neg(b)
    third = Mul(second, s)
}"""


def encoded(text=CHAIN):
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}').SerializeToString()


def cut(inputs, outputs=None, text=CHAIN):
    return onnx.load_from_string(CutModel(encoded(text)).part(dict.fromkeys(inputs, FLOAT), outputs))


def run(model, **feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds), strict=True))


def inputs_of(model):
    return [value.name for value in model.graph.input]


def operators(model):
    return [node.op_type for node in model.graph.node]


def test_a_part_computes_from_the_middle():
    part = cut(["first"], ["second"])
    assert operators(part) == ["Add", "Neg"]
    assert inputs_of(part) == ["first"]
    assert [tensor.name for tensor in part.graph.initializer] == ["v"]
    given = np.float32([1, -2, 3])
    np.testing.assert_array_equal(run(part, first=given)["second"], -(given + 5))


def test_a_part_keeps_graph_inputs_it_reads():
    part = cut(["first"], ["third", "second"])
    assert sorted(inputs_of(part)) == ["first", "s"]
    found = run(part, first=np.float32([1, 2]), s=np.asarray(-2, np.float32))
    assert list(found) == ["third", "second"]
    assert found["third"].tolist() == [12, 14]
    assert found["second"].tolist() == [-6, -7]


def test_a_part_without_inputs_is_the_whole_way():
    part = cut([], ["a", "second", "a"])
    assert inputs_of(part) == ["x"]
    found = run(part, x=np.float32([1, -1]))
    assert list(found) == ["a", "second"]
    assert found["a"].tolist() == [3, -3]
    assert found["second"].tolist() == [-8, -5]


def test_a_part_has_the_outputs_of_the_model_unless_others_are_asked_for():
    assert [value.name for value in cut(["b"]).graph.output] == ["first", "second", "third"]


def test_a_part_does_not_look_behind_what_it_is_fed():
    # `b` needs `first`; fed both, nothing before them may be computed.
    assert operators(cut(["first", "b"], ["second"])) == ["Neg"]


def test_a_fed_tensor_that_is_an_input_or_a_weight_is_listed_once():
    part = cut(["x", "w"], ["first"])
    assert inputs_of(part) == ["x", "w"]
    assert not part.graph.initializer


def test_a_fed_tensor_has_the_type_and_the_sides_it_is_given():
    part = onnx.load_from_string(CutModel(encoded()).part({"first": (1, [2, "rows"]), "b": (10, None)}, ["third"]))
    first, other = ({value.name: value.type.tensor_type for value in part.graph.input}[name] for name in ("first", "b"))
    assert (first.elem_type, other.elem_type) == (1, 10)
    assert [(side.dim_value, side.HasField("dim_value")) for side in first.shape.dim] == [(2, True), (0, False)]
    assert not other.HasField("shape")


def test_cut_points_are_the_last_tensors_before_the_outputs():
    text = """g (float[N] x) => (float[N] y) { a = Neg(x)
        b = Relu(a)
        c = Abs(a)
        y = Add(b, c) }"""
    assert CutModel(encoded(text)).cut_points(["c", "b", "a"]) == ["b", "c"]
    assert CutModel(encoded(text)).cut_points(["a"]) == ["a"]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (["first", "none"], "has no tensor 'none'"),
        (["x"], "has no tensor 'x'"),  # an input is not made by a node
        ([], "does not go through the tensors to cut it at"),
    ],
)
def test_cut_points_that_are_none(tensors, words):
    with pytest.raises(ArtifactError, match=f"the graph {words}: export the model again"):
        CutModel(encoded()).cut_points(tensors)
