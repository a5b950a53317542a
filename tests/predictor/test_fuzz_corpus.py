"""What fuzzing found worth keeping: each input once more through its target, every finding of the past among them."""

from io import BytesIO
from pathlib import Path

import pytest
from fuzz_targets import TARGETS
from PIL import Image

from runtime.pictures.read import read_image

CORPUS = Path(__file__).parents[1] / "fuzz_corpus"
LARGEST, ALL = 8 * 1024, 200 * 1024  # bytes of a file, and of all


@pytest.fixture(params=TARGETS)
def target(request):
    if request.param == "savedmodel":
        pytest.importorskip("tensorflow", reason="needs TensorFlow")
    if request.param == "safetensors":
        pytest.importorskip("safetensors", reason="needs safetensors")
    return request.param


def test_the_corpus_of_a_target_has_no_finding(target):
    files = sorted((CORPUS / target).iterdir())
    assert files
    for path in files:
        try:
            TARGETS[target](path.read_bytes())
        except Exception as error:
            raise AssertionError(f"python tests/fuzz/fuzz.py {target} --replay {path}") from error


def test_the_corpus_is_small_and_of_known_targets():
    assert sorted(folder.name for folder in CORPUS.iterdir()) == sorted(TARGETS)
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert max(sizes) <= LARGEST
    assert sum(sizes) <= ALL


def test_a_target_lets_no_other_error_pass(target, monkeypatch):
    """A fault behind any of the doors is a finding."""

    def broken(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(BEHIND[target], broken)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        for path in (CORPUS / target).iterdir():
            TARGETS[target](path.read_bytes())


def test_large_pictures_are_no_finding():
    """Above what the target decodes, below the limit of the product: refused at both doors alike."""
    image = BytesIO()
    Image.new("L", (2000, 1000)).save(image, "PNG")
    assert read_image(image.getvalue()).shape == (1000, 2000, 3)
    TARGETS["picture"](image.getvalue())


BEHIND = {
    "picture": "runtime.pictures.read.picture_pixels",
    "rle": "runtime.masks.rle._are_whole",
    "coco": "maskrcnn.data.readers.coco._read_images",
    "via": "maskrcnn.data.readers.via_forms._is_version_3",
    "via_csv": "maskrcnn.data.readers.via_forms._read_csv",
    "yolo": "maskrcnn.data.readers.yolo._share",
    "labelme": "maskrcnn.data.readers.labelme._add_picture",
    "metadata": "runtime.artifact._tuple",
    "manifest": "runtime.artifact_files.savedmodel_folder._files",
    "onnx": "runtime.artifact_files.onnx_scan.read_fields",
    "savedmodel": "runtime.artifact_files.savedmodel_scan._foreign_parts",
    "config": "maskrcnn.configuration.model.from_dict",
    "weights": "maskrcnn.checkpoints.h5_classic._shape",
    "torch": "maskrcnn.checkpoints.pytorch.state_dict.checked_bytes",
    "detectron2_pickle": "maskrcnn.checkpoints.pytorch.state_dict.array_of",
    "safetensors": "maskrcnn.checkpoints.pytorch.safetensors_file._described",
    "detectron2_config": "maskrcnn.checkpoints.pytorch.detectron2_config._values",
    "mmdet_config": "maskrcnn.checkpoints.pytorch.mmdet_config._scalar",
}
