"""The doctor's rules on made-up environments: each fires on its problem, and none on what an extra installs."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from export.doctor.cuda import cuda_findings
from export.doctor.engines import onnxruntime_findings, openvino_findings, tensorflow_findings
from export.doctor.environment import Environment, OrtFolder
from export.doctor.installer import Installer
from export.doctor.packages import package_findings
from export.doctor.probe import Answer
from export.doctor.wheels import CUDNN_WHEELS, ORT_WHEELS, TENSORFLOW_WHEELS, cuda_of_onnxruntime

PIP = "py -m pip"
CUDA_12 = {"nvidia-cudnn-cu12": "9.28.0.42", "nvidia-cuda-runtime-cu12": "12.9.79", "nvidia-cublas-cu12": "12.9.1.4"}
CUDA_13 = {"nvidia-cudnn-cu13": "9.28.0.42", "nvidia-cuda-runtime": "13.0.96", "nvidia-cublas": "13.1.0.3"}
BASE = {"numpy": "2.4.6", "pillow": "13.0.0", "packaging": "26.3", "maskrcnn-export": "0.1.0"}
TENSORFLOW = {
    "tensorflow": "2.21.0",
    "keras": "3.15.1",
    "h5py": "3.14.0",
    "pyyaml": "6.0.3",
    "safetensors": "0.8.0",
    "pooch": "1.9.0",
}
TENSORFLOW_GPU = TENSORFLOW | CUDA_12
ORT, ORT_12, ORT_13 = {"onnxruntime": "1.31.1"}, {"onnxruntime-gpu": "1.26.0"}, {"onnxruntime-gpu": "1.31.1"}
GPU = {"driver": "580.95.05", "gpus": ("NVIDIA H100",)}
COMMANDS = {"typer": "0.29.2", "filelock": "4.3.1"}
TRAINING = {"pycocotools": "2.0.11", "tensorboard": "2.20.0"} | COMMANDS
EXPORTER = {"tf2onnx": "1.17.0", "onnx": "1.23.2"} | COMMANDS
RAY = {"ray": "2.60.0", "pyarrow": "26.0.1", "pydantic": "2.14.4"}
SERVER = {"starlette": "1.10.0", "uvicorn": "0.54.0", "prometheus-client": "0.26.0"}
PAGE = {"jinja2": "3.1.6", "matplotlib": "3.11.0"}
EVERY_USE = {"av": "18.0.0", "openvino": "2026.4.1", "supervision": "0.31.2", "pandas": "3.1.1"}
EVERY_USE |= {"trackers": "2.6.1"}
# What pip resolves for each combination of extras that docs/installation.md names, typed by hand from the metadata of
# the wheels.
SOUND = {
    "onnx": ORT,
    "onnx-gpu": ORT_13 | CUDA_13,
    "onnx-gpu-cu12": ORT_12 | CUDA_12,
    "tensorrt": {"tensorrt-cu13": "10.16.1.11"},
    "onnx-gpu,tensorrt": ORT_13 | CUDA_13 | {"tensorrt-cu13": "10.16.1.11"},
    "openvino": {"openvino": "2026.4.1"},
    "onnx,openvino": ORT | {"openvino": "2026.4.1"},
    "tf": TENSORFLOW,
    "tf-gpu": TENSORFLOW_GPU,
    "train": TENSORFLOW | ORT | EXPORTER | TRAINING,
    "train-gpu": TENSORFLOW_GPU | ORT_12 | TRAINING,
    "export": TENSORFLOW | ORT | EXPORTER,
    "export-gpu": TENSORFLOW | ORT_13 | CUDA_13 | EXPORTER | TRAINING,
    "predict": ORT | COMMANDS,
    "predict-gpu": ORT_13 | CUDA_13 | COMMANDS,
    "inspect": TENSORFLOW | TRAINING | PAGE,
    "all": TENSORFLOW | ORT | EXPORTER | TRAINING | PAGE | EVERY_USE | SERVER,
    "supervision": {"supervision": "0.31.2"},
    "pandas": {"pandas": "3.1.1"},
    "video": {"av": "18.0.0"},
    "track": {"trackers": "2.6.1", "supervision": "0.31.2"},
    "batch": RAY,
    "serve": SERVER,
    "serve-ray": {"ray": "2.60.0"} | SERVER,
    "predict,batch": ORT | COMMANDS | RAY,
    "predict,serve": ORT | COMMANDS | SERVER,
    "predict-gpu,batch,serve": ORT_13 | CUDA_13 | COMMANDS | RAY | SERVER,
    "train,batch": TENSORFLOW | ORT | EXPORTER | TRAINING | RAY,
    "tf-gpu,onnx-gpu-cu12": TENSORFLOW_GPU | ORT_12,
    "train,inspect": TENSORFLOW | ORT | EXPORTER | TRAINING | PAGE,
    "export-gpu,inspect": TENSORFLOW | ORT_13 | CUDA_13 | EXPORTER | TRAINING | PAGE,
    "train-gpu,inspect": TENSORFLOW_GPU | ORT_12 | TRAINING | PAGE,
    "train,tf-gpu": TENSORFLOW_GPU | ORT | EXPORTER | TRAINING,
    "predict,tf,video": TENSORFLOW | ORT | COMMANDS | {"av": "18.0.0"},
    "predict-gpu,tf,video": TENSORFLOW | ORT_13 | CUDA_13 | COMMANDS | {"av": "18.0.0"},
    "inspect,onnx": TENSORFLOW | ORT | TRAINING,
}
PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = (*PYPROJECT["dependencies"], *chain.from_iterable(PYPROJECT["optional-dependencies"].values()))


def environment(*sets, **more):
    packages = BASE.copy()
    for each in sets:
        packages |= each
    return Environment(packages, requirements=REQUIREMENTS, installer=Installer("py"), **more)


def findings(found_in):
    return package_findings(found_in) + cuda_findings(found_in)


def only(found_in):
    """Return the only finding there may be."""
    (found,) = findings(found_in)
    return found


def test_there_is_a_sound_set_of_every_extra():
    extras = set(PYPROJECT["optional-dependencies"])
    assert {name for key in SOUND for name in key.split(",")} == extras
    for extra in extras:
        named = {Requirement(text).name for text in PYPROJECT["optional-dependencies"][extra]}
        missing = named - {"maskrcnn-export", "packaging"} - set(SOUND[extra])
        assert not missing, extra


@pytest.mark.parametrize("machine", [{}, GPU])
@pytest.mark.parametrize("packages", SOUND.values(), ids=SOUND)
def test_silent_on_what_an_extra_installs(packages, machine):
    assert findings(environment(packages, **machine)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "extras", [each for each in SOUND if "tensorrt" not in each]
)  # it has no wheels before pip asks
def test_pip_resolves_every_combination_of_extras_to_one_wheel_per_folder(extras, tmp_path):
    """Nothing is installed; the metadata of the wheels comes from the package index."""
    report = tmp_path / "report.json"
    options = [
        "--dry-run",
        "--ignore-installed",
        "--only-binary=:all:",
        "--no-build-isolation",
        "--report",
        str(report),
    ]
    pip = [sys.executable, "-m", "pip", "--retries=0", "install", "--quiet", *options]
    done = subprocess.run([*pip, *wheel_requirements(extras)], capture_output=True, text=True, check=False)
    if (
        done.returncode
        and "No matching distribution found for" in done.stderr
        and "(from versions: none)" in done.stderr
    ):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    items = (each["metadata"] for each in json.loads(report.read_text(encoding="utf-8"))["install"])
    resolved = {canonicalize_name(each["name"]): each["version"] for each in items}
    for wheels in (ORT_WHEELS, TENSORFLOW_WHEELS, CUDNN_WHEELS):
        assert len(set(wheels) & set(resolved)) <= 1
    # The set typed by hand is what pip resolves, and the doctor has nothing to say about either.
    assert set(SOUND[extras]) <= set(resolved)
    named = set(ORT_WHEELS + TENSORFLOW_WHEELS + CUDNN_WHEELS)
    assert named & set(SOUND[extras]) == named & set(resolved)
    assert findings(environment(resolved)) == []


def wheel_requirements(extras):
    """Return what the extras ask for, without this package itself, which would have to be built."""
    optional, own, asked = PYPROJECT["optional-dependencies"], [], list(PYPROJECT["dependencies"])
    waiting = extras.split(",")
    while waiting:
        own.append(waiting.pop())
        for requirement in map(Requirement, optional[own[-1]]):
            if requirement.name == "maskrcnn-export":
                waiting += requirement.extras
            else:
                asked.append(str(requirement))
    return asked


def test_the_installation_page_names_the_combinations():
    """Each extra in the two tables of docs/installation.md is resolved above, and each alone."""
    page = (Path(__file__).parents[2] / "docs" / "installation.md").read_text(encoding="utf-8")
    heads = ("| to use | extra |", "| to use a GPU for | extra |")
    tables = [page.partition(head)[2].partition("\n\n")[0] for head in heads]
    rows = [row for table in tables for row in table.splitlines()[2:]]
    named = {word for row in rows for word in re.findall(r"`([a-z][a-z0-9-]+)`", row.split("|")[2])}
    assert named == set(PYPROJECT["optional-dependencies"])


def test_an_extra_has_one_onnxruntime():
    for extra in PYPROJECT["optional-dependencies"]:
        wheels = {Requirement(text).name for text in wheel_requirements(extra)} & set(ORT_WHEELS)
        assert len(wheels) <= 1, extra


def test_silent_on_cuda_12_with_its_older_driver():
    assert findings(environment(SOUND["tf-gpu,onnx-gpu-cu12"], driver="525.60.13", gpus=("one",))) == []


# Folders that wheels share


@pytest.mark.parametrize("machine", [{}, GPU])
def test_two_onnxruntimes(machine):
    both = ORT | {"onnxruntime-gpu": "1.31.1"} | CUDA_13
    folder = OrtFolder(Path("/site/onnxruntime"), "onnxruntime", "1.31.1")
    found = only(environment(both, ort=folder, **machine))
    assert (found.state, found.subject) == ("problem", "onnxruntime and onnxruntime-gpu")
    assert "there now: onnxruntime." in found.detail
    extra = "onnx-gpu" if machine else "onnx"
    gone = f"{PIP} uninstall --yes onnxruntime onnxruntime-gpu"
    assert found.fix == f"{gone} && {PIP} install 'maskrcnn-export[{extra}]'"


def test_two_onnxruntimes_of_the_exporter():
    """`[export]` and `[onnx-gpu]` installed together."""
    found = only(environment(TENSORFLOW, ORT, EXPORTER, ORT_13, CUDA_13, **GPU))
    assert found.subject == "onnxruntime and onnxruntime-gpu"
    assert found.fix.endswith("install 'maskrcnn-export[export-gpu]'")
    found = only(environment(TENSORFLOW_GPU, ORT, EXPORTER, ORT_12, **GPU))
    assert found.fix.endswith("install 'maskrcnn-export[onnx-gpu-cu12]'")


def test_three_onnxruntimes_beside_tensorflow():
    found = only(environment(TENSORFLOW, ORT, ORT_12, CUDA_12, {"onnxruntime-directml": "1.25.1"}, **GPU))
    assert found.subject == "onnxruntime and onnxruntime-gpu and onnxruntime-directml"
    assert found.fix.endswith("'maskrcnn-export[onnx-gpu-cu12]'")


def test_two_tensorflows():
    found = only(environment(TENSORFLOW, {"tensorflow-cpu": "2.21.0"}))
    assert found.subject == "tensorflow and tensorflow-cpu"
    assert found.fix == f"{PIP} uninstall --yes tensorflow tensorflow-cpu && {PIP} install 'maskrcnn-export[tf]'"


def test_folder_of_another_wheel_than_the_one_installed():
    left = OrtFolder(Path("/site/onnxruntime"), "onnxruntime-gpu", "1.26.0")
    found = only(environment(ORT, ort=left))
    assert (found.state, found.subject) == ("problem", "onnxruntime")
    assert "1.31.1 is installed" in found.detail
    assert "has the files of onnxruntime-gpu 1.26.0" in found.detail
    assert found.fix == f"{PIP} install --force-reinstall --no-deps onnxruntime==1.31.1"


def test_folder_of_another_version():
    assert only(environment(ORT, ort=OrtFolder(Path("/site/onnxruntime"), "onnxruntime", "1.25.1"))).state == "problem"


def test_folder_that_does_not_say_what_it_is():
    assert findings(environment(ORT, ort=OrtFolder(Path("/site/onnxruntime"), "", ""))) == []


@pytest.mark.parametrize(("importable", "state"), [(True, "advice"), (False, "problem")])
def test_folder_that_no_package_owns(importable, state):
    found = only(environment(ort=OrtFolder(Path("/my site/onnxruntime"), "onnxruntime", "1.26.0", importable)))
    assert found.state == state
    assert found.fix == f"rm -r '/my site/onnxruntime' && {PIP} install 'maskrcnn-export[onnx]'"


def test_lost_files():
    found = only(environment(ORT, lost={"onnxruntime": "onnxruntime/__init__.py"}))
    assert "onnxruntime/__init__.py is gone" in found.detail
    assert found.fix == f"{PIP} install --force-reinstall --no-deps onnxruntime==1.31.1"


def test_lost_files_of_a_shared_folder_are_fixed_with_it():
    found = only(environment(ORT, ORT_13, lost={"onnxruntime": "onnxruntime/capi/x.so"}))
    assert found.subject == "onnxruntime and onnxruntime-gpu"


# Versions


@pytest.mark.parametrize(
    ("version", "why"),
    [("1.11.1", "opset 17 and 18"), ("1.13.1", "opset 18"), ("1.14.0", "RoiAlign"), ("1.24.4", "RoiAlign")],
)
def test_old_onnxruntime(version, why):
    found = only(environment({"onnxruntime": version}))
    assert found.state == "problem"
    assert why in found.detail
    assert "opset 17" not in found.detail or version == "1.11.1"
    assert found.fix == f"{PIP} install 'maskrcnn-export[onnx]'"


def test_old_onnxruntime_of_another_maker():
    found = only(environment({"onnxruntime-directml": "1.24.4"}))
    assert found.fix == f"{PIP} uninstall --yes onnxruntime-directml && {PIP} install 'maskrcnn-export[onnx-gpu]'"


def test_the_first_onnxruntime_that_will_do():
    assert findings(environment({"onnxruntime": "1.25.0"})) == []


@pytest.mark.parametrize(
    ("package", "version", "state", "fix"),
    [
        ("keras", "3.13.2", "problem", "'keras<4,>=3.14'"),
        ("onnx", "1.20.1", "problem", "'onnx<2,>=1.21'"),
        ("pillow", "11.3.0", "problem", "'pillow<14,>=12.3'"),
        ("pillow", "12.2.0", "problem", "'pillow<14,>=12.3'"),
        ("tensorflow", "2.20.0", "problem", "'tensorflow~=2.21.0'"),
        ("tensorflow", "2.22.0", "advice", "'tensorflow~=2.21.0'"),
        ("h5py", "3.16.0", "advice", "'h5py<3.15,>=3.11'"),
        ("onnxruntime", "2.0.0", "advice", "'onnxruntime<2,>=1.25,>=1.27'"),
        ("onnxruntime-gpu", "1.27.0", "advice", "'maskrcnn-export[onnx-gpu]'"),
    ],
)
def test_versions_outside_what_the_extras_ask_for(package, version, state, fix):
    found = only(environment({package: version}))
    assert (found.state, found.subject) == (state, package)
    assert found.fix == f"{PIP} install {fix}"


def test_versions_that_are_none_and_packages_that_ask_for_nothing():
    assert findings(environment({"keras": "unknown"})) == []
    assert findings(replace(environment({"keras": "3.0"}), requirements=())) == []


@pytest.mark.parametrize(("version", "state"), [("2025.4.0", "problem"), ("2027.0.0", "advice")])
def test_another_openvino_than_the_extra_allows(version, state):
    found = only(environment({"openvino": version}))
    assert (found.state, found.subject, found.fix) == (state, "openvino", f"{PIP} install 'openvino<2027,>=2026.0'")


OPENVINO_DEVICES = {"CPU": "Xeon", "GPU": "Arc", "NPU": "AI Boost"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer({"names": {"CPU": "Xeon"}, "started": ["CPU"]}), [("ok", "devices CPU (Xeon)")]),
        (
            Answer({"names": OPENVINO_DEVICES, "started": ["CPU", "GPU"], "reasons": {"NPU": "no float32"}}),
            [
                ("ok", "devices CPU (Xeon), GPU (Arc)"),
                ("advice", "sees NPU (AI Boost), which cannot run: no float32"),
            ],
        ),
        (
            Answer({"names": {"CPU": "Xeon"}, "started": [], "reasons": {"CPU": "no AVX"}}),
            [("problem", "cannot run on the CPU: no AVX")],
        ),
        (Answer(failure="ended by signal 4"), [("problem", "ended by signal 4")]),
    ],
)
def test_openvino_that_starts_or_does_not(answer, expected):
    found = openvino_findings(environment({"openvino": "2026.4.1"}), answer)
    assert [(each.state, each.detail) for each in found] == expected
    fixes = [each.fix for each in found if each.state == "problem"]
    assert set(fixes) <= {f"{PIP} install --force-reinstall --no-deps openvino==2026.4.1"}


def test_python():
    found = only(environment(python=(3, 14)))
    assert (found.subject, found.fix) == ("python 3.14", "python3.13 -m venv .venv")
    assert only(environment(python=(3, 10))).state == "problem"
    assert [findings(environment(python=(3, minor))) for minor in (11, 12, 13)] == [[], [], []]
    assert PYPROJECT["requires-python"] == ">=3.11,<3.14"


# CUDA


def test_two_cudnns_beside_tensorflow():
    found = [each.subject for each in findings(environment(TENSORFLOW_GPU, ORT_13, CUDA_13, **GPU))]
    assert found == ["nvidia-cudnn-cu12 and nvidia-cudnn-cu13"]
    found = only(environment(TENSORFLOW_GPU, ORT_13, CUDA_13, **GPU))
    gone = f"{PIP} uninstall --yes nvidia-cudnn-cu12 nvidia-cudnn-cu13"
    assert found.fix == f"{gone} && {PIP} install 'maskrcnn-export[onnx-gpu-cu12,tf-gpu]'"


def test_two_cudnns_without_tensorflow():
    found = only(environment(ORT_13, CUDA_12, CUDA_13, **GPU))
    assert found.fix.endswith(f"&& {PIP} install 'maskrcnn-export[onnx-gpu]'")
    found = only(environment(CUDA_12, CUDA_13))
    assert found.fix.endswith(f"&& {PIP} install nvidia-cudnn-cu13")


def test_onnxruntime_for_cuda_13_beside_the_cuda_12_of_tensorflow():
    found = only(environment(TENSORFLOW_GPU, ORT_13, **GPU))
    assert found.subject == "onnxruntime-gpu"
    assert "CUDA 13, but TensorFlow brings the libraries of CUDA 12" in found.detail
    assert found.fix == f"{PIP} install 'maskrcnn-export[onnx-gpu-cu12,tf-gpu]'"


def test_onnxruntime_beside_the_libraries_of_another_cuda():
    found = only(environment(ORT_13, CUDA_12, **GPU))
    assert found.fix == f"{PIP} uninstall --yes nvidia-cudnn-cu12 && {PIP} install 'maskrcnn-export[onnx-gpu]'"
    found = only(environment(ORT_12, CUDA_13, **GPU))
    assert found.fix == f"{PIP} install 'maskrcnn-export[onnx-gpu]'"


@pytest.mark.parametrize(("version", "cuda"), [("1.25.1", 12), ("1.26.0", 12), ("1.27.0", 13), ("1.31.1", 13)])
def test_the_cuda_of_an_onnxruntime(version, cuda):
    assert cuda_of_onnxruntime(environment({"onnxruntime-gpu": version})) == cuda
    assert cuda_of_onnxruntime(environment({"onnxruntime": version})) is None


def test_old_cudnn():
    found = only(environment(ORT_12, CUDA_12, {"nvidia-cudnn-cu12": "8.9.7.29"}))
    assert "cuDNN 9" in found.detail
    assert found.fix == f"{PIP} install 'nvidia-cudnn-cu12>=9.3,<10'"


def test_driver_too_old_for_cuda_13():
    found = only(environment(ORT_13, CUDA_13, driver="570.133.20", gpus=("one",)))
    assert (found.state, found.subject) == ("problem", "NVIDIA driver")
    assert "570.133.20 is too old" in found.detail
    assert "580" in found.detail
    assert found.fix == f"{PIP} uninstall --yes nvidia-cudnn-cu13 && {PIP} install 'maskrcnn-export[onnx-gpu-cu12]'"


def test_driver_too_old_for_cuda_12():
    found = only(environment(TENSORFLOW_GPU, driver="470.256.02", gpus=("one",)))
    assert "needs 525" in found.detail
    assert found.fix == ""  # no command works on every system


def test_driver_does_not_matter_without_cuda():
    assert findings(environment(TENSORFLOW, ORT, driver="470.256.02", gpus=("one",))) == []


@pytest.mark.parametrize(
    ("machine", "fix"),
    [
        ({"driver_failure": "Failed to initialize NVML: Driver/library version mismatch"}, "sudo reboot"),
        ({"driver_failure": "NVIDIA-SMI has failed"}, ""),
        ({"driver": "580.1"}, ""),
        (GPU | {"visible": ""}, "unset CUDA_VISIBLE_DEVICES"),
    ],
)
def test_gpu_that_is_not_seen(machine, fix):
    found = only(environment(ORT, **machine))
    assert found.subject == "NVIDIA GPU"
    assert found.fix == fix


@pytest.mark.parametrize("value", ["1", "1,0", "7"])
def test_an_index_beyond_the_gpus(value):
    found = only(environment(ORT, **GPU, visible=value))
    assert (
        found.detail == f"CUDA_VISIBLE_DEVICES hides every GPU from the engines: it is {value}, and the GPUs are 0 to 0"
    )
    assert findings(environment(ORT, **GPU, visible="0,1")) == []


ARCHITECTURES = (75, 80, 86, 89, 90, 120)  # of onnxruntime-gpu 1.31.1


@pytest.mark.parametrize(
    ("capability", "has_code"),
    [("7.0", False), ("7.5", True), ("8.0", True), ("8.7", True), ("9.0", True), ("10.0", False), ("11.0", False)],
)
def test_compute_capability(capability, has_code):
    machine = GPU | {"capabilities": (capability,), "architectures": ARCHITECTURES}
    found = findings(environment(ORT_13, CUDA_13, **machine))
    assert bool(found) is not has_code
    for each in found:
        assert (each.state, each.subject, each.fix) == ("problem", "onnxruntime-gpu", "")
        assert (
            f"no code for NVIDIA H100 (compute capability {capability}), only for 7.5, 8.0, 8.6, 8.9, " in each.detail
        )
    assert findings(environment(ORT, **machine)) == []


@pytest.mark.parametrize("package", ["tensorrt", "tensorrt-cu13"])
def test_another_tensorrt(package):
    found = only(environment(ORT_13, CUDA_13, {package: "11.4.0.106"}, **GPU))
    assert found.detail == "11.4.0.106 is not used: onnxruntime-gpu needs the libraries of TensorRT 10"
    assert found.fix == f"{PIP} uninstall --yes {package} && {PIP} install 'maskrcnn-export[tensorrt]'"


# Engines


def ort(*started, available=None, **reasons):
    facts = {"version": "1", "started": list(started), "available": list(available or started)}
    return Answer(facts | {"reasons": {f"{name}ExecutionProvider": reason for name, reason in reasons.items()}})


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize("answer", [Answer(failure="exit code 1: no"), ort(CUDA), Answer({})])
def test_onnxruntime_that_does_not_start(answer):
    (found,) = onnxruntime_findings(environment(ORT), answer)
    assert found.state == "problem"
    assert found.fix == f"{PIP} install --force-reinstall --no-deps onnxruntime==1.31.1"


def test_onnxruntime_that_does_not_start_and_is_none_or_several():
    (found,) = onnxruntime_findings(environment(), Answer(failure="no"))
    assert found.fix == f"{PIP} install 'maskrcnn-export[onnx]'"
    (found,) = onnxruntime_findings(environment(ORT, ORT_13), Answer(failure="no"))
    assert found.fix.startswith(f"{PIP} uninstall --yes onnxruntime onnxruntime-gpu && ")


def test_onnxruntime_that_uses_all_there_is():
    for sets, machine, answer in (
        ((ORT,), {}, ort(CPU)),
        ((ORT_13, CUDA_13), GPU, ort(CUDA, CPU)),
        ((ORT_12, CUDA_12), GPU | {"driver": "525.1"}, ort(CUDA, CPU)),
    ):
        (found,) = onnxruntime_findings(environment(*sets, **machine), answer)
        assert found.state == "ok"
        assert CPU in found.detail


def test_onnxruntime_without_cuda_beside_a_gpu():
    _, found = onnxruntime_findings(environment(ORT, **GPU), ort(CPU))
    assert found.state == "advice"
    assert found.fix == f"{PIP} uninstall --yes onnxruntime && {PIP} install 'maskrcnn-export[onnx-gpu]'"
    _, found = onnxruntime_findings(environment(ORT, TENSORFLOW, **GPU), ort(CPU))
    assert found.fix.endswith("'maskrcnn-export[onnx-gpu-cu12]'")


def test_onnxruntime_whose_cuda_does_not_load():
    _, found = onnxruntime_findings(environment(ORT_13, **GPU), ort(CPU, available=(CUDA, CPU)))
    assert found.state == "problem"
    assert found.fix == f"{PIP} install 'maskrcnn-export[onnx-gpu]'"


def test_onnxruntime_for_a_gpu_where_there_is_none():
    for machine in ({}, GPU | {"visible": ""}):
        _, found = onnxruntime_findings(environment(ORT_13, **machine), ort(CPU, available=(CUDA, CPU)))
        assert (found.state, found.fix) == ("advice", "")


def test_onnxruntime_is_not_blamed_for_the_driver():
    old = environment(ORT_13, CUDA_13, **(GPU | {"driver": "550.1"}))
    (found,) = onnxruntime_findings(old, ort(CPU, available=(CUDA, CPU)))
    assert found.state == "ok"


def tensorflow(gpus, cuda=True):
    return Answer({"version": "2.21.0", "gpus": gpus, "cuda": cuda})


def test_tensorflow_that_uses_all_there_is():
    for sets, machine, answer in (
        ((TENSORFLOW,), {}, tensorflow(0)),
        ((TENSORFLOW_GPU,), GPU, tensorflow(1)),
        ((TENSORFLOW_GPU,), GPU | {"visible": ""}, tensorflow(0)),
        ((TENSORFLOW_GPU,), GPU | {"driver": "470.1"}, tensorflow(0)),
    ):
        (found,) = tensorflow_findings(environment(*sets, **machine), answer)
        assert found.state == "ok"


@pytest.mark.parametrize(("others", "extras"), [({}, "tf-gpu"), (ORT_13, "tf-gpu,onnx-gpu-cu12")])
def test_tensorflow_without_its_cuda_libraries(others, extras):
    _, found = tensorflow_findings(environment(TENSORFLOW, others, **GPU), tensorflow(0))
    assert found.state == "advice"
    assert found.fix == f"{PIP} install 'maskrcnn-export[{extras}]'"


def test_tensorflow_whose_cuda_libraries_do_not_load():
    _, found = tensorflow_findings(environment(TENSORFLOW_GPU, **GPU), tensorflow(0))
    assert found.state == "problem"
    libraries = "nvidia-cublas-cu12==12.9.1.4 nvidia-cuda-runtime-cu12==12.9.79 nvidia-cudnn-cu12==9.28.0.42"
    assert found.fix == f"{PIP} install --force-reinstall --no-deps {libraries}"


def test_tensorflow_built_without_cuda():
    _, found = tensorflow_findings(environment(TENSORFLOW, **GPU), tensorflow(0, cuda=False))
    assert found.fix == f"{PIP} uninstall --yes tensorflow && {PIP} install 'maskrcnn-export[tf-gpu]'"


def test_tensorflow_that_does_not_start():
    (found,) = tensorflow_findings(environment(TENSORFLOW), Answer(failure="ended by signal 6: x"))
    assert (found.state, found.detail) == ("problem", "ended by signal 6: x")
    assert found.fix == f"{PIP} install --force-reinstall --no-deps tensorflow==2.21.0"


# Commands


def test_commands_of_an_environment_without_pip():
    uv = Installer("/my venv/bin/python", uses_uv=True)
    assert uv.extras("onnx") == "uv pip install --python '/my venv/bin/python' 'maskrcnn-export[onnx]'"
    assert uv.again("a==1") == "uv pip install --python '/my venv/bin/python' --reinstall --no-deps a==1"
    assert uv.without(["a", "b"]) == "uv pip uninstall --python '/my venv/bin/python' a b"
