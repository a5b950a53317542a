"""What the commands print: the text of artifacts and datasets, without control characters."""

from types import SimpleNamespace

import pytest

from export import console
from export.console import findings
from export.doctor.finding import DoctorFinding
from maskrcnn.commands.console import evaluation, progress, written
from maskrcnn.data.records import Dataset
from runtime.artifact import Metadata
from runtime.errors import ArtifactCorruptError
from runtime.pictures.letterbox import ResizePolicy

HOSTILE = "\x1b[2Jgone\x07\nok: passed\u202e"
GATE = {
    "precision": "int8",
    "measure": "AP",
    "reference": 0.5,
    "found": 0.49,
    "allowed": 0.05,
    "against": "truth",
    "objects": 9,
    "pictures": 2,
    "classes": {"apple": [0.5, 0.49]},
    "left_in_float": ["conv1"],
}


def metadata(text="sound", **changes):
    values = {
        "format": "onnx",
        "name": text,
        "class_names": ("BG", text),
        "image_channels": 3,
        "resize": ResizePolicy("pad64", 128, None, 1.5),
        "mask_paste": "aligned",
        "max_detections": 7,
        "mask_size": 28,
        "score_threshold": 0.25,
        "nms_threshold": 0.5,
        "engine_minimum": {text: text},
        "producer": {text: text},
        "checkpoint": {text: text},
        "verdict": {"passed": True, "engine": text, "reference": text, "precision": GATE},
    }
    return Metadata(**values | changes)


def evaluated(text):
    scores = SimpleNamespace(numbers={"AP": 0.5}, classes={text: {"objects": 3, "AP": 0.5, "AP50": None}})
    dataset = Dataset(text, ("BG", text), ())
    return SimpleNamespace(
        dataset=dataset,
        results=[],
        score_threshold=0.05,
        segm=scores,
        bbox=scores,
        speed=SimpleNamespace(median={"total": 1.0}),
    )


def test_all_is_shown(tmp_path, capsys):
    console.metadata(tmp_path / "a.onnx", metadata(), "")
    shown = capsys.readouterr().out
    for part in ("model 'sound'", "classes     2: BG, sound", "AP 0.5000 -> 0.4900, allowed drop 0.05", "conv1"):
        assert part in shown


def test_nothing_is_obeyed(tmp_path, capsys):
    console.metadata(tmp_path / f"a{HOSTILE}.onnx", metadata(HOSTILE), HOSTILE)
    evaluation(evaluated(HOSTILE))
    findings([DoctorFinding("advice", HOSTILE, HOSTILE, HOSTILE)])
    progress(HOSTILE)
    written(tmp_path / HOSTILE)
    shown = capsys.readouterr()
    for lines in (shown.out.splitlines(), shown.err.splitlines()):
        assert all(line.isprintable() for line in lines)
        assert not any(line.startswith("ok") for line in lines)
    assert "\\x1b[2Jgone" in shown.out


@pytest.mark.parametrize(
    "gate",
    [
        {"precision": "int8"},
        ["int8"],
        "int8",
        GATE | {"reference": "much"},
        GATE | {"classes": 3},
        GATE | {"classes": {"a": [0.1]}},
        GATE | {"left_in_float": [1]},
    ],
    ids=str,
)
def test_a_made_up_verdict_is_refused(tmp_path, gate):
    with pytest.raises(ArtifactCorruptError, match=r"verdict in .* cannot be read: export"):
        console.metadata(tmp_path / "a.onnx", metadata(verdict={"precision": gate}), "")


def test_verdicts_that_are_no_pairs_are_shown_as_they_are(tmp_path, capsys):
    made_up = {"passed": [], "engine": [HOSTILE], "reference": {}}
    console.metadata(tmp_path / "a.onnx", metadata(verdict=made_up), "it failed")
    shown = capsys.readouterr().out
    assert "FAILED: " in shown
    assert "proven      no: it failed" in shown
