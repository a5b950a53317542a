"""Non-maximum suppression against a greedy float64 loop, and on the cases that engines disagree about.

Random boxes have small whole coordinates: areas are exact then, so no IoU hangs on rounding, while many are equal
to the threshold, which is where `>` and `>=` differ.
"""

import golden
import numpy as np
import oracles
import pytest
import tensorflow as tf
from hypothesis import given, settings, strategies as st

from maskrcnn import nms
from runtime.artifact import NMS_FIRST, NMS_LAST

GOLDEN = golden.load("boxes_seed0")

coordinate = st.integers(0, 6)
box = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
)


def suppress(boxes, valid=None, max_output=10, threshold=0.5):
    """Indices kept for one image, and the raw output."""
    boxes = np.asarray(boxes, np.float32).reshape(1, -1, 4)
    valid = np.ones((boxes.shape[1], 1), bool) if valid is None else np.asarray(valid, bool)
    rows, kept = nms.suppress(tf.constant(boxes), tf.constant(valid[None]), max_output, threshold)
    return rows.numpy()[0][kept.numpy()[0]].tolist(), rows.numpy()[0], kept.numpy()[0]


@pytest.mark.parametrize("digit", ["3", "5", "7"])
def test_suppression_is_matterports(digit):
    order = np.array(oracles.by_score(GOLDEN["nms_scores"]))
    kept, _, _ = suppress(GOLDEN["nms_boxes"][order], max_output=60, threshold=int(digit) / 10)
    assert order[kept].tolist() == GOLDEN[f"nms_np_{digit}"].tolist()


@given(
    st.lists(st.tuples(box, st.integers(0, 3)), min_size=1, max_size=14),
    st.sampled_from([0.0, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.7, 1.0]),
    st.integers(1, 16),
)
@settings(deadline=None, max_examples=200, derandomize=True)
def test_suppression_is_the_oracles(rows, threshold, max_output):
    boxes = [row[0] for row in rows]
    valid = np.array([[row[1] == k for k in range(1, 4)] for row in rows])  # 0: in no class
    ranks = np.arange(len(rows), 0, -1)
    kept, _, _ = suppress(boxes, valid, max_output, threshold)
    assert kept == oracles.nms_per_class(boxes, ranks, valid, threshold, max_output)
    of_one_class = valid[:, :1]
    alone, marks = nms.suppress_one_class(tf.constant([boxes], tf.float32), of_one_class[None], max_output, threshold)
    assert alone[marks].numpy().tolist() == oracles.nms_per_class(boxes, ranks, of_one_class, threshold, max_output)


def in_steps(boxes, class_ids, max_output, threshold, first=None):
    """Rows that `suppress_in_steps` keeps of each image, whether they are final, and the result of its last step."""
    last = {}

    def tap(name, tensor):
        last[name] = tensor
        return first if first is not None and name == NMS_FIRST else tensor

    ids = tf.constant(class_ids, tf.float32)
    rows, kept, final = nms.suppress_in_steps(tf.constant(boxes, tf.float32), ids, max_output, threshold, tap)
    kept_rows = [row[mark].tolist() for row, mark in zip(rows.numpy(), kept.numpy(), strict=True)]
    return kept_rows, final.numpy(), last[NMS_LAST]


def random_cases(seed, images, rows, whole):
    """Boxes [images, rows, 4], many of equal or touching sides if they are whole; class ids 0 to 3, the zeros last."""
    generator = np.random.default_rng(seed)
    if whole:
        corners, sides = generator.integers(0, 8, (images, rows, 2)), generator.integers(0, 6, (images, rows, 2))
    else:
        corners, sides = generator.random((images, rows, 2)), 0.6 * generator.random((images, rows, 2))
    boxes = np.concatenate([corners, corners + sides], axis=-1).astype(np.float32)
    class_ids = generator.integers(0, 4, (images, rows)).astype(np.float32)
    taking_part = np.argsort(class_ids == 0, axis=1, stable=True)
    return boxes, np.take_along_axis(class_ids, taking_part, axis=1)


def compare_in_steps(seeds, images, rows):
    """Compare both ways to suppress; return the number of images whose steps sufficed."""
    compared = 0
    for seed in seeds:
        boxes, class_ids = random_cases(seed, images, rows, whole=seed % 2 == 0)
        threshold = (0.0, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.7, 1.0)[seed % 8]
        valid = class_ids[..., None] == np.arange(1, 4)
        rows_kept, marks = (each.numpy() for each in nms.suppress(tf.constant(boxes), tf.constant(valid), 9, threshold))
        found, final, _ = in_steps(boxes, class_ids, 9, threshold)
        for image in np.flatnonzero(final):
            assert found[image] == rows_kept[image][marks[image]].tolist()
        compared += int(final.sum())
    return compared


def compare_image_by_image(seeds, images, rows):
    """Compare both ways to suppress rows of one class, of which one in four does not take part."""
    image_by_image = tf.function(nms.suppress_one_class)
    for seed in seeds:
        boxes, class_ids = map(tf.constant, random_cases(seed, images, rows, whole=seed % 2 == 0))
        valid = class_ids[..., None] > 0.0
        threshold = (0.0, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.7, 1.0)[seed % 8]
        for most in (9, rows + 2):  # all rows that are left, and padding
            expected = nms.suppress(boxes, valid, most, threshold)
            for found, wanted in zip(image_by_image(boxes, valid, most, tf.constant(threshold)), expected, strict=True):
                np.testing.assert_array_equal(found, wanted)


def test_steps_keep_the_same_rows():
    assert compare_in_steps(range(16), 500, 24) == 8000


def test_image_by_image_the_same_rows_are_kept():
    compare_image_by_image(range(16), 100, 24)


