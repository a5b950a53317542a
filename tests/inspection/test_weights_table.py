"""The table of weights against NumPy, and its flags."""

import numpy as np
import pytest

from maskrcnn.checkpoints.named_weights import get_arrays
from maskrcnn.inspection.model_report import weight_blocks
from maskrcnn.inspection.weights import weight_histograms, weight_table


def table(**arrays):
    return {
        row.name: row
        for row in weight_table({name.replace("__", "/"): np.array(a, "f4") for name, a in arrays.items()})
    }


def test_the_demos_weights(demo):
    arrays = get_arrays(demo)
    rows = weight_table(arrays)
    assert [row.name for row in rows] == list(arrays)
    for row, array in zip(rows, arrays.values(), strict=True):
        assert row.shape == array.shape
        expected = array.min(), array.max(), array.astype("f8").mean(), array.astype("f8").std()
        assert (row.low, row.high, row.mean, row.std) == pytest.approx(expected)
        assert row.change is None


def test_flags():
    rows = table(
        a__kernel=[3.0, 3.0], b__bias=[0.0, 0.0], c__gamma=[1.0, 1.0], d__kernel=[0.0, 1000.5],
        e__kernel=[0.0, -1000.0], f__kernel=[1.0, np.inf], g__kernel=[2.0], h__moving_variance=[0.0, 5000.0],
        i__moving_variance=[1.0, np.nan],
    )  # fmt: skip
    assert [name for name, row in rows.items() if row.dead] == ["a/kernel"]
    assert [name for name, row in rows.items() if row.overflow] == ["d/kernel", "f/kernel", "i/moving_variance"]


def test_infinite_weights_do_not_end_the_report():
    arrays = {"a/kernel": np.array([1.0, np.inf, 2.0], "f4"), "b/kernel": np.array([np.nan], "f4")}
    blocks, numbers = weight_blocks(arrays, arrays)
    assert blocks[0].rows["weights.overflow"][1] == "2"
    assert blocks[0].rows["weights.changed"][1] == "2"  # NaN is never equal
    assert [row["overflow"] for row in numbers] == [True, True]


def test_arrays_of_the_other_checkpoint_alone_are_counted():
    ours, theirs = {"a/kernel": np.ones(2, "f4")}, {"a/kernel": np.ones(2, "f4"), "b/kernel": np.ones(2, "f4")}
    shown = weight_blocks(ours, theirs)[0][0].rows
    assert (shown["weights.changed"][1], shown["weights.only_other"][1]) == ("0", "1")


def test_change_is_relative_to_the_other_checkpoint():
    ours = {"a/kernel": np.array([3.0, 4.0], "f4"), "b/bias": np.array([1.0], "f4"), "c/bias": np.zeros(3, "f4")}
    theirs = {"a/kernel": np.array([0.0, 2.0], "f4"), "b/bias": np.array([0.0], "f4"), "c/bias": np.zeros(2, "f4")}
    first, second, third = weight_table(ours, theirs)
    assert first.change == pytest.approx(np.hypot(3, 2) / 2)
    assert second.change == 1.0
    assert third.change is None
    assert [row.change for row in weight_table(ours, ours)] == [0, 0, 0]


def test_histograms_count_every_weight(demo):
    arrays = get_arrays(demo)
    figures = weight_histograms(arrays, arrays)
    assert list(figures) == ["backbone", "FPN", "RPN", "heads"]
    axes = {each.get_title(): each for figure in figures.values() for each in figure.axes}
    assert len(axes) == sum(name.endswith("/kernel") for name in arrays)
    drawn = axes["rpn_bbox_pred"].patches
    assert len(drawn) == 2  # one for each checkpoint
    assert sum(drawn[0].get_data().values) == arrays["rpn_bbox_pred/kernel"].size
