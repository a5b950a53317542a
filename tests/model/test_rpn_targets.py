"""RPN targets: equal to the original's to the last bit, and to a plain loop over all anchors and objects."""

import golden
import numpy as np
import pytest

from maskrcnn.anchor_grids import anchor_grids
from maskrcnn.configuration.matterport import from_matterport
from maskrcnn.configuration.model import ModelConfig
from maskrcnn.rpn_targets import rpn_targets

GOLDEN = golden.load("train_small_seed0")
CONFIG = from_matterport(golden.config_values(GOLDEN)).model
GRIDS = anchor_grids(CONFIG, (256, 256))
ALL = 100_000
SMALL = ModelConfig(anchor_scales=(16, 32, 64, 128, 256))


def targets(boxes, crowds=None, limit=ALL, grids=GRIDS, config=CONFIG, seed=0, bugs=False):
    boxes = np.asarray(boxes, np.int32).reshape(-1, 4)
    crowds = np.zeros(len(boxes), bool) if crowds is None else np.asarray(crowds)
    return rpn_targets(grids, boxes, crowds, limit, config.rpn_box_std, np.random.RandomState(seed), bugs)


def flat_anchors(grids):
    rows = []
    for grid in grids:
        for row in range(len(grid.y1)):
            for column in range(len(grid.x1)):
                for ratio in range(grid.y1.shape[1]):
                    rows.append(
                        (grid.y1[row, ratio], grid.x1[column, ratio], grid.y2[row, ratio], grid.x2[column, ratio])
                    )
    return np.array(rows)


def loop_iou(anchors, box):
    y1, x1, y2, x2 = (float(side) for side in box)
    area = (y2 - y1) * (x2 - x1)
    values = []
    for a in anchors:
        inter = max(min(y2, a[2]) - max(y1, a[0]), 0) * max(min(x2, a[3]) - max(x1, a[1]), 0)
        values.append(inter / (area + (a[2] - a[0]) * (a[3] - a[1]) - inter))
    return np.array(values)


def test_there_is_an_anchor_for_each_of_the_originals():
    assert len(flat_anchors(GRIDS)) == GOLDEN["rpnt0_nosub_match"].size


@pytest.mark.parametrize("picture", [0, 1])
@pytest.mark.parametrize(("kind", "limit"), [("seeded", 64), ("nosub", ALL)])
def test_targets_are_the_originals(picture, kind, limit):
    found = targets(GOLDEN[f"gt{picture}_bbox"], limit=limit, seed=1000 + picture)
    expected = GOLDEN[f"rpnt{picture}_{kind}_bbox"]
    assert np.array_equal(found.match, GOLDEN[f"rpnt{picture}_{kind}_match"])
    assert np.array_equal(found.deltas[: len(expected)], expected)
    assert not found.deltas[len(expected) :].any()


@pytest.mark.parametrize("picture", [0, 1])
def test_targets_beside_a_crowd_are_the_originals(picture):
    found = targets(GOLDEN[f"gt{picture}_bbox"], GOLDEN[f"rpnt{picture}_crowd_class_ids"] < 0)
    expected = GOLDEN[f"rpnt{picture}_crowd_bbox"]
    assert np.array_equal(found.match, GOLDEN[f"rpnt{picture}_crowd_match"])
    assert np.array_equal(found.deltas[: len(expected)], expected)


@pytest.mark.parametrize("size", [(64, 128), (192, 64), (128, 128)])
def test_match_is_that_of_a_loop(size):
    rng = np.random.default_rng(size[0])
    grids = anchor_grids(SMALL, size)
    anchors = flat_anchors(grids)
    corners = rng.integers(0, [size[0] - 8, size[1] - 8], (6, 2))
    sides = rng.integers(4, 60, (6, 2))
    boxes = np.concatenate([corners, np.minimum(corners + sides, size)], axis=1)
    crowds = np.array([False, False, False, False, True, False])
    found = targets(boxes, crowds, grids=grids, config=SMALL)

    iou = np.stack([loop_iou(anchors, box) for box in boxes], axis=1)
    objects, crowd = iou[:, ~crowds], iou[:, crowds]
    match = np.zeros(len(anchors), int)
    match[(objects.max(axis=1) < 0.3) & (crowd.max(axis=1) < 0.001)] = -1
    match[(objects == objects.max(axis=0)).any(axis=1) | (objects.max(axis=1) >= 0.7)] = 1
    assert np.array_equal(found.match, match)
    assert 0 < np.count_nonzero(match == 1) < len(match)

    kept = boxes[~crowds]
    for row, anchor in enumerate(np.flatnonzero(match == 1)):
        y1, x1, y2, x2 = anchors[anchor]
        gy1, gx1, gy2, gx2 = kept[objects[anchor].argmax()]
        expected = [
            ((gy1 + gy2) / 2 - (y1 + y2) / 2) / (y2 - y1) / 0.1,
            ((gx1 + gx2) / 2 - (x1 + x2) / 2) / (x2 - x1) / 0.1,
            np.log((gy2 - gy1) / (y2 - y1)) / 0.2,
            np.log((gx2 - gx1) / (x2 - x1)) / 0.2,
        ]
        np.testing.assert_allclose(found.deltas[row], expected, rtol=1e-9, atol=1e-9)


def test_picture_without_objects_is_all_background():
    found = targets(np.zeros((0, 4)), limit=64)
    assert np.count_nonzero(found.match == -1) == 64
    assert np.count_nonzero(found.match == 1) == 0
    assert not found.deltas.any()


def test_crowd_alone_keeps_its_anchors_out_of_the_background():
    found = targets([[0, 0, 256, 256]], [True])
    inside = loop_iou(flat_anchors(GRIDS), [0, 0, 256, 256]) >= 0.001
    assert np.array_equal(found.match == 0, inside)
    assert inside.any()


def test_box_that_no_anchor_touches_changes_nothing_unless_asked_for():
    lonely = [[40, 60, 40, 90]]
    assert not (targets(lonely).match == 1).any()
    with np.errstate(divide="ignore"):  # the box has no height, and the original takes its logarithm
        assert (targets(lonely, bugs=True).match == 1).all()


def test_sampling_keeps_the_limits():
    boxes = [[y, x, y + 30, x + 30] for y in range(0, 220, 32) for x in range(0, 220, 32)]
    found = targets(boxes, limit=32)
    assert np.count_nonzero(found.match == 1) == 16
    assert np.count_nonzero(found.match == -1) == 16
    everything = targets(boxes)
    assert (everything.match[found.match == 1] == 1).all()
    assert (everything.match[found.match == -1] == -1).all()
    assert not np.array_equal(found.match, targets(boxes, limit=32, seed=1).match)
