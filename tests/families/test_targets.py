"""Networks of PyTorch's packages exported for each engine and precision: what is in the graphs, and what they find."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from pytorch_models import state_dicts
from store import unverified

import maskrcnn
from export import export_onnx
from export.convert.trace import trace
from export.precision.quantize import PARTS, nodes_by_part, quantize
from export.target import Target
from export.verify.compare import compare_rows
from maskrcnn import detection
from maskrcnn.checkpoints.pytorch.torch_write import write_state
from maskrcnn.data.synthetic.shapes import draw_shapes
from runtime import Predictor
from runtime.artifact_files.gpu_kernels import without_gpu_kernel
from runtime.errors import EngineError

# The newer heads of torchvision, and the other crops.
NETWORKS = {
    "torchvision": state_dicts.torchvision(18, classes=3, version=2, **state_dicts.TINY),
    "detectron2": state_dicts.detectron2(18, classes=3, **state_dicts.TINY),
}
MOST_CANDIDATES = 60
SETTINGS = (
    "resize.short_side=96",
    "resize.long_side=160",
    "proposals.pre_nms_limit=150",
    "proposals.post_nms_inference=60",
    "detection.max_detections=20",
)
SIZES = [(60, 100), (130, 90), (50, 260)]


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    """Function that loads the small network of a family."""

    def load(family):
        path = tmp_path_factory.mktemp("checkpoint") / "x.pth"
        values = state_dicts.values(NETWORKS[family])
        if family == "detectron2":  # its images are not divided by a deviation, and scores of 1 would all be equal
            values["backbone.bottom_up.stem.conv1.weight"] /= 58
        write_state(path, values)
        return maskrcnn.load_checkpoint(path, classes=("a", "b", "c"), settings=SETTINGS)[0]

    return load


@pytest.fixture(scope="module")
def exported(artifact_store, model_of):
    """Function that exports a family's network for an engine, once each; for few candidates."""

    def make(family, engine):
        def write(path):
            with unverified(), pytest.MonkeyPatch.context() as patch:
                patch.setattr(detection, "MOST_CANDIDATES", MOST_CANDIDATES)
                export_onnx(model_of(family), path, checkpoint={"name": family}, target=Target(engine))

        return artifact_store(f"small {family}-{engine}.onnx", write)

    return make


@pytest.fixture(params=NETWORKS)
def family(request):
    return request.param


def inputs_of(predictor, size):
    """An image as the graph takes it."""
    letterbox, prepared = predictor.prepare(draw_shapes(0, 4, size=size)[0])
    return prepared[None], np.float32([letterbox.window])


def rows(predictor, size):
    """What the graph finds on an image, without the batch axis."""
    return {name: array[0] for name, array in predictor.run(*inputs_of(predictor, size)).items()}


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_graph_for_cuda_finds_the_same(exported, family, size):
    cpu, cuda = (Predictor(exported(family, engine), "cpu") for engine in ("cpu", "cuda"))
    expected, found = rows(cpu, size), rows(cuda, size)
    assert expected["num_detections"] > 3
    compared = compare_rows(expected, found)
    assert compared.identical, compared


def test_a_graph_for_cuda_depends_on_no_number_of_rows(exported, family):
    graph = onnx.load(exported(family, "cuda")).graph
    nodes, constants = graph.node, {tensor.name for tensor in graph.initializer}
    operators = Counter(node.op_type for node in nodes)
    assert operators["NonZero"] == 0
    assert operators["RoiAlign"] == 8  # of four levels, for boxes and masks
    (suppression,) = (node for node in nodes if node.op_type == "NonMaxSuppression")
    assert len(suppression.input) == 4  # a score threshold would cost an allocation and two waits
    # ONNX Runtime's CUDA kernel of Split copies a table as long as the axis, unless all parts are equally long.
    assert all(name in constants for node in nodes if node.op_type == "Split" for name in node.input[1:])


