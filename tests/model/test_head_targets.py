"""Targets of the heads: the original's on its own input, a float64 loop elsewhere, and what sampling keeps."""

import golden
import numpy as np
import pytest
import tensorflow as tf

from maskrcnn import boxes as box_ops
from maskrcnn.head_targets import GroundTruth, head_targets, mask_targets

GOLDEN = golden.load("targets_losses_seed0")
SIZE = tf.constant([256, 256])


def truth(class_ids, boxes, masks=None):
    class_ids, boxes = np.asarray(class_ids, np.int32)[None], np.asarray(boxes, np.float32)[None]
    masks = np.ones((1, class_ids.shape[1], 56, 56), np.float32) if masks is None else masks[None]
    return GroundTruth(tf.constant(class_ids), tf.constant(boxes), tf.constant(masks, tf.float32))


def sample(proposals, objects, rois=100, ratio=0.33, seed=(0, 0), bugs=False):
    proposals = tf.constant(np.asarray(proposals, np.float32)[None])
    found, rows = head_targets(proposals, objects, tf.constant([seed]), rois, ratio, bugs)
    return found, rows


def test_targets_are_the_originals():
    masks = GOLDEN["dt_in_gt_masks"].transpose(2, 0, 1).astype(np.float32)
    objects = truth(GOLDEN["dt_in_gt_class_ids"], GOLDEN["dt_in_gt_boxes"], masks)
    found, rows = sample(GOLDEN["dt_in_proposals"], objects, bugs=True)
    most = rows.shape[1]
    found_masks = mask_targets(found.rois[:, :most], objects, rows, SIZE, 28, "matterport", True)

    positive = int(np.count_nonzero(GOLDEN["dt_class_ids"]))
    assert positive == int(np.count_nonzero(found.class_ids)) > 5
    ours, theirs = order(found.rois[0]), order(GOLDEN["dt_rois"])
    np.testing.assert_array_equal(found.rois[0].numpy()[ours], GOLDEN["dt_rois"][theirs])
    np.testing.assert_array_equal(found.class_ids[0].numpy()[ours], GOLDEN["dt_class_ids"][theirs])
    deltas = found.deltas[0].numpy() / [0.1, 0.1, 0.2, 0.2]
    np.testing.assert_allclose(deltas[ours], GOLDEN["dt_deltas"][theirs], atol=2e-5)

    ours, theirs = order(found.rois[0, :positive]), order(GOLDEN["dt_rois"][:positive])
    assert np.array_equal(found_masks[0].numpy()[ours], GOLDEN["dt_masks"][theirs])
    assert 0.1 < GOLDEN["dt_masks"][:positive].mean() < 0.9


def order(rois):
    return np.lexsort(np.asarray(rois, np.float64).T)


def test_without_a_positive_there_still_are_negatives():
    objects = truth([1], [[0.0, 0.0, 0.2, 0.2]])
    proposals = [[0.5, 0.5, 0.9, 0.9], [0.6, 0.1, 0.8, 0.4], [0, 0, 0, 0]]
    found, _ = sample(proposals, objects, rois=10)
    assert found.valid.numpy().tolist() == [[True] * 2 + [False] * 8]
    assert not found.class_ids.numpy().any()
    original, _ = sample(proposals, objects, rois=10, bugs=True)
    assert not original.valid.numpy().any()


def test_picture_without_objects_gives_negatives_only():
    found, _ = sample(np.tile([0.1, 0.1, 0.4, 0.5], (30, 1)), truth([0, 0], np.zeros((2, 4))), rois=20)
    assert found.valid.numpy().all()
    assert not found.class_ids.numpy().any()
    assert not found.deltas.numpy().any()


