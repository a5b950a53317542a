"""The demo model in 8 bits: our export against NNCF, OpenVINO's own quantizer, both run by OpenVINO.

Both are calibrated on the same synthetic images, and mask AP of both is measured on others. NNCF gets the graph that
`Predictor` compiles.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.turns import THREADS, Clock, Replay, take_turns
from export import LowerPrecision, export_lower_precision
from export.precision.gate import score_masks
from export.verify.pictures import LetterboxedPicture
from export.verify.verify import make_feeds
from maskrcnn.configuration.model import EVALUATION_SCORE_THRESHOLD
from maskrcnn.data.synthetic.shapes import shapes_dataset, write_shapes
from runtime import EngineOptions, Predictor

CALIBRATED, JUDGED, ROUNDS = 60, 200, 25
REPLAY = Replay()
FLOAT32, OURS = "float32", "ours int8"
NNCF, NNCF_GUIDED = "NNCF int8, its defaults", "NNCF int8, features alone"


def in_openvino(path: Path) -> Predictor:
    options = EngineOptions(threads=THREADS)
    return Predictor(
        path, "openvino", score_threshold=EVALUATION_SCORE_THRESHOLD, engine=options, require_verdict=False
    )


def by_nncf(path: Path, pictures: list[Path], guided: bool, patch: pytest.MonkeyPatch) -> Predictor:
    """The same artifact, quantized by NNCF between reading and compiling.

    Guided, it leaves the arithmetic of boxes alone: whatever gives no feature maps and is no matrix product.
    """
    import nncf  # noqa: PLC0415  (installed only where the peer is measured)

    from runtime.engines.openvino import graph  # noqa: PLC0415

    plain, read = Predictor(path, "cpu", require_verdict=False), graph.read_model

    def feeds(picture: Path) -> Any:
        letterbox, prepared = plain.prepare(picture)
        thresholds = plain.score_threshold, plain.nms_threshold
        return make_feeds([LetterboxedPicture(picture.name, prepared, letterbox.window)], thresholds)

    def quantized(source: str | bytes) -> Any:
        whole = read(source)
        of_boxes = [
            node.friendly_name
            for node in whole.get_ordered_ops()
            if node.get_type_name() not in ("Constant", "Parameter", "Result", "MatMul")
            and node.outputs()
            and node.output(0).get_partial_shape().rank != 4
        ]
        scope = nncf.IgnoredScope(names=of_boxes, validate=False) if guided else None
        return nncf.quantize(whole, nncf.Dataset(pictures, feeds), subset_size=len(pictures), ignored_scope=scope)

    patch.setattr(graph, "read_model", quantized)
    try:
        return in_openvino(path)
    finally:
        patch.undo()


@pytest.fixture(scope="module")
def turns(model, onnx_path, tmp_path_factory):
    """Clock and mask AP of each."""
    folder = tmp_path_factory.mktemp("int8")
    write_shapes(folder / "shapes", CALIBRATED, seed=5)
    pictures = sorted((folder / "shapes" / "images").iterdir())
    judged, first = shapes_dataset(JUDGED, seed=2), pictures[0]
    lower = LowerPrecision("int8", folder / "shapes" / "images", judged)
    export_lower_precision(model, folder / "int8.onnx", lower, checkpoint={"name": "demo model"})
    with pytest.MonkeyPatch.context() as patch:
        predictors = {
            FLOAT32: in_openvino(onnx_path),
            OURS: in_openvino(folder / "int8.onnx"),
            NNCF: by_nncf(onnx_path, pictures, False, patch),
            NNCF_GUIDED: by_nncf(onnx_path, pictures, True, patch),
        }
    scores = {name: score_masks(each, judged)["AP"] for name, each in predictors.items()}
    clocks = take_turns({name: lambda each=each: each(first).rles for name, each in predictors.items()}, ROUNDS)
    return {name: (clocks[name], scores[name]) for name in predictors}


@pytest.mark.timeout(3600)
@pytest.mark.benchmark(group="demo model in OpenVINO, picture to run lengths", timer=REPLAY.timer)
@pytest.mark.parametrize("name", [FLOAT32, OURS, NNCF, NNCF_GUIDED])
def test_case(benchmark, name, request):
    if find_spec("nncf") is None:
        pytest.skip("nncf is not installed: see benchmarks/README.md")
    clock, score = request.getfixturevalue("turns")[name]  # after the skip: it takes a minute
    assert isinstance(clock, Clock)
    benchmark.extra_info |= {"case": name, "mask_ap": score}
    REPLAY.report(benchmark, clock)
