"""Both artifacts as one parameter, and artifacts with other metadata around the same graph."""

import json
import shutil

import onnx
import pytest

from runtime import Predictor
from runtime.artifact import verdict_digest
from runtime.artifact_files.onnx_file import seal
from runtime.artifact_files.read import read_metadata
from runtime.artifact_files.savedmodel_folder import seal_folder


@pytest.fixture(scope="session", params=["onnx", "savedmodel"])
def artifact(request):
    """Path of the demo model's artifact, in one format after the other."""
    return request.getfixturevalue(f"{request.param}_artifact")


def pytest_runtest_setup(item):
    """Skip tests with the parameter "openvino" where it is not installed."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if any(isinstance(value, str) and value == "openvino" for value in parameters):
        reason = "openvino is not installed"
        pytest.importorskip("runtime.engines.openvino.library", reason=reason, exc_type=ImportError)


@pytest.fixture(scope="session", params=["cpu", "openvino"])
def onnx_device(request):
    """A device that runs `.onnx` artifacts on the processor: ONNX Runtime, then OpenVINO."""
    return request.param


@pytest.fixture(scope="session")
def predictor(artifact):
    return Predictor(artifact, "cpu")


@pytest.fixture
def doctored(artifact, tmp_path):
    """Write a copy of the artifact, properly sealed, with some of its metadata changed; return its path."""

    def write(**changes):
        values = json.loads(read_metadata(artifact).to_json()) | changes
        metadata = json.dumps(values | {"verdict_sha256": verdict_digest(values["verdict"])})
        path = tmp_path / f"doctored{artifact.suffix}"
        if artifact.is_dir():
            seal_folder(shutil.copytree(artifact, path, dirs_exist_ok=True), metadata)
        else:
            model = onnx.load(artifact)
            del model.metadata_props[:]
            path.write_bytes(seal(model.SerializeToString(), metadata))
        return path

    return write
