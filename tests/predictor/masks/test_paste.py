"""Mask pasting against a slow loop, `resize_bilinear`, and matterport's unmold_mask."""

import math
from pathlib import Path

import numpy as np
import pytest
from golden import family_operators, family_uniform
from scipy import ndimage

from runtime.errors import InputError
from runtime.masks.paste import check_boxes, crop_of, mask_runs, paste_mask, paste_masks, place_crops
from runtime.pictures.resize import resize_bilinear

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "images_masks_seed0.npz")

BOXES = [
    (3.2, 4.9, 20.4, 11.1),
    (-7.6, -3.0, 12.0, 9.0),
    (30.0, 20.0, 70.0, 60.0),
    (10.5, 10.5, 11.5, 12.5),
    (0.0, 0.0, 50.0, 40.0),
    (-100.0, -90.0, 160.0, 130.0),
    (49.0, 39.0, 50.0, 40.0),
]


def probabilities(seed=0, side=28):
    return np.random.default_rng(seed).uniform(0, 1, (side, side)).astype(np.float32)


def full(crop, origin, image_size):
    mask = np.zeros(image_size, bool)
    mask[origin[0] : origin[0] + crop.shape[0], origin[1] : origin[1] + crop.shape[1]] = crop
    return mask


def loop_matterport(mask, box, image_size):
    x1, y1, x2, y2 = (int(np.around(value)) for value in box)
    result = np.zeros(image_size, bool)
    resized = resize_bilinear(mask.astype(np.float64), (y2 - y1, x2 - x1)) >= 0.5
    for y in range(image_size[0]):
        for x in range(image_size[1]):
            if y1 <= y < y2 and x1 <= x < x2:
                result[y, x] = resized[y - y1, x - x1]
    return result


def loop_aligned(mask, box, image_size):
    x1, y1, x2, y2 = box
    side = len(mask)
    padded = np.pad(mask.astype(np.float64), 2, mode="edge")
    result = np.zeros(image_size, bool)
    for y in range(image_size[0]):
        for x in range(image_size[1]):
            if y1 <= y + 0.5 < y2 and x1 <= x + 0.5 < x2:
                v = (y + 0.5 - y1) / (y2 - y1) * side + 1.5
                u = (x + 0.5 - x1) / (x2 - x1) * side + 1.5
                i, j = int(v), int(u)
                top = padded[i, j] * (1 - u + j) + padded[i, j + 1] * (u - j)
                bottom = padded[i + 1, j] * (1 - u + j) + padded[i + 1, j + 1] * (u - j)
                result[y, x] = top * (1 - v + i) + bottom * (v - i) >= 0.5
    return result


def zeros_outside(padded, v, u):
    """Sample a mask with two zeros around it at row v and column u, in cells from the center of its first."""
    last = len(padded) - 4
    i, j = min(max(math.floor(v), -2), last), min(max(math.floor(u), -2), last)
    (a, b), (c, d) = padded[i + 2 : i + 4, j + 2 : j + 4].tolist()
    v, u = min(max(float(v) - i, 0), 1), min(max(float(u) - j, 0), 1)
    return (a * (1 - u) + b * u) * (1 - v) + (c * (1 - u) + d * u) * v


def loop_detectron2(mask, box, image_size):
    x1, y1, x2, y2 = (float(np.float32(value)) for value in box)
    padded, result = np.pad(mask, 2), np.zeros(image_size, bool)
    for y in range(max(int(y1) - 1, 0), min(int(y2) + 2, image_size[0])):
        for x in range(max(int(x1) - 1, 0), min(int(x2) + 2, image_size[1])):
            v, u = (y + 0.5 - y1) / (y2 - y1) * len(mask) - 0.5, (x + 0.5 - x1) / (x2 - x1) * len(mask) - 0.5
            result[y, x] = zeros_outside(padded, v, u) >= 0.5
    return result


