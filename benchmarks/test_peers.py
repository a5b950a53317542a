"""ResNet-50-FPN at 1024 x 1024 on the CPU against named peers, all in turns in one process on the same threads.

Every network has random weights that give 1000 proposals and 100 detections, which is asserted. "network" is from
pixels to masks of 28 x 28. "picture to run lengths" is from a JPEG file to COCO run lengths of full-size masks, with
torchvision's model and our export of its state dict.
Peers that are not installed are skipped by name. Rounds: MASKRCNN_BENCHMARK_ROUNDS.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import onnx
import pytest

from benchmarks import ours, products
from benchmarks.calibration import SCORE
from benchmarks.flops import count_flops
from benchmarks.turns import ROUNDS, Call, Clock, Replay, take_turns
from export.convert import to_onnx_graph as onnx_convert
from export.convert.to_onnx_graph import Converted
from maskrcnn import MaskRCNN, load_checkpoint
from runtime import Predictor
from runtime.pictures.read import read_image

if TYPE_CHECKING:
    from benchmarks.torchvision_peer import TorchvisionPeer

PROPOSALS, DETECTIONS, CLASSES = 1000, 100, 91
FEW = 10  # detections in a plain picture

REPLAY = Replay()
NETWORK, PICTURE, PRODUCT = "network", "picture to run lengths", "matrix product"

KERAS, FUNCTION, SAVEDMODEL = "ours, Keras eager", "ours, tf.function", "ours, SavedModel"
ORT, ORT_FEW, ORT_CONVERTED = "ours, ONNX Runtime fp32", f"ours, fp32, {FEW} detections", "ours, fp32, as converted"
OPENVINO, OPENVINO_BF16, OPENVINO_INT8 = "ours, OpenVINO fp32", "ours, OpenVINO bf16", "ours, OpenVINO int8"
TORCH_EAGER, TORCH_BF16 = "torchvision eager", "torchvision eager, bf16 autocast"
TORCH_COMPILED, TORCH_COMPILED_BF16 = "torchvision, backbone compiled", "torchvision, backbone compiled, bf16 autocast"
TORCH_ORT, TORCH_ORT_PASTED = "torchvision in ONNX Runtime", "torchvision in ONNX Runtime, pasting in the graph"
TORCH_OPENVINO, TORCH_OPENVINO_F32 = "torchvision in OpenVINO, its default", "torchvision in OpenVINO fp32"
GARDEN, GARDEN_BATCHED = "Model Garden frozen", "Model Garden frozen, TensorFlow's suppression"
LOWER = {precision: f"ours, ONNX Runtime {precision}" for precision in ours.LOWER}

OPENVINOS = (OPENVINO, OPENVINO_BF16, OPENVINO_INT8)
TORCHES = (TORCH_EAGER, TORCH_BF16, TORCH_COMPILED, TORCH_COMPILED_BF16)


# What a case needs beside our own dependencies: the module, and what to install.
NEEDS = (
    ("torchvision", "torchvision", "torchvision"),
    ("OpenVINO", "openvino", "OpenVINO (openvino)"),
    ("Model Garden", "official", "TensorFlow Model Garden (tf-models-official)"),
)

CASES = [
    *[(NETWORK, name) for name in (ORT, ORT_FEW, ORT_CONVERTED, *LOWER.values(), *OPENVINOS)],
    *[(NETWORK, name) for name in (SAVEDMODEL, FUNCTION, KERAS)],
    *[(NETWORK, name) for name in (TORCH_ORT, TORCH_OPENVINO, TORCH_OPENVINO_F32, *TORCHES, GARDEN_BATCHED, GARDEN)],
    *[(PICTURE, name) for name in (ORT, *LOWER.values(), *OPENVINOS)],
    *[(PICTURE, name) for name in (TORCH_ORT, TORCH_ORT_PASTED, *TORCHES)],
    *[(PRODUCT, name) for name in (products.NUMPY, products.ORT)],
]


class Case(NamedTuple):
    """A call that is ready to be timed, and facts about it for the results."""

    call: Call
    facts: dict[str, float]


Cases = dict[tuple[str, str], Case]
Engines = dict[str, tuple[Predictor, dict[str, float]]]


def missing(name: str) -> str | None:
    """What has to be installed before a case can run."""
    absent = (package for word, module, package in NEEDS if word in name and find_spec(module) is None)
    return next(absent, None)


def checked(proposals: int, detections: int, wanted: int = DETECTIONS) -> dict[str, float]:
    assert (proposals, detections) == (PROPOSALS, wanted)
    return {"proposals": proposals, "detections": detections}


def onnx_cases(model: MaskRCNN, picture: bytes, folder: Path, patch: pytest.MonkeyPatch) -> Cases:
    converted = onnx_convert.convert(model)
    engines = engines_of(model, converted, picture, folder)
    feeds = ours.feeds_of(engines[ORT][0], picture)
    cases = {(NETWORK, name): Case(ours.run_call(engine, feeds), facts) for name, (engine, facts) in engines.items()}
    predictor = ours.onnx_predictor(model, converted.artifact, folder / "few.onnx", converted.borders)
    predictor.score_threshold = ours.threshold_for(predictor, feeds, FEW)
    cases[NETWORK, ORT_FEW] = Case(ours.run_call(predictor, feeds), {"detections": FEW})
    with patch.context() as patched:
        patched.setattr(onnx_convert, "rewrite", lambda _model, _kept: None)
        plain = ours.onnx_predictor(model, onnx_convert.convert(model).artifact, folder / "converted.onnx")
    cases[NETWORK, ORT_CONVERTED] = Case(ours.run_call(plain, feeds), {})
    return cases


def engines_of(model: MaskRCNN, converted: Converted, picture: bytes, folder: Path) -> Engines:
    """A model in every engine and precision for processors, and facts about each, by the name of its case."""
    path = folder / "fp32.onnx"
    predictor = ours.onnx_predictor(model, converted.artifact, path, converted.borders)
    feeds = ours.feeds_of(predictor, picture)
    flops = {"GFLOP": sum(count_flops(converted.artifact, feeds).values()) / 1e9}
    predictors, facts = {ORT: predictor}, {ORT: flops}
    for precision, name in LOWER.items():
        graph = ours.LOWER[precision](converted.artifact, predictor, picture, folder)
        lower = folder / f"{precision}.onnx"
        predictors[name] = ours.onnx_predictor(model, graph, lower, converted.borders, precision=precision)
        facts[name] = {"MB": lower.stat().st_size / 1e6}
    if missing(OPENVINO) is None:
        predictors[OPENVINO] = ours.openvino_predictor(path)
        predictors[OPENVINO_BF16] = ours.openvino_predictor(path, precision="bf16")
        predictors[OPENVINO_INT8] = ours.openvino_predictor(folder / "int8.onnx")
    return {
        name: (engine, checked(*ours.counts(engine, feeds)) | facts.get(name, {}))
        for name, engine in predictors.items()
    }


def tensorflow_cases(model: MaskRCNN, picture: bytes, folder: Path) -> Cases:
    predictor = ours.savedmodel_predictor(model, folder / "savedmodel")
    feeds = ours.feeds_of(predictor, picture)
    calls = {
        SAVEDMODEL: ours.run_call(predictor, feeds),
        FUNCTION: ours.function_call(model, feeds),
        KERAS: ours.eager_call(model, feeds),
    }
    return {(NETWORK, name): Case(call, {"detections": found(call)}) for name, call in calls.items()}


def torchvision_network_cases(picture: bytes, folder: Path) -> Cases:
    from benchmarks.torchvision_peer import TorchvisionPeer  # noqa: PLC0415  (imports torchvision)

    peer = TorchvisionPeer(picture, CLASSES)
    facts = checked(peer.proposals, peer.detections)
    path = folder / "torchvision.onnx"
    peer.export(path, pasted=False)
    flops = {"GFLOP": sum(count_flops(onnx.load(path), peer.feeds).values()) / 1e9}
    cases = {(NETWORK, TORCH_ORT): Case(peer.onnx_runtime_network(path), facts | flops)}
    if missing(OPENVINO) is None:
        cases[NETWORK, TORCH_OPENVINO] = Case(peer.openvino_network(path, None), facts)
        cases[NETWORK, TORCH_OPENVINO_F32] = Case(peer.openvino_network(path, "f32"), facts)
    return cases | {(NETWORK, name): Case(call, facts) for name, call in torch_calls(peer, peer.network).items()}


def torch_calls(peer: "TorchvisionPeer", call: Call) -> dict[str, Call]:
    """A call of the peer in PyTorch: as it comes, under autocast, and with the backbone compiled."""
    compiled = peer.with_compiled_backbone(call)
    return dict(zip(TORCHES, (call, peer.in_bfloat16(call), compiled, peer.in_bfloat16(compiled)), strict=True))


def picture_cases(picture: bytes, folder: Path) -> Cases:
    """Torchvision, and our export of its state dict."""
    from benchmarks.torchvision_peer import TorchvisionPeer  # noqa: PLC0415  (imports torchvision)

    peer = TorchvisionPeer(picture, CLASSES)
    facts = checked(peer.proposals, peer.detections)
    plain, pasted = folder / "torchvision.onnx", folder / "torchvision-pasted.onnx"
    peer.export(plain, pasted=False)
    peer.export(pasted, pasted=True)
    weights = folder / "torchvision.pth"
    peer.save(weights)
    settings = [f"resize.{name}={ours.SIDE}" for name in ("short_side", "long_side")]
    model, _ = load_checkpoint(weights, settings=[*settings, f"detection.min_score={SCORE}"])
    engines = engines_of(model, onnx_convert.convert(model), picture, folder)
    calls = {name: Case(ours.picture_call(engine, picture), counted) for name, (engine, counted) in engines.items()}
    calls |= {
        TORCH_ORT: Case(peer.onnx_runtime_run_lengths(plain, pasted=False), facts),
        TORCH_ORT_PASTED: Case(peer.onnx_runtime_run_lengths(pasted, pasted=True), facts),
    }
    calls |= {name: Case(call, facts) for name, call in torch_calls(peer, peer.run_lengths).items()}
    return {(PICTURE, name): case for name, case in calls.items()}


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
def network_turns(tmp_path_factory):
    """Clocks and facts of every case that can run, without pictures' files."""
    folder, picture = tmp_path_factory.mktemp("networks"), ours.jpeg()
    names = ("BG", *(f"class {number}" for number in range(1, CLASSES)))
    model = ours.network(backbone="resnet50", rpn_channels=256, class_names=names)
    with pytest.MonkeyPatch.context() as patch:
        cases = onnx_cases(model, picture, folder, patch)
    cases |= tensorflow_cases(model, picture, folder)
    cases |= torchvision_network_cases(picture, folder) if missing(TORCH_EAGER) is None else {}
    cases |= garden_cases(model, picture) if missing(GARDEN) is None else {}
    cases |= {(PRODUCT, name): Case(call, {"GFLOP": products.GFLOP}) for name, call in products.product_calls().items()}
    return timed(cases)


