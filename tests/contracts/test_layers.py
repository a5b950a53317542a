"""Who may import whom: the contracts in pyproject.toml hold, and would not if they were broken."""

import shutil
import subprocess
import sys

import pytest

CHECK = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder):
    command = [sys.executable, "-c", CHECK, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_contracts_are_kept(pytestconfig):
    done = lint(pytestconfig.rootpath)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("runtime/pictures/resize.py", "import maskrcnn.errors", "export -> maskrcnn -> runtime"),
        ("maskrcnn/boxes.py", "import export.errors", "export -> maskrcnn -> runtime"),
        ("runtime/predictor.py", "import tensorflow", "runtime is free of TensorFlow"),
        ("runtime/engines/ort/backend.py", "import onnx", "runtime is free of TensorFlow"),
        ("maskrcnn/nms.py", "import onnxruntime", "maskrcnn uses only the engine-free part"),
    ],
)
def test_broken_contract_is_noticed(pytestconfig, tmp_path, module, line, contract):
    root = pytestconfig.rootpath
    shutil.copy(root / "pyproject.toml", tmp_path)
    for package in ("runtime", "maskrcnn", "export"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    (broken,) = (row for row in done.stdout.splitlines() if " BROKEN" in row)
    assert broken.startswith(contract)
