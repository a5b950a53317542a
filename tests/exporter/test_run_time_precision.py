"""`verify --precision`: what bfloat16 costs is measured, recorded if it is accepted, and required afterwards."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from export.cli import app
from export.errors import ConversionError
from export.precision import run_time
from export.precision.gate import ALLOWED, detected_dataset, judge_precision, require_evidence
from export.verify.verdict import PrecisionGate
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.synthetic.shapes import write_shapes
from maskrcnn.evaluation.coco_ap import CocoSummary
from runtime import EngineOptions, Predictor
from runtime.artifact_files.onnx_file import read_model, seal
from runtime.artifact_files.read import graph_digest, judgement_path, read_metadata
from runtime.artifact_files.savedmodel_folder import seal_folder
from runtime.detections import Detections
from runtime.engines.outputs import NotFiniteError
from runtime.errors import ArtifactError, EngineError, ImageError, InputError, OutOfMemoryError

library = pytest.importorskip(
    "runtime.engines.openvino.library", reason="openvino is not installed", exc_type=ImportError
)
CAPABILITIES = library.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bfloat16 = pytest.mark.skipif("BF16" not in CAPABILITIES, reason="the processor has no bfloat16")
JUDGE = ("--device", "openvino", "--precision", "bf16")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Six images of shapes with their annotations."""
    return write_shapes(tmp_path_factory.mktemp("judged") / "shapes", 6, 5)


@pytest.fixture
def artifact(pytestconfig, tmp_path):
    """A copy of the packaged artifact of the demo model."""
    return Path(shutil.copy(pytestconfig.rootpath / "maskrcnn" / "demo.onnx", tmp_path))


def verify(code, *arguments):
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@needs_bfloat16
@pytest.mark.parametrize("against", ["annotations", "float32 detections"])
def test_an_accepted_precision_is_recorded_beside_the_artifact(artifact, shapes, against):
    images = ("--truth", shapes) if against == "annotations" else ("--verify-images", shapes.parent / "images")
    shown = verify(0, artifact, *JUDGE, *images)
    beside = judgement_path(artifact, "bf16")
    assert beside.name == "demo.onnx.bf16.verdict.json"
    assert f"wrote {beside}" in shown
    record = json.loads(beside.read_text())
    assert record["passed"]
    assert (record["precision"], record["against"], record["pictures"]) == ("bf16", against, 6)
    assert record["allowed"] == ALLOWED["bf16", against]
    assert record["graph_sha256"] == graph_digest(artifact)
    assert record["engine"].startswith("openvino 20")
    assert f"bf16: mask AP {record['reference']:.4f} -> {record['found']:.4f}" in shown
    options = EngineOptions(precision="bf16")
    assert Predictor(artifact, "openvino", engine=options).device == "openvino"
    inspected = CliRunner().invoke(app, ["show", str(artifact)]).output
    assert "bf16        accepted: see demo.onnx.bf16.verdict.json" in inspected
    assert "already exists" in verify(6, artifact, *JUDGE, *images)


@needs_bfloat16
def test_an_artifact_that_is_replaced_while_it_is_judged_is_not_recorded(artifact, shapes):
    other = seal(read_model(artifact), replace(read_metadata(artifact), name="other").to_json())

    def export(step):
        if step.startswith("bf16"):
            artifact.write_bytes(other)

    with pytest.raises(ArtifactError, match="is no longer the artifact that was opened"):
        run_time.verify_precision(artifact, "bf16", open_dataset(shapes), progress=export)
    assert not judgement_path(artifact, "bf16").exists()


@needs_bfloat16
def test_a_precision_that_costs_too_much_is_not_recorded(artifact, shapes, monkeypatch):
    gate = PrecisionGate("bf16", "annotations", "mask AP", 6, 20, reference=0.9, found=0.5, allowed=0.005, classes={})
    monkeypatch.setattr(run_time, "score_masks", lambda *_: {"AP": 0.9})
    monkeypatch.setattr(run_time, "judge_precision", lambda *values: replace(gate, allowed=values[-1]))
    beside = judgement_path(artifact, "bf16")
    shown = verify(1, artifact, *JUDGE, "--truth", shapes)
    assert "to 0.5000; the largest allowed drop is 0.005: use another precision, or allow a larger drop" in shown
    assert not beside.exists()
    beside.write_text("{}")
    verify(1, artifact, *JUDGE, "--truth", shapes, "--force", "--max-drop", "0.3")
    assert beside.read_text() == "{}"


@needs_bfloat16
@pytest.mark.parametrize("average_precision", [0.0, None])
def test_nothing_is_accepted_where_float32_finds_nothing(artifact, shapes, monkeypatch, average_precision):
    monkeypatch.setattr(run_time, "score_masks", lambda *_: {"AP": average_precision})
    shown = verify(4, artifact, *JUDGE, "--truth", shapes, "--max-drop", "0")
    assert "the float32 model finds none of the objects, so no drop can be measured: check that --truth" in shown
    assert not judgement_path(artifact, "bf16").exists()


def test_a_reference_below_the_allowed_drop_is_refused():
    require_evidence({"AP": 0.006}, 0.005)
    with pytest.raises(ConversionError, match=r"mask AP of 0.0040, which is not above the allowed drop of 0.005"):
        require_evidence({"AP": 0.004}, 0.005)


