"""`verify --precision`: what bfloat16 costs is measured, recorded if it is accepted, and required afterwards."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from export.cli import app
from export.precision import run_time
from export.precision.gate import ALLOWED
from export.verify.verdict import PrecisionGate
from maskrcnn.data.synthetic.shapes import write_shapes
from runtime import EngineOptions, Predictor
from runtime.artifact_files.read import graph_digest, judgement_path

library = pytest.importorskip("runtime.engines.openvino.library", reason="openvino is not installed")
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
    inspected = CliRunner().invoke(app, ["inspect", str(artifact)]).output
    assert "bf16        accepted: see demo.onnx.bf16.verdict.json" in inspected
    assert "already exists" in verify(6, artifact, *JUDGE, *images)


@needs_bfloat16
def test_a_precision_that_costs_too_much_is_not_recorded(artifact, shapes, monkeypatch):
    gate = PrecisionGate("bf16", "annotations", "mask AP", 6, 20, reference=0.9, found=0.5, allowed=0.005, classes={})
    monkeypatch.setattr(run_time, "score_masks", lambda *_: None)
    monkeypatch.setattr(run_time, "judge_precision", lambda *values: replace(gate, allowed=values[-1]))
    beside = judgement_path(artifact, "bf16")
    shown = verify(1, artifact, *JUDGE, "--truth", shapes)
    assert "to 0.5000; the largest allowed drop is 0.005: use another precision, or allow a larger drop" in shown
    assert not beside.exists()
    beside.write_text("{}")
    verify(1, artifact, *JUDGE, "--truth", shapes, "--force", "--max-drop", "0.3")
    assert beside.read_text() == "{}"


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
