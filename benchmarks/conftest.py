"""Artifacts and pictures the benchmarks share."""

import os

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
    """One picture that gives as many detections as fit."""
    detection = model.config.detection
    picture = verification_pictures(None, 3, model.config.resize)[0]
    return make_feeds([picture], (detection.min_score, detection.nms_threshold))
