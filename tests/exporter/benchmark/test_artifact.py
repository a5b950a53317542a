"""`maskrcnn-export benchmark`: what is timed, not how long it took."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from export.benchmark import artifact as module
from export.benchmark.artifact import benchmark
from export.cli import app
from export.console import benchmark as print_table
from maskrcnn.evaluation.speed import STEPS
from runtime.errors import InputError


def call(*arguments):
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


@pytest.fixture(scope="module")
def measured(onnx_artifact, picture):
    return benchmark(onnx_artifact, picture, device="cpu", batches=(1, 2), runs=3)


def test_every_case_has_its_times(measured):
    counts = sorted({timing.detections for timing in measured.timings})
    assert counts[0] == 0
    assert 0 < counts[1] <= 10
    cases = {(timing.batch, timing.detections) for timing in measured.timings}
    assert cases == {(batch, count) for batch in (1, 2) for count in counts}
    for timing in measured.timings:
        assert timing.runs == 3
        assert tuple(timing.milliseconds) == STEPS
        for values in timing.milliseconds.values():
            assert 0 < values["p50"] <= values["p90"] <= values["p99"]
        total = timing.milliseconds["total"]["p50"]
        assert timing.images_per_second == pytest.approx(1000 * timing.batch / total)


def test_operators_and_machine(measured):
    times = list(measured.operators.values())
    assert times == sorted(times, reverse=True)
    assert {"Conv", "RoiAlign", "NonMaxSuppression"} <= set(measured.operators)
    assert measured.peak_memory > 50
    assert {"onnxruntime", "cores", "date"} <= set(measured.machine)
    assert measured.image == {"image": [360, 480], "input": [256, 256]}
    json.dumps(measured.to_dict(), allow_nan=False)


def test_memory_where_it_is_not_counted(measured, monkeypatch, capsys):
    monkeypatch.setattr(module.re, "search", lambda *_: None)
    assert module.peak_memory() > 50
    monkeypatch.setitem(sys.modules, "resource", None)
    assert module.peak_memory() is None
    print_table(replace(measured, peak_memory=None))
    assert "peak memory unknown" in capsys.readouterr().out


def test_percentiles_are_those_of_the_samples():
    rows = np.array([[1.0, 10.0, 0.1, 11.1], [3.0, 30.0, 0.3, 33.3], [2.0, 20.0, 0.2, 22.2]])
    timing = module._timing(4, 7, rows)
    assert timing.milliseconds["model"] == pytest.approx({"p50": 20, "p90": 28, "p99": 29.8})
    assert timing.images_per_second == pytest.approx(4 / 0.0222)


def test_as_it_is_typed(savedmodel_artifact, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "picture.png")
    files = ["-o", tmp_path / "figures.json", "--chart", tmp_path / "chart.png"]
    result = call(savedmodel_artifact, tmp_path / "picture.png", "--device", "cpu", "--runs", 2, *files)
    assert result.exit_code == 0, result.output
    for word in ("p50", "images/s", "total", "peak memory", "tensorflow"):
        assert word in result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["device"] == "cpu"
    assert figures["timings"][0]["runs"] == 2
    with Image.open(tmp_path / "chart.png") as image:
        assert image.width > 400
    again = call(savedmodel_artifact, "--runs", 1, "-o", tmp_path / "figures.json")
    assert again.exit_code == 6  # refused before anything is timed
    assert "round" not in again.output


def test_wrong_numbers_are_refused(onnx_artifact, picture):
    with pytest.raises(InputError, match="at least 1"):
        benchmark(onnx_artifact, picture, runs=0)
    with pytest.raises(InputError, match="at least 1"):
        benchmark(onnx_artifact, picture, batches=[0])
    assert call("nowhere.onnx").exit_code == 4
