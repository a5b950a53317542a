"""Malicious SavedModels, sealed correctly: each must be refused before TensorFlow loads it, verified or not."""

import json
import shutil

import pytest
from bad_artifacts import NO_ENGINE, VERIFY, refusal, reseal

from runtime import Predictor, read_metadata

tf = pytest.importorskip("tensorflow", reason="needs TensorFlow")
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # noqa: E402


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
        reseal(path, read_metadata(savedmodel_artifact).to_json())
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
    assert "contains" in refusal(sealed(lambda images: {"boxes": images}, module))


@pytest.fixture
def edited(savedmodel_artifact, tmp_path):
    """Change the graph of a copy of the demo artifact, and seal it again; return its folder."""

    def edit(change):
        path = shutil.copytree(savedmodel_artifact, tmp_path / "edited")
        saved = SavedModel.FromString((path / "saved_model.pb").read_bytes())
        change(saved.meta_graphs[0])
        (path / "saved_model.pb").write_bytes(saved.SerializeToString())
        reseal(path, read_metadata(savedmodel_artifact).to_json())
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


def chain(length, calls):
    """Functions of which each calls the next one so many times, and the last one computes."""

    def change(graph):
        for number in range(length):
            function = graph.graph_def.library.function.add()
            function.signature.name = f"chain{number}"
            for call in range(calls):
                node = function.node_def.add(name=f"call{call}", op="StatefulPartitionedCall")
                if number + 1 < length:
                    node.attr["f"].func.name = f"chain{number + 1}"
                else:
                    node.op = "NoOp"

    change.__name__ = f"{length}_times_{calls}"
    return change


def call_itself(graph):
    function = functions(graph, "inference_detect")
    for number in range(3):
        node = function.node_def.add(name=f"again{number}", op="StatefulPartitionedCall")
        node.attr["f"].func.name = function.signature.name


def call_in_a_circle(graph):
    chain(3, 2)(graph)
    (last,) = [f for f in graph.graph_def.library.function if f.signature.name == "chain2"]
    last.node_def.add(name="back", op="StatefulPartitionedCall").attr["f"].func.name = "chain0"


CHANGES = {
    chain(17, 1): "call each other more than 16 deep",
    chain(5000, 2): "call each other more than 16 deep",
    chain(14, 4): "more than 1000000 nodes would run",
    call_itself: "call each other more than 16 deep",
    call_in_a_circle: "call each other more than 16 deep",
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


def test_a_few_calls_in_calls_pass(edited, no_loader):
    with pytest.raises(AssertionError, match=NO_ENGINE):  # the engine would see it
        Predictor(edited(chain(8, 3)), "cpu")


@pytest.mark.parametrize("name", ["saved_model.pbtxt", "saved_model.cpb"])
def test_another_spelling_of_the_graph_is_not_read(edited, no_loader, name):
    path = edited(lambda graph: None)
    (path / "saved_model.pb").rename(path / name)
    reseal(path, json.dumps(json.loads((path / "assets" / "artifact.json").read_text())["metadata"]))
    assert "has no saved_model.pb" in refusal(path)
