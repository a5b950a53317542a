"""Box algebra against float64 loops and the genuine functions."""

import golden
import numpy as np
import oracles
import pytest
import tensorflow as tf
from hypothesis import given, settings, strategies as st

from maskrcnn import boxes as box_ops

GOLDEN = golden.load("boxes_seed0")
# A few operations on numbers of about 1, each rounded to 2^-24.
ROUNDING = 5e-7

IMAGE_SIZE = (191, 320)


@st.composite
def pixel_boxes(draw):
    """Boxes of at least one pixel inside `IMAGE_SIZE`."""
    y1 = draw(st.integers(0, IMAGE_SIZE[0] - 1))
    x1 = draw(st.integers(0, IMAGE_SIZE[1] - 1))
    return [y1, x1, draw(st.integers(y1 + 1, IMAGE_SIZE[0])), draw(st.integers(x1 + 1, IMAGE_SIZE[1]))]


def apply(function, *arrays):
    return function(*(tf.constant(array) for array in arrays)).numpy()


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (None, 5, 7, 3), (2, None, 7, 3), (2, 5, None, 3), (None,) * 4])
def test_grid_size_is_a_constant_where_the_graph_has_one_size(shape):
    size = tf.function(box_ops.grid_size).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    assert (tf.get_static_value(size.outputs[0]) is not None) is (None not in shape[1:3])
    result = size(tf.zeros((2, 5, 7, 3)))
    assert result.dtype == tf.int32
    assert result.numpy().tolist() == [5, 7]


def test_normalize_is_matterports():
    size = GOLDEN["norm_shape"].astype(np.int32)
    assert np.array_equal(apply(box_ops.normalize, GOLDEN["norm_px"], size), GOLDEN["norm_graph"])


def test_denormalize_rounds_to_matterports_pixels():
    size = GOLDEN["norm_shape"].astype(np.int32)
    pixels = apply(box_ops.denormalize, GOLDEN["denorm_in"], size)
    assert np.array_equal(np.rint(pixels), GOLDEN["denorm_np"])


def test_normalize_on_a_hand_computed_box():
    # 11 rows and 21 columns: the last row is 10, the last column 20.
    box = np.array([[2, 5, 7, 21]], np.float32)
    normalized = apply(box_ops.normalize, box, np.array([11, 21]))
    np.testing.assert_allclose(normalized, [[0.2, 0.25, 0.6, 1.0]], rtol=0, atol=1e-7)


def test_whole_image_is_the_unit_box():
    whole = np.array([[0, 0, *IMAGE_SIZE]], np.float32)
    assert apply(box_ops.normalize, whole, np.array(IMAGE_SIZE)).tolist() == [[0, 0, 1, 1]]


@given(st.lists(pixel_boxes(), min_size=0, max_size=5))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_normalize_and_back(boxes):
    pixels = np.array(boxes, np.float32).reshape(-1, 4)
    normalized = apply(box_ops.normalize, pixels, np.array(IMAGE_SIZE))
    expected = np.array([oracles.normalize(box, IMAGE_SIZE) for box in boxes]).reshape(-1, 4)
    np.testing.assert_allclose(normalized, expected, rtol=0, atol=ROUNDING)
    back = apply(box_ops.denormalize, normalized, np.array(IMAGE_SIZE))
    np.testing.assert_allclose(back, pixels, rtol=0, atol=1e-4)


def test_double_precision_is_kept():
    box = np.array([[1.0, 2.0, 3.0, 4.0]])
    normalized = apply(box_ops.normalize, box, np.array(IMAGE_SIZE))
    assert normalized.dtype == np.float64
    np.testing.assert_allclose(normalized[0], oracles.normalize(box[0], IMAGE_SIZE), rtol=1e-15)


@pytest.mark.parametrize("case", ["0", "1"])
def test_clip_is_matterports(case):
    clipped = apply(box_ops.clip, GOLDEN["delta_graph"], GOLDEN[f"clip{case}_window"])
    assert np.array_equal(clipped, GOLDEN[f"clip{case}_out"])


