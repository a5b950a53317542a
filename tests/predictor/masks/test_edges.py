"""Edges of masks against exact fractions, the pasted pixels, and the memory that bitmaps would take."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from runtime.detections import Detections
from runtime.masks.edges import THRESHOLD, box_spans, mask_edges
from runtime.masks.paste import paste_mask
from runtime.masks.rle import decode, encode_crop, encode_edges


def detections(probabilities, boxes, image_size, mode):
    count = len(boxes)
    fields = np.array(boxes, np.float32), np.ones(count, np.float32), np.ones(count, np.int32)
    return Detections(*fields, probabilities.astype(np.float32), image_size, ("BG", "thing"), mode)


def exact_mask(probabilities, box, image_size, mode):
    """The definition in fractions, pixel by pixel: no rounding anywhere."""
    low_x, low_y, high_x, high_y = (Fraction(value if mode == "aligned" else round(value)) for value in box)
    result = np.zeros(image_size, bool)
    high_everywhere = probabilities.min() >= 0.5

    def value(i, j):
        if mode == "aligned":
            i, j = np.clip(i, 0, len(probabilities) - 1), np.clip(j, 0, probabilities.shape[1] - 1)
        inside = 0 <= i < len(probabilities) and 0 <= j < probabilities.shape[1]
        return Fraction(float(probabilities[i, j])) if inside else Fraction(0)

    for y in range(image_size[0]):
        for x in range(image_size[1]):
            center_x, center_y = Fraction(2 * x + 1, 2), Fraction(2 * y + 1, 2)
            if not (low_x <= center_x < high_x and low_y <= center_y < high_y):
                continue
            v = (center_y - low_y) / (high_y - low_y) * len(probabilities) - Fraction(1, 2)
            u = (center_x - low_x) / (high_x - low_x) * probabilities.shape[1] - Fraction(1, 2)
            i, j = math.floor(v), math.floor(u)
            upper = value(i, j) * (1 - u + j) + value(i, j + 1) * (u - j)
            lower = value(i + 1, j) * (1 - u + j) + value(i + 1, j + 1) * (u - j)
            result[y, x] = high_everywhere or upper * (1 - v + i) + lower * (v - i) >= Fraction(1, 2)
    return result


BOXES = [
    (2, 3, 30, 21),
    (0.5, 1.5, 24.25, 17.75),
    (-11, -8, 31, 40),
    (3, -20, 4, 60),
    (5, 5, 12, 12),
    (7.5, 6, 9, 30),
    (-3, 2, 50, 3),
]


@pytest.mark.parametrize("mode", ["matterport", "aligned"])
@pytest.mark.parametrize("side", [(7, 7), (1, 1), (5, 9)])
def test_ties_are_decided_as_in_exact_arithmetic(mode, side):
    """Probabilities in eighths, as a quantised network gives them, meet 0.5 exactly at many pixels."""
    rng = np.random.default_rng(side[1])
    size = (22, 33)
    for box in BOXES:
        probabilities = rng.integers(0, 9, side).astype(np.float32) / 8
        probabilities[rng.random(side) < 0.3] = 0.5
        expected = exact_mask(probabilities, box, size, mode)
        crop, (y, x) = paste_mask(probabilities, box, size, mode)
        pasted = np.zeros(size, bool)
        pasted[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        np.testing.assert_array_equal(pasted, expected)
        spans = box_spans(np.array([box], np.float64), size, mode, side[0])
        (edges,) = next(mask_edges(probabilities[None], *spans, size, mode))
        np.testing.assert_array_equal(decode(encode_edges([edges], size)[0]), expected)


@pytest.mark.parametrize("mode", ["matterport", "aligned", "torchvision", "detectron2"])
def test_many_boxes_give_the_run_lengths_of_their_pixels(mode, monkeypatch):
    """Boxes of every kind: over each edge of the picture, around it, beside it, of one pixel, of full height."""
    rng = np.random.default_rng(4)
    size = (61, 83)
    corners = rng.uniform(-60, 90, (150, 2))
    boxes = np.hstack([corners, corners + rng.exponential(30, (150, 2))])
    boxes[:6] = [
        (0, 0, 83, 61),
        (-900, -900, 900, 900),
        (82, 60, 83, 61),
        (10, 0, 20, 61),
        (99, 0, 120, 9),
        (5, 5, 5, 9),
    ]
    probabilities = rng.uniform(0, 1, (150, 28, 28))
    probabilities[:80] **= 0.2  # mostly over 0.5, so that full columns join into one run
    probabilities[[3, 40]] = 0.75
    found = detections(probabilities, boxes, size, mode)
    crops = [paste_mask(*pair, size, mode) for pair in zip(found.mask_probabilities, found.boxes, strict=True)]
    expected = [encode_crop(*crop, size) for crop in crops]
    assert found.rles == expected
    assert found.areas.tolist() == [crop.sum() for crop, _ in crops]
    assert 20 < np.count_nonzero(found.areas == 0) < 100
    monkeypatch.setattr("runtime.masks.edges._BATCH_COLUMNS", 7)
    assert found[:].rles == expected


def test_runs_stay_in_order_where_rounding_could_exchange_their_ends():
    """Rows that just reach the threshold, with pixel centres on them: a run begins and ends at the same place."""
    probabilities = np.zeros((1, 9, 3))
    probabilities[0, 1::2] = THRESHOLD
    for third in range(3, 240):
        box = np.array([[0.0, 0.0, 3.0, third / 3]])
        size = (80, 3)
        (edges,) = next(mask_edges(probabilities, *box_spans(box, size, "aligned", 9), size, "aligned"))
        assert (np.diff(edges) > 0).all()


def test_edges_are_typed_by_hand():
    # 2 x 2 probabilities on 2 x 2 pixels at (1, 1) of a picture 4 high: column 1 has rows 1 and 2, column 2 row 2.
    spans = box_spans(np.array([[1.0, 1.0, 3.0, 3.0]]), (4, 5), "matterport", 2)
    (edges,) = next(mask_edges(np.array([[[1.0, 0.0], [1.0, 1.0]]]), *spans, (4, 5), "matterport"))
    assert edges.tolist() == [5, 7, 10, 11]


def test_a_value_on_the_threshold_leaves_no_run_open():
    column = np.array([0, THRESHOLD, 0, 1, 1, 0, 0])
    spans = box_spans(np.array([[0.0, 0.0, 1.0, 7.0]]), (9, 1), "aligned", 7)  # one row of the mask to a pixel
    (edges,) = next(mask_edges(column.reshape(1, 7, 1), *spans, (9, 1), "aligned"))
    assert edges.tolist() == [3, 5]


@pytest.mark.parametrize(("below", "inside"), [(2.0**-40, True), (1.5 * 2.0**-40, False)])
def test_the_threshold_is_that_of_the_conventions(below, inside):
    values = np.full((1, 2, 2), 0.5 - below)
    spans = box_spans(np.array([[0.0, 0.0, 2.0, 2.0]]), (2, 2), "aligned", 2)
    (edges,) = next(mask_edges(values, *spans, (2, 2), "aligned"))
    assert edges.tolist() == ([0, 4] if inside else [])


def test_masks_without_a_column_stand_between_others():
    ones = np.ones((4, 2, 2))
    boxes = np.array([[9.0, 0, 12, 2], [0, 0, 1, 2], [1, 1, 2, 1], [2, 0, 4, 1]])
    spans = box_spans(boxes, (2, 4), "aligned", 2)
    found = [edges.tolist() for part in mask_edges(ones, *spans, (2, 4), "aligned") for edges in part]
    assert found == [[], [0, 2], [], [4, 5, 6, 7]]


@pytest.mark.parametrize("noise", [False, True])
def test_a_hundred_masks_of_12_megapixels_stay_far_below_one_bitmap_each(noise):
    """The bound is one mask and 50 MB; the picture itself is not held here."""
    rng = np.random.default_rng(0)
    size = (3000, 4000)
    corners = rng.uniform(0, 900, (100, 2))
    boxes = np.hstack([corners, corners + rng.uniform(1000, 2100, (100, 2))])
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    blob = np.clip(1.2 - np.hypot(y, x), 0, 1)
    probabilities = rng.uniform(0, 1, (100, 28, 28)) if noise else np.broadcast_to(blob, (100, 28, 28))
    found = detections(probabilities, boxes, size, "matterport")
    tracemalloc.start()
    rles = found.rles
    areas = found.areas
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rles) == 100
    assert areas.min() > 100_000
    assert peak < size[0] * size[1] + 50e6