def loop_torchvision(mask, box, image_size):
    x1, y1, x2, y2 = (np.float32(value) for value in box)
    side, half = len(mask), np.float32(0.5)
    larger = np.float32((side + 2) / side)
    corners = []
    for low, high in ((x1, x2), (y1, y2)):
        reach, center = (high - low) * half * larger, (high + low) * half
        corners.append((int(center - reach), int(center + reach)))
    (left, right), (top, bottom) = corners
    padded, result = np.pad(mask, 3), np.zeros(image_size, bool)
    down, across = (np.float32(side + 2) / np.float32(n) for n in (bottom - top + 1, right - left + 1))
    for y in range(max(top, 0), min(bottom + 1, image_size[0])):
        for x in range(max(left, 0), min(right + 1, image_size[1])):
            v, u = (y - top + 0.5) * float(down) - 0.5, (x - left + 0.5) * float(across) - 0.5
            result[y, x] = zeros_outside(padded, np.float32(v), np.float32(u)) >= 0.5
    return result


LOOPS = {
    "matterport": loop_matterport,
    "aligned": loop_aligned,
    "torchvision": loop_torchvision,
    "detectron2": loop_detectron2,
}


@pytest.mark.parametrize("mode", ["torchvision", "detectron2"])
def test_recorded_pixels_of_other_packages(mode):
    golden, size = family_operators(), (97, 143)
    expected = np.unpackbits(golden[f"paste/{mode}"])[: 12 * 97 * 143].reshape(12, *size).astype(bool)
    found = paste_masks(family_uniform("ops/masks", (12, 28, 28)), golden["paste/boxes"], size, mode)
    np.testing.assert_array_equal(found, expected)


def random_masks():
    """Masks of noise and of 0 and 1; boxes: any, tiny, of whole pixels, of thirds, larger than the image."""
    rng = np.random.default_rng(6)
    for number in range(30):
        kind, side = number % 5, int(rng.choice([28, 14, 7]))
        height, width = (int(n) for n in rng.integers(20, 200, 2))
        masks = rng.uniform(0, 1, (6, side, side)).astype(np.float32)
        if kind == 0:
            masks = np.rint(ndimage.uniform_filter(masks, (0, 3, 3))).astype(np.float32)
        corners = rng.uniform(0, 1, (6, 2)) * (width, height)
        sides = rng.uniform(0.01, 1, (6, 2)) * (width, height) * (1, 0.01, 1, 1, 4)[kind]
        if kind in (2, 3):
            corners, sides = np.rint(corners) + (kind == 3) / 3, np.rint(sides) + 1
        limits = np.tile((width, height), 2) * (3 if kind == 4 else 1)
        boxes = np.clip(np.hstack([corners, corners + sides]), 0, limits).astype(np.float32)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        yield masks[kept], boxes[kept], (height, width)


def test_torchvisions_pixels():
    torch = pytest.importorskip("torch")
    heads = pytest.importorskip("torchvision.models.detection.roi_heads")
    for masks, boxes, size in random_masks():
        pasted = heads.paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), size)[:, 0]
        np.testing.assert_array_equal(paste_masks(masks, boxes, size, "torchvision"), pasted.numpy() >= 0.5)


def test_detectron2s_pixels():
    """Sampled with PyTorch's operator, in the order of Detectron2's operations."""
    torch = pytest.importorskip("torch")
    for masks, boxes, size in random_masks():
        low, high = torch.from_numpy(boxes)[:, None, None].split(2, dim=3)
        centers = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) + 0.5 for n in size[::-1]), indexing="xy")
        places = (torch.stack(centers, dim=-1) - low) / (high - low) * 2 - 1
        sampled = torch.nn.functional.grid_sample(torch.from_numpy(masks)[:, None], places, align_corners=False)
        np.testing.assert_array_equal(paste_masks(masks, boxes, size, "detectron2"), sampled[:, 0].numpy() >= 0.5)


@pytest.mark.parametrize("mode", ["torchvision", "detectron2"])
def test_random_masks_equal_the_loop(mode):
    for masks, boxes, size in list(random_masks())[:5]:
        found = paste_masks(masks[:1], boxes[:1], size, mode)[0]
        np.testing.assert_array_equal(found, LOOPS[mode](masks[0], boxes[0], size))


def test_a_center_on_the_edge_of_a_saturated_mask_is_inside():
    mask = paste_masks(np.ones((1, 3, 3), np.float32), [[1.5, 1.5, 4.5, 4.5]], (7, 7), "detectron2")[0]
    assert mask.astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]