@pytest.fixture(scope="module")
def picture_turns(tmp_path_factory):
    """Clocks and facts of the cases that begin with a file, in turns of their own: all at once need too much memory."""
    return timed(picture_cases(ours.jpeg(), tmp_path_factory.mktemp("pictures")))


def timed(cases: Cases) -> dict[tuple[str, str], tuple[Clock, dict[str, float]]]:
    """Take turns, and leave the memory to the next ones."""
    clocks = take_turns({key: case.call for key, case in cases.items()}, ROUNDS)
    for clock in clocks.values():
        clock.release()
    return {key: (clocks[key], case.facts) for key, case in cases.items()}


@pytest.mark.timeout(7200)
@pytest.mark.benchmark(timer=REPLAY.timer)
@pytest.mark.parametrize(("group", "name"), CASES)
def test_case(benchmark, group, name, request):
    if package := missing(name) or (missing(TORCH_EAGER) if group == PICTURE else None):
        pytest.skip(f"{package} is not installed: see benchmarks/README.md")
    turns = "picture_turns" if group == PICTURE else "network_turns"
    clock, facts = request.getfixturevalue(turns)[group, name]  # after the skip: it takes minutes
    benchmark.group = f"ResNet-50, 1024 x 1024: {group}"
    benchmark.extra_info |= {"case": name} | facts
    REPLAY.report(benchmark, clock)
