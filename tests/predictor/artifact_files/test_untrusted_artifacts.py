"""Artifacts made to do harm, sealed as properly as ours: refused before an engine opens them, whatever is checked."""

import json
import shutil
import tracemalloc

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tensorflow as tf
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from runtime import Predictor, read_metadata
from runtime.artifact_files.onnx_file import seal
from runtime.artifact_files.onnx_scan import check_onnx
from runtime.artifact_files.protobuf import field, varint_field
from runtime.artifact_files.savedmodel_folder import seal_folder
from runtime.errors import ArtifactCorruptError, ArtifactError

NO_ENGINE = "the engine must not see an untrusted artifact"
VERIFY = pytest.mark.parametrize("verify", [True, False], ids=["verified", "not verified"])


def refusal(path, verify=True):
    """The message with which a predictor refuses an artifact, in one line that names it."""
    with pytest.raises(ArtifactError) as refused:
        Predictor(path, "cpu", verify_digest=verify)
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    return message


class Harmful(tf.Module):
    """A SavedModel with a function that does more than compute."""

    def __init__(self, act):
        self.weights = tf.Variable([1.0])
        self.detect = tf.function(act, input_signature=[tf.TensorSpec([None], tf.float32, name="images")])


def writes(target):
    def act(images):
        tf.io.write_file(target, "written by a model")
        return {"boxes": images}

    return act


@pytest.fixture
def no_loader(monkeypatch):
    """Make loading a SavedModel a failure of the test."""

    def load(*_args, **_options):
        raise AssertionError(NO_ENGINE)

    monkeypatch.setattr(tf.saved_model, "load", load)
    monkeypatch.setattr(tf.compat.v1.saved_model, "load", load)


@pytest.fixture
def sealed(tmp_path, savedmodel_artifact):
    """Save a function as a SavedModel with a manifest as ours have it; return its folder."""

    def save(act, module=Harmful):
        path = tmp_path / "harmful"
        harmful = module(act)
        tf.saved_model.save(harmful, str(path), signatures={"serving_default": harmful.detect})
        seal_folder(path, read_metadata(savedmodel_artifact).to_json())
        return path

    return save


def test_the_file_would_be_written(tmp_path, sealed):
    """What the tests below refuse does what they fear."""
    target = tmp_path / "written"
    tf.saved_model.load(str(sealed(writes(str(target))))).detect(tf.constant([1.0]))
    assert target.read_text() == "written by a model"


@VERIFY
def test_a_savedmodel_that_writes_a_file_is_refused(tmp_path, sealed, no_loader, verify):
    target = tmp_path / "written"
    path = sealed(writes(str(target)))
    assert "operator 'WriteFile' in function" in refusal(path, verify)
    assert not target.exists()


def nested(images):
    """A file is read two calls deep, in a branch."""

    def read():
        return tf.strings.length(tf.io.read_file("/etc/hostname"))

    inner = tf.function(lambda x: tf.cond(x[0] > 0, read, lambda: 0))
    return {"boxes": tf.function(lambda x: inner(x) + 1)(images)}


ACTS = {
    "nested": nested,
    "EagerPyFunc": lambda images: {"boxes": tf.py_function(lambda x: x, [images], tf.float32)},
    "PyFunc": lambda images: {"boxes": tf.numpy_function(lambda x: x, [images], tf.float32)},
    "MatchingFiles": lambda images: {"boxes": tf.io.matching_files("/*")},
    "StringFormat": lambda images: [tf.print("x", output_stream="file://" + __file__ + ".txt"), {"boxes": images}][1],
    "While": lambda images: {"boxes": tf.while_loop(lambda x: x[0] < 9, lambda x: [x + 1], [images])[0]},
    "RandomUniform": lambda images: {"boxes": tf.random.uniform([2])},
}


@pytest.mark.parametrize("name", ACTS)
def test_operators_that_no_export_has_are_refused(sealed, no_loader, name):
    message = refusal(sealed(ACTS[name]))
    assert "operator " in message
    if name != "nested":
        assert name in message


class WithAsset(Harmful):
    """A SavedModel that brings a file."""

    def __init__(self, act):
        super().__init__(act)
        self.asset = tf.saved_model.Asset(__file__)


