"""A picture file to detections, and detections to masks: what an application waits for."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn import demo_picture
from runtime import Predictor
from runtime.images import read_image
from runtime.letterbox import ResizePolicy, plan_letterbox


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """The demo picture at 12 megapixels, as JPEG."""
    path = tmp_path_factory.mktemp("picture") / "large.jpg"
    Image.fromarray(demo_picture()).resize((4000, 3000)).save(path, quality=90)
    return path


@pytest.mark.benchmark(group="12-megapixel JPEG, host side")
def test_decode(benchmark, photograph):
    benchmark(read_image, photograph)


@pytest.mark.benchmark(group="12-megapixel JPEG, host side")
def test_letterbox_to_1024(benchmark, photograph):
    picture = read_image(photograph)
    letterbox = plan_letterbox(picture.shape[:2], ResizePolicy("square", 800, 1024, 0))
    benchmark(letterbox.apply, picture)


@pytest.mark.benchmark(group="12-megapixel JPEG, host side")
def test_letterbox_by_pillow(benchmark, photograph):
    """The peer; it averages when it shrinks, so its pixels are others than those the weights were trained on."""
    picture = read_image(photograph)
    benchmark(
        lambda: np.asarray(Image.fromarray(picture).resize((1024, 768), Image.Resampling.BILINEAR, reducing_gap=None))
    )


@pytest.mark.benchmark(group="masks of 7 detections, 12 megapixels")
def test_run_lengths(benchmark, onnx_path, photograph):
    detections = Predictor(onnx_path, "cpu")(photograph)
    assert len(detections) >= 6
    benchmark(lambda: detections[:].rles)


@pytest.mark.benchmark(group="masks of 7 detections, 12 megapixels")
def test_run_lengths_by_pycocotools(benchmark, onnx_path, photograph):
    """The peer: full-size bitmaps, then its encoder."""
    encoder = pytest.importorskip("pycocotools.mask")
    detections = Predictor(onnx_path, "cpu")(photograph)
    benchmark(lambda: [encoder.encode(np.asfortranarray(d.masks[0])) for d in detections])
