"""The GPU benchmark as far as it needs no GPU: it stands alone, its masks and comparisons right, its errors short."""

import ast
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from benchmarks import gpu

SCRIPT = Path(gpu.__file__)


def detections(boxes, class_ids, scores=None):
    count = len(boxes)
    return {
        "num_detections": np.array([count], np.int32),
        "boxes": np.array([boxes], np.float32).reshape(1, count, 4),
        "scores": np.array([scores or [0.5] * count], np.float32),
        "class_ids": np.array([class_ids], np.int32),
        "masks": np.zeros((1, count, 28, 28), np.float32),
    }


def paste(box, mask, height, width):
    """Every pixel by itself, in float64: bilinear between mask cells at its centre, zero outside the box."""
    picture, side = np.zeros((height, width), bool), len(mask)
    for y in range(height):
        for x in range(width):
            across, down = (x + 0.5 - box[0]) / (box[2] - box[0]), (y + 0.5 - box[1]) / (box[3] - box[1])
            if not (0 <= across <= 1 and 0 <= down <= 1):
                continue
            column, row = (min(max(part * side - 0.5, 0), side - 1) for part in (across, down))
            left, top = min(int(column), side - 2), min(int(row), side - 2)
            right, bottom = column - left, row - top
            value = (1 - bottom) * ((1 - right) * mask[top, left] + right * mask[top, left + 1])
            value += bottom * ((1 - right) * mask[top + 1, left] + right * mask[top + 1, left + 1])
            picture[y, x] = value >= 0.5
    return picture


def test_the_script_imports_nothing_but_what_it_says():
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {name.name for node in imports if isinstance(node, ast.Import) for name in node.names}
    modules |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    outside = {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names)
    assert outside == {"numpy", "onnxruntime", "torch", "torchvision", "runtime"}  # the last one for --predictor alone


