"""A missing package that an extra brings is named with that extra; any other missing module keeps its traceback."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer
from annotation_files import coco, write_coco
from packaging.requirements import Requirement
from typer.testing import CliRunner

from export.cli import app as export_app
from maskrcnn.cli import app as maskrcnn_app
from maskrcnn.commands.failures import failures
from maskrcnn.distribution import COMMANDS, EXTRAS, command_extra
from runtime.errors import MissingPackageError

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
MISSING = 3
# Import names that differ from the distribution, and packages that come with another one.
IMPORTED_AS = {"onnxruntime-gpu": "onnxruntime", "prometheus-client": "prometheus_client", "pyyaml": "yaml"}
COMES_WITH = {"rich": "typer"}


def brought(extra):
    """Return the import names of all packages that an extra brings."""
    found = set()
    for requirement in map(Requirement, DECLARED[extra]):
        if requirement.name == "maskrcnn-export":
            found |= set().union(*map(brought, requirement.extras))
        else:
            found.add(IMPORTED_AS.get(requirement.name, requirement.name))
    return found | {name for name, other in COMES_WITH.items() if other in found}


def test_the_table_is_that_of_the_distribution():
    assert set(EXTRAS) == set().union(*map(brought, set(DECLARED) - {"tensorrt"}))
    for name, extras in EXTRAS.items():
        # Errors about devices, and the doctor, name the extras for GPUs and TensorRT.
        assert set(extras) == {extra for extra in DECLARED if name in brought(extra) and "-gpu" not in extra}
        others = [extra for extra in extras if extra != "inspect" or "train" not in extras]  # `inspect` is for its page
        assert len(brought(extras[0])) == min(len(brought(extra)) for extra in others)


def end(extra, name, capsys):
    """Return what a command prints if a module cannot be imported."""
    with pytest.raises(typer.Exit) as ended, failures("this", extra=extra):
        import_module(name)
    assert ended.value.exit_code == MISSING
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "package", "named"),
    [
        ("train", "tensorflow", "train"),
        ("train", "pycocotools", "train"),
        ("export", "tf2onnx", "export"),
        ("export", "onnxruntime", "export"),
        ("predict", "onnxruntime", "predict"),
        ("inspect", "jinja2", "inspect"),
        ("predict", "av", "video"),
        ("train", "av", "video"),
        ("predict", "trackers", "track"),
        ("train", "matplotlib", "inspect"),
        ("export", "supervision", "supervision"),
        ("train", "onnxruntime", "train"),
        ("inspect", "onnxruntime", "onnx"),
        ("tf", "onnxruntime", "onnx"),
        ("predict", "tensorflow", "tf"),
        ("serve", "starlette", "serve"),
        ("serve", "onnxruntime", "onnx"),
        ("predict", "h5py", "tf"),
    ],
)
def test_a_package_of_an_extra(extra, package, named, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    expected = f"maskrcnn this needs the package {package!r}, which is not installed"
    assert end(extra, package, capsys) == f"error: {expected}: pip install 'maskrcnn-export[{named}]'\n"


def test_an_error_that_names_an_extra_itself(capsys):
    with pytest.raises(typer.Exit), failures("this", extra="train"):
        raise MissingPackageError("av", "video", "reading videos")
    assert "reading videos needs the package 'av'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["maskrcnn.no_such_module", "runtime.output.no_such_module", "winreg", "tensorflow.no_such_module", "keras_nlp"],
    ids=["our own", "our own package", "another platform's", "inside an installed package", "of no extra"],
)
def test_a_module_that_no_extra_brings(name, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=re.escape(name)), failures("this", extra="train"):
        import_module(name)
    assert capsys.readouterr().err == ""


def test_an_error_without_a_name():
    with pytest.raises(ModuleNotFoundError, match="see the manual"), failures("this", extra="train"):
        raise ModuleNotFoundError("see the manual")


@pytest.mark.parametrize(
    ("app", "line", "module"),
    [
        (maskrcnn_app, "data check data.json", "maskrcnn.data.readers.check"),
        (maskrcnn_app, "data shapes out", "fcntl"),
        (maskrcnn_app, "evaluate demo data.json -o out", "maskrcnn.data.readers.open"),
        (export_app, "doctor", "export.doctor.cuda"),
        (export_app, "show missing.onnx", "msvcrt"),
    ],
)
def test_a_broken_import_keeps_its_traceback(app, line, module, tmp_path, monkeypatch):
    def broken(*_, **__):
        import_module(module)

    write_coco(tmp_path, coco())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("maskrcnn.data.synthetic.shapes.write_shapes", broken)
    monkeypatch.setattr("runtime.artifact_files.read.read_metadata", broken)
    for name in ("export.doctor.examine", "export.doctor.cuda"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    result = CliRunner().invoke(app, line.split())
    assert isinstance(result.exception, ModuleNotFoundError)
    assert result.exception.name == module
    assert "pip install" not in result.output


def start(package, blocked, *arguments):
    code = f"import sys; sys.modules[{blocked!r}] = None; from {package}.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("export", ["onnx"], "export"),
        ("maskrcnn", ["train"], "train"),
        ("maskrcnn", [], "train"),
        ("maskrcnn", ["predict", "demo"], "predict"),
        ("maskrcnn", ["serve", "demo"], "predict"),
        ("maskrcnn", ["inspect", "demo"], "inspect"),
        ("maskrcnn", ["evaluate"], "train"),
        ("export", ["benchmark", "demo.onnx"], "predict"),
        ("export", ["inspect", "demo.onnx"], "predict"),
        ("export", ["show", "demo.onnx"], "predict"),
        ("maskrcnn", ["show", "demo.onnx"], "predict"),
        ("maskrcnn", ["export", "onnx"], "export"),
    ],
)
def test_the_command_line_without_its_package(package, arguments, extra):
    done = start(package, "typer", *arguments)
    assert (done.returncode, done.stdout) == (MISSING, "")
    program = "maskrcnn-export" if package == "export" else "maskrcnn"
    expected = f"{program} needs the package 'typer', which is not installed"
    assert done.stderr == f"error: {expected}: pip install 'maskrcnn-export[{extra}]'\n"


def words_of(command, *path):
    """Yield the words of every command of a program that is not hidden."""
    if not hasattr(command, "commands"):
        yield " ".join(path)
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            yield from words_of(each, *path, name)


def test_every_command_is_in_the_table():
    """In the order of the help; `maskrcnn-export` has some of them, without the word `export`."""
    assert set(words_of(typer.main.get_command(maskrcnn_app))) == set(COMMANDS)
    exports = set(words_of(typer.main.get_command(export_app)))
    assert exports <= {command.removeprefix("export ") for command in COMMANDS}
    assert {command.removeprefix("export ") for command, extra in COMMANDS.items() if extra == "export"} <= exports
    assert set(COMMANDS.values()) <= set(DECLARED)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_extra_of_a_command_line(command):
    assert command_extra("maskrcnn", [*command.split(), "demo", "-o", "out"]) == COMMANDS[command]


@pytest.mark.parametrize("command", list(words_of(typer.main.get_command(export_app))))
def test_the_extra_of_a_command_line_of_exports(command):
    assert command_extra("maskrcnn-export", [command, "demo"]) in (
        COMMANDS.get(command),
        COMMANDS.get(f"export {command}"),
    )


@pytest.mark.parametrize(
    ("program", "line", "extra"),
    [
        ("maskrcnn", "", "train"),
        ("maskrcnn", "--version", "train"),
        ("maskrcnn", "export", "export"),
        ("maskrcnn", "data", "train"),
        ("maskrcnn-export", "", "export"),
        ("maskrcnn-export", "fly", "export"),
        ("maskrcnn-export", "inspect", "predict"),
    ],
)
def test_the_extra_of_a_line_that_names_no_command(program, line, extra):
    assert command_extra(program, line.split()) == extra


def test_a_command_ends_with_its_own_extra():
    """Each command calls `failures` with its own words."""
    files = [*(ROOT / "maskrcnn" / "commands").glob("*.py"), ROOT / "export" / "cli.py"]
    calls = re.findall(r'with (?:failures|errors)\("([a-z0-9 ]+)"', "".join(path.read_text() for path in files))
    assert set(calls) == set(COMMANDS)


TRAINING = ("tensorflow", "keras", "h5py", "onnx", "tf2onnx", "pycocotools", "matplotlib", "jinja2", "tensorboard")


def lean(package, *arguments, cwd):
    """Run a command where only the extra `predict` is installed."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules |= dict.fromkeys({TRAINING!r}); "
    code += f"from {package}.__main__ import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_the_demo_is_predicted_on_a_lean_install(tmp_path):
    done = lean("maskrcnn", "predict", "demo", ROOT / "maskrcnn" / "demo.jpg", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(found["annotations"] if isinstance(found, dict) else found) == 7


def test_the_server_names_its_extra_on_a_lean_install(tmp_path):
    """Whichever of its packages is imported first, also of those that another one brings."""
    code = "import sys; sys.modules |= dict.fromkeys(('starlette', 'uvicorn', 'h11', 'anyio', 'prometheus_client')); "
    code += f"sys.path.insert(0, {str(ROOT)!r}); from maskrcnn.__main__ import main; main()"
    command = [sys.executable, "-c", code, "serve", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (MISSING, "")
    assert done.stderr.startswith("error: maskrcnn serve needs the package")
    assert done.stderr.endswith("pip install 'maskrcnn-export[serve]'\n")


def test_an_artifact_is_timed_described_and_edited_on_a_lean_install(tmp_path):
    demo = ROOT / "maskrcnn" / "demo.onnx"
    done = lean("export", "benchmark", demo, "--runs", 1, "--device", "cpu", "-o", "times.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "times.json").read_text())["timings"][0]["milliseconds"]["total"]["p50"] > 0
    done = lean("export", "edit", demo, "--rename", "square=box", "-o", "edited.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = lean("maskrcnn", "show", "edited.onnx", cwd=tmp_path)
    assert "box, circle, triangle" in done.stdout
    assert "proven      yes" in done.stdout


@pytest.mark.parametrize(
    ("package", "arguments", "named", "extra"),
    [
        ("export", ["benchmark", "D.onnx", "--chart", "c.png", "--runs", "1"], "matplotlib", "inspect"),
        ("export", ["benchmark", "D.onnx", "--all"], "pycocotools", "train"),
        ("export", ["benchmark", "D.onnx", "--all", "-o", "out"], "matplotlib", "inspect"),
        ("export", ["edit", "D.onnx", "--score-threshold", "0.9", "-o", "e.onnx"], "onnx", "export"),
        ("export", ["verify", "D.onnx", "--against", "demo"], None, "export"),
        ("export", ["onnx", "demo", "-o", "m.onnx"], None, "export"),
        ("export", ["demo"], None, "export"),
        ("maskrcnn", ["export", "onnx", "demo", "-o", "m.onnx"], None, "export"),
        ("maskrcnn", ["evaluate", "demo", "data.json", "-o", "out"], None, "train"),
        ("maskrcnn", ["train", "data.json", "--config", "small", "-o", "out"], None, "train"),
        ("maskrcnn", ["inspect", "demo", "-o", "out"], None, "inspect"),
        ("maskrcnn", ["data", "check", "data.json"], "pycocotools", "train"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_every_command_names_its_own_extra_on_a_lean_install(package, arguments, named, extra, tmp_path):
    write_coco(tmp_path, coco())
    shutil.copy(ROOT / "maskrcnn" / "demo.onnx", tmp_path / "D.onnx")
    done = lean(package, *arguments, cwd=tmp_path)
    if done.returncode == 0:
        assert (package, arguments[0]) == ("maskrcnn", "data")  # readers may do without
        return
    assert done.returncode == MISSING, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.endswith(f"pip install 'maskrcnn-export[{extra}]'")
    assert named is None or repr(named) in last


@pytest.mark.parametrize(
    ("own", "package", "said", "named"),
    [
        ("inspect", "pycocotools", "train", "inspect"),
        ("predict", "onnxruntime", "onnx", "predict"),
        ("export", "onnxruntime", "onnx", "export"),
        ("train", "onnxruntime", "onnx", "train"),
        ("predict", "tensorflow", "tf", "tf"),
        ("train", "tensorboard", "inspect", "train"),
    ],
)
def test_an_error_from_within_names_the_extra_of_the_command(own, package, said, named, capsys):
    with pytest.raises(typer.Exit), failures("this", extra=own):
        raise MissingPackageError(package, said, "doing that")
    expected = f"doing that needs the package {package!r}, which is not installed"
    assert capsys.readouterr().err == f"error: {expected}: pip install 'maskrcnn-export[{named}]'\n"


def test_a_broken_import_of_the_command_line_keeps_its_traceback():
    done = start("maskrcnn", "maskrcnn.commands.predict", "--help")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
    assert "pip install" not in done.stderr
