"""Every snippet of README.md runs: commands through the command line, Python as it stands, in one folder, in order."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from export.cli import app
from maskrcnn import demo_picture, save_checkpoint

README = Path(__file__).parents[2] / "README.md"
SNIPPETS = re.findall(r"^```(bash|python)\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, demo):
    """What the snippets take for granted: a checkpoint and a photograph. A small one stands for COCO's."""
    from PIL import Image

    path = tmp_path_factory.mktemp("readme")
    save_checkpoint(demo, path / "mask_rcnn_coco.h5")
    Image.fromarray(demo_picture()).save(path / "street.jpg")
    return path


def test_there_are_snippets_of_both_kinds():
    assert {kind for kind, _ in SNIPPETS} == {"bash", "python"}


@pytest.mark.parametrize(("kind", "code"), SNIPPETS, ids=[f"{i}-{kind}" for i, (kind, _) in enumerate(SNIPPETS)])
def test_snippet(kind, code, folder, demo, monkeypatch):
    monkeypatch.chdir(folder)
    if kind == "python":
        exec(compile(code, "README.md", "exec"), {})
        return
    monkeypatch.setattr("maskrcnn.find_config", lambda _name: demo.config)  # `coco` for the small checkpoint
    for line in code.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "maskrcnn-export"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
