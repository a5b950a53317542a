"""Runs in tiles: settings, resuming, views, one image at a time, and command lines that are refused."""

import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from maskrcnn.cli import app
from maskrcnn.prediction.pictures import PictureRun
from maskrcnn.prediction.settings import RunSettings
from maskrcnn.prediction.sources import find_sources
from runtime.errors import ImageError
from runtime.masks.rle import area
from runtime.pictures.letterbox import ResizePolicy
from runtime.pictures.pixels import PLAIN
from runtime.pictures.read import read_image
from runtime.tiles.tiling import Tiling

TILING = Tiling(64, 0.25)


@pytest.fixture
def tiled(fake, job):
    """A run of `fake`, which finds one object in each tile, in tiles."""
    fake.image_channels, fake.resize, fake.max_pixels, fake.pixels = 3, ResizePolicy("pad64"), 10**6, PLAIN
    return lambda **changes: job(tiling=TILING, **changes)


def test_a_run_in_tiles(tiled, save, tmp_path):
    """The images have 2 x 2 tiles and one; views are drawn before the next image is read."""
    for name, size in (("large.png", (100, 112)), ("small.png", (20, 30))):
        save(tmp_path / "in" / name, size=size)
    (tmp_path / "in" / "bad.png").write_bytes(b"x")
    told, counted = [], []
    job = tiled(
        views=("overlay", "splash"), told=lambda *each: told.append(each), progress=lambda *each: counted.append(each)
    )
    sources, _ = find_sources([str(tmp_path / "in")], tmp_path / "out")
    run = PictureRun(job)
    run.run(list(sources))
    assert [failure.name for failure in run.failures] == ["bad.png"]
    assert run.made == 2
    large, small = (json.loads(job.folder.document(source).read_text()) for source in sorted(run.done))
    assert (large["image_size"], len(large["detections"])) == ([100, 112], 4)
    assert sorted(each["box"] for each in large["detections"]) == [
        [2, 4, 10, 9], [2, 40, 10, 45], [50, 4, 58, 9], [50, 40, 58, 45]
    ]  # fmt: skip
    assert [area(each["mask"]) for each in large["detections"]] == [40] * 4
    assert len(small["detections"]) == 1
    assert large["content_sha256"]
    assert "milliseconds" not in large
    assert [name for name, _ in told] == ["large.png", "small.png"]
    assert ("tiles", 3, 4) in counted
    for source in run.done:
        for kind in ("overlay", "splash"):
            assert read_image(job.folder.view(kind, source)).shape == read_image(source.path).shape


def test_classes_are_filtered_and_batches_are_of_tiles(fake, tiled):
    def predict(**changes):
        with closing(tiled(**changes).predict([np.full((100, 112, 3), 50, np.uint8)], lambda image: image)) as results:
            ((_, found),) = results
            return found

    assert len(predict(batch_size=3)["detections"]) == 4
    assert fake.batches == [3, 1]
    assert len(predict(classes=("cat",))["detections"]) == 4
    assert predict(classes=("dog, big",))["detections"] == []


def test_a_stop_leaves_an_unfinished_image_out(fake, tiled):
    stops = iter([False] * 4)
    image = np.full((500, 500, 3), 50, np.uint8)
    with closing(tiled(stopped=lambda: next(stops, True)).predict([image] * 3, lambda image: image)) as results:
        assert list(results) == []
    assert 0 < sum(fake.batches) < 100


def test_an_image_that_cannot_be_read_is_noted_too(tiled):
    noted = []
    with closing(tiled().predict(["gone.png"], lambda path: path, noted.append)) as results:
        ((_, error),) = results
    assert isinstance(error, ImageError)
    assert noted == ["gone.png"]


def test_settings():
    """Without tiles, settings are those of older versions, so that their runs can be resumed."""
    plain = RunSettings("m", ("BG", "cat"), 0.5, 0.3)
    tiled = replace(plain, tile=1024, overlap=0.2)
    assert not {"tile", "overlap"} & set(plain.to_dict())
    assert RunSettings.from_dict(tiled.to_dict()) == tiled
    assert plain.digest != tiled.digest
    assert tiled.differences(plain.to_dict()) == ["tile was null and is now 1024", "overlap was null and is now 0.2"]
    assert replace(tiled, overlap=0.3).differences(tiled.to_dict()) == ["overlap was 0.2 and is now 0.3"]
    with pytest.raises(TypeError):
        RunSettings.from_dict(tiled.to_dict() | {"tile": "1024"})


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        (2, "--tile 0", "invalid value for '--tile': Input should be greater than or equal to 64"),
        (2, "--tile 128 --overlap 1.0", "invalid value for '--overlap': Input should be less than or equal to 0.9"),
        (2, "--tile 128 --overlap -0.2", "invalid value for '--overlap': Input should be greater than or equal to 0"),
        (2, "--tile 128 --overlap nan", "invalid value for '--overlap': Input should be less than or equal to 0.9"),
        (2, "--overlap 0.3", "--overlap cannot be used without --tile: add it, as in --tile 1024"),
        (2, "--tile 128 --ray local -o out", "--tile cannot be used with --ray"),
    ],
)
def test_command_lines_that_are_refused(code, options, message, save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("maskrcnn.commands.shared.open_predictor", lambda *_: pytest.fail("it takes seconds"))
    save(tmp_path / "a.png")
    result = CliRunner().invoke(app, ["predict", "demo", "a.png", *options.split()])
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not (tmp_path / "runs").exists()


def test_the_command(tmp_path, picture, monkeypatch):
    """A real network; the same command again predicts nothing, and other tiles are refused."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture[:160, :200]).save("a.png")

    def call(*options):
        return CliRunner().invoke(app, ["predict", "demo", "a.png", "-o", "out", "--json", "--quiet", *options])

    first = call("--tile", "128")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["settings"]["tile"] == 128
    assert json.loads(first.stdout)["detections"] > 1
    assert json.loads((tmp_path / "out" / "run.json").read_text())["overlap"] == 0.2
    again = json.loads(call("--tile", "128", "--overlay").stdout)
    assert again["predicted"] == 0
    assert (tmp_path / "out" / "overlay" / "a.png").exists()
    for options in ((), ("--tile", "128", "--overlap", "0.3")):
        other = call(*options)
        assert other.exit_code == 6, other.output
        assert "holds results of other settings" in other.stderr
