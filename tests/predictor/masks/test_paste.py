"""Mask pasting against a slow loop, `resize_bilinear`, and matterport's unmold_mask."""

from pathlib import Path

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.masks.paste import check_boxes, crop_of, paste_mask, paste_masks, place_crops
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


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("mode", "oracle"), [("matterport", loop_matterport), ("aligned", loop_aligned)])
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


@pytest.mark.parametrize("mode", ["matterport", "aligned"])
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
    with pytest.raises(InputError, match=r"paste mode is 'nearest'; expected one of matterport, aligned$"):
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
