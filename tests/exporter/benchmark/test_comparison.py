"""`maskrcnn-export benchmark --all`: what is compared, what is recommended, and that the line it prints runs."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from export.arguments import split_paths
from export.benchmark import artifact, comparison as table, configurations as ways
from export.benchmark.comparison import Comparison, Row, are_equal, compare, ranked, timed_pictures
from export.benchmark.configurations import WAYS, Configuration, Way, configurations, read_artifacts
from export.benchmark.files import write_files
from export.benchmark.worker import Worker
from export.cli import app
from export.console import comparison
from export.errors import ConversionError
from export.verify.pictures import pictures_of_folder
from maskrcnn.demo import demo_dataset
from maskrcnn.inspection.charts import Point, trade_off_chart
from runtime.artifact_files.read import read_metadata
from runtime.errors import ArtifactError, ArtifactVerdictError, DeviceError, EngineError, ImageError, InputError

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "maskrcnn" / "demo.onnx"
CPU, CUDA = WAYS[0], WAYS[1]


def call(*arguments):
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


def row(rounds, score, precision="fp32", reason=""):
    known = ("a.onnx", "engine", "cpu", precision, 1, {}, 1.0, True, "", {})
    return Row(*known, rounds, average_precision=score, reason=reason)


@pytest.fixture
def two_ways(monkeypatch):
    """Two threads and one on the CPU, and a device that is absent."""
    absent = replace(CUDA, device="cuda:7")
    monkeypatch.setattr(ways, "WAYS", (CPU, absent, replace(absent, options={"cuda_graph": True})))
    monkeypatch.setattr(ways, "usable_cores", lambda: 2)


def test_the_whole_table(two_ways, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT / "maskrcnn")
    ballast = np.ones(100_000_000)  # 800 MB of this process are not the engine's
    found = compare(["demo.onnx"], [], demo_dataset(), runs=2)
    *ran, absent = found.rows  # the second way of an absent device is not tried
    assert {each.threads for each in ran} == {1, 2}
    for each in ran:
        assert list(each.milliseconds) == ["pre", "model", "post", "total"]
        assert each.milliseconds["total"] == pytest.approx(np.median(each.rounds))
        assert each.images_per_second == pytest.approx(1000 / each.milliseconds["total"])
        assert len(each.rounds) == 2
        assert 30 < each.memory < ballast.nbytes / 1e6
        assert (each.drop, each.precision, each.megabytes) == (0, "fp32", DEMO.stat().st_size / 1e6)
        assert each.average_precision > 0.8
    assert "CUDA" in absent.reason
    assert (absent.rounds, absent.memory, absent.average_precision) == ([], None, None)
    assert (found.against, found.images, found.objects, found.timed) == ("annotations", 1, 7, 1)

    done = subprocess.run(
        [sys.executable, "-c", f"{found.rows[found.best].python}; print(predictor('demo.jpg'), predictor.device)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("7 detections")
    paths = write_files(found, tmp_path, overwrite=False)
    assert [path.name for path in paths] == ["benchmark.json", "benchmark.svg"]
    assert json.loads(paths[0].read_text())["rows"][2]["reason"] == absent.reason
    assert "<svg" in paths[1].read_text()
    assert "<svg" in write_files(replace(found, against=""), tmp_path, overwrite=True)[1].read_text()


def test_as_it_is_typed(two_ways, tmp_path):
    result = call("demo", ROOT / "maskrcnn" / "demo.jpg", "--all", "--runs", 1, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    for words in (
        "against float32 detections: 7 objects in 1 image",
        "1.0000",
        "not run: ",
        "import EngineOptions",
    ):
        assert words in result.output
    again = call("demo", "--all", "-o", tmp_path)
    assert again.exit_code == 6
    assert "opening" not in again.output


def test_nothing_runs(monkeypatch):
    monkeypatch.setattr(ways, "WAYS", (replace(CUDA, device="cuda:7"),))
    result = call("demo", "--all")
    assert result.exit_code == 3
    assert "no configuration runs on this machine: demo.onnx in ONNX Runtime on cuda:7" in result.output


def test_a_process_that_ends_is_an_error_and_an_image_is_not_the_engines(picture):
    with contextlib.closing(Worker(Configuration(DEMO, "fp32", CPU, 1), ("BG",))) as worker:
        worker.open()
        with pytest.raises(ImageError, match="nowhere"):
            worker.time(["nowhere.png"])
    with contextlib.closing(Worker(Configuration(DEMO, "fp32", CPU, 1), ("BG",))) as worker:
        worker.open()
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="ended with -9"):
            worker(picture)


def test_a_dead_process_breaks_the_pipe_on_windows_when_it_is_polled():
    class Broken:
        def poll(self, seconds):
            assert seconds > 0
            raise BrokenPipeError(109, "The pipe has been ended")

        def close(self):
            pass

    with contextlib.closing(Worker(Configuration(DEMO, "fp32", CPU, 1), ("BG",))) as worker:
        worker._process.kill()
        worker._connection.close()
        worker._connection = Broken()
        with pytest.raises(EngineError, match="its process ended with -9"):
            worker.open()


class Fake:
    """Stands for `Worker`: named tasks fail for artifacts of some names."""

    failing, made = {}, []

    def __init__(self, configuration, class_names):
        self.name, self.class_names, self.closed = configuration.artifact.name, class_names, 0
        self.made.append(self)

    def close(self):
        self.closed += 1

    def _answer(self, task, answer):
        assert not self.closed
        if self.name in self.failing.get(task, ()):
            raise EngineError(f"{self.name} cannot {task}")
        return answer

    def open(self):
        self._answer("open", None)

    def time(self, images):
        return self._answer("time", [dict.fromkeys(("pre", "model", "post", "total"), 5.0)] * len(images))

    def memory(self):
        return self._answer("memory", 100.0)


@pytest.fixture
def faked(monkeypatch):
    """Function that compares a.onnx and b.onnx, of which the workers and the scores are made up."""
    fp32 = read_metadata(DEMO)

    def run(truth=None, **failing):
        monkeypatch.setattr(Fake, "failing", failing)
        monkeypatch.setattr(Fake, "made", [])
        return compare([Path("a.onnx"), Path("b.onnx")], [ROOT / "maskrcnn" / "demo.jpg"], truth, runs=1)

    monkeypatch.setattr(ways, "WAYS", (CPU,))
    monkeypatch.setattr(ways, "usable_cores", lambda: 1)
    monkeypatch.setattr(table, "read_artifacts", lambda paths: dict.fromkeys(paths, fp32))
    monkeypatch.setattr(table, "Worker", Fake)
    monkeypatch.setattr(table, "_megabytes", lambda path: 1.0)
    monkeypatch.setattr(table, "score_masks", lambda worker, _: worker._answer("score", {"AP": 0.5}))
    monkeypatch.setattr(table, "require_evidence", lambda *_: None)
    monkeypatch.setattr(table, "_objects", lambda score: 7)
    monkeypatch.setattr(table, "detected_dataset", lambda worker, *_: worker._answer("detect", demo_dataset()))
    return run


def test_a_failure_of_every_score_is_an_error_with_the_reasons(faked):
    with pytest.raises(DeviceError, match=r"no configuration runs .*a.onnx cannot score; .*b.onnx cannot score"):
        faked(demo_dataset(), score=["a.onnx", "b.onnx"])


def test_another_float32_artifact_stands_for_one_that_fails(faked):
    found = faked(detect=["a.onnx"])
    assert [(row.artifact, row.reason) for row in found.rows] == [("b.onnx", ""), ("a.onnx", "a.onnx cannot detect")]
    assert (found.against, found.images) == ("float32 detections", 1)


@pytest.mark.parametrize("task", ["open", "time", "memory", "detect", "score"])
def test_a_worker_that_fails_is_ended_at_once_and_keeps_its_reason(faked, task):
    found = faked(**{"score": ["a.onnx"], task: ["a.onnx"]})
    assert [each.closed for each in Fake.made] == [2, 1]
    assert found.rows[-1].reason == f"a.onnx cannot {task}"


def test_a_worker_can_be_closed_twice():
    worker = Worker(Configuration(DEMO, "fp32", CPU, 1), ("BG",))
    for _ in range(2):
        worker.close()
    assert not worker._process.is_alive()


def test_a_chart_where_no_accuracy_is_known(tmp_path):
    rows = [replace(row([5.0], None), milliseconds={"total": 5.0})]
    found = Comparison(rows, 0, [], 0.005, "annotations", 1, 0, 1, 1, {})
    assert "<svg" in write_files(found, tmp_path, overwrite=False)[1].read_text()
    assert trade_off_chart({}, Point(5.0, 0.0, ""), 0.0, ("x", "y"), "title").axes


@pytest.mark.parametrize("arguments", [("--all", "-o"), ("--chart",)], ids=str)
def test_a_missing_matplotlib_is_noticed_before_anything_is_measured(arguments, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(artifact, "benchmark", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr(table, "compare", lambda *_, **__: pytest.fail("measured"))
    for module in ("maskrcnn.inspection.charts", "export.benchmark.files"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    result = call("demo", *arguments, tmp_path / "a.png")
    assert result.exit_code == 3, result.output
    assert "pip install 'maskrcnn-export[inspect]'" in result.output


def test_the_best_is_the_fastest_within_the_allowed_drop():
    rows, best, equal = ranked(
        [row([20] * 9, 0.89), row([], None, reason="absent"), row([5] * 9, 0.80, "int8"), row([9] * 9, 0.887, "bf16")],
        0.005,
    )
    assert [each.rounds[:1] for each in rows] == [[5], [9], [20], []]
    assert (best, equal) == (1, [])
    assert [None if each.drop is None else round(each.drop, 3) for each in rows] == [0.09, 0.003, 0, None]
    assert ranked(rows, 0.1)[1] == 0
    assert ranked(rows, 0.0)[1] == 2


def test_without_float32_the_highest_is_the_reference_and_without_accuracy_the_fastest_wins():
    rows = [row([5] * 9, 0.80, "int8"), row([9] * 9, 0.88, "fp16")]
    assert ranked(rows, 0.01)[1] == 1
    assert ranked([replace(each, average_precision=None) for each in rows], 0.01)[1] == 0


def test_load_that_hits_a_whole_round_changes_nothing():
    """The slower one was lucky with its rounds: its plain median is lower."""
    load = np.array([1, 1, 1, 1, 9, 9, 9, 9, 9])
    fast, slow = load * 10.0, load * 11.0
    fast[0], slow[4:6] = 95, 60
    assert np.median(slow) < np.median(fast)
    rows, best, _ = ranked([row(slow.tolist(), 0.5), row(fast.tolist(), 0.5)], 0)
    assert rows[best].rounds == fast.tolist()


@pytest.mark.parametrize(
    ("ratios", "equal"),
    [
        ([1.3] * 9, False),
        ([1.01] * 9, True),
        ([1.3] * 8 + [0.8], False),
        ([1.3] * 5 + [0.9] * 4, True),
        ([1.3] * 4, True),  # too few to tell
        ([0.7] * 9, False),
    ],
)
def test_what_is_noise(ratios, equal):
    assert are_equal(np.full(len(ratios), 10.0), 10 * np.array(ratios)) == equal


def test_every_way_and_number_of_threads(monkeypatch):
    monkeypatch.setattr(ways, "usable_cores", lambda: 6)
    fp32 = read_metadata(DEMO)
    found = configurations({Path("a.onnx"): fp32, Path("b"): replace(fp32, format="savedmodel")})
    counts = {(group[0].artifact.name, group[0].way.device): [each.threads for each in group] for group in found}
    assert counts["a.onnx", "cpu"] == counts["b", "cpu"] == [6, 3, 1]
    assert counts["a.onnx", "cuda"] == counts["b", "cuda"] == [None]
    assert {way.format for way in WAYS} == {"onnx", "savedmodel"}


def test_a_precision_of_the_engine_is_for_float32_artifacts(monkeypatch):
    monkeypatch.setattr(ways, "WAYS", (Way("engine", "onnx", "cpu", {"tf32": True}, "low"),))
    fp32 = read_metadata(DEMO)
    groups = configurations({Path("a.onnx"): fp32, Path("b.onnx"): replace(fp32, precision="int8")})
    assert {str(each.artifact) for group in groups for each in group} == {"a.onnx"}
    assert (groups[0][0].precision, groups[0][0].judged) == ("low", False)
    assert "'cpu', require_verdict=False, engine=EngineOptions(tf32=True, threads=" in groups[0][0].python
    monkeypatch.setattr(ways, "judgement_flaw", lambda path, precision: "" if precision == "low" else "not judged")
    assert "require_verdict" not in configurations({Path("a.onnx"): fp32})[0][0].python


def test_the_command_that_judges_the_best_is_named(capsys):
    best = replace(row([1.0], 0.5, "bf16"), judged=False, device="openvino", milliseconds={"total": 1.0})
    best = replace(best, images_per_second=1.0)
    found = Comparison([best], 0, [], 0.005, "annotations", 1, 1, 1, 1, {})
    comparison(found)
    assert "verify a.onnx --device openvino --precision bf16 --truth" in capsys.readouterr().out
    comparison(replace(found, rows=[replace(best, artifact="my models/$a's.onnx")]))
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("after '").partition(" --device")[0]
    assert shlex.split(command) == ["maskrcnn", "verify", "my models/$a's.onnx"]
    comparison(replace(found, rows=[replace(best, judged=True)]))
    assert "verify" not in capsys.readouterr().out


@pytest.mark.parametrize("average_precision", [0.0, None])
def test_nothing_is_recommended_where_float32_finds_nothing(monkeypatch, average_precision):
    entry = table._Entry(Configuration(DEMO, "fp32", CPU, 1), object())
    monkeypatch.setattr(table, "_opened", lambda *_: iter([[entry]]))
    monkeypatch.setattr(table, "_take_turns", lambda *_: None)
    monkeypatch.setattr(table, "_score", lambda *_: {"AP": average_precision})
    with pytest.raises(ConversionError, match="finds none of the objects"):
        compare([DEMO], [], demo_dataset(), max_drop=1)


def test_an_artifact_without_a_verdict_is_refused(monkeypatch):
    monkeypatch.setattr(ways, "read_metadata", lambda path: replace(read_metadata(DEMO), verdict={}))
    with pytest.raises(ArtifactVerdictError, match="not proven"):
        read_artifacts([DEMO])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": {"name": "demo model", "sha256": "0"}}, "b.onnx comes from another checkpoint"),
        ({"checkpoint": {"name": "other"}}, "b.onnx comes from another checkpoint"),
        ({"class_names": ("BG", "a", "b", "c")}, "b.onnx has other class names"),
    ],
)
def test_artifacts_of_different_models_are_refused(change, message, monkeypatch):
    fp32 = read_metadata(DEMO)
    others = {
        "settings.onnx": replace(fp32, config={}, max_detections=7, precision="int8"),
        "unnumbered.onnx": replace(fp32, checkpoint={"name": "demo model"}),
        "b.onnx": replace(fp32, **change),
    }
    monkeypatch.setattr(ways, "read_metadata", lambda path: others.get(path.name, fp32))
    monkeypatch.setattr(ways, "require_proven", lambda *_: None)
    sound = [Path("a.onnx"), Path("settings.onnx"), Path("unnumbered.onnx")]
    assert list(read_artifacts(sound)) == sound
    with pytest.raises(ArtifactError, match=message):
        read_artifacts([*sound, Path("b.onnx")])
    with pytest.raises(ArtifactError, match="given twice"):
        read_artifacts([Path("a.onnx")] * 2)


def test_arguments_are_artifacts_and_then_an_image(tmp_path):
    for name in ("ours/assets/artifact.json", "foreign/saved_model.pb", "pictures/a.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    onnx, ours, foreign, pictures = tmp_path / "a.onnx", *(tmp_path / n for n in ("ours", "foreign", "pictures"))
    assert split_paths([Path("demo")]) == ([DEMO], None)
    assert split_paths([onnx, ours]) == ([onnx, ours], None)
    assert split_paths([ours, foreign]) == ([ours, foreign], None)
    assert split_paths([onnx, ours, pictures]) == ([onnx, ours], pictures)
    assert split_paths([onnx, Path("a.jpg")]) == ([onnx], Path("a.jpg"))
    long = Path("a" * 300)
    assert split_paths([onnx, long]) == ([onnx], long)
    assert timed_pictures(long, None) == [long]
    for arguments in ((long,), (long, "--all")):
        result = call(*arguments)
        assert result.exit_code == 4, result.exception
        assert "File name too long" in result.output
    with pytest.raises(ImageError, match="is not a folder"):
        pictures_of_folder(long)
    assert timed_pictures(pictures, None) == [pictures / "a.png"]
    assert timed_pictures(None, demo_dataset()) == []
    assert timed_pictures(None, None) == [ROOT / "maskrcnn" / "demo.jpg"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("a.onnx", "b.onnx"),
        ("demo", "--truth", "data.json"),
        ("demo", "--max-drop", 0.1),
        ("demo", "--limit", 5),
        ("demo", "--all", "--device", "cpu"),
        ("demo", "--all", "--batch", 2),
        ("demo", "--all", "--chart", "a.png"),
    ],
)
def test_options_that_do_not_go_together(arguments):
    result = call(*arguments)
    assert result.exit_code == 2
    assert "--all" in result.output


def test_numbers_out_of_range():
    for wrong in ({"runs": 0}, {"limit": 0}):
        with pytest.raises(InputError, match="at least 1"):
            compare([DEMO], [], demo_dataset(), **wrong)
    for wrong in (-0.001, 1.5, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"max_drop is {wrong}: expected a number from 0 to 1"):
            compare([DEMO], [], demo_dataset(), max_drop=wrong)
    with pytest.raises(InputError, match="nothing to time"):
        compare([DEMO], [])
