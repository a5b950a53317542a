"""Every snippet of README.md runs in one folder, in order: commands through the command line.

A slow test runs them as a reader does, each in a new environment with the wheel and the extra that the text names. The
Python of docs/inspection.md and docs/runtime.md runs too. `test_docs.py` checks the commands of all pages.
"""

import json
import os
import re
import shlex
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from store import unverified
from typer.testing import CliRunner

from export.cli import app as export_app
from export.verify import pictures
from maskrcnn import demo_picture, sample_config, save_checkpoint
from maskrcnn.cli import app as training_app
from maskrcnn.configuration.samples import SAMPLES
from maskrcnn.configuration.training import StageConfig
from maskrcnn.data.synthetic.shapes import write_shapes
from runtime.pictures.letterbox import ResizePolicy
from tools.environments import new_environment, run

PROGRAMS = {"maskrcnn-export": export_app, "maskrcnn": training_app}
README = Path(__file__).parents[2] / "README.md"
# The text before a snippet, its kind, and its code.
_PARTS = re.findall(r"(.*?)^```(bash|python)\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
SNIPPETS = [(kind, code) for _, kind, code in _PARTS]
# The extra that the text before each snippet names.
EXTRAS = [
    "".join((re.findall(r'^pip install "\.\[([\w,-]+)\]"|extras? `([\w,-]+)`', text, re.MULTILINE) or [()])[-1])
    for text, _, _ in _PARTS
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, demo):
    """The files that the snippets read: a checkpoint, photos, and annotated images, all small."""
    path = tmp_path_factory.mktemp("readme")
    save_checkpoint(demo, path / "mask_rcnn_coco.h5")
    Image.fromarray(demo_picture()).save(path / "street.jpg")
    (path / "photos").mkdir()
    Image.fromarray(demo_picture()).save(path / "photos" / "first.jpg")
    for seed, (name, count) in enumerate((("train", 4), ("val", 1))):
        written = write_shapes(path / "balloons" / name, count=count, seed=seed, size=(64, 96))
        content = json.loads(written.read_text(encoding="utf-8"))
        for image in content["images"]:
            image["file_name"] = f"{name}/images/{Path(image['file_name']).name}"
        (path / "balloons" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return path


def short(config):
    """Shorten the training of a configuration to two steps."""
    training = replace(
        config.training, batch_size=2, steps_per_epoch=2, warmup_steps=0, stages=(StageConfig("all", 1),)
    )
    return replace(config, resize=ResizePolicy("square", None, 64), training=training)


def test_there_are_snippets_of_both_kinds():
    assert {kind for kind, _ in SNIPPETS} == {"bash", "python"}


@pytest.mark.parametrize(("kind", "code"), SNIPPETS, ids=[f"{i}-{kind}" for i, (kind, _) in enumerate(SNIPPETS)])
def test_snippet(kind, code, folder, demo, monkeypatch):
    monkeypatch.chdir(folder)
    if kind == "python":
        exec(compile(code, "README.md", "exec"), {})
        return
    monkeypatch.setattr(
        "maskrcnn.checkpoints.open_weights.find_config", lambda _name: demo.config
    )  # `coco` for the small checkpoint
    monkeypatch.setitem(SAMPLES, "small", short(sample_config("small")))
    bundled = pictures._bundled
    monkeypatch.setattr(pictures, "_bundled", lambda channels: bundled(channels)[:1])
    for line in filter(None, code.splitlines()):
        program, *arguments = shlex.split(line)
        # One model is verified. That of two training steps may detect nothing, which proves nothing.
        with nullcontext() if "model.onnx" in arguments else unverified():
            result = CliRunner().invoke(PROGRAMS[program], arguments)
        assert result.exit_code == 0, result.output


def test_the_text_before_every_snippet_names_an_extra():
    assert EXTRAS == ["export", "onnx", "train,inspect", "export", "onnx"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    found = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--outdir", str(found), str(README.parent)], found)
    (path,) = found.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_snippets_run_with_the_extra_that_they_name(folder, wheel, demo, tmp_path):
    """As a reader runs them. Files named `coco` and `small` are configurations of small models."""
    (folder / "coco").write_text(demo.config.to_json(), encoding="utf-8")
    config = short(sample_config("small"))
    config = replace(config, detection=replace(config.detection, min_score=0.0))  # what two steps train detects little
    (folder / "small").write_text(config.to_json(), encoding="utf-8")
    environments = {extra: new_environment(tmp_path / extra, f"{wheel}[{extra}]") for extra in dict.fromkeys(EXTRAS)}
    for extra, (kind, code) in zip(EXTRAS, SNIPPETS, strict=True):
        python = environments[extra]
        command = [str(python), "-c", code] if kind == "python" else ["bash", "-euc", code]
        run(command, folder, {"PATH": f"{python.parent}:{os.environ['PATH']}"})
    assert {path.name for path in folder.iterdir()} >= {
        "model.onnx",
        "street_detections.png",
        "balloons.onnx",
        "inside",
    }


def test_the_notebook_of_the_inspection_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (README.parent / "docs" / "inspection.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    exec(compile(code, "inspection.md", "exec"), {})
    assert {path.name for path in tmp_path.iterdir()} == set(re.findall(r'(?:save|savefig|write)\("([^"]+)"', code))
    assert "'final': 7" in capsys.readouterr().out


def test_the_snippets_of_the_runtime_page_run(tmp_path, monkeypatch, capsys, onnx_artifact, picture):
    """The camera has three frames, of which two are wanted."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(onnx_artifact, "mine.onnx")
    for name in ("street.jpg", "field.tif"):
        Image.fromarray(picture).save(name)
    text = (README.parent / "docs" / "runtime.md").read_text(encoding="utf-8")
    seen = []
    world = {"camera": lambda: iter([picture] * 3), "found_enough": lambda found: seen.append(found) or len(seen) == 2}
    for code in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(compile(code, "runtime.md", "exec"), world)
    assert len(list(Path("engine-cache").iterdir())) == 1
    assert {path.name for path in Path().iterdir()} >= {"street_detections.png", "street.json"}
    assert capsys.readouterr().out.count("7 detections") == 2
