"""Artifacts and pictures the benchmarks share."""

import os
import shlex
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

with suppress(ImportError):
    # The compiler that it loads ends the process when it comes after TensorFlow.
    import torchvision  # noqa: F401

import pytest
import tensorflow as tf

from benchmarks.turns import THREADS
from export import export_onnx, export_savedmodel
from export.verify.pictures import verification_pictures
from export.verify.verify import make_feeds
from maskrcnn import demo_model

tf.config.threading.set_intra_op_parallelism_threads(THREADS)
tf.config.threading.set_inter_op_parallelism_threads(THREADS)


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
    """Keep what a reader compares: command, versions, processor, medians; not every sample, nor the machine's name."""
    packages = ("tensorflow", "keras", "onnxruntime", "openvino", "tf2onnx", "numpy", "pillow", "pycocotools")
    peers = ("torch", "torchvision", "tf-models-official", "tf-keras", "opencv-python-headless", "supervision")
    machine = output_json.pop("machine_info")
    cpu = machine.get("cpu", {})
    output_json["command"] = shlex.join(["pytest", *sys.argv[1:]])
    output_json["machine"] = {
        "cpu": cpu.get("brand_raw"),
        "cores": cpu.get("count"),
        "threads": THREADS,
        "python": machine["python_version"],
    }
    output_json["versions"] = {}
    for package in (*packages, *peers):
        with suppress(PackageNotFoundError):
            output_json["versions"][package] = version(package)
    del output_json["commit_info"]
    for entry in output_json["benchmarks"]:
        entry["stats"] = {key: entry["stats"][key] for key in ("min", "median", "iqr", "rounds")}
        del entry["options"]
