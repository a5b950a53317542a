"""Models with both artifacts, and the pieces a comparison needs."""

from dataclasses import dataclass

import golden
import models
import pytest

from benchmarks.seeded_weights import seed_weights
from export import export_onnx, export_savedmodel
from export.verify.reference import Reference
from export.verify.written import stages_of
from maskrcnn.configuration.matterport import from_matterport
from maskrcnn.model import MaskRCNN
from runtime.artifact_files.read import read_metadata
from runtime.engines.choose import open_backend


@dataclass
class Pair:
    """A model and its artifact, loaded."""

    reference: Reference
    backend: object
    stages: object
    path: object


def make_pair(model, artifact_format, folder):
    path = folder / f"{model.config.name}.{artifact_format}"
    export = {"onnx": export_onnx, "savedmodel": export_savedmodel}[artifact_format]
    export(model, path, checkpoint={"name": "seeded weights"})
    metadata = read_metadata(path)
    return Pair(Reference(model), open_backend(path, metadata, "cpu"), stages_of(path, metadata), path)


@pytest.fixture(scope="session", params=["onnx", "savedmodel"])
def artifact_format(request):
    return request.param


@pytest.fixture(scope="session")
def demo_pair(artifact_format, demo, tmp_path_factory):
    return make_pair(demo, artifact_format, tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def small_pair(artifact_format, tmp_path_factory):
    """ResNet-50, 4 classes, 256 pixels: the small golden model."""
    return make_pair(models.small_model(), artifact_format, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def coco_pair(artifact_format, tmp_path_factory):
    """ResNet-101, 81 classes, 1024 pixels: the large golden model."""
    model = MaskRCNN(from_matterport(golden.config_values(golden.load("infer_coco_seed0"))))
    seed_weights(model, 0)
    return make_pair(model, artifact_format, tmp_path_factory.mktemp("coco"))
