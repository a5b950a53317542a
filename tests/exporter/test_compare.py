"""Pairing and comparing the rows of two runs, on arrays made by hand."""

import numpy as np
import pytest

from export.verify import tolerances
from export.verify.compare import compare_rows, difference
from export.verify.tolerances import Tolerance

ROWS = 5  # of the output tensors; three are in use


def outputs(count=3):
    """Artifact outputs of one picture, every row clearly different from the others."""
    generator = np.random.default_rng(0)
    rows = {
        "num_detections": np.int32(count),
        "boxes": np.float32([[10 * i, 20 * i, 10 * i + 30, 20 * i + 40] for i in range(ROWS)]),
        "scores": np.float32([0.9, 0.8, 0.7, 0.6, 0.5]),
        "class_ids": np.int32([1, 2, 1, 2, 1]),
        "masks": generator.uniform(size=(ROWS, 4, 4)).astype(np.float32),
    }
    for name in ("boxes", "scores", "class_ids", "masks"):
        rows[name][count:] = 0
    return rows


def changed(rows, name, index, by):
    copy = {key: np.array(value) for key, value in rows.items()}
    copy[name][index] += by
    return copy


def reordered(rows, order):
    copy = dict(rows)
    for name in ("boxes", "scores", "class_ids", "masks"):
        copy[name] = np.concatenate([rows[name][list(order)], rows[name][len(order) :]])
    return copy


def test_equal_runs_are_identical():
    found = compare_rows(outputs(), outputs())
    assert (found.expected, found.found, found.boxes, found.scores, found.masks) == (3, 3, 0, 0, 0)
    assert (found.swapped, found.unmatched) == (0, 0)
    assert found.within
    assert found.identical


def test_runs_without_detections_are_identical():
    found = compare_rows(outputs(0), outputs(0))
    assert (found.expected, found.found, found.boxes, found.masks) == (0, 0, 0, 0)
    assert found.identical


def test_unused_rows_do_not_count():
    assert compare_rows(outputs(), changed(outputs(), "boxes", 4, 100)).identical


# Base values are such that float32 holds the differences: up to 1e-3 px in boxes, 6e-8 in scores and masks.
@pytest.mark.parametrize(
    ("name", "index", "by"),
    [("boxes", (1, 2), 0.008), ("scores", 1, 8e-6), ("masks", (1, 2, 3), 8e-5)],
    ids=["boxes", "scores", "masks"],
)
def test_differences_within_tolerance_are_measured(name, index, by):
    found = compare_rows(outputs(), changed(outputs(), name, index, by))
    assert getattr(found, name) == pytest.approx(by, rel=0.02)
    assert found.identical


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("name", "index", "by"), [("scores", 1, 1.5e-5), ("masks", (2, 0, 0), 1.2e-4)], ids=["scores", "masks"]
)
def test_score_or_mask_beyond_tolerance_is_found_in_its_row(name, index, by, sign):
    found = compare_rows(outputs(), changed(outputs(), name, index, sign * by))
    assert getattr(found, name) == pytest.approx(by, rel=0.02)
    assert (found.unmatched, found.swapped) == (0, 0)
    assert (found.scores_within, found.masks_within) == (name != "scores", name != "masks")
    assert not found.within
    assert not found.identical


@pytest.mark.parametrize(
    ("name", "index", "by"),
    [("boxes", (1, 2), 0.02), ("boxes", (1, 0), -0.02), ("class_ids", 1, 1)],
    ids=["box", "box to the left", "class"],
)
def test_row_beyond_tolerance_has_no_counterpart(name, index, by):
    found = compare_rows(outputs(), changed(outputs(), name, index, by))
    assert (found.expected, found.found, found.unmatched) == (3, 3, 2)
    assert not found.within
    assert not found.identical


def test_swapped_rows_are_paired_and_counted():
    found = compare_rows(outputs(), reordered(outputs(), [1, 0, 2]))
    assert (found.swapped, found.unmatched) == (2, 0)
    assert (found.boxes, found.scores, found.masks) == (0, 0, 0)
    assert found.within
    assert not found.identical


def test_masks_of_swapped_rows_are_those_of_the_partner():
    other = reordered(outputs(), [1, 0, 2])
    other["masks"] = outputs()["masks"]  # left in the old order
    found = compare_rows(outputs(), other)
    assert found.swapped == 2
    assert found.masks > 0.1
    assert not found.within


