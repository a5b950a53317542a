"""`maskrcnn-export doctor` in real environments: metadata folders, broken engines, an `nvidia-smi`."""

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bad_artifacts import reseal
from fake_artifacts import VERDICT, metadata, write_artifact
from typer.testing import CliRunner

from export.cli import app
from export.doctor import artifact, cuda_code, environment, examine, probe
from export.doctor.environment import Environment, OrtFolder
from export.doctor.probe import Answer
from runtime.artifact_files.onnx_file import read_model
from runtime.artifact_files.read import read_metadata
from runtime.engines.probe_model import probe_model

REPOSITORY = Path(__file__).parents[2]
MISSING, UNUSABLE = 3, 4
QUICK_TENSORFLOW = """
__version__ = "2.21.0"
class config: list_physical_devices = staticmethod(lambda _: [])
class test: is_built_with_cuda = staticmethod(lambda: True)
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site, name, version, files=()):
    """Write the metadata that an installer writes, with a list of files."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    return folder


def write(site, files):
    for name, text in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def command_line(site, *arguments):
    """Run the command in its own process, with a folder of packages that come before the installed ones."""
    write(site, {"tensorflow/__init__.py": QUICK_TENSORFLOW})
    paths = os.pathsep.join([str(site), str(REPOSITORY)])
    command = [sys.executable, "-m", "export", "doctor", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=site, env=os.environ | {"PYTHONPATH": paths}, check=False
    )
    assert "Traceback" not in done.stderr
    return done


def fix_of(done, subject):
    """Return the line of the only problem with a subject, and the command that fixes it."""
    lines = done.stdout.splitlines()
    (at,) = [at for at, line in enumerate(lines) if line.startswith("problem") and subject in line]
    assert lines[at + 1].strip() == "to fix it:"
    return lines[at], shlex.split(lines[at + 2])


def test_both_onnxruntimes(tmp_path):
    install(tmp_path, "onnxruntime-gpu", "1.26.0")
    done = command_line(tmp_path)
    assert done.returncode == MISSING
    line, command = fix_of(done, "onnxruntime and onnxruntime-gpu")
    assert "there now: onnxruntime." in line
    pip = [sys.executable, "-m", "pip"]
    gone = [*pip, "uninstall", "--yes", "onnxruntime", "onnxruntime-gpu"]
    assert command[: len(gone) + 1] == [*gone, "&&"]
    assert command[len(gone) + 1 : -1] == [*pip, "install"]


def test_both_cudnns(tmp_path):
    install(tmp_path, "nvidia-cudnn-cu12", "9.28.0.42")
    install(tmp_path, "nvidia_cudnn_cu13", "9.28.0.42")  # as the wheel spells it
    done = command_line(tmp_path)
    assert done.returncode == MISSING
    _, command = fix_of(done, "nvidia-cudnn-cu12 and nvidia-cudnn-cu13")
    assert command[3:7] == ["uninstall", "--yes", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"]
    assert "tf-gpu" in command[-1]


def test_a_sound_environment(tmp_path):
    done = command_line(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "CPUExecutionProvider" in done.stdout
    assert "sees 0 GPUs" in done.stdout
    assert "problem" not in done.stdout


def test_metadata_that_is_damaged(tmp_path):
    (tmp_path / "empty-1.0.dist-info").mkdir()
    (install(tmp_path, "nameless", "1.0") / "METADATA").write_text("")
    (install(tmp_path, "binary", "1.0") / "METADATA").write_bytes(b"\xff\xfe\x00Name: x")
    (install(tmp_path, "nvidia-x", "1.0") / "RECORD").write_bytes(b'\xff\x00"')
    assert command_line(tmp_path).returncode == 0


def test_packages_without_a_name_are_left_out(site):
    (site / "empty-1.0.dist-info").mkdir()
    assert "" not in environment.read_environment().packages


# Engines that do not start


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ImportError('libcudart.so.13: cannot open')", "exit code 1: ImportError: libcudart.so.13: cannot open"),
        ("import os; os.abort()", "ended by signal 6: no message"),
        ("import sys; sys.exit(0)", "unreadable answer: 'no message'"),
        ("", "exit code 1: AttributeError: module 'onnxruntime' has no attribute 'get_available_providers'"),
        ("import time; time.sleep(60)", "no answer within 0.5 s"),
    ],
    ids=["raises", "aborts", "exits", "empty", "hangs"],
)
def test_broken_onnxruntime(site, monkeypatch, code, said):
    write(site, {"onnxruntime/__init__.py": code})
    if "sleep" in code:
        monkeypatch.setattr(probe, "SECONDS", 0.5)
    assert probe.ask_onnxruntime() == Answer(failure=said)


def test_lines_that_an_engine_prints_by_itself(site):
    write(site, {"tensorflow/__init__.py": "print('hello')" + QUICK_TENSORFLOW})
    assert probe.ask_tensorflow().facts == {"version": "2.21.0", "gpus": 0, "cuda": True}


