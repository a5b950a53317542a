"""Resizing in fixed point against whole numbers typed out, OpenCV's recorded results, and OpenCV where it is."""

import math
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.pictures import resize_opencv as module
from runtime.pictures.resize_opencv import resize_opencv

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "opencv_resize.npz")
CASES = sorted({name.split("/")[0] for name in GOLDEN.files})


def axis(source, target, *, stops):
    for i in range(target):
        position = np.float32((i + 0.5) * (1.0 / (target / source)) - 0.5)
        lower = math.floor(position)
        fraction = position - np.float32(lower)
        if stops and not 0 <= lower < source - 1:
            fraction = np.float32(0)
        weights = round(float((1 - fraction) * 2048)), round(float(fraction * 2048))
        yield [min(max(index, 0), source - 1) for index in (lower, lower + 1)], weights


def loop(image, size):
    result = np.empty((*size, image.shape[2]), np.uint8)
    pixels = image.astype(int)
    for y, ((above, below), (up, down)) in enumerate(axis(image.shape[0], size[0], stops=False)):
        for x, ((left, right), (near, far)) in enumerate(axis(image.shape[1], size[1], stops=True)):
            first, second = (pixels[row, left] * near + pixels[row, right] * far for row in (above, below))
            result[y, x] = (((first >> 4) * up >> 16) + ((second >> 4) * down >> 16) + 2) >> 2
    return result


@pytest.mark.parametrize(
    ("source", "target"),
    [((7, 9), (20, 31)), ((40, 33), (13, 9)), ((5, 32), (32, 5)), ((1, 3), (4, 4)), ((3, 1), (9, 2)), ((8, 8), (4, 8))],
)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_equals_the_loop(source, target, channels):
    image = np.random.default_rng(1).integers(0, 256, (*source, channels), np.uint8)
    image[::3] = 255
    np.testing.assert_array_equal(resize_opencv(image, target), loop(image, target))


@pytest.mark.parametrize("case", CASES)
def test_is_what_opencv_recorded(case):
    image, expected = GOLDEN[f"{case}/image"], GOLDEN[f"{case}/resized"]
    np.testing.assert_array_equal(resize_opencv(image, expected.shape[:2]), expected)


def test_equals_opencv():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(2)
    for _ in range(60):
        source, target, channels = rng.integers(1, 200, 2), rng.integers(1, 200, 2), int(rng.integers(1, 6))
        if rng.random() < 0.3:
            source = 2 * target
        image = rng.integers(0, 256, (*source, channels), np.uint8)
        expected = cv2.resize(image, tuple(target[::-1].tolist()), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(resize_opencv(image, tuple(target.tolist())), expected.reshape(*target, channels))


def test_a_halved_image_is_averaged():
    quarter = np.array([[0, 1], [0, 1]], np.uint8)  # 0.5 in the mean: up with 3 channels, to even with 2
    for channels, expected in ((1, 1), (2, 0), (3, 1), (4, 1), (5, 0)):
        image = np.tile(np.repeat(quarter[:, :, None], channels, axis=2), (3, 4, 1))
        assert (resize_opencv(image, (3, 4)) == expected).all()
        assert (resize_opencv(image + np.uint8(3), (3, 4)) == 4).all()  # 3.5 is nearest to 4 in both ways


def test_strips_and_a_place_for_the_result_change_nothing(monkeypatch):
    image = np.random.default_rng(3).integers(0, 256, (50, 41, 3), np.uint8)
    expected = resize_opencv(image, (33, 77))
    canvas = np.zeros((40, 80, 3), np.uint8)
    monkeypatch.setattr(module, "_STRIP_VALUES", 500)
    resize_opencv(image, (33, 77), canvas[:33, :77])
    np.testing.assert_array_equal(canvas[:33, :77], expected)
    np.testing.assert_array_equal(resize_opencv(image, (50, 41)), image)


@pytest.mark.parametrize(
    ("image", "size"),
    [(np.zeros((3, 3, 3)), (2, 2)), (np.zeros((3, 3), np.uint8), (2, 2)), (np.zeros((3, 3, 1), np.uint8), (2, 0))],
)
def test_what_cannot_be_resized_is_refused(image, size):
    with pytest.raises(InputError, match="expected"):
        resize_opencv(image, size)