class WithTable(Harmful):
    """A SavedModel that makes a resource when it is loaded."""

    def __init__(self, act):
        super().__init__(act)
        rows = tf.lookup.KeyValueTensorInitializer(tf.constant([1], tf.int64), tf.constant([2], tf.int64))
        self.table = tf.lookup.StaticHashTable(rows, 0)


@pytest.mark.parametrize("module", [WithAsset, WithTable])
def test_objects_that_no_export_has_are_refused(sealed, no_loader, module):
    assert "holds" in refusal(sealed(lambda images: {"boxes": images}, module))


@pytest.fixture
def edited(savedmodel_artifact, tmp_path):
    """Change the graph of a copy of the demo artifact, and seal it again; return its folder."""

    def edit(change):
        path = shutil.copytree(savedmodel_artifact, tmp_path / "edited")
        saved = SavedModel.FromString((path / "saved_model.pb").read_bytes())
        change(saved.meta_graphs[0])
        (path / "saved_model.pb").write_bytes(saved.SerializeToString())
        seal_folder(path, read_metadata(savedmodel_artifact).to_json())
        return path

    return edit


def functions(graph, word):
    (found,) = [f for f in graph.graph_def.library.function if word in f.signature.name]
    return found


def save_while_detecting(graph):
    """Call the function that saves from the one that detects."""
    function = functions(graph, "inference_detect")
    node = function.node_def.add(name="more", op="StatefulPartitionedCall")
    node.attr["f"].func.name = functions(graph, "traced_save").signature.name


def save_by_operator(graph):
    """The same, with the function's name as the operator."""
    functions(graph, "inference_detect").node_def.add(name="more", op=functions(graph, "traced_save").signature.name)


def save_under_the_name_of_an_operator(graph):
    """The library goes before the operators of TensorFlow: every `Relu` would save."""
    function = functions(graph, "traced_save")
    for node in graph.graph_def.node:
        if node.attr["f"].func.name == function.signature.name:
            node.attr["f"].func.name = "Relu"
    function.signature.name = "Relu"


def save_inside_restoring(graph):
    functions(graph, "traced_restore").node_def.add(name="more", op="SaveV2")


def save_while_restoring(graph):
    graph.saver_def.restore_op_name = graph.saver_def.save_tensor_name.split(":")[0]


def save_at_start(graph):
    graph.collection_def["saved_model_main_op"].node_list.value[:] = [graph.saver_def.save_tensor_name.split(":")[0]]


def save_as_result(graph):
    graph.signature_def["serving_default"].outputs["boxes"].name = graph.saver_def.save_tensor_name


def save_behind_a_result(graph):
    (node,) = [node for node in graph.graph_def.node if node.name == "NoOp"]
    node.input.append("^" + graph.saver_def.save_tensor_name.split(":")[0])


def save_by_name(graph):
    graph.object_graph_def.concrete_functions[functions(graph, "traced_save").signature.name].SetInParent()


def write_unused(graph):
    graph.graph_def.library.function.add().node_def.add(name="more", op="WriteFile")


def write_in_the_graph(graph):
    graph.graph_def.node.add(name="more", op="WriteFile")


def assign_while_detecting(graph):
    functions(graph, "inference_detect").node_def.add(name="more", op="AssignVariableOp")


def borrow_a_variable(graph):
    functions(graph, "inference_detect").node_def.add(name="more", op="VarHandleOp")


def exchange_functions(graph):
    functions(graph, "inference_detect").attr["api_implements"].s = b"detect"


def register(graph):
    graph.object_graph_def.nodes[0].registered_name = "Custom.Thing"