def test_files_that_happen_to_lie_here_are_not_imported(tmp_path, monkeypatch):
    write(tmp_path, {"onnxruntime.py": "raise ImportError", "json.py": "raise ImportError"})
    monkeypatch.chdir(tmp_path)
    assert probe.ask_onnxruntime().failure == ""


def test_the_probe_needs_no_onnx(site):
    write(site, {"onnx/__init__.py": "raise ImportError"})
    assert "CPUExecutionProvider" in probe.ask_onnxruntime().facts["started"]


def test_the_smallest_model_is_sound():
    import onnx

    onnx.checker.check_model(onnx.load_from_string(probe_model()), full_check=True)


def test_every_finding_is_shown(monkeypatch):
    """A made-up environment: engines are started, packages listed, a failure shown."""
    made_up = Environment({"onnxruntime": "1.31.1", "tensorflow-cpu": "2.21.0"}, driver="580.1", gpus=("A", "B"))
    monkeypatch.setattr(examine, "read_environment", lambda: made_up)
    monkeypatch.setattr(examine, "ask_onnxruntime", lambda: Answer(failure="broken\x1b[31m\nhere"))
    monkeypatch.setattr(examine, "ask_tensorflow", lambda: Answer({"gpus": 2, "cuda": True}))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == MISSING
    assert "broken\\x1b[31m here" in result.stdout
    assert "A, B, driver 580.1" in result.stdout
    assert "ok       tensorflow-cpu" in result.stdout
    assert result.stdout.splitlines()[-2] == "python -m pip install --force-reinstall --no-deps onnxruntime==1.31.1"


def test_engines_that_are_not_there_are_not_started(monkeypatch):
    monkeypatch.setattr(examine, "read_environment", lambda: Environment({}))
    assert {found.state for found in examine.examine((), lambda _: None)} == {"ok", "absent"}


# What is read from the machine


def test_files_that_are_gone(site):
    (site / "onnxruntime" / "capi").mkdir(parents=True)
    files = ["onnxruntime/tests/__init__.py", "onnxruntime/capi/lib.so.1", "onnxruntime/__init__.py"]
    install(site, "onnxruntime-gpu", "1.26.0", files)
    found = environment.read_environment()
    assert found.lost == {"onnxruntime-gpu": "onnxruntime/capi/lib.so.1"}
    write(site, {"onnxruntime/capi/lib.so.1": "", "onnxruntime/__init__.py": ""})
    assert environment.read_environment().lost == {}


def test_the_folder_that_would_be_imported(tmp_path):
    info = "onnxruntime/capi/build_and_package_info.py"
    write(tmp_path, {f"rest/{info}": "", "clone/onnxruntime/README.md": ""})
    write(tmp_path, {f"gpu/{info}": "package_name = 'onnxruntime-gpu'\n__version__ = '1.26.0'\n"})
    rest, clone, gpu = (str(tmp_path / name) for name in ("rest", "clone", "gpu"))
    assert environment._ort_folder([clone]) is None
    found = environment._ort_folder([clone, rest, gpu])
    assert found == OrtFolder(Path(rest) / "onnxruntime", "", "", importable=False)
    write(tmp_path, {"gpu/onnxruntime/__init__.py": ""})
    found = environment._ort_folder([clone, rest, gpu])
    assert found == OrtFolder(Path(gpu) / "onnxruntime", "onnxruntime-gpu", "1.26.0")