def test_torchvision_cuts_boxes_towards_zero_and_keeps_at_least_one_pixel():
    ones = np.ones((2, 2), np.float32)  # twice as large with the zeros around it
    crop, origin = paste_mask(ones, (3.2, 3.2, 5.2, 5.2), (9, 9), "torchvision")
    assert (crop.shape, origin) == ((5, 5), (2, 2))  # 2.2 to 6.2 becomes 2 to 6, both included
    crop, origin = paste_mask(ones, (0.1, 0.1, 1.3, 1.3), (9, 9), "torchvision")
    assert (crop.shape, origin) == ((2, 2), (0, 0))  # -0.5 to 1.9 becomes 0 to 1
    crop, origin = paste_mask(ones, (4.4, 4.4, 4.4, 4.4), (9, 9), "torchvision")
    assert (crop.tolist(), origin) == ([[True]], (4, 4))


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("mode", "oracle"), LOOPS.items())
@pytest.mark.parametrize("side", [28, 14, 1])
def test_equals_the_loop(box, mode, oracle, side):
    mask = probabilities(side=side)
    crop, origin = paste_mask(mask, box, (40, 50), mode)
    assert crop.dtype == np.bool_
    np.testing.assert_array_equal(full(crop, origin, (40, 50)), oracle(mask, box, (40, 50)))


def test_is_matterports_unmold_mask():
    shape = GOLDEN["unmold_out_shape"]
    expected = np.unpackbits(GOLDEN["unmold_out_packed"])[: np.prod(shape)].reshape(shape).astype(bool)
    boxes = GOLDEN["unmold_boxes"][:, [1, 0, 3, 2]]
    masks = paste_masks(GOLDEN["unmold_masks28"], boxes, tuple(shape[:2].tolist()))
    assert masks.any(axis=(1, 2)).sum() >= 5
    np.testing.assert_array_equal(masks, np.moveaxis(expected, -1, 0))


@pytest.mark.parametrize("mode", ["matterport", "aligned", "detectron2"])
@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 9, 5, 5), (60, 5, 70, 9), (-9, 0, 0, 9), (5.6, 5.6, 5.9, 5.9)]
)
def test_no_area_in_the_picture_gives_an_empty_crop(mode, box):
    crop, origin = paste_mask(np.ones((28, 28), np.float32), box, (40, 50), mode)
    # 5.6..5.9 rounds to 6..6, and holds no pixel centre.
    assert crop.shape == (0, 0)
    assert origin == (0, 0)


def test_half_is_inside_and_edges_round_half_to_even():
    # 28 px: each pixel is one probability, so 0.5 itself is reached.
    mask = np.full((28, 28), 0.5, np.float32)
    mask[0, 0] = np.nextafter(np.float32(0.5), np.float32(0))
    crop, origin = paste_mask(mask, (0.5, 1.5, 28.4, 30.4), (40, 50))
    assert origin == (2, 0)
    assert crop.shape == (28, 28)
    assert crop.sum() == 28 * 28 - 1
    assert not crop[0, 0]


def test_zeros_outside_eat_the_corner_unless_every_probability_is_high():
    mask = np.full((28, 28), 0.9, np.float32)
    assert paste_mask(mask, (0, 0, 280, 280), (280, 280))[0].all()
    mask[14, 14] = 0.0  # now zero is in the range of the probabilities and nothing lifts the border
    matterport = paste_mask(mask, (0, 0, 280, 280), (280, 280))[0]
    aligned = paste_mask(mask, (0, 0, 280, 280), (280, 280), "aligned")[0]
    assert not matterport[0].any()  # 0.55 * 0.9 < 0.5
    assert aligned[0].all()


def test_neighbouring_aligned_boxes_share_no_pixel():
    ones = np.ones((2, 28, 28), np.float32)
    left, right = paste_masks(ones, [(0, 0, 10.5, 9), (10.5, 0, 20, 9)], (9, 20), "aligned")
    assert not (left & right).any()
    assert (left | right).all()


def test_no_masks():
    assert paste_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4)), (5, 6)).shape == (0, 5, 6)


@pytest.mark.parametrize(
    ("mask", "box", "mode"),
    [
        (np.zeros((28, 28)), (0, 0, np.nan, 5), "matterport"),
        (np.zeros((28, 28)), (0, 0, 1e30, 5), "matterport"),
        (np.zeros((28, 28)), (0, 0, 5), "matterport"),
        (np.zeros((1, 28, 28)), (0, 0, 5, 5), "matterport"),
        (np.zeros((28, 28)), (0, 0, 5, 5), "nearest"),
    ],
)
def test_bad_arguments_are_refused(mask, box, mode):
    with pytest.raises(InputError):
        paste_mask(mask, box, (10, 10), mode)
    with pytest.raises(InputError):
        paste_masks(np.zeros((2, 28, 28)), np.zeros((1, 4)), (10, 10))


