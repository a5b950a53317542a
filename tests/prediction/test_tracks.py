"""`predict --track`: ids in all results, and the same ones after an interruption."""

import csv
import json
import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from maskrcnn.errors import ArgumentError
from maskrcnn.prediction import videos
from maskrcnn.prediction.predict import PredictOptions, predict_paths
from maskrcnn.prediction.video_file import read_frames, write_video
from maskrcnn.prediction.views import draw_view
from runtime.errors import MissingPackageError
from runtime.masks.rle import encode_crop
from runtime.output.draw import instance_color

pytest.importorskip("trackers", reason="needs the extra [track]")

FRAMES, SIZE = 24, (64, 96)


def found_in(number):
    """Two cats that walk to the right, above one another, and a dog for one frame: class id, score and box."""
    rows = [(1, 0.9, (number, 4, number + 20, 24)), (1, 0.8, (2 * number, 34, 2 * number + 18, 52))]
    if 8 <= number < 12:  # hidden
        rows = rows[1:]
    return [*rows, (2, 0.95, (60, 2, 90, 20))] if number == 15 else rows


class Walkers:
    """Finds what `found_in` says; the number of a frame is the number of white columns in its first rows."""

    class_names = ("BG", "cat", "dog")
    score_threshold, nms_threshold = 0.5, 0.3

    def __init__(self, fake):
        self.prepare, self.finish, self.frames = fake.prepare, fake.finish, []
        fake.class_names = self.class_names

    def run(self, images, windows):
        kept = {"boxes": (4, np.float32), "scores": ((), np.float32), "class_ids": ((), np.int32)}
        outputs = {
            name: np.zeros((len(images), 3, *np.atleast_1d(of)), kind) for name, (of, kind) in kept.items() if of
        }
        outputs |= {"scores": np.zeros((len(images), 3), np.float32), "class_ids": np.zeros((len(images), 3), np.int32)}
        outputs |= {"num_detections": np.zeros(len(images), np.int32)}
        outputs |= {"masks": np.ones((len(images), 3, 28, 28), np.float32)}
        for place, (image, window) in enumerate(zip(images, windows, strict=True)):
            y, x = window[:2].astype(int)
            number = round(np.count_nonzero(image[y + 60, x:, 0] > 170) / 4) - 1
            self.frames.append(number)
            rows = found_in(number)
            outputs["num_detections"][place] = len(rows)
            for row, (class_id, score, box) in enumerate(rows):
                outputs["boxes"][place, row] = np.array([x, y, x, y]) + box
                outputs["scores"][place, row], outputs["class_ids"][place, row] = score, class_id
        return outputs


@pytest.fixture
def walkers(fake):
    return Walkers(fake)


def frame_of(number):
    pixels = np.full((*SIZE, 3), 60, np.uint8)
    pixels[56:, : 4 * number + 4] = 255
    return Image.fromarray(pixels)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "in" / "clip.mp4"
    path.parent.mkdir()
    write_video(path, map(frame_of, range(FRAMES)), Fraction(24))
    return path


@pytest.fixture
def run(walkers, tmp_path):
    def predict(*paths, out="out", progress=lambda *_: None, **options):
        texts = [str(path) for path in paths]
        chosen = PredictOptions(track=True, **options)
        return predict_paths(texts, tmp_path / out, lambda: (walkers, "m"), chosen, progress)

    return predict


