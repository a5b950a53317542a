"""Malicious ONNX files, sealed correctly: each must be refused before an engine opens it, verified or not."""

import tracemalloc

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from untrusted import NO_ENGINE, VERIFY, refusal

from runtime import read_metadata
from runtime.artifact_files.onnx_file import seal
from runtime.artifact_files.onnx_scan import check_onnx
from runtime.artifact_files.protobuf import field, varint_field
from runtime.errors import ArtifactCorruptError, ArtifactError

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
    "sparse initializer in a subgraph": branches(graph(sparse_initializers=[sparse()])),
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
