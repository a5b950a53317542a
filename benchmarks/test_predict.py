"""A picture file to detections, and detections to masks: what an application waits for."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn import demo_picture
from runtime import Detections, Predictor
from runtime.masks.rle import encode_crop
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox
from runtime.pictures.read import read_image
from runtime.steps import letterbox_picture

_POLICY = ResizePolicy("square", 800, 1024, 0)
_SIZE = (800, 1333)


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
    letterbox = plan_letterbox(picture.shape[:2], _POLICY)
    benchmark(letterbox.apply, picture)


@pytest.mark.benchmark(group="12-megapixel JPEG, host side")
def test_letterbox_by_pillow(benchmark, photograph):
    """The peer; it averages when it shrinks, so its pixels are others than those the weights were trained on."""
    picture = read_image(photograph)
    benchmark(
        lambda: np.asarray(Image.fromarray(picture).resize((1024, 768), Image.Resampling.BILINEAR, reducing_gap=None))
    )


@pytest.mark.benchmark(group="12-megapixel JPEG, file to network input")
def test_file_to_input(benchmark, photograph):
    benchmark(letterbox_picture, photograph, 3, _POLICY)


@pytest.mark.benchmark(group="12-megapixel JPEG, file to network input")
def test_file_to_input_by_opencv(benchmark, photograph):
    """The peer; its pixels are within rounding of ours, not equal."""
    cv2 = pytest.importorskip("cv2")

    def picture_to_input():
        pixels = cv2.cvtColor(cv2.imdecode(np.fromfile(photograph, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        resized = cv2.resize(pixels, (1024, 768), interpolation=cv2.INTER_LINEAR)
        return cv2.copyMakeBorder(resized, 128, 128, 0, 0, cv2.BORDER_CONSTANT)

    benchmark(picture_to_input)


@pytest.fixture(scope="module")
def hundred():
    """100 round masks of 28 x 28 in 800 x 1333, whose boxes add up to 8 megapixels."""
    rng = np.random.default_rng(0)
    areas = rng.gamma(1.0, 1.0, 100)
    heights = np.minimum(np.sqrt(areas / areas.sum() * 8e6 * np.exp(rng.normal(0, 0.4, 100))), 780)
    sides = np.stack([areas / areas.sum() * 8e6 / heights, heights], axis=1)
    corners = rng.uniform(0, 1, (100, 2)) * (np.array(_SIZE[::-1]) - sides)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    radii = rng.uniform(0.5, 0.95, (100, 2, 1, 1))
    masks = 1 / (1 + np.exp(8 * (np.hypot(y / radii[:, 0], x / radii[:, 1]) - 1) + rng.normal(0, 0.3, (100, 28, 28))))
    return Detections(
        np.hstack([corners, corners + sides]).astype(np.float32),
        np.ones(100, np.float32),
        np.ones(100, np.int32),
        masks.astype(np.float32),
        _SIZE,
        ("BG", "thing"),
    )


@pytest.mark.benchmark(group="masks of 100 detections, 800 x 1333")
def test_hundred_run_lengths(benchmark, hundred):
    benchmark(lambda: hundred[:].rles)


@pytest.mark.benchmark(group="masks of 100 detections, 800 x 1333")
def test_hundred_polygons(benchmark, hundred):
    benchmark(lambda: hundred[:].polygons)


def _resized_by_opencv(hundred):
    cv2 = pytest.importorskip("cv2")
    for mask, (x1, y1, x2, y2) in zip(hundred.mask_probabilities, hundred.pixel_boxes.tolist(), strict=True):
        # Transposed, so that the columns of the picture lie in one piece.
        yield cv2.resize(np.ascontiguousarray(mask.T), (y2 - y1, x2 - x1)) >= 0.5, (x1, y1)


@pytest.mark.benchmark(group="masks of 100 detections, 800 x 1333")
def test_hundred_run_lengths_by_opencv(benchmark, hundred):
    """The peer: resized boxes, then run lengths in NumPy."""
    pytest.importorskip("cv2")
    benchmark(lambda: [encode_crop(part.T, (y, x), _SIZE) for part, (x, y) in _resized_by_opencv(hundred)])


@pytest.mark.benchmark(group="masks of 100 detections, 800 x 1333")
def test_hundred_run_lengths_by_opencv_and_pycocotools(benchmark, hundred):
    """The peer: resized boxes in full-size bitmaps, then its encoder."""
    encoder = pytest.importorskip("pycocotools.mask")
    pytest.importorskip("cv2")

    def encode():
        for part, (x, y) in _resized_by_opencv(hundred):
            bitmap = np.zeros(_SIZE, np.uint8, order="F")
            bitmap.T[x : x + part.shape[0], y : y + part.shape[1]] = part
            encoder.encode(bitmap)

    benchmark(encode)


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


@pytest.fixture(scope="module")
def ten_large():
    """Ten round masks at 12 megapixels, each about half as large as the image, and the image."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.3, (10, 2)) * (4000, 3000)
    boxes = np.hstack([corners, corners + np.array([2800, 2100])]).astype(np.float32)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    masks = np.repeat(np.clip(1.4 - np.hypot(y, x), 0, 1)[None], 10, 0).astype(np.float32)
    found = Detections(boxes, np.ones(10, np.float32), np.ones(10, np.int32), masks, (3000, 4000), ("BG", "cell"))
    return found, rng.integers(0, 256, (3000, 4000, 3), np.uint8)


@pytest.mark.benchmark(group="ten large masks drawn at 12 megapixels")
def test_draw(benchmark, ten_large):
    """Masks from their probabilities, outlines, boxes and labels."""
    found, picture = ten_large
    benchmark(found.draw, picture)


@pytest.mark.benchmark(group="ten large masks drawn at 12 megapixels")
def test_draw_by_supervision(benchmark, ten_large):
    """The peer tints only, with masks that are pasted before; install opencv-python-headless, or it is slower."""
    supervision = pytest.importorskip("supervision")
    found, picture = ten_large
    theirs, pen = found.to_supervision(), supervision.MaskAnnotator()
    benchmark(lambda: pen.annotate(picture.copy(), theirs))
