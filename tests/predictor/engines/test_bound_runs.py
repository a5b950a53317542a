"""Runs on tensors that stay, and a graph in two parts: bit for bit what the whole graph gives. Here in CPU memory."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from runtime import Predictor
from runtime.artifact_files.onnx_cut import CutModel
from runtime.artifact_files.protobuf import field, read_fields, varint_field
from runtime.engines.ort.binding import BoundSession, Kept
from runtime.errors import ArtifactCorruptError, ArtifactError

DEVICE = ("cpu", 0)


@pytest.fixture(scope="module")
def whole(onnx_artifact):
    return Predictor(onnx_artifact, "cpu")


@pytest.fixture(scope="module")
def cases(whole, picture):
    """Inputs of several shapes, with objects; the first two have one shape."""
    found = []
    for pixels, batch in ((picture, 1), (picture[:, ::-1], 1), (picture[:300, :200], 3)):
        letterbox, prepared = whole.prepare(pixels)
        images = np.stack([np.roll(prepared, 8 * row, 1) for row in range(batch)])
        found.append(dict(whole._inputs(images, np.array([letterbox.window] * batch, np.float32))))
    other = np.array([[30, 20, 200, 220]], np.float32)
    found.append({**found[0], "windows": other, "nms_threshold": np.float32(0.6), "score_threshold": np.float32(0.01)})
    crop = found[0]["images"][:, :192, :128]
    found.append({**found[0], "images": crop, "windows": np.array([[0, 0, 192, 128]], np.float32)})
    return found


@pytest.fixture(scope="module")
def expected(whole, cases):
    results = [whole._engine._backend(inputs) for inputs in cases]
    assert all(result["num_detections"].all() for result in results)
    return results


@pytest.fixture(params=["bound", "recorded"])
def bound(request, whole):
    if request.param == "recorded":
        from runtime.engines.ort.gpu_sessions import GpuSessions

        backend = whole._engine._backend
        sessions = object.__new__(GpuSessions)  # its constructor needs a device
        sessions._opener, sessions._providers = backend._opener, backend._providers
        sessions._metadata, sessions._device = whole.metadata, DEVICE
        return sessions._open_recorded({})
    return BoundSession(whole._engine._backend._session, whole.metadata.outputs(), DEVICE)


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name])


def test_the_same_in_turns(bound, cases, expected):
    for _ in range(2):
        results = [bound(inputs) for inputs in cases]
        for found, wanted in zip(results, expected, strict=True):  # after all runs: none writes into another's results
            assert_equal(found, wanted)


def test_the_same_from_four_threads(bound, cases, expected):
    order = [0, 1, 3] * 6 + [2, 4, 1, 0] * 2  # mostly runs of one shape with different contents at the same time
    bound(cases[0])  # so that there are tensors of this shape that two threads could take
    with ThreadPoolExecutor(4) as pool:
        for case, found in zip(order, pool.map(lambda case: bound(cases[case]), order), strict=True):
            assert_equal(found, expected[case])


def test_images_that_are_not_contiguous(bound, cases, expected):
    turned = {**cases[0], "images": np.ascontiguousarray(cases[0]["images"][:, :, ::-1])[:, :, ::-1]}
    assert not turned["images"].flags.c_contiguous
    assert_equal(bound(turned), expected[0])


def test_tensors_of_old_shapes_are_given_up():
    kept, made = Kept(), []

    def make(key):
        return kept.get(key, lambda: made.append(key) or key)

    for key in [*range(8), 0, 8, 0, 1]:  # 8 drives 1 out, not 0, which was used again
        assert make(key) == key
    assert made == [*range(8), 8, 1]


def cut_of(whole, names):
    return {whole.metadata.borders[name]["tensor"] for name in names}


def test_cut_divides_the_work(onnx_artifact, whole):
    names = ("p2", "p3", "p4", "p5", "p6", "rpn_probs", "rpn_deltas")
    model = CutModel(onnx_artifact.read_bytes())
    points = model.cut_points(cut_of(whole, names))
    assert set(points) == cut_of(whole, names) - cut_of(whole, ["p6"])  # only the anchors' scores come from p6
    parts = [model.part({}, points)]
    trunk = ort.InferenceSession(parts[0], providers=["CPUExecutionProvider"])
    parts.append(model.part({value.name: (1, value.shape) for value in trunk.get_outputs()}))
    before, after = map(onnx.load_from_string, parts)
    onnx.checker.check_model(after, full_check=True)
    kinds = [[node.op_type for node in part.graph.node] for part in (before, after)]
    whole_kinds = [node.op_type for node in onnx.load(onnx_artifact).graph.node]
    for kind in ("Conv", "MaxPool", "RoiAlign", "NonMaxSuppression", "NonZero", "TopK"):
        assert kinds[0].count(kind) + kinds[1].count(kind) == whole_kinds.count(kind) > 0
        if kind in ("RoiAlign", "NonMaxSuppression", "NonZero", "TopK"):
            assert kinds[0].count(kind) == 0
    assert kinds[0].count("Conv") > 40
    weights = [{value.name for value in part.graph.initializer} for part in (before, after)]
    assert sum(map(len, parts)) < 1.05 * onnx_artifact.stat().st_size
    assert all(weights)
    assert not before.metadata_props


@pytest.mark.parametrize("tensors", [["no such tensor"], []])
def test_cut_that_is_none(onnx_artifact, tensors):
    with pytest.raises(ArtifactError, match="export the model again"):
        CutModel(onnx_artifact.read_bytes()).cut_points(tensors)


def test_fields_are_read_as_written():
    message = field(3, b"x" * 300) + varint_field(2000, 2**40) + b"\x0d\1\2\3\4" + b"\x11" + b"12345678" + field(1, b"")
    found = [(number, bytes(content)) for number, content, _ in read_fields(message)]
    assert [number for number, _ in found] == [3, 2000, 1, 2, 1]
    assert [len(content) for _, content in found] == [300, 6, 4, 8, 0]
    assert b"".join(bytes(whole) for _, _, whole in read_fields(message)) == message


@pytest.mark.parametrize(
    "message", [field(1, b"abc")[:-1], b"\x08", b"\x80", b"\x0b", b"\x0d\1\2", b"\x08" + b"\xff" * 11]
)
def test_damaged_message(message):
    with pytest.raises(ArtifactCorruptError):
        list(read_fields(message))
