"""Artifacts and pictures the benchmarks share."""

import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from export.api import export_onnx, export_savedmodel
from export.pictures import verification_pictures
from export.verify import make_feeds
from maskrcnn import demo_model


@pytest.fixture(scope="session")
def model():
    return demo_model()


@pytest.fixture(scope="session")
def onnx_path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "demo.onnx"
    export_onnx(model, path, checkpoint={"name": "demo model"})
    return path


@pytest.fixture(scope="session")
def savedmodel_path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("savedmodel") / "demo"
    export_savedmodel(model, path, checkpoint={"name": "demo model"})
    return path


@pytest.fixture(scope="session")
def feeds(model):
    """One picture with seven objects."""
    detection = model.config.detection
    picture = verification_pictures(None, 3, model.config.resize)[0]
    return make_feeds([picture], (detection.min_score, detection.nms_threshold))


def pytest_benchmark_update_json(output_json):
    """Keep what a reader compares: versions, processor, medians; not every sample, nor the machine's name."""
    packages = ("tensorflow", "keras", "onnxruntime", "openvino", "tf2onnx", "numpy", "pillow", "pycocotools")
    machine = output_json.pop("machine_info")
    cpu = machine.get("cpu", {})
    output_json["machine"] = {
        "cpu": cpu.get("brand_raw"),
        "cores": cpu.get("count"),
        "python": machine["python_version"],
    }
    output_json["versions"] = {name: version(name) for name in packages}
    for peer in ("tf-models-official", "tf-keras", "opencv-python-headless"):
        with suppress(PackageNotFoundError):
            output_json["versions"][peer] = version(peer)
    del output_json["commit_info"]
    for entry in output_json["benchmarks"]:
        entry["stats"] = {key: entry["stats"][key] for key in ("min", "median", "iqr", "rounds")}
        del entry["options"]
