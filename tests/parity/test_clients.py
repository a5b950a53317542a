"""The table of clients in docs/artifact.md: what each does with thresholds as inputs and as constants.

The packages for Node come from npm, once, into pytest's cache folder. Without Node or a network they are skipped.
"""

import base64
import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from filelock import FileLock
from onnx import load

from export.verify.compare import compare_rows
from runtime import Predictor
from runtime.artifact import OUTPUT_NAMES

NODE_PACKAGES = {"onnxruntime-node": "1.30.0", "onnxruntime-web": "1.30.0"}  # the second runs WebAssembly, also in Node
USUAL = {"score_threshold": 0.5, "nms_threshold": 0.5}
# Each leaves another number of detections.
THRESHOLDS = [USUAL, USUAL | {"score_threshold": 0.999}, {"score_threshold": 0.05, "nms_threshold": 0.9}]
LEFT_OUT = [{}, {"score_threshold": 0.5}, {"nms_threshold": 0.5}]


@pytest.fixture(scope="module")
def prepared(onnx_artifact, picture):
    """The demo image as the graph takes it: `images` and `windows`."""
    letterbox, pixels = Predictor(onnx_artifact, "cpu").prepare(picture)
    return {"images": pixels[None], "windows": np.array([letterbox.window], np.float32)}


@pytest.fixture(scope="module")
def expected(onnx_artifact, prepared):
    """What `Predictor` finds at each pair of thresholds."""
    predictor, found = Predictor(onnx_artifact, "cpu"), []
    for thresholds in THRESHOLDS:
        predictor.score_threshold, predictor.nms_threshold = thresholds.values()
        found.append(predictor.run(**prepared))
    assert len({int(outputs["num_detections"][0]) for outputs in found}) == 3
    return found


def same(found, expected):
    sides = [{name: np.asarray(side[name])[0] for name in OUTPUT_NAMES} for side in (expected, found)]
    compared = compare_rows(*sides)
    assert compared.within, compared


def answers_of(run, arrays, runs):
    """What a function makes of inputs with each set of scalars: outputs, or an exception."""
    answers = []
    for scalars in runs:
        try:
            answers.append(run(arrays | {name: np.array(value, np.float32) for name, value in scalars.items()}))
        except Exception as error:  # noqa: BLE001 - clients have their own
            answers.append(error)
    return answers


def ask_python(path, arrays, runs):
    """ONNX Runtime for Python, without `Predictor`."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(feeds):
        return dict(zip(OUTPUT_NAMES, session.run(OUTPUT_NAMES, feeds), strict=True))

    return [value.name for value in session.get_inputs()], answers_of(run, arrays, runs)


def ask_openvino(path, arrays, runs, settings=None):
    """OpenVINO, as docs/artifact.md shows it unless given other settings."""
    openvino = pytest.importorskip("runtime.engines.openvino.library", exc_type=ImportError).openvino
    settings = {"INFERENCE_PRECISION_HINT": "f32"} if settings is None else settings
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(feeds):
        results = compiled(feeds)
        return {output.any_name: results[output].copy() for output in compiled.outputs}

    return [value.any_name for value in compiled.inputs], answers_of(run, arrays, runs)


def ask_node(folder, package, path, arrays, runs):
    """A package of ONNX Runtime for JavaScript."""
    inputs = {
        name: [array.dtype.name, array.shape, base64.b64encode(array.tobytes()).decode()]
        for name, array in arrays.items()
    }
    request = {"package": package, "folder": str(folder), "model": str(path), "inputs": inputs, "runs": runs}
    command = ["node", Path(__file__).with_name("predict.mjs")]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "Initializer" not in done.stderr  # "appears in graph inputs and will not be treated as constant"
    found = json.loads(done.stdout)
    answers = [
        RuntimeError(run["error"])
        if "error" in run
        else {name: np.reshape(each["values"], each["shape"]) for name, each in run["outputs"].items()}
        for run in found["runs"]
    ]
    return found["inputs"], answers


@pytest.fixture(scope="session")
def node_packages(pytestconfig):
    """Folder with the packages for Node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("Node: node or npm is not installed")
    names = [f"{name}@{version}" for name, version in NODE_PACKAGES.items()]
    folder = pytestconfig.cache.mkdir("node") / "-".join(names)
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            # The script of onnxruntime-node downloads CUDA libraries.
            options = ["--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
            options += ["--fetch-timeout=60000"]
            try:
                subprocess.run([npm, "install", *options, *names], check=True, capture_output=True, timeout=300)
            except subprocess.TimeoutExpired:
                pytest.skip("Node: npm install takes more than 300 s")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"Node: npm install fails: {error.stderr.decode(errors='replace').splitlines()[:2]}")
            (folder / "complete").touch()
    return folder


