"""ResNet-50-FPN at 1024 x 1024 on the CPU against named peers, all in turns in one process on the same threads.

Every network has random weights that give 1000 proposals and 100 detections, which is asserted. "network" is from
pixels to masks of 28 x 28; "picture to run lengths" from a JPEG file to COCO run lengths of full-size masks.
Peers that are not installed are skipped by name. Rounds: MASKRCNN_BENCHMARK_ROUNDS.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest

from benchmarks import ours, products
from benchmarks.flops import count_flops
from benchmarks.turns import ROUNDS, THREADS, Call, Replay, take_turns
from export.convert import to_onnx_graph as onnx_convert
from maskrcnn import MaskRCNN
from runtime.pictures.read import read_image

PROPOSALS, DETECTIONS, CLASSES = 1000, 100, 91
FEW = 10  # detections in a plain picture

REPLAY = Replay()
NETWORK, PICTURE, PRODUCT = "network", "picture to run lengths", "matrix product"

KERAS, FUNCTION, SAVEDMODEL = "ours, Keras eager", "ours, tf.function", "ours, SavedModel"
ORT, ORT_FEW, ORT_CONVERTED = "ours, ONNX Runtime fp32", f"ours, fp32, {FEW} detections", "ours, fp32, as converted"
OPENVINO = "ours, OpenVINO fp32"
TORCH_EAGER, TORCH_ORT = "torchvision eager", "torchvision in ONNX Runtime"
GARDEN, GARDEN_BATCHED = "Model Garden frozen", "Model Garden frozen, TensorFlow's suppression"
LOWER = {precision: f"ours, ONNX Runtime {precision}" for precision in ours.LOWER}

# What a case needs beside our own dependencies: the module, and what to install.
NEEDS = {
    OPENVINO: ("openvino", "OpenVINO (openvino)"),
    TORCH_EAGER: ("torchvision", "torchvision"),
    TORCH_ORT: ("torchvision", "torchvision"),
    GARDEN: ("official", "TensorFlow Model Garden (tf-models-official)"),
    GARDEN_BATCHED: ("official", "TensorFlow Model Garden (tf-models-official)"),
}

CASES = [
    *[(NETWORK, name) for name in (ORT, ORT_FEW, ORT_CONVERTED, *LOWER.values(), OPENVINO)],
    *[(NETWORK, name) for name in (SAVEDMODEL, FUNCTION, KERAS)],
    *[(NETWORK, name) for name in (TORCH_ORT, TORCH_EAGER, GARDEN_BATCHED, GARDEN)],
    *[(PICTURE, name) for name in (ORT, *LOWER.values(), TORCH_EAGER)],
    *[(PRODUCT, name) for name in (products.NUMPY, products.ORT)],
]


class Case(NamedTuple):
    """A call that is ready to be timed, and facts about it for the results."""

    call: Call
    facts: dict[str, float]


Cases = dict[tuple[str, str], Case]


def is_present(name: str) -> bool:
    return name not in NEEDS or find_spec(NEEDS[name][0]) is not None


def checked(proposals: int, detections: int, wanted: int = DETECTIONS) -> dict[str, float]:
    assert (proposals, detections) == (PROPOSALS, wanted)
    return {"proposals": proposals, "detections": detections}


def onnx_cases(model: MaskRCNN, picture: bytes, folder: Path, patch: pytest.MonkeyPatch) -> Cases:
    converted = onnx_convert.convert(model)
    predictor = ours.onnx_predictor(model, converted.artifact, folder / "fp32.onnx", converted.borders)
    feeds = ours.feeds_of(predictor, picture)
    facts = checked(*ours.counts(predictor, feeds))
    flops = {"GFLOP": sum(count_flops(converted.artifact, feeds).values()) / 1e9}
    cases = {(NETWORK, ORT): Case(ours.run_call(predictor, feeds), facts | flops)}
    cases[PICTURE, ORT] = Case(ours.picture_call(predictor, picture), facts)
    few = ours.threshold_for(predictor, feeds, FEW)
    cases[NETWORK, ORT_FEW] = Case(ours.run_call(predictor, feeds, few), {"detections": FEW})
    for precision, name in LOWER.items():
        graph = ours.LOWER[precision](converted.artifact, predictor, picture, folder)
        path = folder / f"{precision}.onnx"
        lower = ours.onnx_predictor(model, graph, path, converted.borders, precision=precision)
        facts = checked(*ours.counts(lower, feeds)) | {"MB": path.stat().st_size / 1e6}
        cases[NETWORK, name] = Case(ours.run_call(lower, feeds), facts)
        cases[PICTURE, name] = Case(ours.picture_call(lower, picture), facts)
    with patch.context() as patched:
        patched.setattr(onnx_convert, "rewrite", lambda _model, _kept: None)
        plain = ours.onnx_predictor(model, onnx_convert.convert(model).artifact, folder / "converted.onnx")
    cases[NETWORK, ORT_CONVERTED] = Case(ours.run_call(plain, feeds), {})
    if is_present(OPENVINO):
        cases[NETWORK, OPENVINO] = Case(ours.openvino_call(folder / "fp32.onnx", feeds, THREADS), {})
    return cases


def tensorflow_cases(model: MaskRCNN, picture: bytes, folder: Path) -> Cases:
    predictor = ours.savedmodel_predictor(model, folder / "savedmodel")
    feeds = ours.feeds_of(predictor, picture)
    calls = {
        SAVEDMODEL: ours.run_call(predictor, feeds),
        FUNCTION: ours.function_call(model, feeds),
        KERAS: ours.eager_call(model, feeds),
    }
    return {(NETWORK, name): Case(call, {"detections": found(call)}) for name, call in calls.items()}


def torchvision_cases(picture: bytes, folder: Path) -> Cases:
    from benchmarks.torchvision_peer import TorchvisionPeer  # noqa: PLC0415  (imports torchvision)

    peer = TorchvisionPeer(picture, CLASSES)
    facts = checked(peer.proposals, peer.detections)
    path = folder / "torchvision.onnx"
    exported, feeds = peer.exported(path)
    flops = {"GFLOP": sum(count_flops(onnx.load(path), feeds).values()) / 1e9}
    return {
        (NETWORK, TORCH_EAGER): Case(peer.network, facts),
        (NETWORK, TORCH_ORT): Case(exported, facts | flops),
        (PICTURE, TORCH_EAGER): Case(peer.run_lengths, facts),
    }


def garden_cases(model: MaskRCNN, picture: bytes) -> Cases:
    from benchmarks.garden_peer import garden_peer  # noqa: PLC0415  (imports the Garden)

    cases = {}
    for name, batched in ((GARDEN, False), (GARDEN_BATCHED, True)):
        peer = garden_peer(model.config, read_image(picture), batched)
        cases[NETWORK, name] = Case(peer.network, checked(peer.proposals, peer.detections))
    return cases


def found(call: Call) -> int:
    count = int(call()["num_detections"][0])
    assert count == DETECTIONS
    return count


@pytest.fixture(scope="module")
def turns(tmp_path_factory):
    """Clocks and facts of every case that can run."""
    folder, picture = tmp_path_factory.mktemp("peers"), ours.jpeg()
    names = ("BG", *(f"class {number}" for number in range(1, CLASSES)))
    model = ours.network(backbone="resnet50", rpn_channels=256, class_names=names)
    with pytest.MonkeyPatch.context() as patch:
        cases = onnx_cases(model, picture, folder, patch)
    cases |= tensorflow_cases(model, picture, folder)
    cases |= torchvision_cases(picture, folder) if is_present(TORCH_EAGER) else {}
    cases |= garden_cases(model, picture) if is_present(GARDEN) else {}
    cases |= {(PRODUCT, name): Case(call, {"GFLOP": products.GFLOP}) for name, call in products.product_calls().items()}
    clocks = take_turns({key: case.call for key, case in cases.items()}, ROUNDS)
    return {key: (clocks[key], case.facts) for key, case in cases.items()}


@pytest.mark.timeout(7200)
@pytest.mark.benchmark(timer=REPLAY.timer)
@pytest.mark.parametrize(("group", "name"), CASES)
def test_case(benchmark, group, name, request):
    if not is_present(name):
        pytest.skip(f"{NEEDS[name][1]} is not installed: see benchmarks/README.md")
    clock, facts = request.getfixturevalue("turns")[group, name]  # after the skip: it takes minutes
    benchmark.group = f"ResNet-50, 1024 x 1024: {group}"
    benchmark.extra_info |= {"case": name} | facts
    REPLAY.report(benchmark, clock)
