"""Malicious ONNX files, sealed correctly: each must be refused before an engine opens it, verified or not."""

import subprocess
import sys
import tracemalloc

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from bad_artifacts import NO_ENGINE, VERIFY, refusal, reseal
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from runtime import read_metadata
from runtime.artifact_files.onnx_scan import OPERATORS, check_onnx
from runtime.artifact_files.protobuf import field, varint_field
from runtime.engines.versions import version_numbers
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


def node(operator="ConstantOfShape", domain="", **attributes):
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
    """An operator that has no graph, with a graph."""
    return graph([node("Identity", g=inner)])


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
    "attribute in a subgraph": branches(branches(graph([node(t=tensor(location="/etc/hostname"))]))),
    "a library": graph([node("PyOp", "ai.onnx.contrib")]),
    "a library in a subgraph": branches(graph([node("Reader", "com.example")])),
    "a library under the name of an operator": graph([node("Relu", "com.example")]),
    "what ONNX Runtime fuses": graph([node("FusedConv", "com.microsoft")]),
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
        path.write_bytes(content)
        reseal(path, read_metadata(onnx_artifact).to_json())
        return path

    return write


@VERIFY
@pytest.mark.parametrize("name", OUTSIDE)
def test_an_onnx_file_that_leads_outside_is_refused(sealed_onnx, no_session, name, verify):
    message = refusal(sealed_onnx(model(OUTSIDE[name]).SerializeToString()), verify)
    assert "\x1b" not in message
    assert any(word in message for word in ("external data", "sparse", "of the domain", "a graph in a node"))
    assert ("another tool optimized" in message) == ("of the domain" in message)


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


STANDARD = sorted({schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""})


def test_operators_of_onnx_that_no_export_has_are_refused(tmp_path):
    """Loops, branches, random numbers, sequences, text, and everything else that is not on the list."""
    path, refused = tmp_path / "model.onnx", set()
    for name in STANDARD:
        path.write_bytes(model(graph([helper.make_node(name, ["x"], ["y"])])).SerializeToString())
        if name not in OPERATORS:
            with pytest.raises(ArtifactError, match=f"the operator {name!r}, unlike any artifact"):
                check_onnx(path)
            refused.add(name)
        else:
            check_onnx(path)
    assert refused >= {"Loop", "If", "Scan", "SequenceMap", "RandomNormal", "EyeLike", "Constant", "StringConcat"}
    assert set(STANDARD) >= OPERATORS


