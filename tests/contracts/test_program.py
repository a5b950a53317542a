"""Both programs where their streams are closed or full, in any locale, and with Ctrl-C while they start."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sample_metadata import METADATA

from runtime.artifact_files.onnx_file import seal

ROOT = Path(__file__).parents[2]
FINDINGS, USAGE, UNUSABLE, OUTPUT, INTERRUPTED = 1, 2, 4, 6, 130
# Commands that end soon: exit code, and whether they print results.
COMMANDS = {
    "maskrcnn --version": (0, True),
    "maskrcnn fly": (USAGE, False),
    "maskrcnn predict missing.onnx good.png -o out": (5, False),
    "maskrcnn data check missing.json": (FINDINGS, True),
    "export show fruit.onnx": (0, True),
    "export show missing.onnx": (UNUSABLE, False),
}
SOME = ("maskrcnn predict missing.onnx good.png -o out", "export show fruit.onnx")
STREAMS = {
    "no input": "<&-",
    "no output": ">&-",
    "no errors": "2>&-",
    "nothing": "<&- >&- 2>&-",
    "full output": ">/dev/full",
    "full errors": "2>/dev/full",
}


@pytest.fixture
def shell(tmp_path, pytestconfig):
    """Run a line of the shell in a folder with an artifact; `PY` is Python."""
    (tmp_path / "fruit.onnx").write_bytes(seal(b"", METADATA.to_json()))

    def run(line, **environment):
        values = os.environ | {"PYTHONPATH": str(pytestconfig.rootpath), "PY": sys.executable} | environment
        done = subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env=values, capture_output=True, check=False, timeout=60
        )
        assert b"Traceback" not in done.stderr + done.stdout, done.stderr[-2000:]
        assert b"Exception ignored" not in done.stderr
        return done

    return run


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
def test_a_stream_that_is_closed_or_full(shell, streams):
    """Every command where all streams are closed and where the disk is full; two of them where one is closed."""
    whole = streams == STREAMS["nothing"] or "full" in streams
    for command in COMMANDS if whole else SOME:
        code, prints = COMMANDS[command]
        done = shell(f'"$PY" -m {command} {streams}')
        is_full = prints and streams == ">/dev/full"
        assert done.returncode == (OUTPUT if is_full else code), (command, done.stderr)
        if is_full:
            assert done.stderr.decode().splitlines()[-1] == (
                "error: cannot write to standard output: No space left on device"
            )
        if code == UNUSABLE and "2>" not in streams:
            (line,) = done.stderr.decode().splitlines()
            assert line.startswith("error: ")


@pytest.mark.parametrize("streams", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_prediction_without_streams_is_the_same(shell, onnx_artifact, tmp_path, pytestconfig, streams):
    """And what it prints is in none of its files, whose numbers would be those of the closed streams."""
    picture = pytestconfig.rootpath / "maskrcnn" / "demo.jpg"
    done = shell(f'"$PY" -m maskrcnn predict "{onnx_artifact}" "{picture}" -o out {streams}')
    assert done.returncode == 0
    files = [path for path in (tmp_path / "out").rglob("*.*") if path.is_file() and path.name != ".lock"]
    assert {path.name for path in files} >= {"results.json", "results.csv", "run.json"}
    assert not any("predicted in this run" in path.read_text() for path in files)


def test_a_reader_that_has_enough(shell):
    done = shell('"$PY" -m export show fruit.onnx | head -n 1')
    assert done.stdout.startswith(b"fruit.onnx: onnx")
    assert done.stderr == b""


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_locale_without_letters(shell, tmp_path):
    """Names of files and classes are no reason to fail."""
    (tmp_path / "fruit.onnx").rename(tmp_path / "\N{GREEN APPLE}.onnx")
    done = shell('"$PY" -m export show *.onnx', **ASCII)
    assert done.returncode == 0
    assert b"\xf0\x9f\x8d\x8f" in done.stdout or b"\\U0001f34f" in done.stdout
    name = "\N{GREEN APPLE}"
    assert shell(f'"$PY" -m maskrcnn predict m.onnx {name}.png -o out', **ASCII).returncode == 5
    assert shell(f'"$PY" -m maskrcnn data check {name}.json', **ASCII).returncode == FINDINGS


@pytest.mark.parametrize("environment", [{}, ASCII], ids=["utf-8", "ascii"])
@pytest.mark.parametrize("name", ["\N{GREEN APPLE}".encode(), b"\xff"], ids=["letters", "bytes"])
def test_names_of_any_bytes(shell, onnx_artifact, tmp_path, pytestconfig, name, environment):
    """Of the artifact, the image and the folder of results: in any locale, also names that are no text."""
    artifact, picture, out = (os.fsdecode(name + end) for end in (b".onnx", b".jpg", b"-out"))
    shutil.copy(onnx_artifact, tmp_path / artifact)
    shutil.copy(pytestconfig.rootpath / "maskrcnn" / "demo.jpg", tmp_path / picture)
    done = shell(f'"$PY" -m maskrcnn predict "{artifact}" "{picture}" --overlay --labelme -o "{out}"', **environment)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / out / "results.json").read_text(encoding="utf-8"))
    assert len(results["annotations"]) == 7
    for folder, files in (("overlay", 1), ("labelme", 3)):  # annotations, class names, and a link to the image
        assert len(list((tmp_path / out / folder).iterdir())) == files


INTERRUPTED_IN = """
import os, signal, sys, time
from importlib.abc import MetaPathFinder

class Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
sys.argv = {argv!r}
from {program}.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("argv", "modules"),
    [
        (
            ["maskrcnn", "predict", str(ROOT / "maskrcnn" / "demo.weights.h5"), "x.png", "-o", "out"],
            ["typer", "numpy", "maskrcnn.cli", "PIL", "tensorflow"],
        ),
        (["export", "inspect", "fruit.onnx"], ["typer", "export.cli", "runtime.artifact"]),
    ],
)
def test_ctrl_c_while_a_program_starts(shell, tmp_path, argv, modules):
    (tmp_path / "x.png").touch()
    for module in modules:
        (tmp_path / "run.py").write_text(INTERRUPTED_IN.format(module=module, argv=argv, program=argv[0]))
        done = shell('"$PY" run.py')
        lines = [line for line in done.stderr.decode().splitlines() if not line.startswith("... ")]
        assert (done.returncode, lines) == (INTERRUPTED, ["interrupted"]), module
        assert done.stdout == b""


def test_ctrl_c_stays_ignored_where_it_was(shell, tmp_path):
    """As for jobs that a script starts in the background."""
    code = INTERRUPTED_IN.format(module="typer", argv=["export", "--version"], program="export")
    (tmp_path / "run.py").write_text(code.replace("signal.default_int_handler", "signal.SIG_IGN"))
    assert shell('"$PY" run.py').returncode == 0
