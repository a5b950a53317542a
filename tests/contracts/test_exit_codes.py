"""Every command of both programs ends with the documented exit code: done, wrong usage, missing input, missing package.

`test_bad_commands.py` has more ways to go wrong for each, and `test_missing_packages.py` what is said of packages.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from annotation_files import coco, write_coco
from typer.testing import CliRunner

from export.cli import app as export_app
from maskrcnn.cli import app as maskrcnn_app
from maskrcnn.distribution import COMMANDS

ROOT = Path(__file__).parents[2]
APPS = {"maskrcnn": maskrcnn_app, "maskrcnn-export": export_app}
DONE, FINDINGS, USAGE, PACKAGE, UNUSABLE, IMAGE, OUTPUT = range(7)

# A line of each command whose first input is missing, and its exit code.
MISSING = {
    "data check": ("missing.json", FINDINGS),
    "data split": ("missing.json -o out", UNUSABLE),
    "data convert": ("missing.json -o out --to coco", UNUSABLE),
    "data shapes": ("data.json --count 1", OUTPUT),  # it reads nothing, and a file is where its folder would be
    "train": ("missing.json -o out", UNUSABLE),
    "evaluate": ("demo missing.json -o out", UNUSABLE),
    "inspect": ("missing.h5 -o out", UNUSABLE),
    "predict": ("demo missing.png -o out", IMAGE),
    "results": ("missing -o out.json", UNUSABLE),
    "serve": ("missing.onnx --port 0", UNUSABLE),
    "export onnx": ("missing.h5 -o out.onnx", UNUSABLE),
    "export savedmodel": ("missing.h5 -o out", UNUSABLE),
    "export triton": ("missing.onnx -o out", UNUSABLE),
    "export tfserving": ("missing -o out", UNUSABLE),
    "verify": ("missing.onnx --against demo", UNUSABLE),
    "show": ("missing.onnx", UNUSABLE),
    "edit": ("missing.onnx --rename a=b", UNUSABLE),
    "benchmark": ("missing.onnx", UNUSABLE),
    "weights list": ("", DONE),  # it reads nothing
    "weights fetch": ("missing", USAGE),
    "weights convert": ("missing.h5 --to torchvision -o out.pth", UNUSABLE),
    "config from": ("missing.h5", UNUSABLE),
    "doctor": ("missing.onnx", UNUSABLE),
    "demo": ("-o data.json", OUTPUT),  # it reads nothing
}
# A line of each command that needs a package, and one of those that need none.
NEEDS = {
    "data check": "data.json",
    "data split": "data.json -o out",
    "data convert": "data.json -o out --to yolo",
    "train": "data.json --config small -o out",
    "evaluate": "demo data.json -o out",
    "inspect": "demo -o out",
    "predict": "demo demo.jpg -o out",
    "results": "found -o out.json",
    "serve": "demo --port 0",
    "export onnx": "demo -o out.onnx",
    "export savedmodel": "demo -o out",
    "export triton": "demo -o out",
    "verify": "demo --against demo",
    "edit": "demo.onnx --score-threshold 0.5 -o out.onnx",
    "benchmark": "demo",
    "weights list": "",
    "weights fetch": "coco",
    "weights convert": "demo --to torchvision -o out.pth",
    "demo": "-o out",
}
NEEDS_NONE = {"data shapes": "shapes --count 1", "show": "demo", "config from": "demo"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    write_coco(tmp_path, coco())
    for name in ("demo.onnx", "demo.jpg"):
        shutil.copy(ROOT / "maskrcnn" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def leaves(command, *path):
    """Yield every command of a program, hidden ones too, with its words."""
    if not hasattr(command, "commands"):
        yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from leaves(each, *path, name)


LEAVES = [
    pytest.param(app, path, command, id=" ".join((program, *path)))
    for program, app in APPS.items()
    for path, command in leaves(typer.main.get_command(app))
]


@pytest.mark.parametrize(("app", "path", "command"), LEAVES)
def test_wrong_usage(app, path, command, files):
    """An option that does not exist, and nothing where something is required."""
    for line, said in (["--no-such-option"], "error: no such option"), ([], "error: missing"):
        if line or any(parameter.required for parameter in command.params):
            result = CliRunner().invoke(app, [*path, *line], env={"COLUMNS": "200"})
            assert (result.exit_code, result.stdout) == (USAGE, "")
            assert said in result.stderr


def test_every_command_is_in_the_tables():
    assert set(MISSING) == set(COMMANDS)
    assert set(NEEDS) | set(NEEDS_NONE) == set(COMMANDS) - {"export tfserving", "doctor"}  # which examine what there is


@pytest.mark.parametrize("command", MISSING)
def test_an_input_that_is_missing(command, files):
    line, code = MISSING[command]
    words = [*command.split(), *line.split()]
    result = CliRunner().invoke(maskrcnn_app, words)
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    assert result.exit_code == code, result.output
    if words[0] == "export" or (words[0],) in dict(leaves(typer.main.get_command(export_app))).keys() - {("inspect",)}:
        other = CliRunner().invoke(export_app, words[words[0] == "export" :])
        assert (other.exit_code, other.stderr.splitlines()[-1]) == (code, result.stderr.splitlines()[-1])


RUN_ALL = """
import json, sys
from maskrcnn.distribution import EXTRAS
from typer.testing import CliRunner
from maskrcnn.cli import app
sys.modules |= dict.fromkeys(set(EXTRAS) - {"typer", "rich", "pydantic", "packaging"})  # typer itself uses these
found = {}
for command, line in json.loads(sys.argv[1]).items():
    result = CliRunner().invoke(app, [*command.split(), *line.split()])
    found[command] = [result.exit_code, (result.stderr.splitlines() or [""])[-1]]
print(json.dumps(found))
"""


def test_a_package_that_is_missing(files, monkeypatch):
    """One process runs all commands without any optional package but those of the command line."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-c", RUN_ALL, json.dumps(NEEDS | NEEDS_NONE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {command: code for command, (code, _) in found.items()} == dict.fromkeys(NEEDS, PACKAGE) | dict.fromkeys(
        NEEDS_NONE, DONE
    )
    for command in NEEDS:
        said = found[command][1]
        assert re.search(r"^error: .* needs the package '\w+', .*: pip install 'maskrcnn-export\[\w+\]'$", said)
    assert not (files / "out").exists()