def loop(trips):
    """A loop that an engine would run for years while it opens the graph."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["going"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            value("v"),
        ],
        [helper.make_tensor_value_info("going", TensorProto.BOOL, []), value("w")],
    )
    constants = [numpy_helper.from_array(np.array(trips, np.int64), "trips"), tensor()]
    return graph([helper.make_node("Loop", ["trips", "", "w"], ["y"], body=body)], constants)


def constants(**arrays):
    return [numpy_helper.from_array(np.array(array), name) for name, array in arrays.items()]


def listed(name, numbers):
    """A constant with its numbers in a list instead of bytes."""
    return helper.make_tensor(name, TensorProto.INT64, [len(numbers)], numbers)


def sized(operator, inputs, *tensors, **attributes):
    return graph([helper.make_node(operator, inputs, ["y"], **attributes)], tensors)


def product(chain):
    """The constant that gives a size is computed from others."""
    nodes = [helper.make_node("Mul", ["n" if i == 0 else f"n{i}", "n"], [f"n{i + 1}"]) for i in range(chain)]
    last = helper.make_node("ConstantOfShape", [f"n{chain}"], ["y"])
    return graph([*nodes, last], constants(n=[2**10]))


VAST = 2**30
LARGE = {
    "Loop": loop(2**62),
    "shape": sized("ConstantOfShape", ["n"], *constants(n=[VAST])),
    "shape of many sides": sized("ConstantOfShape", ["n"], *constants(n=[2**10] * 3)),
    "shape in a list": sized("ConstantOfShape", ["n"], listed("n", [VAST])),
    "shape by way of a cast": graph(
        [helper.make_node("Cast", ["n"], ["m"], to=TensorProto.INT64), helper.make_node("Expand", ["x", "m"], ["y"])],
        constants(n=np.array([VAST], np.int32)),
    ),
    "product": product(3),
    "Expand": sized("Expand", ["x", "n"], *constants(n=[VAST, 2])),
    "Expand of a constant": sized("Expand", ["c", "n"], *constants(c=[1.0], n=[4])),
    "Expand in a list": sized("Expand", ["x", "n"], listed("n", [VAST, 2])),
    "Expand to nowhere": sized("Expand", ["x", "n"]),
    "Tile": sized("Tile", ["x", "n"], *constants(n=[VAST])),
    "Range": sized("Range", ["a", "n", "b"], *constants(a=0, n=VAST, b=1)),
    "Pad": sized("Pad", ["x", "n"], *constants(n=[0, VAST])),
    "Pad in front": sized("Pad", ["x", "n"], *constants(n=[-VAST, 0])),
    "Resize by scales": sized("Resize", ["x", "", "n"], *constants(n=np.array([1e9], np.float32))),
    "Resize by infinity": sized("Resize", ["x", "", "n"], *constants(n=np.array([np.inf], np.float32))),
    "Resize by sizes": sized("Resize", ["x", "", "", "n"], *constants(n=[VAST])),
    "OneHot": sized("OneHot", ["x", "n", "v"], *constants(n=VAST, v=[0.0, 1.0])),
    "outer product": sized("MatMul", ["a", "b"], *constants(a=np.ones((2**14, 1)), b=np.ones((1, 2**14)))),
    "sum of a row and a column": sized("Add", ["a", "b"], *constants(a=np.ones((2**14, 1)), b=np.ones((1, 2**14)))),
    "Gather": sized("Gather", ["a", "i"], *constants(a=np.ones((1, 2**14)), i=np.zeros(2**14, np.int64))),
    "pads of a convolution": sized("Conv", ["x", "w"], tensor(), pads=[0, VAST]),
    "shape of a transposed convolution": sized("ConvTranspose", ["x", "w"], tensor(), output_shape=[2**15, 2**15]),
    "a list of sizes without end": sized("Tile", ["x", "n"], listed("n", [1] * 10**5)),
}


@pytest.mark.parametrize("name", LARGE)
def test_constants_that_ask_for_all_time_or_memory_are_refused(sealed_onnx, no_session, name):
    message = refusal(sealed_onnx(model(LARGE[name]).SerializeToString()), verify=False)
    assert any(word in message for word in ("on constants alone", "too large", "operator 'Loop'")), message


def test_constants_that_old_graphs_list_as_inputs_are_constants(sealed_onnx, no_session):
    """Before version 4 of the format, an engine computes with them while it opens the graph."""
    old = model(sized("ConstantOfShape", ["n"], *constants(n=[VAST])))
    old.graph.input.append(helper.make_tensor_value_info("n", TensorProto.INT64, [1]))
    old.ir_version = 3
    assert "ONNX's format before version 4" in refusal(sealed_onnx(old.SerializeToString()))


def test_usual_sizes_pass(tmp_path):
    """Also those of a part that an engine computes on opening: weights in 8 bits, and their layout."""
    sound = {
        "Tile": sized("Tile", ["x", "n"], *constants(n=[1000])),
        "Pad": sized("Pad", ["x", "n"], *constants(n=[0, 0, 1, 1, 0, 0, 1, 1])),
        "Resize": sized("Resize", ["x", "", "n"], *constants(n=np.array([1, 1, 2, 2], np.float32))),
        "Reshape": sized("Reshape", ["x", "n"], *constants(n=[-1, 2**31])),
        "Slice": sized("Slice", ["x", "a", "n"], *constants(a=[0], n=[2**31 - 1])),
        "Conv": sized("Conv", ["x", "w"], tensor(), pads=[3, 3, 3, 3], strides=[2, 2], kernel_shape=[7, 7]),
        "weights": graph(
            [
                helper.make_node("DequantizeLinear", ["q", "s"], ["w8"]),
                helper.make_node("Transpose", ["w8"], ["w"], perm=[0]),
                helper.make_node("Add", ["x", "w"], ["y"]),
            ],
            constants(q=np.array([1, 2], np.int8), s=np.array(0.5, np.float32)),
        ),
    }
    for name, content in sound.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model(content).SerializeToString())
        check_onnx(path)


OPENED = """
import resource, sys
from runtime.engines.ort.library import CPU, ort
from runtime.engines.ort.session import SessionOpener
from pathlib import Path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
SessionOpener(Path(sys.argv[1]), 1).open([(CPU, {})])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(
    version_numbers(ort.__version__) < (1, 27), reason="ONNX Runtime has no limit of what it computes on opening"
)
def test_a_fixed_shape_is_not_grown_on_opening(tmp_path, pytestconfig):
    """The sides of an input of fixed size are constants too, though not for us: 2 GB of zeros are left to a run."""
    nodes = [helper.make_node("Shape", ["x"], ["n"])]
    nodes += [helper.make_node("Mul", [f"n{i}" if i else "n", "n"], [f"n{i + 1}"]) for i in range(4)]
    nodes += [helper.make_node("ConstantOfShape", ["n4"], ["z"]), helper.make_node("ReduceSum", ["z"], ["s"])]
    nodes += [helper.make_node("Add", ["x", "s"], ["y"])]
    made = helper.make_graph(nodes, "g", [value("x", (55,))], [value("y", None)])
    path = tmp_path / "fixed.onnx"
    path.write_bytes(model(made).SerializeToString())
    check_onnx(path)
    run = [sys.executable, "-c", OPENED, str(path)]
    done = subprocess.run(run, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 300_000, "kilobytes"
