"""Models with both artifacts, and the pieces a comparison needs."""

from dataclasses import dataclass, replace
from functools import cache

import golden
import models
import pytest
from store import unverified

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


@pytest.fixture(scope="session", params=["onnx", "savedmodel"])
def artifact_format(request):
    return request.param


def pair(reference, path):
    metadata = read_metadata(path)
    return Pair(reference, open_backend(path, metadata, "cpu"), stages_of(path, metadata), path)


@pytest.fixture(scope="session")
def pair_of(artifact_format, artifact_store):
    """Function from a model's reference to the pair with its artifact of this format."""

    def make(reference):
        model = reference.model
        suffix, export = {"onnx": (".onnx", export_onnx), "savedmodel": ("", export_savedmodel)}[artifact_format]
        facts = {"name": "seeded weights"}

        def write(path):
            with unverified():
                export(model, path, checkpoint=facts)

        return pair(reference, artifact_store(f"{model.config.name}{suffix}", write))

    return make


@cache
def reference_of(make):
    return Reference(make())


@pytest.fixture(scope="session")
def demo_pair(artifact_format, request):
    return pair(reference_of(models.demo), request.getfixturevalue(f"{artifact_format}_artifact"))


def narrow_model():
    """ResNet-50 with an eighth of the channels, and masks of 56 x 56."""
    config = from_matterport(golden.config_values(golden.load("infer_small_seed0")))
    widths = {"fpn_channels": 32, "rpn_channels": 32, "box_head_channels": 64, "mask_head_channels": 32}
    changed = replace(config.model, backbone_width=8, mask_head_deconvolutions=2, **widths)
    model = MaskRCNN(replace(config, name="narrow", model=changed))
    seed_weights(model, 0)
    return model


@pytest.fixture(scope="session")
def narrow_pair(pair_of):
    """As `small_pair`, but exported and run in a fraction of the time."""
    return pair_of(reference_of(narrow_model))


@pytest.fixture(scope="session")
def small_pair(pair_of):
    """ResNet-50, 4 classes, 256 pixels: the small golden model."""
    return pair_of(reference_of(models.small_model))


def coco_model():
    model = MaskRCNN(from_matterport(golden.config_values(golden.load("infer_coco_seed0"))))
    seed_weights(model, 0)
    return model


@pytest.fixture(scope="session")
def coco_pair(pair_of):
    """ResNet-101, 81 classes, 1024 pixels: the large golden model."""
    return pair_of(reference_of(coco_model))