CHANGES = {
    save_while_detecting: "traced_save",
    save_by_operator: "traced_save",
    save_under_the_name_of_an_operator: "in function 'Relu'",
    save_inside_restoring: "SaveV2",
    save_while_restoring: "the operator",  # of either function: each is in the other's place
    save_at_start: "belongs to the saver",
    save_as_result: "belongs to the saver",
    save_behind_a_result: "belongs to the saver",
    save_by_name: "traced_save",
    write_unused: "WriteFile",
    write_in_the_graph: "WriteFile",
    assign_while_detecting: "AssignVariableOp",
    borrow_a_variable: "VarHandleOp",
    exchange_functions: "api_implements",
    register: "Custom.Thing",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_saves_is_not_called_otherwise(edited, no_loader, change):
    assert CHANGES[change] in refusal(edited(change))


def test_an_artifact_that_was_not_changed_passes(edited):
    assert Predictor(edited(lambda graph: None), "cpu").device == "cpu"


@pytest.mark.parametrize("name", ["saved_model.pbtxt", "saved_model.cpb"])
def test_another_spelling_of_the_graph_is_not_read(edited, no_loader, name):
    path = edited(lambda graph: None)
    (path / "saved_model.pb").rename(path / name)
    seal_folder(path, json.dumps(json.loads((path / "assets" / "artifact.json").read_text())["metadata"]))
    assert "saved_model.pb is missing" in refusal(path)


ELSEWHERE = ["/etc/hostname", "../secret", "secret", "*/_ORT_MEM_ADDR_/*"]


def tensor(name="w", location=None, dtype=TensorProto.FLOAT):
    """Two numbers, in the file or elsewhere."""
    made = TensorProto(name=name, dims=[2], data_type=dtype)
    if location is None:
        made.raw_data = bytes(made.ByteSize() and 2 * (8 if dtype == TensorProto.INT64 else 4))
    else:
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key="location", value=location)
    return made


def sparse(values=None, indices=None):
    made = onnx.SparseTensorProto(dims=[4])
    made.values.CopyFrom(tensor("w", values))
    made.indices.CopyFrom(tensor("i", indices, TensorProto.INT64))
    return made


def value(name, shape=(2,)):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def graph(nodes=(), initializers=(), sparse_initializers=(), inputs=True):
    nodes = nodes or [helper.make_node("Add", ["x", "w"], ["y"])]
    made = helper.make_graph(nodes, "g", [value("x")] if inputs else [], [value("y")], list(initializers))
    made.sparse_initializer.extend(sparse_initializers)
    return made


def node(operator="Constant", domain="", **attributes):
    """A node with the tensors, graphs, or lists of them as attributes, however little sense they make."""
    made = onnx.NodeProto(op_type=operator, domain=domain, output=["y"])
    kinds = {"t": "TENSOR", "g": "GRAPH", "tensors": "TENSORS", "graphs": "GRAPHS", "sparse_tensor": "SPARSE_TENSOR"}
    for name, content in attributes.items():
        attribute = made.attribute.add(name="value", type=getattr(AttributeProto, kinds.get(name, "SPARSE_TENSORS")))
        if isinstance(content, list):
            getattr(attribute, name).extend(content)
        else:
            getattr(attribute, name).CopyFrom(content)
    return made


def branches(inner):
    """An `If` with a graph on either side."""
    return graph([node("If", g=inner)])


def deep(levels, inner):
    for _ in range(levels):
        inner = branches(inner)
    return inner


def marked():
    """The mark of external data without a place."""
    made = tensor()
    made.data_location = TensorProto.EXTERNAL
    return made


def unmarked(location):
    """External data without the mark that says so."""
    made = tensor(location=location)
    made.ClearField("data_location")
    return made


OUTSIDE = {
    **{f"initialiser at {place}": graph(initializers=[tensor(location=place)]) for place in ELSEWHERE},
    "initialiser without its mark": graph(initializers=[unmarked("/etc/hostname")]),
    "initialiser with its mark alone": graph(initializers=[marked()]),
    "sparse values": graph(sparse_initializers=[sparse(values="/etc/hostname")]),
    "sparse indices": graph(sparse_initializers=[sparse(indices="/etc/hostname")]),
    "sparse": graph(sparse_initializers=[sparse()]),
    "attribute": graph([node(t=tensor(location="/etc/hostname"))]),
    "attributes": graph([node(tensors=[tensor(), tensor(location="/etc/hostname")])]),
    "sparse attribute": graph([node(sparse_tensor=sparse(values="/etc/hostname"))]),
    "sparse attributes": graph([node(sparse_tensors=[sparse()])]),
    "initialiser in a subgraph": branches(graph(initializers=[tensor(location="../secret")])),
    "initialiser in one of several": graph([node(graphs=[graph(), graph(initializers=[tensor(location="x")])])]),
    "sparse initialiser in a subgraph": branches(graph(sparse_initializers=[sparse()])),
    "attribute in a subgraph": deep(3, graph([node(t=tensor(location="/etc/hostname"))])),
    "far down": deep(12, graph()),
    "a library": graph([node("PyOp", "ai.onnx.contrib")]),
    "a library in a subgraph": branches(graph([node("Reader", "com.example")])),
    "a file of an engine": graph([node("EPContext", "com.microsoft")]),
    "a domain with escapes": graph([node("A\x1b[2J", "b\n")]),
}