def ids_in(folder, name="clip.mp4"):
    lines = (folder / "detections" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [[row["track_id"] for row in json.loads(line)["detections"]] for line in lines[1:-1]]


EXPECTED = [[None, None]] + [[1, 2]] * 7 + [[2]] * 4 + [[1, 2]] * 3 + [[1, 2, None]] + [[1, 2]] * 8


def test_ids_are_in_all_results(clip, run, tmp_path):
    result = run(clip)
    assert (result.made, result.failures, result.totals.frames) == (FRAMES, [], FRAMES)
    assert ids_in(tmp_path / "out") == EXPECTED
    flat = [each for ids in EXPECTED for each in ids]
    content = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [row["track_id"] for row in content["annotations"]] == flat
    assert content["info"]["settings"]["track"] is True
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as file:
        assert [row["track_id"] for row in csv.DictReader(file)] == ["" if each is None else str(each) for each in flat]


def test_ids_begin_again_in_each_video(clip, run, tmp_path):
    other = clip.with_name("other.mp4")
    other.write_bytes(clip.read_bytes())
    run(clip.parent)
    assert ids_in(tmp_path / "out") == ids_in(tmp_path / "out", "other.mp4") == EXPECTED


@pytest.mark.parametrize("kept", [1, 2, 9, 12, FRAMES])
def test_an_interrupted_video_gets_the_same_ids(clip, run, walkers, tmp_path, kept):
    """Also while an object is hidden, and after the last frame."""
    run(clip)
    path = tmp_path / "out" / "detections" / "clip.mp4.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[: kept + 1]) + b'{"half')
    walkers.frames.clear()
    assert run(clip).made == FRAMES - kept
    assert walkers.frames == list(range(kept, FRAMES))
    assert path.read_bytes() == whole


def test_another_version_of_the_tracker_begins_the_video_again(clip, run, tmp_path, monkeypatch):
    run(clip)
    assert run(clip).made == 0
    monkeypatch.setattr(videos, "version", lambda _: "2.9")
    assert run(clip).made == FRAMES
    assert ids_in(tmp_path / "out") == EXPECTED


def test_the_tracker_gets_the_rate_of_the_frames_that_it_sees(clip, run, monkeypatch):
    rates, real = [], videos.Tracker
    monkeypatch.setattr(videos, "Tracker", lambda rate: rates.append(rate) or real(rate))
    run(clip, every=3)
    run(clip, out="all")
    assert rates == [8, 24]


def test_results_without_ids_are_results_of_other_settings(clip, run, walkers, tmp_path):
    predict_paths([str(clip)], tmp_path / "out", lambda: (walkers, "m"), PredictOptions(), lambda *_: None)
    content = (tmp_path / "out" / "results.json").read_text(encoding="utf-8")
    assert "track_id" not in content + (tmp_path / "out" / "results.csv").read_text(encoding="utf-8")
    with pytest.raises(OSError, match="track was null and is now true"):
        run(clip)
    run(clip, force=True)
    assert ids_in(tmp_path / "out") == EXPECTED


def test_images_are_refused_before_the_model_is_opened(clip, save, tmp_path):
    save(clip.parent / "photo.png")
    with pytest.raises(ArgumentError, match=r"'photo.png' is an image, and --track .*: name only videos"):
        predict_paths([str(clip.parent)], tmp_path / "out", pytest.fail, PredictOptions(track=True), lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named_before_the_model_is_opened(clip, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(MissingPackageError, match=r"tracking needs .* pip install 'maskrcnn-export\[track\]'"):
        predict_paths([str(clip)], tmp_path / "out", pytest.fail, PredictOptions(track=True), lambda *_: None)


def row_of(track_id, box, class_id=1):
    x1, y1, x2, y2 = box
    mask = encode_crop(np.ones((y2 - y1, x2 - x1), np.bool_), (y1, x1), SIZE)
    name = ("BG", "cat", "dog")[class_id]
    return {"class_id": class_id, "name": name, "score": 0.9, "box": list(box), "mask": mask, "track_id": track_id}


def test_an_id_has_one_color_and_stands_in_the_label(monkeypatch):
    drawn = []
    monkeypatch.setattr("maskrcnn.prediction.views.draw_objects", lambda _, objects: drawn.append(objects))
    pixels = np.zeros((*SIZE, 3), np.uint8)
    box = (2, 2, 12, 12)
    draw_view("overlay", pixels, [row_of(7, box), row_of(None, box), row_of(3, box, 2)], by_class=True)
    draw_view("overlay", pixels, [row_of(3, box, 2), row_of(7, box)], by_class=True)
    (first, second) = drawn
    assert [each.name for each in first] == ["#7 cat", "cat", "#3 dog"]
    assert [each.color for each in first] == [instance_color(6), (160, 160, 160), instance_color(2)]
    assert [(each.name, each.color) for each in second] == [("#3 dog", first[2].color), ("#7 cat", first[0].color)]


def test_the_overlay_shows_the_ids(clip, run, tmp_path):
    run(clip, views=("overlay",))
    shown = [frame.pixels for frame in read_frames(tmp_path / "out" / "overlay" / "clip.mp4")]
    assert len(shown) == FRAMES
    for number in (4, 18):  # inside the first cat, away from lines and labels
        tint = 0.55 * 60 + 0.45 * np.array(instance_color(0))
        assert np.abs(shown[number][17:21, number + 6 : number + 12].mean(axis=(0, 1)) - tint).max() < 30