@pytest.mark.parametrize("direction", ["missing", "extra"])
def test_a_row_of_one_side_only(direction):
    sides = [outputs(3), outputs(2)]
    found = compare_rows(*(sides if direction == "missing" else sides[::-1]))
    assert (found.expected, found.found) == ((3, 2) if direction == "missing" else (2, 3))
    assert found.unmatched == 1
    assert not found.within


def test_a_missing_first_row_moves_the_others():
    other = reordered(outputs(), [1, 2])
    other["num_detections"] = np.int32(2)
    found = compare_rows(outputs(), other)
    assert (found.expected, found.found, found.swapped, found.unmatched) == (3, 2, 2, 1)
    assert (found.boxes, found.masks) == (0, 0)


def test_a_row_is_paired_once():
    """Two equal rows against one of them: one is left over."""
    reference = reordered(outputs(), [0, 0, 1])
    other = reordered(outputs(), [0, 1])
    other["num_detections"] = np.int32(2)
    found = compare_rows(reference, other)
    assert found.unmatched == 1
    assert not found.within


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("name", "index"), [("boxes", (0, 1)), ("scores", 0), ("masks", (0, 1, 1))])
def test_a_value_that_is_not_finite_never_agrees(name, index, value):
    found = compare_rows(outputs(), changed(outputs(), name, index, value))
    assert not found.within


def test_nan_in_both_runs_does_not_agree():
    both = changed(outputs(), "masks", (0, 1, 1), np.nan)
    assert compare_rows(both, both).masks == float("inf")
    both = changed(outputs(), "scores", 0, np.nan)
    assert not compare_rows(both, both).within


ABSOLUTE, RELATIVE = Tolerance(1e-3), Tolerance(1e-3, relative=True)


def test_difference_is_the_largest():
    reference = np.float32([[1, -8], [3, 4]])
    other = reference + np.float32([[0.25, -0.5], [0, 0.125]])
    assert difference(reference, other, ABSOLUTE) == 0.5
    assert difference(reference, other, RELATIVE) == 0.5 / 8
    assert difference(reference, reference, RELATIVE) == 0


def test_difference_of_other_shapes_is_infinite():
    assert difference(np.zeros((2, 3)), np.zeros((3, 2)), ABSOLUTE) == float("inf")
    assert difference(np.zeros((2, 1)), np.zeros(2), ABSOLUTE) == float("inf")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tolerance", [ABSOLUTE, RELATIVE], ids=["absolute", "relative"])
def test_difference_of_numbers_that_are_not_finite_is_infinite(value, tolerance):
    sound, spoiled = np.float32([1, 2]), np.float32([1, value])
    assert difference(sound, spoiled, tolerance) == float("inf")
    assert difference(spoiled, sound, tolerance) == float("inf")
    assert difference(spoiled, spoiled, tolerance) == float("inf")


def test_difference_of_nothing_and_from_zero():
    assert difference(np.zeros((0, 4)), np.zeros((0, 4)), RELATIVE) == 0
    assert difference(np.zeros(2), np.float32([0, 0.5]), RELATIVE) == 0.5


def test_difference_of_unsigned_numbers_does_not_wrap():
    assert difference(np.uint8([1]), np.uint8([3]), ABSOLUTE) == 2


def test_every_border_has_a_tolerance_that_can_fail():
    from export.convert.trace import STAGES

    compared = [name for stage in STAGES for name in stage.outputs]
    assert sorted(compared) == sorted(tolerances.STAGES)
    assert all(0 <= tolerance.bound <= 1e-4 for tolerance in tolerances.STAGES.values())


def test_what_users_are_promised():
    """The bounds that the README states; wider ones would let more pass."""
    assert (tolerances.BOXES, tolerances.SCORES, tolerances.MASKS) == ((0.01, False), (1e-5, False), (1e-4, False))
    assert tolerances.DECISION_MARGIN == 1e-5


def test_bounds_of_the_stages():
    """Written a second time, so that widening a bound takes two edits."""
    features, probability, arithmetic = (1e-4, True), (3e-5, False), (1e-6, False)
    assert {
        **dict.fromkeys(("p2", "p3", "p4", "p5", "p6", "rpn_deltas", "box_deltas"), features),
        **dict.fromkeys(("box_rois", "mask_rois"), features),
        **dict.fromkeys(("rpn_probs", "class_probs"), probability),
        **dict.fromkeys(("proposals", "detected_boxes", "scores"), arithmetic),
        **dict.fromkeys(("class_ids", "num_detections"), (0, False)),
        "masks": (1e-4, False),
    } == tolerances.STAGES
