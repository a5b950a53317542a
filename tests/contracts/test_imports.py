"""What is imported when, and what works without it: each check runs in an interpreter of its own."""

import json
import subprocess
import sys

import pytest
from PIL import Image

HEAVY = ("tensorflow", "keras", "onnx", "tf2onnx", "onnxruntime", "typer", "pycocotools", "h5py", "supervision")

# Prints which of the modules named in the arguments are loaded in the end.
REPORT = """
import json, sys
{code}
print()
print(json.dumps([name for name in {names!r} if sys.modules.get(name) is not None]))
"""


@pytest.fixture
def loaded(pytestconfig):
    """Run code in a new interpreter; return which of the modules are loaded afterwards."""

    def run(code, *arguments, names=HEAVY):
        command = [sys.executable, "-c", REPORT.format(code=code, names=names), *map(str, arguments)]
        done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def photo(picture, tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "picture.png"
    Image.fromarray(picture).save(path)
    return path


def test_the_report_sees_what_is_imported(loaded):
    assert loaded("import onnxruntime, PIL.Image", names=("onnxruntime", "PIL.Image", "keras")) == [
        "onnxruntime",
        "PIL.Image",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "from runtime import Predictor; Predictor('maskrcnn/demo.onnx', 'cpu')('maskrcnn/demo.jpg')",
        "import export.precision.quantize as quantize; quantize.ort.InferenceSession('maskrcnn/demo.onnx')",
        "from export.doctor.probe import ask_onnxruntime; assert ask_onnxruntime().facts",
    ],
    ids=["predictor", "quantizer", "doctor"],
)
def test_onnxruntime_sends_nothing_and_keeps_no_id(code, pytestconfig, tmp_path):
    home = {"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(pytestconfig.rootpath), "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", code], cwd=pytestconfig.rootpath, env=home, check=True)  # and CI is not set
    assert [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name] == []


@pytest.mark.parametrize(
    "code",
    [
        "from runtime import Predictor",
        "import runtime; [getattr(runtime, name) for name in runtime.__all__]",
        "import runtime.output.draw, runtime.output.formats, runtime.masks.rle, runtime.masks.paste, runtime.atomic",
        "import export, export.errors",
        "import runtime.triton",
    ],
)
def test_importing_loads_no_engine(loaded, code):
    assert loaded(code) == []


def test_files_of_pytorch_wait_for_the_packages_that_read_them(loaded):
    modules = ("state_dict", "torch_write", "detectron2_config", "mmdet_config")
    code = "; ".join(f"import maskrcnn.checkpoints.pytorch.{module}" for module in modules)
    assert loaded(code, names=(*HEAVY, "torch", "safetensors", "yaml")) == []


def test_drawing_is_loaded_by_those_who_draw(loaded):
    assert loaded("from runtime import Predictor", names=("PIL.ImageDraw", "PIL.ImageFont")) == []


def test_reading_metadata_loads_no_engine(loaded, onnx_artifact, savedmodel_artifact):
    code = "from runtime import read_metadata; [read_metadata(path) for path in sys.argv[1:]]"
    assert loaded(code, onnx_artifact, savedmodel_artifact) == []


PREDICT = """
{before}
from runtime import Predictor
detections = Predictor(sys.argv[1], "cpu")(sys.argv[2])
assert len(detections) >= 6, detections
detections.draw(sys.argv[2])
detections.to_json()
detections.to_coco(1)
"""
BLOCK = "for name in {names!r}: sys.modules[name] = None"


def test_onnx_predicts_with_its_engine_alone(loaded, onnx_artifact, photo):
    others = [name for name in HEAVY if name != "onnxruntime"]
    code = PREDICT.format(before=BLOCK.format(names=[*others, "maskrcnn", "export"]))
    assert loaded(code, onnx_artifact, photo) == ["onnxruntime"]


def test_onnx_loads_nothing_else_where_it_is_installed(loaded, onnx_artifact, photo):
    names = (*HEAVY, "maskrcnn", "export")
    assert loaded(PREDICT.format(before=""), onnx_artifact, photo, names=names) == ["onnxruntime"]


def test_savedmodel_predicts_without_the_model_and_its_file_formats(loaded, savedmodel_artifact, photo):
    blocked = ("onnx", "tf2onnx", "onnxruntime", "typer", "pycocotools", "supervision", "maskrcnn", "export")
    code = PREDICT.format(before=BLOCK.format(names=blocked))
    assert loaded(code, savedmodel_artifact, photo, names=(*blocked, "tensorflow")) == ["tensorflow"]


def test_a_blocked_engine_is_really_blocked(loaded, onnx_artifact, photo):
    code = PREDICT.format(before=BLOCK.format(names=["onnxruntime"]))
    with pytest.raises(AssertionError, match="MissingPackageError"):
        loaded(code, onnx_artifact, photo)


HELP = """
import contextlib, io, runpy
sys.argv = ["maskrcnn-export", *sys.argv[1:]]
text = io.StringIO()
with contextlib.redirect_stdout(text):
    try:
        {start}
    except SystemExit as end:
        assert not end.code, end.code
assert "Usage" in text.getvalue(), text.getvalue()
"""
STARTS = {
    "python -m export": 'runpy.run_module("export", run_name="__main__")',
    "maskrcnn-export": "from export.__main__ import main; main()",  # what the installed script calls
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("arguments", [["--help"], ["onnx", "--help"], ["verify", "--help"]], ids=" ".join)
def test_help_waits_for_no_engine(loaded, start, arguments):
    assert loaded(HELP.format(start=STARTS[start]), *arguments) == ["typer"]


def test_inspecting_an_artifact_waits_for_no_engine(loaded, onnx_artifact):
    code = HELP.replace('assert "Usage" in text.getvalue(), text.getvalue()', 'assert "demo" in text.getvalue()')
    assert loaded(code.format(start=STARTS["maskrcnn-export"]), "inspect", onnx_artifact) == ["typer"]
