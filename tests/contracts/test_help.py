"""Help and version of both programs: complete in a narrow terminal, important options first, no engine loaded."""

import inspect
import json
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
import typer.main
from typer.testing import CliRunner

from export.cli import app as export_app
from maskrcnn import distribution
from maskrcnn.cli import app as maskrcnn_app

APPS = {"maskrcnn": maskrcnn_app, "maskrcnn-export": export_app}
ENGINES = ("tensorflow", "keras", "onnxruntime", "onnx", "tf2onnx", "pycocotools", "h5py", "av", "matplotlib")


def commands(command, *path):
    """Yield a command and all commands below it, each with the words that call it."""
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, *path, name)


ALL = [
    pytest.param(app, path, command, id=" ".join((program, *path)))
    for program, app in APPS.items()
    for path, command in commands(typer.main.get_command(app))
]


def help_of(app, path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(("app", "path", "command"), ALL)
def test_help_is_complete(app, path, command, columns, monkeypatch):
    shown = help_of(app, path, monkeypatch, columns)
    assert max(map(len, shown.splitlines())) <= columns
    assert "…" not in shown  # what rich prints instead of text that does not fit
    text = " ".join(re.sub("[│╭╰╮╯─]", " ", shown).split())
    for parameter in command.params:
        assert all(re.search(rf"{name}(?![\w-])", text) for name in parameter.opts if name.startswith("-"))
    assert command.help.splitlines()[0].split(".")[0] in text


@pytest.mark.parametrize(("app", "path", "command"), ALL)
def test_the_short_option_for_help(app, path, command, monkeypatch):
    expected = help_of(app, path, monkeypatch, 80)
    assert CliRunner().invoke(app, [*path, "-h"]).stdout == expected


@pytest.mark.parametrize(("app", "path", "command"), ALL)
def test_what_is_required_comes_first(app, path, command, monkeypatch):
    """Required options are in the first panel, options that few runs need in another."""
    panels = re.split(r"^╭─ ([A-Z][\w ]*\w) ─", help_of(app, path, monkeypatch, 80), flags=re.MULTILINE)
    texts = dict(zip(panels[1::2], panels[2::2], strict=True))
    for parameter in command.params:
        if parameter.required and parameter.param_type_name == "option":
            assert parameter.opts[0] in texts["Options"]
    assert "required" not in texts.get("Advanced", "")
    assert len(re.findall("--[a-z]", texts["Options"])) <= 12
    for rare in ("--skip-bad", "--max-pixels", "--verify-images", "--opset", "--class-attribute"):
        assert rare not in texts["Options"]


def test_both_programs_have_the_same_commands():
    """The very same functions; `maskrcnn-export` has those that write a format without the word `export`."""
    whole, part = (dict(commands(typer.main.get_command(app))) for app in (maskrcnn_app, export_app))
    functions = {path: command.callback for path, command in whole.items()}
    for path, command in part.items():
        if path and path != ("inspect",):
            assert command.callback.__wrapped__ is functions.get(path, functions.get(("export", *path))).__wrapped__
    assert part["inspect",].hidden
    assert inspect.unwrap(part["inspect",].callback) is inspect.unwrap(part["show",].callback)
    assert not [path for path, command in whole.items() if command.hidden]


def test_the_commands_are_in_groups(monkeypatch):
    panels = re.findall(r"^╭─ ([A-Z][\w ]*\w) ─", help_of(maskrcnn_app, [], monkeypatch, 80), flags=re.MULTILINE)
    assert panels == ["Options", "Train and measure", "Use", "Export", "Weights and configurations", "Environment"]


MEANT = [
    ("maskrcnn", "onnx x", "'maskrcnn export onnx'"),
    ("maskrcnn", "tfserving x", "'maskrcnn export tfserving'"),
    ("maskrcnn", "convert x", "'maskrcnn data convert'"),
    ("maskrcnn", "evalute x", "'evaluate'"),
    ("maskrcnn", "onx x", "'maskrcnn export onnx'"),
    ("maskrcnn", "export verify x", "'maskrcnn verify'"),
    ("maskrcnn", "export savdmodel x", "'savedmodel'"),
    ("maskrcnn", "data shape x", "'shapes'"),
    ("maskrcnn", "config predict x", "'maskrcnn predict'"),
    ("maskrcnn", "xyzzy", None),
    ("maskrcnn-export", "predict x", "'maskrcnn predict'"),
    ("maskrcnn-export", "export onnx x", "'maskrcnn export'"),
    ("maskrcnn-export", "weights list", "'maskrcnn weights'"),
    ("maskrcnn-export", "trian x", "'maskrcnn train'"),
    ("maskrcnn-export", "onxn x", "'onnx'"),
    ("maskrcnn-export", "sho x", "'show'"),
]


@pytest.mark.parametrize(("program", "line", "meant"), MEANT, ids=[" ".join(case[:2]) for case in MEANT])
def test_a_command_that_does_not_exist_names_the_one_that_is_meant(program, line, meant):
    result = CliRunner().invoke(APPS[program], line.split(), env={"COLUMNS": "200"})
    assert result.exit_code == 2
    said = re.fullmatch(r"error: no such command '[^']*'(?: \(did you mean (.*)\?\))?\n", result.stderr)
    assert (said[1].split(" or ")[0] if said[1] else None) == meant


RUN_ALL = """
import json, sys
from typer.testing import CliRunner
from {module}.cli import app
codes = [CliRunner().invoke(app, [*path, "--help"]).exit_code for path in {paths!r}]
codes.append(CliRunner().invoke(app, ["--version"]).exit_code)
print(json.dumps([codes, [name for name in {engines!r} if name in sys.modules]]))
"""


@pytest.mark.parametrize(("module", "program"), [("maskrcnn", "maskrcnn"), ("export", "maskrcnn-export")])
def test_no_help_loads_an_engine(module, program, pytestconfig):
    paths = [path for path, _ in commands(typer.main.get_command(APPS[program]))]
    code = RUN_ALL.format(module=module, paths=paths, engines=ENGINES)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    codes, loaded = json.loads(done.stdout)
    assert (set(codes), len(codes), loaded) == ({0}, len(paths) + 1, [])


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
@pytest.mark.parametrize("arguments", [["--version"], ["--version", "no-such-command"]], ids=" ".join)
def test_version(app, arguments):
    result = CliRunner().invoke(app, arguments)
    own, engines = result.stdout.splitlines()
    assert (result.exit_code, own) == (0, f"maskrcnn-export {version('maskrcnn-export')}")
    assert f", onnxruntime {version('onnxruntime')}, tensorflow {version('tensorflow')}, " in engines


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_version_of_a_checkout_that_is_not_installed(app, monkeypatch):
    def missing(_name):
        raise PackageNotFoundError

    monkeypatch.setattr(distribution, "version", missing)
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"maskrcnn-export unknown\nPython {platform.python_version()}\n")
