"""`maskrcnn predict` as a user meets it, with a real network: killed, resumed, and with only its engine installed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from maskrcnn.cli import app
from maskrcnn.demo import demo_checkpoint
from runtime.pictures.read import read_image

USAGE, UNUSABLE, PICTURE, OUTPUT = 2, 4, 5, 6
BROKEN = ("cut.jpg", "empty.png", "float.tiff", "gone.png", "text.png")


def call(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def failed(code, *arguments):
    """Return the error message of a command that must fail with this exit code: one line, no traceback."""
    result = call(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("... ", "warning: "))]
    assert len(lines) == 1, result.stderr
    return lines[0]


def write_pictures(folder, picture, count):
    """Write small crops of the demo image in two folders, and five files that are not usable images."""
    for n in range(count):
        place = folder / f"part{n % 2}"
        place.mkdir(parents=True, exist_ok=True)
        cut = picture[n % 100 : n % 100 + 160, 2 * (n % 90) : 2 * (n % 90) + 192]
        Image.fromarray(cut).save(place / f"{n:03}.{'png' if n % 3 else 'jpg'}")
    place = folder / "part1"
    (place / "cut.jpg").write_bytes((folder / "part0" / "000.jpg").read_bytes()[:900])
    (place / "empty.png").write_bytes(b"")
    (place / "text.png").write_text("not a picture")
    (place / "gone.png").symlink_to("nowhere.png")
    Image.fromarray(np.ones((9, 9), np.float32)).save(place / "float.tiff")
    (place / "notes.txt").write_text("left out")
    return folder


def documents(folder):
    """Return inode and modification time by relative path; rewriting a document changes both.

    Another process may write there meanwhile. Its temporary files do not count, and what vanishes is left out.
    """
    found = {}
    for place, folders, names in os.walk(folder / "detections"):  # leaves out a folder that vanishes
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place, name) for name in names if name.endswith(".json")):
            with suppress(FileNotFoundError):
                status = path.stat()
                found[str(path.relative_to(folder))] = (status.st_ino, status.st_mtime_ns)
    return found


def check_a_killed_run(artifact, pictures, out, count, root):
    command = [sys.executable, "-m", "maskrcnn", "predict", str(artifact), str(pictures), "-o", str(out)]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL) as process:
        while len(documents(out)) < count // 2:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    kept = documents(out)
    assert count // 2 <= len(kept) < count
    assert not (out / "results.json").exists()
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == PICTURE, done.stderr
    assert len(documents(out)) == count
    assert kept.items() <= documents(out).items()
    assert f"{count} images" in done.stdout
    assert f"{count - len(kept)} predicted in this run, {len(kept)} in earlier ones" in done.stdout
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines() if line.startswith("failed: ")] == [
        f"part1/{name}" for name in BROKEN
    ]
    assert [row["name"] for row in json.loads((out / "failures.json").read_text(encoding="utf-8"))] == [
        f"part1/{name}" for name in BROKEN
    ]
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert len(content["images"]) == count
    assert len(content["annotations"]) > count  # each crop shows several objects
    assert not list(out.rglob("*.partial"))
    return content


def test_killed_half_way_and_run_again(onnx_artifact, picture, tmp_path, pytestconfig):
    pictures = write_pictures(tmp_path / "in", picture, 30)
    found = check_a_killed_run(onnx_artifact, pictures, tmp_path / "out", 30, pytestconfig.rootpath)
    whole = call(onnx_artifact, pictures, "-o", tmp_path / "whole", "--batch-size", 4)
    assert whole.exit_code == PICTURE
    again = json.loads((tmp_path / "whole" / "results.json").read_text(encoding="utf-8"))
    assert again["images"] == found["images"]
    assert len(again["annotations"]) == len(found["annotations"])
    for ours, theirs in zip(found["annotations"], again["annotations"], strict=True):
        assert ours["image_id"] == theirs["image_id"]
        np.testing.assert_allclose(ours["bbox"], theirs["bbox"], atol=0.05)


@pytest.mark.slow
def test_five_hundred_pictures(onnx_artifact, picture, tmp_path, pytestconfig):
    pictures = write_pictures(tmp_path / "in", picture, 495)
    check_a_killed_run(onnx_artifact, pictures, tmp_path / "out", 495, pytestconfig.rootpath)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_how_to_resume(onnx_artifact, picture, tmp_path, pytestconfig, number, code):
    pictures, out = write_pictures(tmp_path / "in", picture, 60), tmp_path / "out"
    command = [sys.executable, "-m", "maskrcnn", "predict", str(onnx_artifact), str(pictures), "-o", str(out)]
    with subprocess.Popen(command, cwd=pytestconfig.rootpath, stderr=subprocess.PIPE, text=True) as process:
        while len(documents(out)) < 3:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(number)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in printed
    assert "run the same command again to resume" in printed
    assert 3 <= len(documents(out)) < 60
    assert not list(out.rglob("*.partial"))


def test_all_outputs_and_options(onnx_artifact, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    both = call(onnx_artifact, tmp_path / "*.png", "-o", tmp_path / "out", "--overlay", "--splash", "--device", "cpu")
    assert both.exit_code == 0, both.output
    for kind in ("overlay", "splash"):
        drawn = read_image(tmp_path / "out" / kind / "a.png")
        assert drawn.shape == picture.shape
        assert (drawn != picture).any()
    assert "1 image," in both.stdout
    (image,) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["images"]
    assert (image["file_name"], image["device"]) == ("a.png", "cpu")
    options = ("--class", "circle", "--score-threshold", 0.2, "--nms-threshold", 0.9)
    some = call(onnx_artifact, tmp_path / "a.png", "-o", tmp_path / "some", *options)
    assert some.exit_code == 0, some.output
    content = json.loads((tmp_path / "some" / "results.json").read_text(encoding="utf-8"))
    assert content["info"]["settings"]["nms_threshold"] == 0.9
    circle = next(each["id"] for each in content["categories"] if each["name"] == "circle")
    assert {row["category_id"] for row in content["annotations"]} == {circle}


def test_the_detections_are_the_predictors(onnx_artifact, picture, tmp_path):
    from runtime import Predictor

    Image.fromarray(picture).save(tmp_path / "a.png")
    assert call(onnx_artifact, tmp_path / "a.png", "-o", tmp_path / "out").exit_code == 0
    stored = json.loads((tmp_path / "out" / "detections" / "a.png.json").read_text(encoding="utf-8"))
    expected = json.loads(Predictor(onnx_artifact)(tmp_path / "a.png").to_json())
    assert {name: stored[name] for name in expected} == expected


def test_every_kind_of_model_finds_the_same(onnx_artifact, savedmodel_artifact, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    found = []
    with demo_checkpoint() as checkpoint:
        for number, model in enumerate((onnx_artifact, savedmodel_artifact, checkpoint, "demo")):
            result = call(model, tmp_path / "a.png", "-o", tmp_path / str(number))
            assert result.exit_code == 0, result.output
            found.append(json.loads((tmp_path / str(number) / "results.json").read_text(encoding="utf-8")))
    for other in found[1:]:
        settings = [each["info"]["settings"] for each in (found[0], other)]
        assert settings[0]["score_threshold"] == settings[1]["score_threshold"] == 0.5
        assert len(other["annotations"]) == len(found[0]["annotations"]) >= 6
        for ours, theirs in zip(found[0]["annotations"], other["annotations"], strict=True):
            assert ours["category_id"] == theirs["category_id"]
            np.testing.assert_allclose(ours["bbox"], theirs["bbox"], atol=0.05)


def test_onnx_needs_its_engine_alone(onnx_artifact, picture, tmp_path, pytestconfig):
    Image.fromarray(picture).save(tmp_path / "a.png")
    blocked = ("tensorflow", "keras", "onnx", "tf2onnx", "pycocotools", "h5py", "supervision", "av", "scipy")
    code = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\nfrom maskrcnn.__main__ import main\nmain()"
    command = [sys.executable, "-c", code, "predict", str(onnx_artifact), str(tmp_path / "a.png"), "--overlay"]
    command += ["--splash", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 image," in done.stdout
    (tmp_path / "b.mp4").write_bytes(b"")
    command[command.index(str(tmp_path / "a.png"))] = str(tmp_path)
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "pip install 'maskrcnn-export[video]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_warning_is_a_line(onnx_artifact, picture, tmp_path):
    first = Image.fromarray(picture)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[first.rotate(90), first])
    result = call(onnx_artifact, tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stderr.splitlines() if "several frames" in line)
    assert line.startswith("warning: ")
    assert "Warning" not in result.stderr


def test_what_cannot_be_predicted_is_said(onnx_artifact, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert "nowhere.png" in failed(PICTURE, onnx_artifact, tmp_path / "nowhere.png", "-o", out)
    assert "matches nothing" in failed(PICTURE, "nowhere.onnx", tmp_path / "*.bmp", "-o", out)
    assert "nowhere.onnx" in failed(UNUSABLE, "nowhere.onnx", tmp_path / "a.png", "-o", out)
    assert "'dog'" in failed(USAGE, onnx_artifact, tmp_path / "a.png", "-o", out, "--class", "dog")
    assert call(onnx_artifact, tmp_path / "a.png", "-o", out, "--score-threshold", 2).exit_code == USAGE
    assert not out.exists()
    assert "other files" in failed(OUTPUT, onnx_artifact, tmp_path / "a.png", "-o", tmp_path)
    assert call(onnx_artifact, tmp_path / "a.png", "-o", out).exit_code == 0
    other = ("--score-threshold", 0.9)
    assert "was 0.5 and is now 0.9" in failed(OUTPUT, onnx_artifact, tmp_path / "a.png", "-o", out, *other)
    assert call(onnx_artifact, tmp_path / "a.png", "-o", out, *other, "--force").exit_code == 0
    assert call(onnx_artifact, tmp_path / "a.png", "-o", out, "--batch-size", 0).exit_code == USAGE
    assert call(onnx_artifact, "-o", out).exit_code == USAGE


def test_a_terminal_sees_a_bar(onnx_artifact, picture, tmp_path, pytestconfig):
    """Bars go to stderr, and results to stdout."""
    import pty

    Image.fromarray(picture).save(tmp_path / "[odd] name.png")
    command = [sys.executable, "-m", "maskrcnn", "predict", str(onnx_artifact), str(tmp_path / "[odd] name.png")]
    leader, follower = pty.openpty()
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "out")], cwd=pytestconfig.rootpath, stdout=subprocess.PIPE, stderr=follower,
        text=True, check=False, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "1/1" in shown
    assert "ETA 0:00" in shown
    assert "1/1" not in done.stdout
    assert "wrote" in done.stdout
