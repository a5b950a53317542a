"""Each close decision is named when it depends on less than the margin, and not when on ten times that."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import decode

from export.verify.decisions import _proposals, explain_masks, explain_rows, explain_scores
from export.verify.tolerances import MASKS
from maskrcnn.configuration.samples import DEMO

NEAR, FAR = 5e-6, 1e-4  # the margin lies between
THRESHOLDS = (0.5, 0.3)  # score, suppression
CONFIG = replace(DEMO, proposals=replace(DEMO.proposals, pre_nms_limit=4, nms_threshold=0.5))
IMAGE_SIZE = (512, 2048)

# Six boxes that do not touch each other.
APART = np.float32([[0.15 * i, 0.15 * i, 0.15 * i + 0.1, 0.15 * i + 0.1] for i in range(6)])
SCORES = np.float32([0.9, 0.8, 0.7, 0.6, 0.4, 0.2])


def proposal_run(kept, anchors=APART, scores=SCORES):
    """A run that chose these anchors and detected nothing."""
    probs = np.stack([1 - scores, scores], axis=1).astype(np.float32)
    return {
        "rpn_probs": probs,
        "rpn_deltas": np.zeros((len(anchors), 4), np.float32),
        "proposals": np.concatenate([anchors[list(kept)], np.zeros((2, 4), np.float32)]),
        "class_probs": np.float32([[0.9, 0.06, 0.04, 0]] * (len(kept) + 2)),
    } | detection_run([], [], [])


def detection_run(boxes, scores, class_ids, probs=((0.05, 0.9, 0.03, 0.02),), rows=4):
    """Stage boundary tensors after the proposals, which are equal in all runs."""
    count = len(scores)
    tensors = {
        "num_detections": np.int32(count),
        "detected_boxes": np.zeros((rows, 4), np.float32),
        "scores": np.zeros(rows, np.float32),
        "class_ids": np.zeros(rows, np.int32),
        "masks": np.full((rows, 4, 4), 0.5, np.float32),
        "class_probs": np.float32(probs),
    }
    if count:
        tensors["detected_boxes"][:count] = boxes
        tensors["scores"][:count] = scores
        tensors["class_ids"][:count] = class_ids
    return tensors


def rows_of(reference, other, anchors=APART, config=CONFIG):
    """Reasons for two runs that differ before the detections, or after equal proposals."""
    if "rpn_probs" not in reference:
        same = proposal_run([0, 1, 2, 3])
        reference, other = same | reference, same | other
    return explain_rows(reference, other, anchors, config, THRESHOLDS)


def test_equal_runs_have_no_decision():
    assert rows_of(proposal_run([0, 1, 2, 3]), proposal_run([0, 1, 2, 3])) == []
    run = detection_run(APART[:3], [0.9, 0.8, 0.7], [1, 2, 1])
    assert rows_of(run, run) == []
    assert explain_masks(run, run, run, IMAGE_SIZE) == []


def test_other_proposals_without_a_near_decision_are_not_explained():
    assert rows_of(proposal_run([0, 1, 2, 3]), proposal_run([0, 1, 2])) == []
    assert rows_of(proposal_run([0, 1, 2, 3]), proposal_run([0, 1, 2, 4])) == []


@pytest.mark.parametrize(("gap", "named"), [(NEAR, True), (FAR, False)], ids=["near", "far"])
def test_anchor_cut(gap, named):
    scores = SCORES.copy()
    scores[4] = scores[3] - gap
    reasons = rows_of(proposal_run([0, 1, 2, 3], scores=scores), proposal_run([0, 1, 2, 4], scores=scores))
    assert any(reason.startswith("proposals: anchors 4 and 5 by score differ by") for reason in reasons) is named
    assert bool(reasons) is named


def test_the_decision_is_told_with_its_numbers():
    scores = SCORES.copy()
    scores[5] = scores[4]
    config = replace(CONFIG, proposals=replace(CONFIG.proposals, pre_nms_limit=5))
    sides = proposal_run([0, 4], scores=scores), proposal_run([0], scores=scores)
    assert rows_of(*sides, config=config) == ["proposals: anchors 5 and 6 by score differ by 0.0e+00, only one enters"]
    boxes = np.float32([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.15], [0, 0, 0.25, 0.5]])
    sides = detection_run(boxes[:2], [0.75, 0.5], [1, 1]), detection_run(boxes[:1], [0.75], [1])
    assert rows_of(*sides) == ["detection: two boxes overlap by 0.3000000, the threshold is 0.3"]
    sides = detection_run(boxes[:1], [0.75], [1]), detection_run(boxes[2:], [0.75], [1])
    assert rows_of(*sides) == ["detection: two boxes of which one is kept differ in score by 0.0e+00"]
    probs = [[0.05, 0.9, 0.03, 0.02], [0.02, 0.01, 0.485, 0.485], [0.25, 0.5, 0.2, 0.05]]
    assert rows_of(*[detection_run(boxes[:1], [0.9], [1], probs)] * 2) == [
        "detection: two classes of proposal 1 have the score 0.485000",
        "detection: proposal 2 scores 0.5000000, the threshold is 0.5",
    ]
    run = detection_run(APART[:4], np.float32([0.9, 0.75, 0.5, 0.5 - 2.0**-18]), [1, 1, 1, 1])
    assert rows_of(run, run) == ["detection: rows 2 and 3 differ in score by 3.8e-06"]
    run = detection_run(np.float32([[0, 0, 0.1, 0.1], [0, 0, 0.3, 0.25]]), [0.9, 0.8], [1, 1])
    other = {name: np.array(value) for name, value in run.items()}
    other["detected_boxes"][1, 3] += 2.0**-18
    other["masks"][1, 3, 0] += 0.125
    assert explain_masks(run, other, other, IMAGE_SIZE) == [
        "mask head: the mask of row 1 differs by 1.2e-01, its box by 3.8e-06 of the image"
    ]


def test_a_mask_as_far_off_as_is_allowed_needs_no_reason():
    reference = detection_run([[0, 0, 0.1, 0.1]], [0.9], [1])
    reference["masks"][:] = 0
    other = {name: np.array(value) for name, value in reference.items()}
    other["detected_boxes"][0, 0] += NEAR
    other["masks"][0, 1, 1] = np.float32(MASKS.bound)
    assert explain_masks(reference, other, other, IMAGE_SIZE) == []
    other["masks"][0, 1, 1] = np.nextafter(np.float32(MASKS.bound), np.float32(1))
    assert len(explain_masks(reference, other, other, IMAGE_SIZE)) == 1


def test_no_anchor_is_cut_where_all_enter():
    scores = SCORES.copy()
    scores[4] = scores[3] - NEAR
    config = replace(CONFIG, proposals=replace(CONFIG.proposals, pre_nms_limit=6))
    sides = proposal_run([0, 1, 2, 3], scores=scores), proposal_run([0, 1, 2], scores=scores)
    assert rows_of(*sides, config=config) == []


@pytest.mark.parametrize("limit", [6, 40, 100])
def test_a_proposal_has_the_score_of_the_anchor_it_was_refined_from(limit):
    rng = np.random.default_rng(2)
    corners = rng.uniform(0, 0.8, (40, 2))
    anchors = np.hstack([corners, corners + rng.uniform(0.05, 0.3, (40, 2))]).astype(np.float32)
    std = (0.1, 0.15, 0.2, 0.25)
    config = replace(
        CONFIG,
        model=replace(CONFIG.model, rpn_box_std=std),
        proposals=replace(CONFIG.proposals, pre_nms_limit=limit),
    )
    deltas = rng.normal(0, 2, (40, 4)).astype(np.float32)
    scores = np.linspace(0.95, 0.05, 40).astype(np.float32)
    deltas[2, 2:] = 150, 110  # beyond the largest
    refined = [np.clip(decode(*pair), 0, 1) for pair in zip(anchors, deltas * np.float64(std), strict=True)]
    run = proposal_run([0], anchors, scores) | {"rpn_deltas": deltas}
    kept = [2, 0, 6] if limit == 6 else [2, 0, 6, 39, 17]  # one more than the limit may have entered
    run["proposals"] = np.float32([*(refined[row] for row in kept), np.zeros(4)])
    chosen = _proposals(run, anchors, config, np.zeros(len(anchors), np.int32))
    np.testing.assert_allclose(chosen.boxes, np.array(refined)[kept], atol=1e-6)
    np.testing.assert_array_equal(chosen.scores, scores[kept].astype(np.float64))
    assert chosen.class_ids.tolist() == [0] * len(kept)


@pytest.mark.parametrize("swap", [False, True], ids=["missing", "extra"])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("distance", "named"), [(NEAR, True), (FAR, False)], ids=["near", "far"])
def test_proposal_overlap_at_the_threshold(distance, named, sign, swap):
    anchors = APART.copy()
    anchors[0] = 0.0, 0.0, 0.1, 0.1
    anchors[1] = 0.0, 0.0, 0.1, 0.1 * (0.5 + sign * distance)  # IoU with the first: the factor
    sides = [proposal_run([0, 1, 2], anchors), proposal_run([0, 2], anchors)]
    reasons = rows_of(*(sides[::-1] if swap else sides), anchors=anchors)
    assert any("two boxes overlap by" in reason and reason.startswith("proposals") for reason in reasons) is named
    assert bool(reasons) is named


@pytest.mark.parametrize(("gap", "named"), [(NEAR, True), (FAR, False)], ids=["near", "far"])
def test_proposals_with_equal_scores(gap, named):
    """Two overlapping anchors; each run keeps a different one."""
    anchors, scores = APART.copy(), SCORES.copy()
    anchors[1] = anchors[0] + 0.01
    scores[1] = scores[0] - gap
    sides = proposal_run([0, 2, 3], anchors, scores), proposal_run([1, 2, 3], anchors, scores)
    reasons = rows_of(*sides, anchors=anchors)
    assert any(reason.startswith("proposals: two boxes of which one is kept") for reason in reasons) is named
    assert bool(reasons) is named


@pytest.mark.parametrize("swap", [False, True], ids=["missing", "extra"])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("distance", "named"), [(NEAR, True), (FAR, False)], ids=["near", "far"])
def test_detection_overlap_at_the_threshold(distance, named, sign, swap):
    boxes = np.float32([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5 * (0.3 + sign * distance)]])
    sides = [detection_run(boxes, [0.9, 0.8], [1, 1]), detection_run(boxes[:1], [0.9], [1])]
    reasons = rows_of(*(sides[::-1] if swap else sides))
    assert any("two boxes overlap by" in reason and reason.startswith("detection") for reason in reasons) is named
    assert bool(reasons) is named


def test_overlap_of_other_classes_is_no_decision():
    boxes = np.float32([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.15]])
    assert rows_of(detection_run(boxes, [0.9, 0.8], [1, 2]), detection_run(boxes[:1], [0.9], [1])) == []


@pytest.mark.parametrize(("gap", "named"), [(NEAR, True), (FAR, False)], ids=["near", "far"])
def test_detections_with_equal_scores(gap, named):
    boxes = np.float32([[0, 0, 0.5, 0.5], [0.01, 0, 0.51, 0.5]])
    sides = detection_run(boxes[:1], [0.9], [1]), detection_run(boxes[1:], [0.9 - gap], [1])
    reasons = rows_of(*sides)
    assert any(reason.startswith("detection: two boxes of which one is kept") for reason in reasons) is named
    assert bool(reasons) is named


@pytest.mark.parametrize(("gap", "named"), [(NEAR, True), (FAR, False)], ids=["near", "far"])
def test_two_classes_alike(gap, named):
    probs = [[0.9, 0.05, 0.03, 0.02], [0.02, 0.51, 0.51 - gap, 0.01]]
    sides = [detection_run(APART[:1], [0.51], [class_id], probs) for class_id in (1, 2)]
    reasons = [reason for reason in rows_of(*sides) if "two boxes" not in reason]
    assert any(reason.startswith("detection: two classes of proposal 1") for reason in reasons) is named
    assert bool(reasons) is named


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("distance", "named"), [(NEAR, True), (FAR, False)], ids=["near", "far"])
def test_score_at_the_threshold(distance, named, sign):
    probs = [[0.1, 0.8, 0.06, 0.04], [0.2, 0.5 + sign * distance, 0.2, 0.1]]
    sides = detection_run(APART[:2], [0.8, 0.5], [1, 1], probs), detection_run(APART[:1], [0.8], [1], probs)
    reasons = rows_of(*sides)
    assert any(reason.startswith("detection: proposal 1 scores") for reason in reasons) is named
    assert bool(reasons) is named


def test_background_at_the_threshold_is_no_decision():
    probs = [[0.5, 0.3, 0.1, 0.1]]
    assert rows_of(detection_run(APART[:1], [0.8], [1], probs), detection_run([], [], [], probs)) == []


@pytest.mark.parametrize(("gap", "named"), [(NEAR, True), (FAR, False)], ids=["near", "far"])
def test_order_of_rows(gap, named):
    scores = np.float32([0.9, 0.8, 0.8 - gap])
    order = [0, 2, 1]
    sides = detection_run(APART[:3], scores, [1, 1, 1]), detection_run(APART[:3][order], scores, [1, 1, 1])
    reasons = rows_of(*sides)
    assert any(reason.startswith("detection: rows 1 and 2 differ in score by") for reason in reasons) is named
    assert bool(reasons) is named


def box_of_level(level):
    """A box twice as wide as high, whose size corresponds to a (fractional) pyramid level."""
    side = 224 * 2 ** (level - 4)  # pixels
    height, width = side / 2**0.5 / IMAGE_SIZE[0], side * 2**0.5 / IMAGE_SIZE[1]
    return np.float32([[0.125, 0.25, 0.125 + height, 0.25 + width]])


@pytest.mark.parametrize("border", [2.5, 3.5, 4.5])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("distance", "named"), [(NEAR, True), (FAR, False)], ids=["near", "far"])
def test_box_between_two_levels(distance, named, sign, border):
    run = detection_run(box_of_level(border + sign * distance), [0.9], [1])
    reasons = explain_masks(run, run, run, IMAGE_SIZE)
    assert any("octaves from the border of two levels" in reason for reason in reasons) is named
    assert bool(reasons) is named


@pytest.mark.parametrize("level", [1.5, 2.0, 3.0, 4.0, 5.0, 5.5])
def test_box_where_no_two_levels_meet(level):
    run = detection_run(box_of_level(level), [0.9], [1])
    assert explain_masks(run, run, run, IMAGE_SIZE) == []


def test_box_without_area_lies_on_one_level():
    run = detection_run(np.zeros((1, 4), np.float32), [0.9], [1])
    assert explain_masks(run, run, run, IMAGE_SIZE) == []


@pytest.mark.parametrize(
    ("box", "mask", "left", "named"),
    [
        (NEAR, 2 * MASKS.bound, 0.0, True),
        (0.0, 2 * MASKS.bound, 0.0, True),  # clipped on all sides
        (FAR, 2 * MASKS.bound, 0.0, False),
        (NEAR, 2 * MASKS.bound, 1.5 * MASKS.bound, False),
        (NEAR, 0.5, 2 * MASKS.bound, False),
        (NEAR, 2 * MASKS.bound, np.nan, False),
        (NEAR, 0.5 * MASKS.bound, 0.0, False),
    ],
    ids=["near", "clipped", "far", "another cause", "mostly the box", "not a number", "equal masks"],
)
def test_amplified_mask(box, mask, left, named):
    """`left` is what remains of the difference if the model takes the artifact's boxes."""
    boxes = np.float32([[0, 0, 0.1, 0.1], [0.0, 0.0, 0.4, 0.3]])
    reference = detection_run(boxes, [0.9, 0.8], [1, 1])
    other = {name: np.array(value) for name, value in reference.items()}
    other["detected_boxes"][1, 0] += box
    other["masks"][1, 2, 3] += mask
    on_its_boxes = {"masks": other["masks"].copy()}
    on_its_boxes["masks"][1, 2, 3] += left
    reasons = explain_masks(reference, other, on_its_boxes, IMAGE_SIZE)
    assert any(reason.startswith("mask head: the mask of row 1 differs") for reason in reasons) is named
    assert bool(reasons) is named