def test_clip_takes_one_window_per_image():
    boxes = np.array([[[-1, -1, 2, 2], [0.4, 0.1, 0.6, 0.2]]] * 2, np.float32)
    windows = np.array([[[0, 0.25, 1, 0.75]], [[0.5, 0, 0.75, 1]]], np.float32)
    expected = [[oracles.clip(box, window[0]) for box in boxes[0]] for window in windows]
    np.testing.assert_array_equal(apply(box_ops.clip, boxes, windows), np.array(expected, np.float32))


def test_areas():
    boxes = np.array([[0, 0, 2, 3], [1, 1, 1, 5], [0.5, 0.25, 1, 1]], np.float32)
    assert apply(box_ops.areas, boxes).tolist() == [6, 0, 0.375]


def test_encode_is_matterports():
    deltas = apply(box_ops.encode, GOLDEN["ref_box"], GOLDEN["ref_gt"])
    np.testing.assert_allclose(deltas, GOLDEN["ref_graph"], rtol=0, atol=ROUNDING)


def test_decode_is_matterports():
    boxes = apply(box_ops.decode, GOLDEN["delta_boxes"], GOLDEN["delta_deltas"])
    np.testing.assert_allclose(boxes, GOLDEN["delta_graph"], rtol=0, atol=ROUNDING)


@given(pixel_boxes(), pixel_boxes())
@settings(deadline=None, max_examples=100, derandomize=True)
def test_codec_is_the_oracles_and_its_own_inverse(box, target):
    source, goal = np.array([box], np.float32), np.array([target], np.float32)
    deltas = apply(box_ops.encode, source, goal)
    np.testing.assert_allclose(deltas[0], oracles.encode(box, target), rtol=1e-5, atol=1e-5)
    moved = apply(box_ops.decode, source, deltas)
    np.testing.assert_allclose(moved[0], oracles.decode(box, deltas[0]), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(moved, goal, rtol=0, atol=1e-2)


def test_an_absurd_size_delta_gives_the_whole_window():
    anchor = np.array([[0.25, 0.25, 0.75, 0.5]], np.float32)
    delta = np.array([[0.0, 0.0, 500.0, 500.0]], np.float32)  # exp(500) is inf in float32
    boxes = apply(box_ops.decode, anchor, delta)
    assert apply(box_ops.clip, boxes, np.array([0, 0, 1, 1], np.float32)).tolist() == [[0, 0, 1, 1]]


def test_decode_and_clip_on_boxes_worked_out_by_hand():
    # 4 high, 2 wide, center 3, 2: moved by a quarter of its height and half of its width, twice as high, half as wide.
    anchors = np.array([[1, 1, 5, 3], [1, 1, 5, 3]], np.float32)
    deltas = np.array([[0.25, -0.5, np.log(2), np.log(0.5)], [0, 0, 0, 0]], np.float32)
    boxes = apply(box_ops.decode, anchors, deltas)
    np.testing.assert_allclose(boxes, [[0, 0.5, 8, 1.5], [1, 1, 5, 3]], rtol=0, atol=1e-6)
    clipped = apply(box_ops.clip, boxes, np.array([2, 1.25, 6, 1.375], np.float32))
    np.testing.assert_allclose(clipped, [[2, 1.25, 6, 1.375], [2, 1.25, 5, 1.375]], rtol=0, atol=1e-6)


def test_a_size_delta_counts_up_to_the_largest():
    box, most = np.array([[0, 0, 1, 1]], np.float64), box_ops.MAX_LOG_SIZE
    assert most == 20  # what the exported graphs have
    for delta, log_size in ((19.5, 19.5), (20.0, 20.0), (20.5, 20.0), (-30.0, -30.0)):
        y1, x1, y2, x2 = apply(box_ops.decode, box, np.array([[0, 0, delta, 0]]))[0]
        np.testing.assert_allclose([y2 - y1, x2 - x1], [np.exp(log_size), 1], rtol=1e-2 if delta < 0 else 1e-9)


def test_no_boxes():
    none = np.zeros((0, 4), np.float32)
    assert apply(box_ops.decode, none, none).shape == (0, 4)
    assert apply(box_ops.encode, none, none).shape == (0, 4)
