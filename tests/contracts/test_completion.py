"""Completion in a shell: of commands, and of the words that arguments take; where there are none, the shell's own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from export.cli import app as export_app
from maskrcnn.checkpoints.pretrained import PRETRAINED
from maskrcnn.cli import app as maskrcnn_app
from maskrcnn.configuration.samples import SAMPLES

ROOT = Path(__file__).parents[2]
APPS = {"maskrcnn": maskrcnn_app, "maskrcnn-export": export_app}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for name in ("model.onnx", "demo.h5", "a street.jpg", ".hidden"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def completed(line, program="maskrcnn"):
    """Return what bash is told when the cursor is at the end of a line."""
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    words = line.split(" ")
    environment = {variable: "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    result = CliRunner().invoke(APPS[program], prog_name=program, env=environment)
    assert result.exit_code == 0, result.output
    return result.stdout.split("\n")[:-1]


FILES = ["a street.jpg", "data", "demo.h5", "model.onnx"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("maskrcnn predict demo", ["demo", "demo.h5"]),
        ("maskrcnn predict ", ["demo", *PRETRAINED, *FILES]),
        ("maskrcnn predict mo", []),  # the shell completes it
        ("maskrcnn predict demo.", []),
        ("maskrcnn predict demo a", []),
        ("maskrcnn export onnx de", ["demo", "demo.h5"]),
        ("maskrcnn export onnx coc", [name for name in PRETRAINED if name.startswith("coc")]),
        ("maskrcnn show coc", []),  # an artifact
        ("maskrcnn weights fetch b", ["balloon"]),
        ("maskrcnn verify model.onnx --against de", ["demo", "demo.h5"]),
        ("maskrcnn train x.json --init i", ["imagenet"]),
        ("maskrcnn train x.json --config s", ["shapes", "small"]),
        ("maskrcnn export onnx x --config ", [*SAMPLES, *FILES]),
        ("maskrcnn benchmark x --device ", ["auto", "cpu", "cuda", "tensorrt", "openvino"]),
        ("maskrcnn benchmark x --device o", ["openvino"]),
        ("maskrcnn train x.json --mask-values ", ["objects", "parts", "classes"]),
        ("maskrcnn train x.json --images ", []),
        ("maskrcnn ex", ["export"]),
        ("maskrcnn export ", ["onnx", "savedmodel", "triton", "tfserving"]),
    ],
)
def test_what_a_line_is_completed_to(line, expected):
    assert [*filter(None, completed(line))] == expected


def test_a_command_that_is_hidden_is_not_offered():
    assert completed("maskrcnn-export ", "maskrcnn-export") == [
        *("onnx", "savedmodel", "triton", "tfserving", "verify", "show", "edit", "benchmark", "doctor", "demo")
    ]


def parameters(command, *path):
    """Yield every parameter of a command and of those below it, with the words that call the command."""
    yield from ((path, command, parameter) for parameter in command.params)
    for name, each in getattr(command, "commands", {}).items():
        yield from parameters(each, *path, name)


WORDS = [
    pytest.param(command, parameter, set(words), id=" ".join((*path, parameter.name)))
    for path, command, parameter in parameters(typer.main.get_command(maskrcnn_app))
    if (words := re.findall(r"(?:^|\|)([a-z][a-z0-9]+)(?=\||$)", parameter.metavar or ""))
]


@pytest.mark.parametrize(("command", "parameter", "words"), WORDS)
def test_every_word_that_the_help_shows_for_an_argument_is_completed(command, parameter, words):
    context = typer.main.get_command(maskrcnn_app).context_class(command)
    offered = {item.value for item in parameter.shell_complete(context, "")}
    assert words <= offered


def test_there_are_enough():
    assert len(WORDS) > 15


@pytest.fixture
def installed(folder, monkeypatch):
    """Both programs as an installation has them; home is a new folder."""
    (folder / "bin").mkdir()
    for program, module in (("maskrcnn", "maskrcnn"), ("maskrcnn-export", "export")):
        script = folder / "bin" / program
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        script.chmod(0o755)
    values = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    def run(command):
        done = subprocess.run(["bash", "--norc", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


COMPLETE = """
maskrcnn --install-completion >&2; maskrcnn-export --install-completion >&2
. ~/.bashrc
COMP_WORDS=(maskrcnn verify demo --against demo); COMP_CWORD=4
_maskrcnn_completion maskrcnn; printf '%s\\n' "${COMPREPLY[@]}"
COMP_WORDS=(maskrcnn-export tri); COMP_CWORD=1
_maskrcnn_export_completion maskrcnn-export; printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_bash_completes_after_the_installation(installed, folder):
    assert installed(COMPLETE).split() == ["demo", "demo.h5", "triton"]
    scripts = {path.name for path in (folder / ".bash_completions").iterdir()}
    assert scripts == {"maskrcnn.sh", "maskrcnn-export.sh"}


@pytest.mark.parametrize("program", APPS)
@pytest.mark.parametrize(
    ("shell", "first"),
    [("bash", "_{}_completion() {{"), ("zsh", "#compdef {}"), ("fish", "complete --command {}")],
)
def test_the_script_for_a_shell_that_is_named(shell, first, program):
    for words in (["--show-completion", shell], [f"--show-completion={shell}"]):
        result = CliRunner().invoke(APPS[program], words, prog_name=program)
        assert result.exit_code == 0
        assert result.stdout.startswith(first.format(program.replace("-", "_") if shell == "bash" else program))


@pytest.mark.parametrize(
    ("shell", "script", "line", "offered"),
    [
        ("zsh", "#compdef maskrcnn-export", "maskrcnn-export verify x --against de", ['"demo"', '"demo.h5"']),
        ("fish", "complete --command maskrcnn-export ", "maskrcnn-export verify x --against de", ["demo", "demo.h5"]),
    ],
)
def test_other_shells(installed, shell, script, line, offered):
    variable = "_MASKRCNN_EXPORT_COMPLETE"
    assert script in installed(f"{variable}=source_{shell} maskrcnn-export")
    environment = f"{variable}=complete_{shell} _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS='{line}'"
    said = installed(f"{environment} maskrcnn-export")
    assert re.findall(r'"[\w.]+"|^[\w.]+$', said, re.MULTILINE) == offered