@pytest.mark.slow
def test_steps_keep_the_same_rows_in_a_million_cases():
    assert compare_in_steps(range(100, 600), 2000, 24) == 1_000_000


@pytest.mark.slow
def test_image_by_image_the_same_rows_are_kept_in_a_million_cases():
    compare_image_by_image(range(100, 2100), 500, 24)


@pytest.mark.parametrize("digit", ["3", "5", "7"])
def test_steps_are_matterports_suppression(digit):
    order = np.array(oracles.by_score(GOLDEN["nms_scores"]))
    boxes = GOLDEN["nms_boxes"][order][None]
    (kept,), final, _ = in_steps(boxes, np.ones(boxes.shape[:2]), 60, int(digit) / 10)
    assert final.all()
    assert order[kept].tolist() == GOLDEN[f"nms_np_{digit}"].tolist()


def test_long_chains_are_continued_where_the_steps_end():
    """Each box overlaps the next by more than the threshold, so each decision hangs on the one before it."""
    length = 5 * nms.STEPS
    boxes = np.array([[[0, 10 * row, 1, 10 * row + 16] for row in range(length)]], np.float32)
    kept, final, last = in_steps(boxes, np.ones((1, length)), length, 0.2)
    assert kept == [[]]
    assert not final.any()
    runs = 1
    while not final.all():
        kept, final, last = in_steps(boxes, np.ones((1, length)), length, 0.2, last)
        runs += 1
    assert kept == [list(range(0, length, 2))]
    assert runs == 6  # a run after the first begins with the last step of the one before


def test_steps_with_boxes_without_area_with_no_class_and_with_fewer_rows_than_asked_for():
    boxes = np.array([[[1, 1, 1, 1], [0, 0, 4, 4], [0, 0, 0, 4], [0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4]]])
    kept, final, _ = in_steps(boxes, [[1, 1, 1, 2, 1, 0]], 9, 0.0)
    assert kept == [[0, 1, 2, 3]]
    assert final.all()
    assert in_steps(boxes, [[0] * 6], 9, 0.0)[0] == [[]]


def test_a_row_is_dropped_only_above_the_threshold():
    half = [[0, 0, 2, 2], [0, 0, 2, 1]]  # IoU exactly 1/2
    assert suppress(half, threshold=0.5)[0] == [0, 1]
    assert suppress(half, threshold=0.4999)[0] == [0]
    third = [[0, 0, 1, 2], [0, 1, 1, 3]]  # exactly 1/3, which float32 rounds
    assert suppress(third, threshold=1 / 3)[0] == [0, 1]
    assert suppress(third, threshold=0.3333)[0] == [0]


def test_equal_boxes_go_even_at_a_threshold_just_below_one():
    assert suppress([[0, 0, 1, 1]] * 3, threshold=0.99)[0] == [0]
    assert suppress([[0, 0, 1, 1]] * 3, threshold=1.0)[0] == [0, 1, 2]


def test_boxes_without_area_neither_suppress_nor_are_suppressed():
    point, line, square = [1, 1, 1, 1], [0, 0, 0, 4], [0, 0, 4, 4]
    boxes = [point, square, point, line, line, square, point]
    assert suppress(boxes, threshold=0.0)[0] == [0, 1, 2, 3, 4, 6]


def test_a_suppressed_row_does_not_suppress():
    # The second overlaps both others by more than half, they each other by none.
    boxes = [[0, 0, 1, 4], [0, 1, 1, 5], [0, 4, 1, 8]]
    assert suppress(boxes, threshold=0.5)[0] == [0, 2]


def test_classes_do_not_see_each_other():
    boxes = [[0, 0, 1, 1]] * 4
    valid = [[True, False], [False, True], [True, False], [False, False]]
    assert suppress(boxes, valid, threshold=0.0)[0] == [0, 1]


def test_the_best_rows_of_all_classes_are_kept():
    boxes = [[0, k, 1, k + 1] for k in range(6)]
    valid = [[k % 2 == 0, k % 2 == 1] for k in range(6)]
    assert suppress(boxes, valid, max_output=3)[0] == [0, 1, 2]


def test_unused_rows_are_zero_and_unmarked():
    kept, rows, marks = suppress([[0, 0, 1, 1], [2, 2, 3, 3]], max_output=5)
    assert kept == [0, 1]
    assert rows.tolist() == [0, 1, 0, 0, 0]
    assert marks.tolist() == [True, True, False, False, False]


def test_nothing_valid():
    kept, rows, marks = suppress([[0, 0, 1, 1]] * 3, [[False, False]] * 3, max_output=4)
    assert kept == []
    assert rows.tolist() == [0] * 4
    assert not marks.any()


def test_no_rows():
    kept, rows, _ = suppress(np.zeros((0, 4)), max_output=2)
    assert kept == []
    assert rows.tolist() == [0, 0]


def test_images_of_a_batch_are_independent():
    generator = np.random.default_rng(5)
    corners = generator.integers(0, 4, (3, 12, 2))
    boxes = np.concatenate([corners, corners + generator.integers(1, 5, (3, 12, 2))], axis=-1).astype(np.float32)
    valid = generator.random((3, 12, 2)) < 0.8
    valid[..., 1] &= ~valid[..., 0]
    rows, kept = nms.suppress(tf.constant(boxes), tf.constant(valid), 12, 0.25)
    ranks = np.arange(12, 0, -1)
    expected = [oracles.nms_per_class(b, ranks, v, 0.25, 12) for b, v in zip(boxes, valid, strict=True)]
    assert [rows[i].numpy()[kept[i].numpy()].tolist() for i in range(3)] == expected
    assert len({tuple(row) for row in expected}) == 3