def test_the_real_folder_is_that_of_the_installed_wheel():
    found = environment.read_environment()
    assert found.ort.version == found.packages[found.ort.package]
    assert found.lost == {}


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Return a function that puts a fake `nvidia-smi` on the path; no driver file exists."""
    monkeypatch.setattr(environment, "_DRIVER_FILE", tmp_path / "version")

    def put(script):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return put


def test_gpus(smi):
    smi("echo '580.95.05, NVIDIA H100, 9.0'; echo '580.95.05, NVIDIA L4, large, 8.9'")
    assert environment._nvidia() == ("580.95.05", ("NVIDIA H100", "NVIDIA L4, large"), ("9.0", "8.9"), "")


def test_nvidia_smi_that_fails(smi):
    smi("echo '580.95.05, NVIDIA H100, 9.0'; echo 'Driver/library version mismatch'; exit 18")
    assert environment._nvidia() == (None, (), (), "Driver/library version mismatch")


def test_nvidia_smi_that_says_nothing(smi):
    smi("exit 0")
    assert environment._nvidia() == (None, (), (), "nvidia-smi finds nothing")


def test_nvidia_smi_that_hangs(smi, monkeypatch):
    smi("exec sleep 60")
    monkeypatch.setattr(environment, "_SMI_SECONDS", 0.2)
    assert environment._nvidia() == (None, (), (), "nvidia-smi does not answer within 0.2 s")


def test_nvidia_smi_that_is_no_program(smi):
    smi("")
    program = Path(os.environ["PATH"].split(os.pathsep)[0]) / "nvidia-smi"
    program.write_bytes(b"\x7fELF no")
    assert environment._nvidia()[3] != ""


@pytest.mark.parametrize("kind", ["NVRM version: NVIDIA UNIX x86_64 Kernel Module", "Open Kernel Module for x86_64"])
def test_driver_without_nvidia_smi(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(environment.shutil, "which", lambda _: None)
    monkeypatch.setattr(environment, "_DRIVER_FILE", tmp_path / "version")
    assert environment._nvidia()[0] is None
    (tmp_path / "version").write_text(f"{kind}  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version:  12.3.0\n")
    assert environment._nvidia()[0] == "535.183.01"


@pytest.mark.parametrize(("value", "hidden"), [(None, False), ("0,1", False), ("", True), ("-1", True)])
def test_hidden_gpus(monkeypatch, value, hidden):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert environment.read_environment().hidden is hidden


def test_code_that_a_library_has(tmp_path):
    (tmp_path / "none.so").write_bytes(b"\x7fELF")
    assert cuda_code.architectures(tmp_path / "none.so") == ()
    assert cuda_code.architectures(tmp_path / "missing.so") == ()


# Artifacts


def opened(packages, path):
    return artifact.artifact_finding(packages, path, read_metadata(path))


@pytest.fixture
def write_onnx(tmp_path):
    """Return a function that makes an artifact of the demo's graph for a version of ONNX Runtime."""
    demo = Path(__file__).parents[2] / "maskrcnn" / "demo.onnx"

    def write(minimum, verdict=VERDICT, operator=b"Relu"):
        found = read_metadata(demo)
        described = replace(found, verdict=verdict.to_dict(), engine_minimum={"onnxruntime": minimum})
        path = tmp_path / "small.onnx"
        path.write_bytes(read_model(demo).replace(b"\x22\x04Relu", b"\x22\x04" + operator))  # field 4 of a node
        reseal(path, described.to_json())
        return path

    return write


def test_an_artifact_that_runs_here(write_onnx, monkeypatch):
    monkeypatch.setattr(examine, "ask_tensorflow", lambda: Answer({"gpus": 0, "cuda": True}))
    result = CliRunner().invoke(app, ["doctor", str(write_onnx("1.25"))])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].split("; ")[-1] in ("runs on cpu", "runs on cuda:0")
    assert "needs onnxruntime 1.25 or later (opset 17)" in result.stdout


def test_an_artifact_that_runs_here_but_is_not_proven(write_onnx):
    found = opened(Environment({"onnxruntime": "1.31.1"}), write_onnx("1.25", replace(VERDICT, stages=[], cases=[])))
    assert found.state == "problem"
    assert "; runs on " in found.detail
    assert "the parity check failed" in found.detail


def test_an_artifact_whose_engine_is_not_here(write_onnx, tmp_path):
    found = opened(Environment({}), write_onnx("1.25"))
    assert (found.state, found.fix) == ("problem", "python -m pip install 'maskrcnn-export[onnx]'")
    (tmp_path / "saved").mkdir()
    write_artifact(tmp_path / "saved", metadata(directory=True))
    found = opened(Environment({}, gpus=("one",)), tmp_path / "saved")
    assert "needs tensorflow or later (opset 17), not installed" in found.detail
    assert found.fix == "python -m pip install 'maskrcnn-export[tf-gpu]'"


def test_an_artifact_for_a_newer_engine(write_onnx):
    found = opened(Environment({"onnxruntime": "1.31.1"}), write_onnx("99.1"))
    assert found.state == "problem"
    assert "needs onnxruntime 99.1 or later (opset 17), found onnxruntime 1.31.1" in found.detail
    assert found.fix == "python -m pip install 'onnxruntime>=99.1.0'"


def test_a_minimum_that_is_no_version_reaches_no_shell(write_onnx):
    found = opened(Environment({"onnxruntime": "1.0"}), write_onnx("2\x1b[31m; rm 3"))
    assert found.state == "problem"
    assert found.fix == "python -m pip install 'onnxruntime>=2.31.3'"


def test_an_artifact_that_its_engine_refuses(write_onnx):
    found = opened(Environment({"onnxruntime": "1.31.1"}), write_onnx("1.25", operator=b"Rely"))
    assert found.state == "problem"
    assert "found onnxruntime 1.31.1: exit code 1: " in found.detail
    assert found.fix == "python -m pip install 'maskrcnn-export[onnx]'"


def test_what_is_no_artifact(tmp_path, monkeypatch):
    monkeypatch.setattr(examine, "read_environment", lambda: Environment({}))
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "none.onnx")])
    assert result.exit_code == UNUSABLE
    assert result.stderr.splitlines()[-1].startswith("error: there is no artifact at")