def test_the_first_bad_box_is_named():
    boxes = np.array([[0, 0, 5, 5], [0, 1, 2, 2**24], [np.nan, 0, 0, 0]])
    with pytest.raises(InputError, match=r"^box 1 is \[0\.0, 1\.0, 2\.0, 16777216\.0\]; expected finite image pixels$"):
        check_boxes(boxes)
    with pytest.raises(InputError, match=r"^box 1 is"):
        check_boxes(-boxes[:2])
    boxes[1, 3] -= 1
    check_boxes(boxes[:2])
    check_boxes(boxes[:0])


def test_what_was_given_and_what_is_expected_is_said():
    ones = np.ones((2, 28, 28))
    with pytest.raises(InputError, match=r"shape \[2, 28, 28\], boxes \[1, 4\]; expected \[N, M, M\] and \[N, 4\]$"):
        paste_masks(ones, np.zeros((1, 4)), (10, 10))
    with pytest.raises(InputError, match=r"shape \[28, 28\], boxes \[28, 4\]; expected"):
        paste_masks(ones[0], np.zeros((28, 4)), (10, 10))
    with pytest.raises(InputError, match=r"shape \[0, 28, 28, 1\], boxes \[0, 4\]; expected"):
        paste_masks(np.zeros((0, 28, 28, 1)), np.zeros((0, 4)), (10, 10))
    with pytest.raises(InputError, match=r"shape \[0, 28\], the box \[4\]; expected \[M, M\] and \[4\]$"):
        paste_mask(ones[0, :0], np.zeros(4), (10, 10))
    with pytest.raises(InputError, match=r"shape \[28, 28\], the box \[1, 4\]; expected"):
        paste_mask(ones[0], np.zeros((1, 4)), (10, 10))
    with pytest.raises(
        InputError, match=r"paste mode is 'nearest'; expected one of matterport, aligned, torchvision, detectron2$"
    ):
        paste_mask(ones[0], np.zeros(4), (10, 10), "nearest")


def test_crops_are_put_where_they_belong():
    first, second = np.array([[True, False, True]]), np.array([[True], [True]])
    masks = place_crops([(first, (1, 2)), (second, (0, 4)), (np.zeros((0, 0), bool), (0, 0))], (3, 5))
    assert masks.astype(int).tolist() == [
        [[0, 0, 0, 0, 0], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0]],
        [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]],
        [[0] * 5] * 3,
    ]


def test_a_tight_crop():
    mask = np.zeros((6, 7), bool)
    mask[2, 3] = mask[4, 5] = True
    crop, origin = crop_of(mask)
    assert origin == (2, 3)
    assert crop.tolist() == [[True, False, False], [False, False, False], [False, False, True]]
    assert crop.base is mask
    assert crop_of(mask, (10, np.int64(-4)))[1] == (12, -1)
    for empty in (np.zeros((6, 7), bool), np.zeros((0, 3), bool)):
        crop, origin = crop_of(empty, (10, 20))
        assert crop.shape == (0, 0)
        assert origin == (0, 0)


@pytest.mark.parametrize("mode", ["matterport", "aligned", "torchvision", "detectron2"])
def test_many_masks_at_once_are_those_pasted_one_by_one(mode):
    rng = np.random.default_rng(3)
    size = (40, 60)
    corners = rng.uniform(-10, 50, (60, 2))
    boxes = np.hstack([corners, corners + rng.uniform(-2, 30, (60, 2))]).astype(np.float32)
    boxes[::9] = [-3, -2, 70, 44]  # runs go on from row to row
    boxes[::10, 2] = boxes[::10, 0]
    masks = rng.random((60, 5, 5), np.float32)
    masks[::4] = 1
    found = mask_runs(masks, boxes, size, mode)
    for runs, mask, box in zip(found, masks, boxes, strict=True):
        (crop, origin), (expected, place) = runs.crop(), paste_mask(mask, box, size, mode)
        np.testing.assert_array_equal(crop, expected)
        assert (origin, runs.area) == (place, expected.sum())
    np.testing.assert_array_equal(paste_masks(masks, boxes, size, mode), place_crops([r.crop() for r in found], size))
