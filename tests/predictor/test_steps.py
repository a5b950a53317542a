"""One picture's outputs brought to the picture's frame, on numbers worked out by hand."""

import numpy as np
from oracles import boxes_to_input

from runtime.pictures.letterbox import ResizePolicy, plan_letterbox
from runtime.steps import to_detections

NAMES = ("BG", "cell", "drop")
# 40 x 80 pixels, twice as large in a square of 160, under 40 rows of padding.
LETTERBOX = plan_letterbox((40, 80), ResizePolicy("square", 80, 160))


def outputs(boxes, count):
    """Output tensors of one picture; rows beyond the count hold what must not be read."""
    rows = len(boxes)
    return {
        "num_detections": np.int32(count),
        "boxes": np.float32(boxes),
        "scores": np.float32([0.9, 0.8, 0.7, 0.6])[:rows],
        "class_ids": np.int32([2, 1, 2, 1])[:rows],
        "masks": np.stack([np.full((4, 4), 1 - 0.1 * row, np.float32) for row in range(rows)]),
    }


def input_box(x1, y1, x2, y2):
    """A box of picture pixels in the frame of the input."""
    return boxes_to_input(LETTERBOX, np.array([[x1, y1, x2, y2]]))[0]


def test_rows_in_use_come_back_in_picture_pixels():
    boxes = [input_box(0, 0, 80, 40), input_box(10, 5, 30, 25), input_box(1, 1, 9, 9)]
    np.testing.assert_allclose(boxes[0], [0, 40, 160, 120])  # the picture without its padding
    found = to_detections(outputs(boxes, 2), LETTERBOX, NAMES, "aligned")
    assert found.boxes.dtype == np.float32
    np.testing.assert_allclose(found.boxes, [[0, 0, 80, 40], [10, 5, 30, 25]], atol=1e-4)
    np.testing.assert_array_equal(found.scores, np.float32([0.9, 0.8]))
    assert found.class_ids.tolist() == [2, 1]
    assert list(found.names) == ["drop", "cell"]
    assert found.image_size == (40, 80)
    assert found.paste_mode == "aligned"
    np.testing.assert_array_equal(found.mask_probabilities[:, 0, 0], np.float32([1, 0.9]))


def test_boxes_without_a_pixel_are_dropped_whichever_side_they_lack():
    boxes = [
        input_box(10, 5, 10.2, 25),  # rounds to no column
        input_box(10, 5, 11, 6),  # one pixel
        input_box(10, 5, 30, 5.2),  # no row
        input_box(30, 25, 10, 5),  # the wrong way around
    ]
    found = to_detections(outputs(boxes, 4), LETTERBOX, NAMES, "matterport")
    np.testing.assert_array_equal(found.scores, np.float32([0.8]))
    assert found.pixel_boxes.tolist() == [[10, 5, 11, 6]]


def test_no_detections():
    found = to_detections(outputs([input_box(0, 0, 80, 40)], 0), LETTERBOX, NAMES, "matterport")
    assert len(found) == 0
    assert found.masks.shape == (0, 40, 80)
