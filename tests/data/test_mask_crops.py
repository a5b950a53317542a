"""Resizing of mask crops and mini masks, against the original and slow loops."""

import golden
import numpy as np
import pytest
from scipy import ndimage

from maskrcnn.data.mask_crops import boxes_of, cut, expand_mask, letterbox_crop, minimize_mask
from runtime.masks.paste import place_crops
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox
from runtime.pictures.resize import resize_bilinear

GOLDEN = golden.load("images_masks_seed0")
MASKS = GOLDEN["mask"].astype(bool).transpose(2, 0, 1)
SIZES = [(56, 56), (28, 28), (30, 44)]


def tight(mask):
    return cut(mask, (0, 0), mask.shape)


def test_boxes_are_the_originals():
    assert np.array_equal(boxes_of([tight(mask) for mask in MASKS]), GOLDEN["extract_bboxes"])
    with_empty = boxes_of([tight(mask) for mask in MASKS] + [tight(np.zeros_like(MASKS[0]))])
    assert np.array_equal(with_empty, GOLDEN["extract_bboxes_with_empty"])


@pytest.mark.parametrize("size", SIZES)
def test_mini_masks_are_the_originals(size):
    expected = GOLDEN[f"minimize_{size[0]}x{size[1]}"].astype(bool)
    for row, mask in enumerate(MASKS):
        pixels, _ = tight(mask)
        # A cell of exactly one half is rounded by the last bit of scikit-image's arithmetic.
        decided = resize_bilinear(pixels.astype(float), size) != 0.5
        found = minimize_mask(pixels, size, "matterport")
        assert np.array_equal(found[decided], expected[..., row][decided])
        assert (~decided).sum() <= 2


@pytest.mark.parametrize("size", SIZES)
def test_mini_masks_expand_as_the_originals(size):
    minis = GOLDEN[f"minimize_{size[0]}x{size[1]}"].astype(bool)
    boxes = GOLDEN["extract_bboxes"]
    found = [expand_mask(minis[..., i], boxes[i], MASKS.shape[1:]) for i in range(len(boxes))]
    assert np.array_equal(np.stack(found, axis=-1), GOLDEN[f"expand_{size[0]}x{size[1]}"].astype(bool))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 3), (57, 120), (300, 11)])
def test_aligned_mini_mask_is_a_bilinear_loop(shape):
    mask = np.random.default_rng(1).random(shape) > 0.4
    found = minimize_mask(mask, (12, 20), "aligned")
    for i in range(12):
        for j in range(20):
            y = min(max((i + 0.5) * shape[0] / 12 - 0.5, 0), shape[0] - 1)
            x = min(max((j + 0.5) * shape[1] / 20 - 0.5, 0), shape[1] - 1)
            y0, x0 = min(int(y), max(shape[0] - 2, 0)), min(int(x), max(shape[1] - 2, 0))
            y1, x1 = min(y0 + 1, shape[0] - 1), min(x0 + 1, shape[1] - 1)
            dy, dx = y - y0, x - x0
            value = (mask[y0, x0] * (1 - dx) + mask[y0, x1] * dx) * (1 - dy)
            value += (mask[y1, x0] * (1 - dx) + mask[y1, x1] * dx) * dy
            assert abs(value - 0.5) < 1e-6 or found[i, j] == (value > 0.5)


def test_a_small_object_keeps_its_corner_when_aligned():
    square = np.ones((10, 10), bool)
    square[5, 5] = False
    assert minimize_mask(square, (56, 56), "aligned")[0, 0]
    assert not minimize_mask(square, (56, 56), "matterport")[0, 0]


@pytest.mark.parametrize(
    "policy",
    [
        ResizePolicy("square", 128, 256),
        ResizePolicy("square", None, 64),
        ResizePolicy("pad64", 192),
        ResizePolicy("none"),
    ],
)
@pytest.mark.parametrize("size", [(134, 200), (97, 41), (64, 128)])
def test_letterboxed_mask_is_that_of_the_whole_picture(policy, size):
    rng = np.random.default_rng(size[0])
    letterbox = plan_letterbox(size, policy)
    mask = np.zeros(size, bool)
    mask[size[0] // 3 : size[0], 5:37] = rng.random((size[0] - size[0] // 3, 32)) > 0.3
    zoomed = ndimage.zoom(mask.astype(np.uint8), np.array(letterbox.resized_size) / size, order=0)
    expected = np.zeros(letterbox.input_size, bool)
    (top, left), (height, width) = letterbox.offset, letterbox.resized_size
    if zoomed.shape == letterbox.resized_size:
        expected[top : top + height, left : left + width] = zoomed
        found = place_crops([letterbox_crop(tight(mask), letterbox, "matterport")], letterbox.input_size)[0]
        # The far edge of `zoom` depends on rounding: it may read a 0 beyond the image.
        inner = (slice(0, top + height - 1), slice(0, left + width - 1))
        assert np.array_equal(found[inner], expected[inner])
    aligned = place_crops([letterbox_crop(tight(mask), letterbox, "aligned")], letterbox.input_size)[0]
    rows = [(2 * i + 1) * size[0] // (2 * height) for i in range(height)]
    columns = [(2 * j + 1) * size[1] // (2 * width) for j in range(width)]
    expected = np.zeros(letterbox.input_size, bool)
    expected[top : top + height, left : left + width] = mask[np.ix_(rows, columns)]
    assert np.array_equal(aligned, expected)


def test_cut_is_tight_and_knows_the_frame():
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:5] = True
    pixels, origin = cut(mask, (-2, 3), (10, 7))
    assert origin == (0, 5)
    assert pixels.shape == (2, 2)
    assert pixels.all()
    assert cut(mask, (20, 20), (10, 10))[0].size == 0
    assert cut(mask, (-9, 0), (10, 10))[0].size == 0
    assert cut(np.zeros((0, 0), bool), (3, 3), (10, 10))[0].size == 0


def test_object_that_the_letterbox_shrinks_away_is_empty():
    mask = np.zeros((1000, 1000), bool)
    mask[501, 501] = True
    letterbox = plan_letterbox((1000, 1000), ResizePolicy("square", None, 64))
    assert letterbox_crop(tight(mask), letterbox, "aligned")[0].size in (0, 1)
    assert letterbox_crop(tight(np.zeros_like(mask)), letterbox, "aligned")[0].size == 0
