"""Whole runs with a predictor that counts: what is predicted, what is not predicted again, and what stands where."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from maskrcnn.errors import ArgumentError, ConfigError
from maskrcnn.prediction.predict import PredictOptions, predict_paths
from runtime.errors import ImageError, OutputError
from runtime.output.draw import instance_color
from runtime.pictures.letterbox import ResizePolicy
from runtime.pictures.read import read_image
from runtime.steps import letterbox_picture

CAT, DOG, REFUSED = (50, 128, 0), (100, 0, 0), (0, 0, 255)


@pytest.fixture
def pictures(tmp_path, save):
    for n in range(6):
        save(tmp_path / "in" / f"{n}.png", CAT if n % 2 else DOG, (20 + 50 * (n % 2), 30))
    return tmp_path / "in"


@pytest.fixture
def run(fake, tmp_path):
    """Predict into `out` with the fake, whose model is called `model`."""

    def predict(paths, progress=lambda *_: None, model="m", out=tmp_path / "out", **options):
        texts = [str(path) for path in (paths if isinstance(paths, list) else [paths])]
        return predict_paths(texts, out, lambda: (fake, model), PredictOptions(**options), progress)

    return predict


def documents(folder):
    """Document by name: inode and time of its writing, which a document that is written again does not keep."""
    found = {}
    for path in sorted((folder / "out" / "detections").rglob("*.json*")):
        found[path.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def results(folder):
    content = json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in content["images"]}
    classes = {each["id"]: each["name"] for each in content["categories"]}
    return sorted((names[row["image_id"]], classes[row["category_id"]]) for row in content["annotations"])


def test_a_run_and_a_second_one(pictures, run, fake, tmp_path):
    first = run(pictures)
    assert (first.made, first.failures, first.signal) == (6, [], None)
    assert (first.totals.pictures, first.totals.detections) == (6, 6)
    assert results(tmp_path) == [(f"{n}.png", "cat" if n % 2 else "dog, big") for n in range(6)]
    stored = json.loads((tmp_path / "out" / "detections" / "1.png.json").read_text(encoding="utf-8"))
    assert stored["picture"] == "1.png"
    assert stored["source"]["path"] == str(pictures / "1.png")
    assert (stored["image_size"], stored["detections"][0]["box"]) == ([70, 30], [2, 4, 10, 9])
    before, calls = documents(tmp_path), len(fake.batches)
    second = run(pictures)
    assert (second.made, second.totals) == (0, first.totals)
    assert documents(tmp_path) == before
    assert len(fake.batches) == calls
    assert not list(tmp_path.rglob("*.partial"))


def test_only_what_is_new_or_changed_is_predicted(pictures, run, save, tmp_path):
    run(pictures)
    before = documents(tmp_path)
    save(pictures / "new.png")
    save(pictures / "2.png", CAT)
    os.utime(pictures / "3.png", ns=(1, 1))
    (pictures / "4.png").unlink()
    assert run(pictures).made == 3
    after = documents(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} == {"new.png.json", "2.png.json", "3.png.json"}
    assert ("2.png", "cat") in results(tmp_path)
    assert "4.png" not in dict(results(tmp_path))


def test_broken_files_are_named_and_the_others_go_on(pictures, run, save, tmp_path):
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "text.jpg").write_text("no picture")
    (pictures / "cut.png").write_bytes((pictures / "1.png").read_bytes()[:60])
    Image.fromarray(np.ones((4, 4), np.float32)).save(pictures / "float.tiff")
    (pictures / "gone.gif").symlink_to("nowhere")
    save(pictures / "refused.png", REFUSED)
    for size in (1, 4):
        result = run(pictures, batch_size=size)
        assert result.totals.pictures == 6
        failures = {failure.name: failure.error for failure in result.failures}
        assert failures.pop("refused.png") == "ArithmeticError"
        assert failures == dict.fromkeys(["empty.png", "text.jpg", "cut.png", "float.tiff", "gone.gif"], "ImageError")
        assert all(failure.message and "\n" not in failure.message for failure in result.failures)
        assert len(documents(tmp_path)) == 6
        stored = json.loads((tmp_path / "out" / "failures.json").read_text(encoding="utf-8"))
        assert [row["name"] for row in stored] == sorted([*failures, "refused.png"])
    save(pictures / "text.jpg")
    assert run(pictures).made == 1


def test_a_picture_that_breaks_loses_its_results(pictures, run, tmp_path):
    run(pictures, views=("overlay",))
    (pictures / "1.png").write_bytes(b"")
    assert [failure.name for failure in run(pictures, views=("overlay",)).failures] == ["1.png"]
    assert "1.png.json" not in documents(tmp_path)
    assert not (tmp_path / "out" / "overlay" / "1.png").exists()


def test_views_are_made_later_without_predicting(pictures, run, fake, tmp_path):
    run(pictures)
    before, calls = documents(tmp_path), len(fake.batches)
    seen = []
    result = run(pictures, views=("overlay", "splash"), progress=lambda *values: seen.append(values))
    assert (result.made, result.totals.pictures, len(fake.batches)) == (0, 6, calls)
    assert documents(tmp_path) == before
    assert seen[0] == ("views", 0, 6)
    assert seen[-1] == ("views", 6, 6)
    for kind in ("overlay", "splash"):
        assert sorted(path.name for path in (tmp_path / "out" / kind).iterdir()) == [f"{n}.png" for n in range(6)]
    later = (tmp_path / "out" / "overlay" / "1.png").read_bytes()
    # One that is made with the prediction is the same.
    os.utime(pictures / "1.png", ns=(5, 5))
    run(pictures, views=("overlay", "splash"))
    assert (tmp_path / "out" / "overlay" / "1.png").read_bytes() == later
    overlay, splash = (read_image(tmp_path / "out" / kind / "1.png") for kind in ("overlay", "splash"))
    assert tuple(overlay[4, 2]) == instance_color(0)
    assert tuple(splash[5, 5]) == CAT
    assert np.ptp(splash[15, 20]) == 0


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files whose pixels were decoded, in no order; each appears as often as it was."""
    real, opened = ImageFile.ImageFile.load, []

    def load(image):
        if image.tile:  # what is still to be decoded
            opened.append(Path(image.fp.name).name)
        return real(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    return opened


def test_a_picture_is_decoded_once(pictures, run, save, decoded, tmp_path):
    for count, options in enumerate([{}, {"views": ("overlay", "splash")}, {"views": ("splash",), "batch_size": 4}], 1):
        for n in range(6):
            os.utime(pictures / f"{n}.png", ns=(count, count))
        decoded.clear()
        assert run(pictures, **options).made == 6
        assert sorted(decoded) == [f"{n}.png" for n in range(6)], options


def test_views_of_pictures_of_every_kind_are_those_of_the_file(run, fake, tmp_path):
    """Drawn on the pixels that were decoded for the network, they are those that are drawn on the file later."""
    folder, size = tmp_path / "in", (30, 20)
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    color = Image.fromarray(noise[:, :, :3])
    turned = Image.Exif()
    turned[0x0112] = 6
    color.save(folder / "turned.jpg", exif=turned)
    color.convert("CMYK").save(folder / "cmyk.jpg")
    color.convert("P").save(folder / "palette.png")
    color.convert("1").save(folder / "bilevel.png")
    color.convert("L").save(folder / "gray.png")
    Image.fromarray(noise).save(folder / "alpha.png")
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 256).save(folder / "deep.png")
    for channels in (3, 1):
        seen = {}

        def prepare(image, channels=channels, seen=seen):
            letterbox, pixels = letterbox_picture(image, channels, ResizePolicy("pad64"))
            seen[pixels.tobytes()] = letterbox
            return letterbox, np.repeat(pixels, 3 // channels, 2)  # the fake wants three

        fake.prepare = prepare
        out = [tmp_path / f"{channels}{name}" for name in ("alone", "drawn")]
        run(folder, out=out[0])
        alone = seen.copy()
        run(folder, out=out[0], views=("overlay", "splash"))
        seen.clear()
        assert run(folder, out=out[1], views=("overlay", "splash")).totals.pictures == 7
        assert seen == alone  # the network sees the same
        files = {path.relative_to(out[0]): path.read_bytes() for path in out[0].rglob("*") if path.is_file()}
        assert len(files) > 7 * 3
        for path, content in files.items():
            assert (out[1] / path).read_bytes() == content, path
    with Image.open(out[1] / "overlay" / "turned.jpg.png") as image:
        assert image.size == size[::-1]


def test_a_picture_that_changes_while_it_is_predicted_is_predicted_again(pictures, run, save, fake):
    """Its stamp was taken before it was read."""
    real = fake.prepare

    def prepare(image):
        fake.prepare = real
        found = real(image)
        save(pictures / "0.png", CAT)
        return found

    fake.prepare = prepare
    assert run(pictures).made == 6
    assert run(pictures).made == 1


def test_a_view_of_an_older_picture_does_not_stay(pictures, run, save, tmp_path):
    run(pictures, views=("overlay",))
    save(pictures / "1.png", (50, 0, 200), (70, 30))
    run(pictures)
    assert not (tmp_path / "out" / "overlay" / "1.png").exists()
    run(pictures, views=("overlay",))
    assert read_image(tmp_path / "out" / "overlay" / "1.png")[60, 25].tolist() == [50, 0, 200]


def test_a_document_is_never_there_before_its_view(pictures, run, tmp_path, monkeypatch):
    from maskrcnn.prediction import pictures as walk

    def die(*_):
        raise KeyboardInterrupt

    run(pictures, views=("overlay",))
    os.utime(pictures / "0.png", ns=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(walk, "write_document", die)  # the moment of the kill
        with pytest.raises(KeyboardInterrupt):
            run(pictures, views=("overlay",))
    assert "0.png.json" not in documents(tmp_path)
    assert not (tmp_path / "out" / "results.json").exists()  # which would stand for a finished run
    assert run(pictures, views=("overlay",)).made == 1


def test_several_results_are_written_at_a_time(pictures, run, monkeypatch, tmp_path):
    from maskrcnn.prediction import pictures as walk

    together, real, seen = threading.Barrier(2, timeout=20), walk.write_document, []

    def write(*values):
        together.wait()
        real(*values)

    monkeypatch.setattr(walk, "_WRITERS", 2)
    monkeypatch.setattr(walk, "write_document", write)
    assert run(pictures, progress=lambda _label, done, _total: seen.append(done)).totals.pictures == 6
    assert seen == list(range(7))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("predict-")]


def test_damaged_documents_are_made_again(pictures, run, tmp_path):
    run(pictures)
    for n, content in enumerate(["", "{", "[]", "{}", "\0"]):
        (tmp_path / "out" / "detections" / f"{n}.png.json").write_text(content)
    assert run(pictures).made == 5


def test_other_settings(pictures, run, fake, tmp_path):
    run(pictures)
    before = documents(tmp_path)
    with pytest.raises(OutputError, match="model"):
        run(pictures, model="another")
    fake.score_threshold = 0.9
    with pytest.raises(OutputError, match=r"score_threshold was 0\.5 and is now 0\.9"):
        run(pictures)
    assert documents(tmp_path) == before
    assert run(pictures, force=True).made == 6
    assert run(pictures, force=True).made == 0


def test_taking_a_folder_over_can_be_cut_off_too(pictures, run, fake, tmp_path):
    run(pictures)
    fake.nms_threshold = 0.9
    finish, calls = fake.finish, []

    def die(*values):
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError
        return finish(*values)

    fake.finish = die
    with pytest.raises(ZeroDivisionError):
        run(pictures, force=True)
    fake.finish = finish
    again = run(pictures)  # the settings are those of the folder now
    assert again.made == 4
    assert again.totals.pictures == 6


def test_classes(pictures, run, tmp_path):
    assert run(pictures, classes=("cat",)).totals.detections == 3
    assert {name for _, name in results(tmp_path)} == {"cat"}
    with pytest.raises(OutputError, match="classes"):
        run(pictures)
    with pytest.raises(ArgumentError, match="no class 'dog'; it has cat, dog, big"):
        run(pictures, classes=("dog",))
    with pytest.raises(ArgumentError, match="'BG'"):
        run(pictures, classes=("BG",))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_pictures_in_hand(pictures, run, save, tmp_path, number):
    for n in range(6, 30):
        save(pictures / f"{n}.png")

    def progress(_label, done, _total):
        if done == 2:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    result = run(pictures, progress=progress)
    assert signal.getsignal(number) is before
    assert (result.signal, result.totals) == (number, None)
    assert 2 <= result.made < 20  # what had been through the network is kept too
    assert len(documents(tmp_path)) == result.made
    assert not (tmp_path / "out" / "results.json").exists()
    kept = documents(tmp_path)
    assert run(pictures).made == 30 - result.made
    assert kept.items() <= documents(tmp_path).items()


def test_equal_names_of_two_folders_do_not_meet(run, save, tmp_path):
    save(tmp_path / "a" / "x.png", CAT)
    save(tmp_path / "b" / "x.png", DOG)
    result = run([tmp_path / "a", tmp_path / "b"], views=("overlay",))
    assert result.totals.pictures == 2
    assert sorted(name for _, name in results(tmp_path)) == ["cat", "dog, big"]
    assert len(list((tmp_path / "out" / "overlay").iterdir())) == 2
    assert run([tmp_path / "a", tmp_path / "b"], views=("overlay",)).made == 0


def test_the_same_name_in_a_later_run_is_another_picture(run, save, tmp_path):
    save(tmp_path / "a" / "x.png", CAT)
    save(tmp_path / "b" / "x.png", DOG)
    os.utime(tmp_path / "a" / "x.png", ns=(7, 7))
    os.utime(tmp_path / "b" / "x.png", ns=(7, 7))
    run(tmp_path / "a")
    run(tmp_path / "b")
    assert results(tmp_path) == [("x.png", "dog, big")]


def test_the_output_may_lie_among_the_pictures(run, fake, pictures, tmp_path):
    options = PredictOptions(views=("overlay",))
    for made in (6, 0):
        result = predict_paths([str(pictures)], pictures / "out", lambda: (fake, "m"), options, lambda *_: None)
        assert (result.made, result.totals.pictures) == (made, 6)


def test_progress_counts_what_was_done_before(pictures, run, save):
    run(pictures)
    save(pictures / "x.png")
    (pictures / "y.png").write_text("")
    seen = []
    run(pictures, progress=lambda *values: seen.append(values))
    assert seen == [("images", 6, 8), ("images", 7, 8), ("images", 8, 8)]


def test_the_model_is_not_opened_for_nothing(tmp_path):
    def open_model():
        raise AssertionError

    with pytest.raises(ImageError, match="does not exist"):
        predict_paths(["nowhere.png"], tmp_path / "out", open_model, PredictOptions(), lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_options_are_checked():
    for name in ("batch_size", "every"):
        with pytest.raises(ConfigError, match=name):
            PredictOptions(**{name: 0})


def test_a_full_disk_ends_the_run(pictures, run, tmp_path, monkeypatch):
    from maskrcnn.prediction import pictures as walk

    def full(path, *_):
        raise OutputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(walk, "write_document", full)
    with pytest.raises(OutputError, match="No space left"):
        run(pictures)


def test_videos_need_their_package_before_the_model_is_opened(tmp_path, monkeypatch, fake):
    from runtime.errors import MissingPackageError

    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    opened = []
    with pytest.raises(MissingPackageError, match=r"maskrcnn-export\[video\]"):
        predict_paths([str(tmp_path / "a.mp4")], tmp_path / "out", lambda: opened.append(1), PredictOptions(), print)
    assert opened == []