def test_crowd_keeps_proposals_out_of_both_sides():
    objects = truth([2, -1], [[0.0, 0.0, 0.3, 0.3], [0.5, 0.5, 1.0, 1.0]])
    proposals = [[0.0, 0.0, 0.3, 0.29], [0.6, 0.6, 0.9, 0.9], [0.0, 0.6, 0.3, 0.9]]
    found, _ = sample(proposals, objects, rois=6, ratio=0.5)
    assert found.class_ids.numpy()[0].tolist() == [2, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(found.rois.numpy()[0, :3], [proposals[0], proposals[2], [0, 0, 0, 0]])


def many(count=300):
    rng = np.random.default_rng(3)
    near = np.clip(rng.normal([0.2, 0.2, 0.6, 0.6], 0.02, (count // 2, 4)), 0, 1)
    far = np.concatenate([rng.uniform(0.65, 0.7, (count // 2, 2)), rng.uniform(0.8, 0.9, (count // 2, 2))], axis=1)
    return np.concatenate([near, far])


@pytest.mark.parametrize("bugs", [False, True])
def test_counts_and_layout_of_a_sample(bugs):
    found, _ = sample(many(), truth([3], [[0.2, 0.2, 0.6, 0.6]]), rois=60, bugs=bugs)
    ids = found.class_ids.numpy()[0]
    assert ids[:19].tolist() == [3] * 19  # int(60 * 0.33)
    assert not ids[19:].any()
    assert int(np.count_nonzero(found.valid)) == (57 if bugs else 60)  # int(19 / 0.33) = 57


def test_chance_follows_the_seed_of_the_image():
    objects = truth([3], [[0.2, 0.2, 0.6, 0.6]])
    first, again, other = (sample(many(), objects, rois=60, seed=(5, s))[0].rois.numpy() for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    pair = GroundTruth(*(tf.concat([part, part], axis=0) for part in objects))
    proposals = tf.constant(np.stack([many(), many()]).astype(np.float32))
    both, _ = head_targets(proposals, pair, tf.constant([[5, 2], [5, 1]]), 60, 0.33, False)
    assert np.array_equal(both.rois[1], first[0])
    assert np.array_equal(both.rois[0], other[0])


def loop_samples(mask, roi, box, size):
    """Bilinear samples at bin centers of `roi` from a mask that spans `box`, both in pixels, in float64."""
    n = len(mask)
    out = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            y = roi[0] + (i + 0.5) * (roi[2] - roi[0]) / size
            x = roi[1] + (j + 0.5) * (roi[3] - roi[1]) / size
            if not (box[0] <= y <= box[2] and box[1] <= x <= box[3]):
                continue
            v = np.clip((y - box[0]) / (box[2] - box[0]) * n - 0.5, 0, n - 1)
            u = np.clip((x - box[1]) / (box[3] - box[1]) * n - 0.5, 0, n - 1)
            top, left = int(min(v, n - 2)), int(min(u, n - 2))
            dv, du = v - top, u - left
            upper = mask[top, left] * (1 - du) + mask[top, left + 1] * du
            lower = mask[top + 1, left] * (1 - du) + mask[top + 1, left + 1] * du
            out[i, j] = upper * (1 - dv) + lower * dv
    return out


@pytest.mark.parametrize("roi", [[40, 30, 120, 200], [20, 50, 130, 170], [64.5, 90.25, 80, 99], [0, 0, 256, 256]])
def test_aligned_masks_are_samples_at_bin_centers(roi):
    rng = np.random.default_rng(0)
    mask = (rng.random((56, 56)) > 0.5).astype(np.float32)
    box = [40.0, 30.0, 120.0, 200.0]
    normalize = lambda b: box_ops.normalize(tf.constant([[b]], tf.float32), SIZE)  # noqa: E731
    objects = GroundTruth(tf.constant([[1]]), normalize(box), tf.constant(mask[None, None]))
    found = mask_targets(normalize(roi), objects, tf.constant([[0]]), SIZE, 28, "aligned", True)[0, 0].numpy()
    expected = loop_samples(mask, roi, box, 28)
    decided = np.abs(expected - 0.5) > 1e-3
    assert np.array_equal(found[decided], expected[decided] > 0.5)
    assert decided.mean() > 0.5  # two cells to a bin: many samples lie between


def test_full_size_masks_give_the_same_as_mini_masks_of_a_smooth_object():
    size = 256
    yy, xx = np.mgrid[:size, :size] + 0.5
    disc = ((yy - 128) ** 2 + (xx - 120) ** 2 < 60**2).astype(np.float32)
    box = [68.0, 60.0, 188.0, 180.0]
    normalized = box_ops.normalize(tf.constant([[box]], tf.float32), SIZE)
    mini = (disc[68:188, 60:180].reshape(60, 2, 60, 2).mean(axis=(1, 3)) > 0.5).astype(np.float32)
    ids, rows = tf.constant([[1]]), tf.constant([[0]])
    full = GroundTruth(ids, normalized, tf.constant(disc[None, None]))
    small = GroundTruth(ids, normalized, tf.constant(mini[None, None]))
    for paste in ("aligned", "matterport"):
        ours = mask_targets(normalized, full, rows, SIZE, 28, paste, False)
        mine = mask_targets(normalized, small, rows, SIZE, 28, paste, True)
        assert np.mean(np.asarray(ours) != np.asarray(mine)) < 0.03
        assert 0.7 < float(tf.reduce_mean(ours)) < 0.82  # pi / 4


def test_masks_of_other_packages():
    """The expected sums are those of torchvision 0.29 (`project_masks_on_boxes`) and of its aligned ROIAlign >= 0.5."""
    masks = np.zeros((3, 40, 50), np.float32)
    masks[0, 5:20, 3:30], masks[0, 8:12, 10:14], masks[1, 10:39, 20:49], masks[2, 2:9, 40:44] = 1, 0, 1, 1
    boxes = [[5, 3, 20, 30], [10, 20, 39, 49], [2, 40, 9, 44]]
    rois = [[4.2, 2.5, 21.5, 31.0], [9, 18, 40, 50], [1.5, 39.5, 9.25, 44.5], [10, 10, 11, 12.5], [0, 0, 40, 50]]
    objects = tf.constant([[0, 1, 2, 0, 1]])
    expected = {
        "torchvision": ([28.340889, 30.599796, 24.767368, 0.0, 15.139557], 1688.542888),
        "detectron2": ([30, 34, 24, 0, 18], 1866),
    }
    for paste, (sums, moment) in expected.items():
        whole = mask_targets(
            tf.constant([rois]),
            truth([1, 1, 1], boxes, masks),
            objects,
            tf.constant([40, 50]),
            6,
            paste,
            False,
            "continuous",
        )[0].numpy()
        np.testing.assert_allclose(whole.sum((1, 2)), sums, atol=1e-4)
        assert (whole * np.arange(36.0).reshape(6, 6)).sum() == pytest.approx(moment, rel=1e-6)


def test_boxes_of_objects_are_proposals_where_asked():
    objects = truth([1, -1, 0], [[0.2, 0.2, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], [0, 0, 0, 0]])
    arguments = (tf.zeros([1, 4, 4]), objects, tf.constant([[0, 0]]), 10, 0.5, False)
    assert not head_targets(*arguments)[0].valid.numpy().any()
    found, _ = head_targets(*arguments, truth_as_proposals=True)
    assert found.class_ids[0].numpy().tolist() == [1] + [0] * 9
    assert np.count_nonzero(found.valid) == 1
    np.testing.assert_array_equal(found.rois[0, 0], objects.boxes[0, 0])
