"""Synthetic scenes: what is drawn is what the masks say."""

import numpy as np
import pytest

from maskrcnn.data.synthetic import scene
from maskrcnn.data.synthetic.geometry import CIRCLE
from maskrcnn.data.synthetic.scene import draw_shapes
from maskrcnn.errors import DatasetError


@pytest.fixture(scope="module")
def pictures():
    return [draw_shapes(7, index) for index in range(150)]


def test_pictures_and_masks_have_the_promised_form(pictures):
    for image, masks, class_ids in pictures:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert all(160 <= side <= 256 for side in image.shape[:2])
        assert len(masks) == len(class_ids) <= 7
        assert all(mask.dtype == bool and mask.shape == image.shape[:2] for mask in masks)
        assert all(mask.sum() >= 60 for mask in masks)
        assert set(class_ids) <= {1, 2, 3}
    assert len({image.shape for image, _, _ in pictures}) > 100


def test_no_pixel_belongs_to_two_shapes(pictures):
    assert all(np.sum(masks, axis=0).max() == 1 for _, masks, _ in pictures if masks)


def test_the_set_is_varied(pictures):
    counts = np.bincount([len(masks) for _, masks, _ in pictures], minlength=8)
    assert (counts[1:] >= 8).all()
    classes = np.bincount([i for _, _, class_ids in pictures for i in class_ids], minlength=4)[1:]
    assert classes.min() > 0.25 * classes.sum()
    areas = np.concatenate([[mask.sum() for mask in masks] for _, masks, _ in pictures])
    assert areas.min() < 200
    assert areas.max() > 6000
    empty = sum(not draw_shapes(1, index, (32, 32))[1] for index in range(800))
    assert 8 < empty < 48  # about 3 %


def test_shapes_occlude_each_other(pictures):
    hidden = 0
    for _, masks, class_ids in pictures:
        for mask, class_id in zip(masks, class_ids, strict=True):
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            touches = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
            # A whole circle fills 79 % of its box.
            hidden += class_id == CIRCLE and not touches and box.mean() < 0.75
    assert hidden >= 10


def test_shapes_stand_out_from_what_is_around_them(pictures):
    for image, masks, _ in pictures:
        for mask in masks:
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            around = np.zeros_like(mask)
            around[max(rows[0] - 4, 0) : rows[-1] + 5, max(columns[0] - 4, 0) : columns[-1] + 5] = True
            around &= ~np.any(masks, axis=0)
            if around.sum() > 30:
                contrast = np.linalg.norm(image[mask].mean(axis=0) - image[around].mean(axis=0))
                assert contrast > 75


def test_a_picture_depends_on_seed_and_index_only(pictures):
    again = draw_shapes(7, 5)
    assert np.array_equal(again[0], pictures[5][0])
    assert np.array_equal(again[1], pictures[5][1])
    assert again[2] == pictures[5][2]
    assert not np.array_equal(draw_shapes(8, 5, (64, 64))[0], draw_shapes(7, 5, (64, 64))[0])
    assert not np.array_equal(draw_shapes(7, 6, (64, 64))[0], draw_shapes(7, 5, (64, 64))[0])


@pytest.mark.parametrize("size", [(128, 128), (32, 33), (301, 97)])
def test_a_size_can_be_asked_for(size):
    for index in range(10):
        image, masks, _ = draw_shapes(0, index, size)
        assert image.shape == (*size, 3)
        assert all(mask.shape == size and mask.sum() >= 60 for mask in masks)


def test_a_hopeless_place_is_given_up(monkeypatch):
    monkeypatch.setattr(scene, "_LEAST_PIXELS", 10**6)
    assert draw_shapes(0, 0)[1:] == ([], [])


def test_the_visible_share_is_that_of_the_whole_shape(monkeypatch):
    monkeypatch.setattr(scene, "_LEAST_VISIBLE", 1.0)
    for index in range(60):
        _, masks, class_ids = draw_shapes(3, index)
        for mask, class_id in zip(masks, class_ids, strict=True):
            y, x = np.nonzero(mask)
            if class_id == CIRCLE:
                assert abs(np.ptp(y) - np.ptp(x)) <= 1
                assert len(y) == pytest.approx(np.pi / 4 * (np.ptp(y) + 1) * (np.ptp(x) + 1), rel=0.12)


def test_too_small_pictures_are_refused():
    with pytest.raises(DatasetError, match=r"size is \(40, 31\): expected sides of at least 32"):
        draw_shapes(0, 0, (40, 31))