@pytest.fixture(scope="module", params=["python", "openvino", *NODE_PACKAGES])
def client(request):
    """Name of a client, and function from an artifact, inputs and sets of scalars to input names and answers."""
    if request.param in NODE_PACKAGES:
        return request.param, partial(ask_node, request.getfixturevalue("node_packages"), request.param)
    return request.param, {"python": ask_python, "openvino": ask_openvino}[request.param]


@pytest.fixture(scope="module")
def with_inputs(client, onnx_artifact, prepared):
    """Input names, and answers to `THRESHOLDS` and `LEFT_OUT`."""
    return client[1](onnx_artifact, prepared, THRESHOLDS + LEFT_OUT)


@pytest.fixture(scope="module")
def with_constants(client, constant_artifact, prepared):
    """Input names, and answers without thresholds and with one."""
    return client[1](constant_artifact, prepared, [{}, {"score_threshold": 0.999}])


def test_thresholds_that_are_inputs(with_inputs, expected):
    """Every client gives the same detections at all thresholds."""
    inputs, answers = with_inputs
    assert inputs == ["images", "windows", "score_threshold", "nms_threshold"]
    for found, wanted in zip(answers, expected, strict=False):
        same(found, wanted)


def test_an_input_that_is_left_out(client, with_inputs):
    """Every client refuses, except OpenVINO, which reads memory that nobody has set; docs/artifact.md says so."""
    for found in with_inputs[1][len(THRESHOLDS) :]:
        if client[0] == "openvino":
            assert set(found) == set(OUTPUT_NAMES)
        else:
            assert isinstance(found, ValueError | RuntimeError)
            assert "missing" in str(found)


def test_thresholds_that_are_constants(with_constants, expected):
    """Two inputs are enough in every client."""
    inputs, (found, _) = with_constants
    assert inputs == ["images", "windows"]
    same(found, expected[0])


def test_a_threshold_for_constants(client, with_constants, expected):
    """Every client refuses, except onnxruntime-node, which ignores inputs that it does not know; docs say so."""
    _, (_, found) = with_constants
    if client[0] == "onnxruntime-node":
        same(found, expected[0])
    else:
        assert re.search("(?i)invalid input|port", str(found))


def test_a_session_prints_no_warnings(onnx_artifact, constant_artifact, capfd):
    """As it did when thresholds were initializers that inputs could replace."""
    for path in (onnx_artifact, constant_artifact):
        graph = load(path).graph
        assert not {value.name for value in graph.input} & {tensor.name for tensor in graph.initializer}
        ask_python(path, {}, [])
    assert capfd.readouterr().err == ""


def test_openvino_with_its_default_settings_gives_other_detections(onnx_artifact, prepared, expected):
    """Where the processor has bfloat16; this is why README and docs name the setting."""
    openvino = pytest.importorskip("runtime.engines.openvino.library", exc_type=ImportError).openvino
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("the processor has no bfloat16, so OpenVINO computes in float32")
    _, (found,) = ask_openvino(onnx_artifact, prepared, [USUAL], settings={})
    sides = [found, expected[0]]
    rows = [{name: np.asarray(side[name])[0] for name in OUTPUT_NAMES} for side in sides]
    assert not compare_rows(*rows).within


def test_the_pages_set_the_precision_of_openvino(pytestconfig):
    root = pytestconfig.rootpath
    for name in ("README.md", "docs/artifact.md", "docs/export.md"):
        page = (root / name).read_text(encoding="utf-8")
        assert "OpenVINO" in page
        assert "INFERENCE_PRECISION_HINT" in page, name


def test_the_snippets_of_the_artifact_page_run(pytestconfig, onnx_artifact, savedmodel_artifact, prepared, expected):
    """With the artifacts of the demo model in place of the names on the page."""
    page = (pytestconfig.rootpath / "docs" / "artifact.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(snippets) == 3
    for snippet in snippets:
        if "openvino" in snippet:
            pytest.importorskip("runtime.engines.openvino.library", exc_type=ImportError)
        code, names = snippet, dict(prepared)
        for name, artifact in {"model.onnx": onnx_artifact, "model_savedmodel": savedmodel_artifact}.items():
            code = code.replace(f'"{name}"', repr(str(artifact)))
        exec(compile(code, "docs/artifact.md", "exec"), names)
        same(names["outputs"], expected[0])