def summary(score, names):
    row = {"AP": score, "AP50": score, "AP75": score, "AR": score, "objects": 4}
    return CocoSummary("segm", {"AP": score}, dict.fromkeys(names, row))


class Failing:
    """Raises an error for every image."""

    def __init__(self, dataset, error):
        self.class_names, self.error = dataset.class_names, error

    def __call__(self, _image):
        raise self.error


def test_what_is_not_finite_finds_nothing_and_never_passes(shapes):
    dataset = open_dataset(shapes)
    names = dataset.class_names[1:]
    for allowed in (0.005, 1.0):
        candidate = Failing(dataset, NotFiniteError("scores from nan to nan"))
        gate = judge_precision("bf16", summary(0.9, names), candidate, dataset, "annotations", allowed)
        assert (gate.found, gate.passed) == (0, False)
        assert gate.classes == dict.fromkeys(names, (0.9, 0))


@pytest.mark.parametrize("kind", [EngineError, OutOfMemoryError, InputError, ImageError])
def test_a_failed_run_says_nothing_about_accuracy(shapes, kind):
    dataset = open_dataset(shapes)
    reference = summary(0.9, dataset.class_names[1:])
    with pytest.raises(kind, match="failed"):
        judge_precision("bf16", reference, Failing(dataset, kind("it failed")), dataset, "annotations", 1.0)


def test_annotations_without_objects_are_refused(artifact, shapes, tmp_path):
    content = json.loads(shapes.read_text()) | {"annotations": []}
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps(content))
    shown = verify(4, artifact, *JUDGE, "--truth", empty, "--truth-images", shapes.parent / "images")
    assert "none of its images has an object" in shown


def test_images_on_which_nothing_is_detected_are_refused():
    rows = [np.zeros((0, *shape), np.float32) for shape in ((4,), (), (), (28, 28))]
    rows[2] = rows[2].astype(np.int32)
    nothing = Detections(*rows, (128, 128), ("BG", "thing"), "aligned")
    with pytest.raises(ConversionError, match=r"detects nothing on the images for the comparison \(1\)"):
        detected_dataset(lambda _path: nothing, [Path("a.png")], 0.5)


def test_a_savedmodel_is_inspected_and_refused_from_inside_its_folder(artifact, shapes, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    metadata = read_metadata(artifact)
    verdict = {**metadata.verdict, "graph_sha256": graph_digest(folder)}
    seal_folder(folder, replace(metadata, format="savedmodel", opset=None, verdict=verdict).to_json())
    assert judgement_path(Path(folder), "bf16") == tmp_path / "model.bf16.verdict.json"
    judgement_path(folder, "bf16").write_text("{}")  # this precision is for ONNX artifacts
    monkeypatch.chdir(folder)
    assert judgement_path(Path(), "bf16") == judgement_path(folder, "bf16")
    assert judgement_path(Path("/"), "bf16").parent == Path("/")
    inspected = CliRunner().invoke(app, ["show", "."])
    assert inspected.exit_code == 0, inspected.exception
    assert "bf16" not in inspected.output
    shown = verify(3, ".", *JUDGE, "--truth", shapes, "--force")
    assert "device 'openvino' runs ONNX artifacts only" in shown


def test_an_artifact_whose_judgement_would_have_too_long_a_name_is_inspected(artifact):
    path = artifact.rename(artifact.with_name("a" * 240 + ".onnx"))
    inspected = CliRunner().invoke(app, ["show", str(path)])
    assert inspected.exit_code == 0, inspected.exception
    assert "bf16" not in inspected.output


@needs_bfloat16
def test_five_images_are_too_few(artifact, shapes, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted((shapes.parent / "images").iterdir())[:5]:
        shutil.copy(path, folder)
    assert "at least 6 images are needed" in verify(4, artifact, *JUDGE, "--verify-images", folder)


def test_a_device_without_bfloat16_is_refused(artifact, shapes, monkeypatch):
    for device in ("cpu", "openvino:NPU"):
        shown = verify(3, artifact, *JUDGE[2:], "--device", device, "--truth", shapes)
        assert "openvino" in shown

    from runtime.engines.openvino import devices

    monkeypatch.setattr(devices.core(), "get_property", lambda *_: ["FP32"], raising=False)
    assert "neither AVX-512 BF16 nor AMX" in verify(3, artifact, *JUDGE, "--truth", shapes)
    assert not judgement_path(artifact, "bf16").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        JUDGE,
        (*JUDGE, "--truth", "t.json", "--verify-images", "folder"),
        (*JUDGE, "--truth", "t.json", "--against", "demo"),
        (*JUDGE, "--truth", "t.json", "-o", "new.onnx"),
        ("--precision", "int8", "--truth", "t.json"),
        ("--against", "demo", "--truth", "t.json"),
        ("--against", "demo", "--truth-images", "folder"),
        ("--against", "demo", "--max-drop", "0.1"),
        (*JUDGE, "--truth", "t.json", "--max-drop", "2"),
    ],
    ids=" ".join,
)
def test_options_that_do_not_belong_together(artifact, arguments):
    verify(2, artifact, *arguments)