@pytest.mark.parametrize(
    "box",
    [
        (3.2, 4.7, 21.9, 17.1),
        (-6.0, -3.5, 12.5, 30.5),  # as high as the picture: columns touch
        (20.0, 10.0, 60.0, 60.0),
        (5.25, 5.25, 6.5, 6.75),
        (40.0, 3.0, 50.0, 9.0),  # outside
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_run_lengths_are_those_of_pixels_looked_at_one_by_one(box, full):
    height, width = 25, 31
    mask = np.random.default_rng(1).random((28, 28)).astype(np.float32)
    mask = np.ones_like(mask) if full else mask
    (counts,) = gpu.run_lengths(np.array([box], np.float32), mask[None], height, width)
    expected = paste(np.array(box, np.float32).astype(float), mask.astype(float), height, width)
    rle = coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    assert counts.sum() == height * width
    assert (counts[1:] > 0).all()
    assert np.array_equal(coco.decode(rle).astype(bool), expected)
    assert expected.any() == (box[0] < width)


def test_comparison_pairs_rows_of_a_class_whatever_their_order():
    boxes = [[0, 0, 10, 10], [20, 20, 40, 40], [60, 60, 70, 70]]
    reference = detections(boxes, [1, 2, 3], [0.9, 0.8, 0.7])
    ours = detections([[20, 20, 40, 41], boxes[0], boxes[2]], [2, 1, 4], [0.75, 0.9, 0.7])
    found = gpu.compare(ours, reference)
    assert (found["detections"], found["reference"], found["matched"]) == (3, 3, 2)
    assert found["boxes"] == 1
    assert found["scores"] == pytest.approx(0.05)
    assert gpu.differs(found)
    assert not gpu.differs(gpu.compare(reference, reference))


def test_comparison_of_nothing():
    nothing = detections([], [])
    assert gpu.compare(nothing, nothing)["matched"] == 0
    assert gpu.differs(gpu.compare(detections([[0, 0, 9, 9]], [1]), nothing))


def test_comparison_of_tensors_is_relative():
    assert gpu.compare({"x": np.array([1.0, 50.5])}, {"x": np.array([1.0, 50.0])}) == {"x": 0.01}


def test_runs_on_the_cpu_without_the_project(onnx_artifact, tmp_path):
    shutil.copy(SCRIPT, tmp_path / "gpu.py")
    shutil.copy(onnx_artifact, tmp_path / "demo.onnx")
    # -P and an empty folder: neither the checkout nor an import from it can help.
    command = [sys.executable, "-P", "gpu.py", "demo.onnx", "--device=cpu", "--size=128", "--runs=2", "-o", "r.json"]
    done = subprocess.run([*command, "--batches", "1", "2"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["machine"]["device"] == "cpu"
    assert set(report["machine"]["versions"]) == {"python", "numpy", "onnxruntime"}
    assert {case["how"] for case in report["cases"]} == {"arrays", "bound", "NumPy run lengths"}
    assert {case["batch"] for case in report["cases"]} == {1, 2}
    assert all(0 < case["p50"] <= case["p90"] <= case["p99"] for case in report["cases"])
    free, fixed = (report["sessions"][f"demo, fp32{end}"] for end in ("", ", fixed"))
    assert free["parity"]["matched"] == free["parity"]["detections"] > 0
    assert fixed["parity"]["matched"] == fixed["parity"]["reference"] == free["parity"]["detections"]
    assert sum(fixed["nodes"].values()) < 0.7 * sum(free["nodes"].values())
    assert fixed["milliseconds"]["Conv"] > 0
    assert report["failed"] == {}
    assert not report["predictor"]
    assert "images/s" in done.stdout
    assert "maskrcnn" not in done.stderr


def test_a_step_that_fails_leaves_what_the_others_measured(onnx_artifact, tmp_path, monkeypatch, capsys):
    def fail(*_arguments):
        raise RuntimeError("Failed to allocate memory\nsecond line")

    monkeypatch.setattr(gpu, "look", fail)
    output = tmp_path / "r.json"
    arguments = ["--device=cpu", "--size=128", "--runs=1", "--batches", "1"]
    assert gpu.main([str(onnx_artifact), *arguments, "-o", str(output)]) == gpu.INCOMPLETE
    report = json.loads(output.read_text())
    assert set(report["failed"]) == {"demo, fp32: look", "demo, fp32, fixed: look"}
    assert all(
        reason.startswith("Failed to allocate memory (RuntimeError, line ") for reason in report["failed"].values()
    )
    assert {case["model"] for case in report["cases"]} == {"demo, fp32", "demo, fp32, fixed"}
    assert capsys.readouterr().err.count("\n") == 2


def test_no_step_begins_after_the_time_is_over(onnx_artifact, tmp_path):
    output = tmp_path / "r.json"
    arguments = ["--device=cpu", "--size=128", "--seconds=0", "-o", str(output)]
    assert gpu.main([str(onnx_artifact), *arguments]) == gpu.INCOMPLETE
    report = json.loads(output.read_text())
    assert report["cases"] == []
    assert set(report["failed"].values()) == {"there was no time for it"}


def test_what_a_user_of_the_predictor_gets(onnx_artifact):
    facts = gpu.time_predictor(onnx_artifact, gpu.Device("cpu"), {}, 1)
    assert facts["parity"]["matched"] == facts["parity"]["detections"] > 0
    assert facts["said"] == []
    assert [case["batch"] for case in facts["cases"]] == [1, 1, 4]
    assert facts["new_threads"]["p50"] > 0
    assert not any(name.startswith("copies") for name in facts["nodes"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.onnx", "--device=cpu"], gpu.BAD_INPUT, "missing.onnx cannot be read"),
        (["broken.npz", "--device=cpu"], gpu.BAD_INPUT, "broken.npz cannot be read"),
        (["broken.onnx", "--device=cpu"], gpu.BAD_INPUT, "opens no session"),
        (["broken.onnx", "--graph-attempt", "--device=cpu"], gpu.NO_DEVICE, "a CUDA graph needs a CUDA device"),
    ],
)
def test_failures_are_one_line_and_a_code(arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("broken.npz", "broken.onnx"):
        Path(name).write_bytes(b"no model")
    assert gpu.main([*arguments, "-o", "results.json"]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("results.json").exists()


def test_a_device_that_is_missing_is_an_error_and_not_the_cpu(onnx_artifact, capsys):
    ort = importlib.import_module("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    assert gpu.main([str(onnx_artifact), "--size=128"]) == gpu.NO_DEVICE
    assert "a build without CUDA" in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["--device=tpu", "--device=cuda:x", "--size=100", "--runs=0", "--option=tf32"])
def test_wrong_arguments(argument, capsys):
    with pytest.raises(SystemExit) as exit_:
        gpu.main(["x.onnx", argument])
    assert exit_.value.code == 2


@pytest.mark.gpu
def test_runs_on_cuda(onnx_artifact, tmp_path):
    output = tmp_path / "r.json"
    assert gpu.main([str(onnx_artifact), "--size=256", "--batches", "1", "--runs=2", "-o", str(output)]) == 0
    report = json.loads(output.read_text())
    assert set(report["sessions"]) == {f"demo, {mode}{end}" for mode in ("fp32", "TF32") for end in ("", ", fixed")}
    for facts in report["sessions"].values():
        assert facts["nodes"]["CUDAExecutionProvider"] > 100