def model(content):
    return helper.make_model(content, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def no_session(monkeypatch):
    """Make opening an ONNX file a failure of the test."""

    def refuse(*_args, **_options):
        raise AssertionError(NO_ENGINE)

    monkeypatch.setattr(ort, "InferenceSession", refuse)


@pytest.fixture
def sealed_onnx(tmp_path, onnx_artifact):
    """Write a serialised model with digest and metadata as ours have them; return its path."""

    def write(content):
        path = tmp_path / "harmful.onnx"
        path.write_bytes(seal(content, read_metadata(onnx_artifact).to_json()))
        return path

    return write


@VERIFY
@pytest.mark.parametrize("name", OUTSIDE)
def test_an_onnx_file_that_leads_outside_is_refused(sealed_onnx, no_session, name, verify):
    message = refusal(sealed_onnx(model(OUTSIDE[name]).SerializeToString()), verify)
    assert "\x1b" not in message
    assert any(word in message for word in ("external data", "sparse", "of the domain", "deep"))


@pytest.mark.parametrize("location", ["/etc/hostname", "secret"])
def test_a_tensor_at_the_end_of_the_artifact_itself(onnx_artifact, sealed_onnx, no_session, location):
    """Behind every part of a real model, as a second `graph` that readers merge with the first."""
    more = onnx.ModelProto()
    more.graph.initializer.append(tensor("more", location))
    message = refusal(sealed_onnx(onnx_artifact.read_bytes() + more.SerializeToString()))
    assert "the tensor 'more' with its values elsewhere" in message


def test_functions_and_training_graphs_are_refused(sealed_onnx, no_session):
    function = helper.make_function("local", "F", ["x"], ["y"], [node()], [helper.make_opsetid("", 17)])
    with_function = model(graph(initializers=[tensor()]))
    with_function.functions.append(function)
    training = model(graph(initializers=[tensor()]))
    training.training_info.add().algorithm.CopyFrom(OUTSIDE["attribute"])
    for content in (with_function, training):
        assert "functions or a training graph" in refusal(sealed_onnx(content.SerializeToString()))


def test_field_numbers_that_engines_cut_are_refused(sealed_onnx, no_session):
    """An encoded number of 13 + 2**29 is unknown to us, and 13 (external data) to a reader with 32 bits."""
    hidden = field(13 + 2**29, field(1, b"location") + field(2, b"/etc/hostname")) + varint_field(14 + 2**29, 1)
    encoded = field(7, field(5, tensor().SerializeToString() + hidden))
    assert "damaged" in refusal(sealed_onnx(model(graph()).SerializeToString() + encoded))


@pytest.mark.parametrize("content", [b"", b"\x3a\x05\x0a", b"\x3a\x03\x0a\x7f\x00", b"\x00\x00", b"\xff" * 30])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.onnx") as refused:
        check_onnx(path)
    assert type(refused.value) is ArtifactCorruptError


def test_values_are_not_read(tmp_path):
    """A hundred megabytes of weights cost a few kilobytes."""
    path = tmp_path / "large.onnx"
    large = numpy_helper.from_array(np.zeros((25, 10**6), np.float32), "w")
    path.write_bytes(model(graph(initializers=[large])).SerializeToString())
    del large
    tracemalloc.start()
    check_onnx(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_the_artifact_passes(onnx_artifact):
    check_onnx(onnx_artifact)
