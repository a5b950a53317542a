"""Who may import whom: the contracts in pyproject.toml hold, and would not if they were broken."""

import shutil
import subprocess
import sys
import tomllib

import grimp
import pytest

CHECK = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"

# Per contract, a line that breaks it and nothing else.
BREACHES = [
    ("export -> maskrcnn -> runtime", "runtime/pictures/resize.py", "import maskrcnn.errors"),
    ("export -> maskrcnn -> runtime", "maskrcnn/boxes.py", "import export.errors"),
    ("runtime is free of TensorFlow", "runtime/predictor.py", "import tensorflow"),
    ("runtime is free of TensorFlow", "runtime/engines/ort/backend.py", "import onnx"),
    ("maskrcnn uses only the engine-free part", "maskrcnn/nms.py", "import onnxruntime"),
    ("maskrcnn uses only the engine-free part", "maskrcnn/training/train.py", "import runtime.engines.choose"),
    ("inside runtime", "runtime/masks/paste.py", "import runtime.pictures.letterbox"),
    ("inside runtime", "runtime/steps.py", "import runtime.artifact_files.read"),
    ("inside runtime", "runtime/atomic.py", "import runtime.detections"),
    ("inside export", "export/describe.py", "import export.convert.trace"),
    ("inside export", "export/to_onnx.py", "import export.to_savedmodel"),
    ("inside export", "export/verify/compare.py", "import export.publish"),
    ("the doctor works where", "export/doctor/cuda.py", "import export.convert.audit"),
    ("the doctor works where", "export/doctor/wheels.py", "import maskrcnn.errors"),
    ("only the command line imports the doctor", "export/describe.py", "import export.doctor.wheels"),
    ("inside maskrcnn", "maskrcnn/data/batches.py", "import maskrcnn.model"),
    ("inside maskrcnn", "maskrcnn/training/run.py", "import maskrcnn.inspection.scene"),
    ("inside maskrcnn", "maskrcnn/configuration/model.py", "import maskrcnn.boxes"),
    ("of the paper's parts", "maskrcnn/data/sample.py", "import maskrcnn.head_targets"),
    ("prediction works without the model", "maskrcnn/prediction/job.py", "import maskrcnn.data.records"),
    ("prediction works without the model", "maskrcnn/serving/batcher.py", "import maskrcnn.demo"),
]


def lint(folder):
    command = [sys.executable, "-c", CHECK, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def contracts(root):
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def test_contracts_are_kept(pytestconfig):
    done = lint(pytestconfig.rootpath)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(contracts(pytestconfig.rootpath))} kept, 0 broken" in done.stdout


def test_every_contract_is_broken_by_a_test(pytestconfig):
    names = [contract["name"] for contract in contracts(pytestconfig.rootpath)]
    assert [name for name in names if not any(name.startswith(start) for start, _, _ in BREACHES)] == []


@pytest.mark.parametrize(("contract", "module", "line"), BREACHES)
def test_broken_contract_is_noticed(pytestconfig, tmp_path, contract, module, line):
    root = pytestconfig.rootpath
    shutil.copy(root / "pyproject.toml", tmp_path)
    for package in ("runtime", "maskrcnn", "export"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(row.startswith(contract) for row in done.stdout.splitlines() if " BROKEN" in row), done.stdout


def test_a_module_without_a_layer_is_noticed(pytestconfig, tmp_path):
    root = pytestconfig.rootpath
    shutil.copy(root / "pyproject.toml", tmp_path)
    for package in ("runtime", "maskrcnn", "export"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "runtime" / "helpers.py").write_text('"""Anything."""\n', encoding="utf-8")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "runtime.helpers" in done.stdout


def test_no_folder_is_too_wide_to_read(pytestconfig):
    packages = [pytestconfig.rootpath / package for package in ("runtime", "maskrcnn", "export", "tests")]
    folders = [folder for package in packages for folder in [package, *package.rglob("*/")]]
    assert {str(folder): count for folder in folders if (count := len(list(folder.glob("*.py")))) > 24} == {}


def test_the_only_circle_is_that_of_detections_and_their_output():
    """By imports for types alone: the output functions name `Detections`, which has them as methods."""
    graph = grimp.build_graph("maskrcnn", "export", "runtime")
    found = set()
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            found |= set(graph.find_shortest_chain(other, module) or ())
    outputs = {f"runtime.output.{name}" for name in ("annotations", "draw", "formats", "notebook", "splash")}
    assert found == {"runtime.detections", *outputs}
