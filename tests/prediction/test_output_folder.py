"""The folder of a run: whose it may become, and when it is refused."""

import json
from dataclasses import replace

import pytest

from maskrcnn.prediction.output_folder import OutputFolder, open_output
from maskrcnn.prediction.settings import RunSettings, model_digest
from maskrcnn.prediction.sources import Source
from runtime.errors import OutputError

SETTINGS = RunSettings("0123", ("BG", "cat"), 0.5, 0.3)


def opened(folder, settings=SETTINGS, force=False):
    with open_output(folder, settings, force=force) as output:
        return output


def test_a_new_folder_notes_its_settings(tmp_path):
    opened(tmp_path / "a" / "b")
    stored = json.loads((tmp_path / "a" / "b" / "run.json").read_text(encoding="utf-8"))
    assert stored == SETTINGS.to_dict()
    assert SETTINGS.differences(stored) == []
    opened(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_threshold": 0.7}, r"score_threshold is 0\.5 there and 0\.7 here"),
        ({"nms_threshold": 0.4}, "nms_threshold"),
        ({"model": "f" * 64}, 'model is "0123" there and "f+'),
        ({"classes": ("cat",)}, r'classes is null there and \["cat"\] here'),
        ({"every": 2}, "every is 1 there and 2 here"),
        ({"class_names": ("BG", "dog")}, "class_names"),
        ({"version": 2}, "version"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, changes, message):
    other = replace(SETTINGS, **changes)
    assert other.digest != SETTINGS.digest
    opened(tmp_path / "out")
    with pytest.raises(OutputError, match=message) as caught:
        opened(tmp_path / "out", other)
    assert "--force" in str(caught.value)
    assert "\n" not in str(caught.value)
    opened(tmp_path / "out", other, force=True)
    opened(tmp_path / "out", other)


@pytest.mark.parametrize("content", [None, "{}", "no JSON", "[]", "\udcff"])
def test_folders_of_others_are_left_alone(tmp_path, content):
    (tmp_path / "mine.txt").write_text("x")
    if content is not None:
        (tmp_path / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    before = sorted(path.name for path in tmp_path.iterdir())
    for force in (False, True):
        with pytest.raises(OutputError, match="other things"):
            opened(tmp_path, force=force)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_run_that_was_killed_at_once_is_no_other_thing(tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".run.json.99999999.partial").write_text("{")
    opened(tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path):
    with open_output(tmp_path / "out", SETTINGS, force=False), pytest.raises(OutputError, match="in use"):
        opened(tmp_path / "out")
    opened(tmp_path / "out")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        opened(tmp_path / "out")


def test_forgetting_takes_the_document_first(tmp_path, monkeypatch):
    folder, source = OutputFolder(tmp_path), Source(tmp_path / "a.png", "sub/a.png")
    paths = [folder.document(source), folder.view("overlay", source), folder.view("splash", source)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    order = []
    monkeypatch.setattr(type(tmp_path), "unlink", lambda path, missing_ok=False: order.append(path))
    folder.forget(source)
    assert order == paths


def test_digest_of_a_model(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_text("1")
    (tmp_path / "m" / "b").write_text("2")
    first = model_digest(tmp_path / "m")
    (tmp_path / "m" / "b").rename(tmp_path / "m" / "c")
    assert model_digest(tmp_path / "m") != first
    (tmp_path / "m" / "c").rename(tmp_path / "m" / "b")
    assert model_digest(tmp_path / "m") == first
    assert model_digest(tmp_path / "m" / "a") != model_digest(tmp_path / "m" / "b")
    assert model_digest(tmp_path / "m" / "a", "{}") != model_digest(tmp_path / "m" / "a")
    model_digest(tmp_path / "nowhere")
