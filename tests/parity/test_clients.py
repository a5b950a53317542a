"""The table of clients in docs/artifact.md: what each does with thresholds as inputs and as constants.

The packages for Node come from npm, once, into pytest's cache folder. Without Node or a network they are skipped.
"""

import base64
import json
import re
import shutil
import subprocess
from functools import cache
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


class Python:
    """ONNX Runtime for Python, without `Predictor`."""

    def __init__(self, path):
        self._session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self._session.get_inputs()]

    def __call__(self, feeds):
        found = self._session.run(OUTPUT_NAMES, {name: np.asarray(array) for name, array in feeds.items()})
        return dict(zip(OUTPUT_NAMES, found, strict=True))


class OpenVINO:
    """OpenVINO, as docs/artifact.md shows it unless given other settings."""

    def __init__(self, path, settings=None):
        openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install --group dev")
        model = openvino.Core().read_model(path)
        self.inputs = [value.any_name for value in model.inputs]
        settings = {"INFERENCE_PRECISION_HINT": "f32"} if settings is None else settings
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)

    def __call__(self, feeds):
        results = self._compiled(feeds)
        return {output.any_name: results[output] for output in self._compiled.outputs}


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
            try:
                subprocess.run([npm, "install", *options, *names], check=True, capture_output=True, timeout=300)
            except subprocess.TimeoutExpired:
                pytest.skip("Node: npm install takes more than 300 s")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"Node: npm install fails: {error.stderr.decode(errors='replace').strip()[-200:]}")
            (folder / "complete").touch()
    return folder


class Node:
    """A package of ONNX Runtime for JavaScript."""

    def __init__(self, folder, package, path):
        self._request = {"package": package, "folder": str(folder), "model": str(path)}
        self.inputs = self._ask({}, [])["inputs"]

    def __call__(self, feeds):
        scalars = {name: float(array) for name, array in feeds.items() if np.ndim(array) == 0}
        arrays = {
            name: [array.dtype.name, array.shape, base64.b64encode(array.tobytes()).decode()]
            for name, array in feeds.items()
            if name not in scalars
        }
        (run,) = self._ask(arrays, [scalars])["runs"]
        if "error" in run:
            raise RuntimeError(run["error"])
        return {name: np.reshape(each["values"], each["shape"]) for name, each in run["outputs"].items()}

    def _ask(self, arrays, runs):
        request = json.dumps(self._request | {"inputs": arrays, "runs": runs})
        script = Path(__file__).with_name("predict.mjs")
        done = subprocess.run(["node", script], input=request, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert "Initializer" not in done.stderr  # "appears in graph inputs and will not be treated as constant"
        return json.loads(done.stdout)


@pytest.fixture(params=["python", "openvino", *NODE_PACKAGES])
def client(request):
    """Function that opens an artifact in a client."""
    if request.param in NODE_PACKAGES:
        folder = request.getfixturevalue("node_packages")
        return lambda path: Node(folder, request.param, path)
    return {"python": Python, "openvino": OpenVINO}[request.param]


def scalars(thresholds):
    return {name: np.float32(value) for name, value in thresholds.items()}


def test_thresholds_that_are_inputs(client, onnx_artifact, prepared, expected):
    """Every client gives the same detections at all thresholds."""
    run = client(onnx_artifact)
    assert run.inputs == ["images", "windows", "score_threshold", "nms_threshold"]
    for thresholds, wanted in zip(THRESHOLDS, expected, strict=True):
        same(run(prepared | scalars(thresholds)), wanted)


def test_an_input_that_is_left_out(client, onnx_artifact, prepared, request):
    """Every client refuses, except OpenVINO, which reads memory that nobody has set; docs/artifact.md says so."""
    for left in ({}, scalars({"score_threshold": 0.5}), scalars({"nms_threshold": 0.5})):
        run = client(onnx_artifact)
        if request.node.callspec.params["client"] == "openvino":
            assert set(run(prepared | left)) == set(OUTPUT_NAMES)
        else:
            with pytest.raises((ValueError, RuntimeError), match="missing"):
                run(prepared | left)


def test_thresholds_that_are_constants(client, constant_artifact, prepared, expected):
    """Two inputs are enough in every client."""
    run = client(constant_artifact)
    assert run.inputs == ["images", "windows"]
    same(run(prepared), expected[0])


def test_a_threshold_for_constants(client, constant_artifact, prepared, expected, request):
    """Every client refuses, except onnxruntime-node, which ignores inputs that it does not know; docs say so."""
    run = client(constant_artifact)
    given = prepared | scalars({"score_threshold": 0.999})
    if request.node.callspec.params["client"] == "onnxruntime-node":
        same(run(given), expected[0])
    else:
        with pytest.raises(Exception, match=r"(?i)invalid input|port"):
            run(given)


def test_a_session_prints_no_warnings(onnx_artifact, constant_artifact, capfd):
    """As it did when thresholds were initializers that inputs could replace."""
    for path in (onnx_artifact, constant_artifact):
        graph = load(path).graph
        assert not {value.name for value in graph.input} & {tensor.name for tensor in graph.initializer}
        Python(path)
    assert capfd.readouterr().err == ""


@cache
def computes_in_bf16():
    openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install --group dev")
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_openvino_with_its_default_settings_gives_other_detections(onnx_artifact, prepared, expected):
    """Where the processor has bfloat16; this is why README, docs and doctor name the setting."""
    if not computes_in_bf16():
        pytest.skip("the processor has no bfloat16, so OpenVINO computes in float32")
    run = OpenVINO(onnx_artifact, settings={})
    sides = [run(prepared | scalars(THRESHOLDS[0])), expected[0]]
    rows = [{name: np.asarray(side[name])[0] for name in OUTPUT_NAMES} for side in sides]
    assert not compare_rows(*rows).within


def test_the_pages_set_the_precision_of_openvino(pytestconfig):
    root = pytestconfig.rootpath
    for name in ("README.md", "docs/artifact.md", "docs/export.md", "docs/doctor.md"):
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
            pytest.importorskip("openvino", reason="openvino is not installed: pip install --group dev")
        code, names = snippet, dict(prepared)
        for name, artifact in {"model.onnx": onnx_artifact, "model_savedmodel": savedmodel_artifact}.items():
            code = code.replace(f'"{name}"', repr(str(artifact)))
        exec(compile(code, "docs/artifact.md", "exec"), names)
        same(names["outputs"], expected[0])
