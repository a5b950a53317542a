"""Skeletons: small, and the artifact again once they are filled."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from benchmarks import gpu, skeleton
from benchmarks.seeded_weights import seed_weights
from export.convert import to_onnx_graph as onnx_convert
from export.describe import describe
from maskrcnn.configuration.samples import DEMO
from maskrcnn.model import MaskRCNN
from runtime.artifact_files.onnx_file import seal
from runtime.errors import ArtifactError

WIDTHS = {"fpn_channels": 32, "rpn_channels": 32, "box_head_channels": 64, "mask_head_channels": 32}


@pytest.fixture(scope="module")
def network():
    model = MaskRCNN(replace(DEMO, model=replace(DEMO.model, backbone_width=16, **WIDTHS)))
    seed_weights(model)
    return model


@pytest.fixture(scope="module")
def converted(network):
    return onnx_convert.convert(network)


def sealed(network, model, borders, path):
    places = {
        name: {"tensor": place.tensor, "permutation": list(place.permutation) if place.permutation else None}
        for name, place in borders.items()
    }
    path.write_bytes(
        seal(model.SerializeToString(), replace(describe(network, "onnx", {}, 17), borders=places).to_json())
    )
    return path


@pytest.fixture(scope="module")
def artifact(network, converted, tmp_path_factory):
    path = tmp_path_factory.mktemp("skeleton") / "small.onnx"
    return sealed(network, converted.artifact, converted.borders, path)


def weights(content):
    return {each.name: numpy_helper.to_array(each) for each in onnx.load_model_from_string(content).graph.initializer}


def in_half(model):
    """The same graph with large weights in half precision, turned back where they are read."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for tensor in list(half.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.size >= skeleton.LARGE:
            name = tensor.name
            half.graph.node.insert(0, helper.make_node("Cast", [f"{name}/half"], [name], to=onnx.TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), f"{name}/half"))
    return half


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_filled_skeleton_is_the_artifact_bit_for_bit(network, converted, precision, tmp_path):
    model = converted.artifact if precision == "float32" else in_half(converted.artifact)
    artifact = sealed(network, model, converted.borders, tmp_path / "small.onnx")
    facts = skeleton.write_skeleton(artifact, tmp_path / "small.npz")
    large = [tensor for tensor in model.graph.initializer if np.prod(tensor.dims) >= skeleton.LARGE]
    assert facts["weights"] == len(large) > 20
    assert facts["bytes"] == (tmp_path / "small.npz").stat().st_size < 0.2 * artifact.stat().st_size
    content = gpu.load(tmp_path / "small.npz")
    ours, theirs = weights(content), weights(artifact.read_bytes())
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        assert ours[name].shape == array.shape
        assert ours[name].tobytes() == array.tobytes(), name


def test_a_filled_skeleton_detects_what_the_artifact_detects(artifact, tmp_path):
    skeleton.write_skeleton(artifact, tmp_path / "small.npz")
    picture = gpu.make_pictures(1, 256)
    found = [
        gpu.run(*gpu.open_session(content, gpu.Device("cpu"), picture))
        for content in (gpu.load(tmp_path / "small.npz"), gpu.load(artifact))
    ]
    assert found[0]["num_detections"][0] > 10
    for name, array in found[0].items():
        assert np.array_equal(array, found[1][name])


def test_the_trunk_ends_before_the_proposals(artifact, tmp_path):
    skeleton.write_skeleton(artifact, tmp_path / "trunk.npz", trunk=True)
    session = ort.InferenceSession(gpu.load(tmp_path / "trunk.npz"), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["images"]
    outputs = gpu.run(session, gpu.make_feeds(session, gpu.make_pictures(1, 128)))
    anchors = sum(3 * (128 // stride) ** 2 for stride in (4, 8, 16, 32, 64))
    assert [anchors in array.shape for array in outputs.values()] == [True, True]


def test_other_weights_are_refused(network, converted, tmp_path, monkeypatch):
    monkeypatch.setattr(skeleton, "MOST_BYTES", 300_000)
    model = onnx.ModelProto()
    model.CopyFrom(converted.artifact)
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.size >= skeleton.LARGE:
            tensor.CopyFrom(numpy_helper.from_array(random.normal(size=array.shape).astype(np.float32), tensor.name))
    artifact = sealed(network, model, converted.borders, tmp_path / "trained.onnx")
    with pytest.raises(ArtifactError, match="its weights are not those of 'seed_weights'"):
        skeleton.write_skeleton(artifact, tmp_path / "trained.npz")
    assert not (tmp_path / "trained.npz").exists()


def test_weights_that_come_out_differently_are_noticed(artifact, tmp_path):
    skeleton.write_skeleton(artifact, tmp_path / "small.npz")
    with np.load(tmp_path / "small.npz") as archive:
        arrays = dict(archive)
    arrays["factors"] = np.nextafter(arrays["factors"], np.float32(np.inf))
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(gpu.Failure, match="another SHA-256") as failure:
        gpu.load(tmp_path / "other.npz")
    assert failure.value.code == gpu.BAD_INPUT


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_row_factors_are_found_through_the_rounding(kind):
    random = np.random.default_rng(2)
    kernel = random.uniform(-0.1, 0.1, (300, 4000)).astype(np.float32)
    factors = random.uniform(-3, 3, 300).astype(np.float32)

    def product(rows):
        return (kernel.astype(np.float64) * rows[:, None]).astype(np.float32).astype(kind)

    wanted = product(factors)
    assert np.array_equal(product(skeleton.row_factors(kernel, wanted)), wanted)
