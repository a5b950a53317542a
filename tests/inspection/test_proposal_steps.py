"""The steps from anchors to proposals against plain NumPy."""

import numpy as np
import pytest

from maskrcnn.inspection.proposal_steps import proposal_scenes, proposal_steps, recalls


@pytest.fixture(scope="module")
def steps(run):
    return proposal_steps(run)


def test_the_steps_end_with_the_networks_proposals(run, steps):
    proposals = run.tensors["proposals"]
    np.testing.assert_allclose(steps.clipped[steps.kept], proposals[: len(steps.kept)], atol=1e-6)
    assert not proposals[len(steps.kept) :].any()


def test_order_and_refinement(run, steps, demo):
    scores = run.tensors["rpn_probs"][:, 1]
    assert len(steps.order) == demo.config.proposals.pre_nms_limit
    assert np.all(np.diff(steps.scores) <= 0)
    np.testing.assert_array_equal(steps.scores, scores[steps.order])
    assert steps.scores[-1] >= np.delete(scores, steps.order).max()
    for row in (0, 17, 999):  # Faster R-CNN, equation 2, inverted
        y1, x1, y2, x2 = run.anchors[steps.order[row]].astype(float)
        dy, dx, dh, dw = run.tensors["rpn_deltas"][steps.order[row]].astype(float) * demo.config.model.rpn_box_std
        height, width = (y2 - y1) * np.exp(dh), (x2 - x1) * np.exp(dw)
        y, x = (y1 + y2) / 2 + dy * (y2 - y1), (x1 + x2) / 2 + dx * (x2 - x1)
        expected = [y - height / 2, x - width / 2, y + height / 2, x + width / 2]
        np.testing.assert_allclose(steps.refined[row], expected, atol=1e-5)
    np.testing.assert_array_equal(steps.clipped, np.clip(steps.refined, 0, 1))


def test_numbers(steps):
    changed = [
        row for row in range(len(steps.refined)) if not ((steps.refined[row] >= 0) & (steps.refined[row] <= 1)).all()
    ]
    assert steps.numbers == {"by_score": 1000, "clipped": len(changed), "after_nms": len(steps.kept)}
    assert 0 < len(changed) < 1000


def test_recall_by_a_slow_loop(run, steps, sample):
    found = recalls(run, steps, sample.boxes)
    for name, boxes in (("anchors", run.anchors), ("refined", steps.clipped), ("proposals", steps.clipped[steps.kept])):
        pixels = run.to_input(boxes)[:, [1, 0, 3, 2]]
        hit = 0
        for y1, x1, y2, x2 in sample.boxes.tolist():
            shared = np.clip(np.minimum(pixels[:, 2:], (y2, x2)) - np.maximum(pixels[:, :2], (y1, x1)), 0, None).prod(
                axis=1
            )
            union = (pixels[:, 2:] - pixels[:, :2]).prod(axis=1) + (y2 - y1) * (x2 - x1) - shared
            hit += bool(np.any(shared / union >= 0.7))
        assert found[name] == pytest.approx(hit / len(sample.boxes))


def test_scenes(run, steps, sample):
    scenes = proposal_scenes(run, steps, sample.boxes, 50)
    assert [scene.name for scene in scenes] == [
        "anchors/by_score",
        "anchors/refined",
        "anchors/clipped",
        "anchors/after_nms",
    ]
    assert all(len(scene.shapes) == 50 for scene in scenes)
    best = scenes[3].shapes[-1]  # drawn last, on top
    assert best.facts["score"] == f"{steps.scores[steps.kept[0]]:.3f}"
    assert best.facts["level"] == f"P{run.anchor_levels[steps.order[steps.kept[0]]]}"
    assert float(best.facts["IoU"]) > 0.5
    assert "IoU" not in proposal_scenes(run, steps, np.zeros((0, 4)), 5)[0].shapes[0].facts