@pytest.mark.parametrize(
    ("box", "score", "left", "named"),
    [
        (NEAR, 1e-4, 0, True),
        (0, 1e-4, 0, True),  # clipped on all sides: only the proposal shows that it moved
        (NEAR, 1e-4, 2e-5, True),  # the head rounds as much on equal crops
        (NEAR, 2e-5, 0, False),
        (NEAR, 1e-4, 5e-5, False),  # the boxes are not the whole reason
        (NEAR, -0.4, -0.4, False),
        (NEAR, 1e-4, np.nan, False),
        (5e-5, 1e-4, 0, False),  # farther than rounding moves a box
    ],
)
def test_amplified_scores(box, score, left, named):
    """`left` is what remains of the difference if the model takes the artifact's proposals."""
    probs = np.float32([[0.04, 0.9, 0.06], [0.15, 0.8, 0.05], [1, 0, 0]])
    reference = detection_run(np.float32([[0, 0, 0.1, 0.1], [0.0, 0.0, 0.4, 0.3]]), [0.9, 0.8], [1, 1], probs)
    other = {name: np.array(value) for name, value in reference.items()}
    other["detected_boxes"][1, 0] += np.float32(box)
    other["scores"][1] += np.float32(score)
    other["class_probs"][1, 1] = other["scores"][1]
    on_its_boxes = {"class_probs": other["class_probs"].copy()}
    on_its_boxes["class_probs"][1, 1] -= np.float32(left)
    reasons = explain_scores(reference, other, on_its_boxes)
    assert [reason.startswith("box head: the score of row 1 differs by") for reason in reasons] == [True] * named
    if named:  # also where rows are in another order, but not where another score has no reason
        swapped = other | {name: other[name][[1, 0, 2, 3]] for name in ("detected_boxes", "scores", "class_ids")}
        assert explain_scores(reference, swapped, on_its_boxes) == reasons
        other["scores"][0] += np.float32(score)
        other["class_probs"][0, 1] = other["scores"][0]
        assert explain_scores(reference, other, on_its_boxes) == []


def test_proposals_of_equal_probability_must_all_be_explained():
    """With scores of exactly 1, any of them may be the row's."""
    boxes = np.float32([[0, 0, 0.1, 0.1]])
    reference = detection_run(boxes, [1 - 1e-4], [1], [[1e-4, 1 - 1e-4], [0, 1]])
    other = detection_run(boxes + np.float32(NEAR), [1], [1], [[0, 1], [0, 1]])
    assert explain_scores(reference, other, other)
    assert explain_scores(reference, other, reference) == []


def test_no_detections_have_no_scores_to_explain():
    run = detection_run(np.zeros((0, 4), np.float32), [], [])
    assert explain_scores(run, run, run) == []