@pytest.mark.parametrize("engine", ["cpu", "cuda"])
def test_layers_that_see_a_whole_crop_are_products_and_masks_are_of_one_class(exported, family, engine):
    graph = onnx.load(exported(family, engine)).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    kernels = [shapes[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    assert [kernel for kernel in kernels if kernel[2:] == [7, 7]] == [[8, 3, 7, 7]]  # the first layer of all
    assert not [kernel for kernel in kernels if kernel[0] == 1 + 3]  # maps of all classes
    assert "ConvTranspose" not in [node.op_type for node in graph.node]


def test_a_gpu_computes_the_whole_savedmodel(model_of):
    function = trace(model_of("detectron2"), every_row=True, shape=(1, None, None), nms_in_steps=True)
    assert without_gpu_kernel([function.get_concrete_function().graph.as_graph_def()]) == []


def test_candidates_beyond_those_that_are_compared(exported):
    """They matter only where there are rows for them, and then there is no result: none that could be wrong."""
    path, free = (exported("torchvision", engine) for engine in ("cuda", "cpu"))
    with Predictor(free, "cpu") as predictor:
        probs = predictor.borders(*inputs_of(predictor, SIZES[0]))["class_probs"]
    scores = -np.sort(-probs[..., 1:], axis=None)
    exactly, one_more = (float(scores[[k - 1, k]].mean()) for k in (MOST_CANDIDATES, MOST_CANDIDATES + 1))

    def results(score_threshold, nms_threshold):
        for each in (free, path):
            with Predictor(each, "cpu", score_threshold=score_threshold, nms_threshold=nms_threshold) as predictor:
                yield rows(predictor, SIZES[0])

    for thresholds in ((exactly, 0.01), (one_more, 0.99)):
        expected, found = results(*thresholds)
        assert compare_rows(expected, found).identical
        assert (expected["num_detections"] == 20) == (thresholds[1] == 0.99)
    with pytest.raises(EngineError, match=r"more candidates .*: expected fewer; raise the score threshold, or export"):
        list(results(one_more, 0.01))


def test_each_part_of_the_network_can_stay_in_float32(exported, family):
    parts = nodes_by_part(onnx.load(exported(family, "cpu")))
    assert list(parts) == list(PARTS)
    assert len(parts["stem"]) == 1
    assert [len(parts[part]) for part in ("C2", "C3", "C4", "C5")] == [4, 5, 5, 5]


def test_every_large_layer_becomes_one_of_8_bits(exported, tmp_path):
    """From images in float32, and with normalized convolutions that have no bias."""
    path = exported("torchvision", "cpu")
    model = onnx.load(path)
    del model.metadata_props[:]
    for number, size in enumerate(SIZES[:2]):
        Image.fromarray(draw_shapes(number, 4, size=size)[0]).save(tmp_path / f"{number}.png")
    with Predictor(path, "cpu") as predictor:
        int8 = quantize(model, predictor, sorted(tmp_path.glob("*.png")), [], tmp_path)
        images, windows = inputs_of(predictor, SIZES[0])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(int8.SerializeToString(), options)
    before = Counter(node.op_type for node in model.graph.node)
    after = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    assert (after["QLinearConv"], after["QGemm"]) == (before["Conv"], before["Gemm"])
    assert not any(name.endswith("Conv") for name in after if name != "QLinearConv")
    feeds = {"score_threshold": np.array(0.05, np.float32), "nms_threshold": np.array(0.5, np.float32)}
    assert images.dtype == np.float32
    assert session.run(["num_detections"], feeds | {"images": images, "windows": windows})[0] > 3


@pytest.mark.parametrize("engine", ["cpu", "cuda"])
def test_openvino_finds_the_same(exported, family, engine):
    pytest.importorskip("runtime.engines.openvino.library", reason="openvino is not installed", exc_type=ImportError)
    path = exported(family, engine)
    with Predictor(path, "cpu") as here, Predictor(path, "openvino") as there:
        compared = compare_rows(*(rows(each, SIZES[0]) for each in (here, there)))
    assert (compared.unmatched, compared.swapped) == (0, 0), compared
    assert compared.boxes < 0.01, compared
    assert compared.scores < 3e-5, compared  # as `export.verify.tolerances` accepts of steep heads
    assert compared.masks_within, compared
