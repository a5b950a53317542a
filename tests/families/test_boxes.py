"""Boxes of the networks of torchvision and Detectron2: anchors, proposals, crops and detections.

They are compared with the results of those packages, stage by stage on their own tensors, and with loops in NumPy.
"""

from dataclasses import replace

import families
import numpy as np
import oracles
import pytest
import tensorflow as tf
from pytorch_models import state_dicts

from maskrcnn.anchor_grids import half_sides
from maskrcnn.anchors import model_anchors
from maskrcnn.boxes import encode, to_frame
from maskrcnn.checkpoints.families.presets import preset
from maskrcnn.checkpoints.families.recognize import recognize
from maskrcnn.configuration.dataclass_json import to_dict
from maskrcnn.configuration.model import Config, DetectionConfig, ModelConfig, ProposalConfig
from maskrcnn.detection import detect
from maskrcnn.nms import suppress, suppress_in_steps
from maskrcnn.roi_align import assign_levels, pyramid_roi_align_zeros, sparse_crops
from maskrcnn.rpn import propose

MODELS = {
    "torchvision": ModelConfig(
        anchor_ratios=(2.0, 1.0, 0.5),
        rpn_box_std=(1.0, 1.0, 1.0, 1.0),
        box_frame="continuous",
        max_log_size=float(np.log(1000 / 16)),
        anchor_rounding=True,
        anchor_step="fitted",
        roi_sampling="roi_align",
        roi_padding="zeros",
        roi_aligned=False,
        roi_level="floor",
    )
}
MODELS["detectron2"] = replace(
    MODELS["torchvision"], anchor_rounding=False, anchor_step="stride", roi_aligned=True, roi_sampling_ratio=0
)
CASES = {
    "v1-landscape": "torchvision",
    "v1-portrait": "torchvision",
    "v1-coco": "torchvision",
    "v2-landscape": "torchvision",
    "d2-r50": "detectron2",
}


CONFIGS = {
    "torchvision": Config(
        model=MODELS["torchvision"],
        proposals=ProposalConfig(1000, per_level=True, min_side=1e-3, clip="window"),
        detection=DetectionConfig(100, 0.05, 0.5, candidates="every_class", min_side=1e-2),
    ),
    "detectron2": Config(
        model=MODELS["detectron2"],
        proposals=ProposalConfig(1000, per_level=True, min_side=0.0, clip="window"),
        detection=DetectionConfig(100, 0.05, 0.5, candidates="every_class"),
    ),
}
PIXELS = 1e-3  # as promised: a thousandth of a pixel


@pytest.mark.parametrize("family", CONFIGS)
def test_the_presets_have_what_is_compared_here(family):
    values, defaults = to_dict(CONFIGS[family]), to_dict(Config())
    shapes = state_dicts.FAMILIES[family]()
    made = preset(recognize(shapes, "x.pth"), "")
    for section in ("model", "proposals", "detection"):
        for name, value in values[section].items():
            if value != defaults[section][name]:
                ours = made[f"{section}.{name}"]
                assert (list(ours) if isinstance(ours, tuple) else ours) == value, f"{section}.{name}"


def window(case):
    """The image in the input, float32 [1, 4]."""
    return tf.constant([[0, 0, *case["resized_size"]]], tf.float32)


def input_size(case):
    return case.shape("input")[2:]


@families.needs_goldens
@pytest.mark.parametrize("name", CASES)
def test_anchors_are_the_familys_to_the_bit(name):
    case = families.Case(name)
    anchors = model_anchors(tf.constant(input_size(case)), MODELS[CASES[name]])
    if "anchors_per_level" in case.arrays:
        assert [len(level) for level in anchors] == case["anchors_per_level"].tolist()
    assert np.array_equal(case.sampled("anchors", families.yx(np.concatenate(anchors))), case["anchors"])


@families.needs_goldens
@pytest.mark.parametrize("size", [(800, 1088), (288, 384)])
def test_steps_of_torchvision_follow_the_size(size):
    with np.load(families.FOLDER / "open" / "ops.npz") as arrays:
        expected = arrays[f"anchors/torchvision/{size[0]}x{size[1]}/p6"]
    assert np.array_equal(families.yx(model_anchors(tf.constant(size), MODELS["torchvision"])[4]), expected)


@families.needs_goldens
@pytest.mark.parametrize("family", MODELS)
def test_sides_of_anchors_are_the_familys(family):
    with np.load(families.FOLDER / "open" / "ops.npz") as arrays:
        cells = arrays[f"anchors/{family}/cells"]  # [5, 3, 4] x1, y1, x2, y2 around 0
    model = MODELS[family]
    for scale, expected in zip(model.anchor_scales, cells, strict=True):
        heights, widths = half_sides(scale, model.anchor_ratios, model.anchor_rounding, model.box_frame)
        assert np.array_equal(np.stack([widths, heights], axis=1).astype(np.float32), expected[:, 2:])
        assert np.array_equal(expected[:, :2], -expected[:, 2:])


def test_half_sides_are_rounded_half_to_even():
    # 2.5 and 3.5 pixels; 25 by 9 with ratio 25 / 9 has sides of 15 / (5 / 3) = 9 and 25.
    assert half_sides(5, (1.0,), rounding=True) == ([2.0], [2.0])
    assert half_sides(7, (1.0,), rounding=True) == ([4.0], [4.0])
    assert half_sides(6, (0.25, 4.0), rounding=True) == ([6.0, 2.0], [2.0, 6.0])


@pytest.mark.parametrize("anchor_stride", [1, 2])
@pytest.mark.parametrize("step", ["stride", "fitted"])
def test_anchors_in_pixels_are_those_of_loops(step, anchor_stride):
    model = replace(MODELS["detectron2"], anchor_step=step, anchor_stride=anchor_stride)
    height, width = 96, 160
    found = model_anchors(tf.constant([height, width]), model)
    for level, stride, scale in zip(found, model.backbone_strides, model.anchor_scales, strict=True):
        rows, columns = -(-height // stride), -(-width // stride)
        down, right = (height // rows, width // columns) if step == "fitted" else (stride, stride)
        expected = []
        for row in range(0, rows, anchor_stride):
            for column in range(0, columns, anchor_stride):
                for ratio in model.anchor_ratios:
                    y, x = row * down, column * right
                    high, wide = np.float32(scale / ratio**0.5 / 2), np.float32(scale * ratio**0.5 / 2)
                    expected.append([y - high, x - wide, y + high, x + wide])
        assert np.array_equal(level, np.array(expected, np.float32))


@families.needs_goldens
@pytest.mark.parametrize("name", CASES)
def test_proposals_are_the_familys(name):
    case, config = families.Case(name), CONFIGS[CASES[name]]
    anchors = model_anchors(tf.constant(input_size(case)), config.model)
    logits, deltas = case["rpn_logits"][None], families.yx(case["rpn_deltas"])[None]
    arguments = tf.constant(logits), tf.constant(deltas), anchors, config, window(case)[:, None]
    found = propose(*arguments)
    assert np.array_equal(propose(*arguments, image_by_image=True), found)
    expected = families.yx(case["proposals"])
    assert found.shape == (1, 1000, 4)
    distance = np.abs(found.numpy()[0][:, None] - expected[None]).max(axis=2)
    rows = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < PIXELS
    assert sorted(rows) == list(range(1000))
    # torchvision ranks by the sigmoid of the logit, which is equal for many logits.
    scores = case["proposal_scores" if "proposal_scores" in case.arrays else "proposal_logits"]
    assert np.array_equal(scores[rows], scores)


SAMPLINGS = [(aligned, ratio) for aligned in (False, True) for ratio in (0, 2)]


@families.needs_goldens
@pytest.mark.parametrize(("aligned", "ratio"), SAMPLINGS)
def test_crops_are_torchvisions(aligned, ratio):
    features, boxes = families.roi_inputs()
    model = replace(MODELS["torchvision"], roi_aligned=aligned, roi_sampling_ratio=ratio)
    nowhere = tf.zeros([len(boxes)], tf.int32)
    found = sparse_crops([tf.constant(features)], tf.constant(boxes), nowhere, nowhere, 7, model)
    expected = families.roi_results(aligned, ratio)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def axis_samples(low, high, cells, bins, aligned, ratio):
    """Positions of the samples of each bin, and which count, along one axis; as the kernels of PyTorch write it."""
    low, high = (np.float32(v) - np.float32(0.5 if aligned else 0) for v in (low, high))
    side = high - low if aligned else max(high - low, np.float32(1))
    per_bin = ratio or max(int(np.ceil(side / np.float32(bins))), 0)
    step = side / np.float32(bins)
    positions = [
        [low + np.float32(b) * step + np.float32(s + 0.5) * step / np.float32(per_bin) for s in range(per_bin)]
        for b in range(bins)
    ]
    return positions, lambda p: -1 <= p <= cells


def crop_in_loops(level, box, bins, aligned, ratio, stride):
    """One crop [P, P, C], sample by sample."""
    ys, y_counts = axis_samples(box[0] / stride, box[2] / stride, level.shape[0], bins, aligned, ratio)
    xs, x_counts = axis_samples(box[1] / stride, box[3] / stride, level.shape[1], bins, aligned, ratio)
    crop = np.zeros((bins, bins, level.shape[2]))
    for i in range(bins):
        for j in range(bins):
            for y in ys[i]:
                for x in xs[j]:
                    if y_counts(y) and x_counts(x):
                        inside = min(max(y, 0), level.shape[0] - 1), min(max(x, 0), level.shape[1] - 1)
                        crop[i, j] += oracles.bilinear(level, *inside)
            crop[i, j] /= max(len(ys[i]) * len(xs[j]), 1)
    return crop


@pytest.mark.parametrize("size", [(96, 160), (32, 32), (352, 64)])
@pytest.mark.parametrize(("aligned", "ratio"), [*SAMPLINGS, (True, 3)])
def test_crops_of_a_pyramid_are_those_of_loops(size, aligned, ratio):
    generator = np.random.default_rng(5)
    levels = [generator.normal(size=(2, size[0] // s, size[1] // s, 3)).astype(np.float32) for s in (4, 8, 16, 32)]
    corners = np.sort(generator.uniform(0, 1, (2, 9, 2, 2)), axis=2) * size
    boxes = corners.reshape(2, 9, 4).astype(np.float32)
    height, width = size
    boxes[0, :4] = [[0, 0, height, width], [0, 0, 0, 0], [height - 0.5, 0, height, width], [0, width - 0.01, 9, width]]
    model = replace(MODELS["torchvision"], roi_aligned=aligned, roi_sampling_ratio=ratio)
    arguments = [tf.constant(level) for level in levels], tf.constant(boxes), tf.constant(size), 5, model
    found = pyramid_roi_align_zeros(*arguments).numpy().reshape(2, 9, 5, 5, 3)
    for image in range(2):
        for row, box in enumerate(boxes[image]):
            side = np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
            number = int(sum(side >= 56 * 2.0**k for k in (1, 2, 3)))
            level = levels[number][image]
            expected = crop_in_loops(level, box, 5, aligned, ratio, 4 * 2**number)
            np.testing.assert_allclose(found[image, row], expected, rtol=0, atol=1e-5)


def test_sides_on_the_border_of_two_levels_belong_to_the_upper():
    model = MODELS["torchvision"]
    sides = [28, 56, 111.9, 112, 223.9, 224, 447.9, 448, 896, 1792]
    boxes = np.array([[0, 0, side, side] for side in sides] + [[5, 7, 5 + 56, 7 + 224], [3, 3, 3, 9]], np.float32)
    levels = assign_levels(tf.constant(boxes), tf.constant([2048, 2048]), model).numpy()
    assert levels.tolist() == [2, 2, 2, 3, 3, 4, 4, 5, 5, 5, 3, 2]
    inclusive = replace(model, box_frame="inclusive")
    normalized = to_frame(tf.constant(boxes), tf.constant([2049, 2049]), "inclusive")
    assert assign_levels(normalized, tf.constant([2049, 2049]), inclusive).numpy().tolist() == levels.tolist()


def test_gradient_reaches_the_levels_of_the_boxes():
    levels = [tf.ones([1, 64 // s, 64 // s, 2]) for s in (4, 8, 16, 32)]
    boxes = tf.constant([[[8.0, 8.0, 40.0, 56.0]]])

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            tape.watch([*levels, boxes])
            crops = pyramid_roi_align_zeros(levels, boxes, tf.constant([64, 64]), 7, MODELS["detectron2"])
            total = tf.reduce_sum(crops)
        return tape.gradient(total, [*levels, boxes], unconnected_gradients="zero")

    found = [np.sum(each) for each in gradients()]
    np.testing.assert_allclose(found, [2 * 49, 0, 0, 0, 0], rtol=1e-5)


def softmax(logits):
    power = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)


def run_detect(proposals, probs, deltas, windows, config, steps=False):
    """Rows [B, D, 6] (box, class, score) and how many are used."""
    arrays = [tf.constant(np.asarray(a, np.float32)) for a in (proposals, probs, deltas, windows)]
    limits = config.detection.min_score, config.detection.nms_threshold
    boxes, scores, ids, used = detect(*arrays, config, *limits, (lambda _name, tensor: tensor) if steps else None)
    return np.concatenate([boxes, ids.numpy()[..., None], scores.numpy()[..., None]], axis=-1), used.numpy()


@families.needs_goldens
@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_detections_are_the_familys(name, steps):
    """The golden files have the deltas of some classes only, so candidates that were not detected get no score."""
    case, config = families.Case(name), CONFIGS[CASES[name]]
    logits, labels = case["class_logits"], case["labels"].astype(int)
    if name == "d2-r50":  # background last
        logits, labels = np.roll(logits, 1, axis=1), labels + 1
    everything = softmax(logits)
    proposals, boxes = families.yx(case["proposals"]), families.yx(case["input_boxes"])
    probs, deltas = np.zeros_like(everything), np.zeros((*everything.shape, 4), np.float32)
    for box, label, score in zip(boxes, labels, case["scores"], strict=True):
        row = np.abs(everything[:, label] - score).argmin()
        assert abs(everything[row, label] - score) < 1e-6
        assert not probs[row, label]
        probs[row, label] = everything[row, label]
        deltas[row, label] = encode(proposals[row].astype(np.float64), box.astype(np.float64)) / config.model.box_std
    rows, used = run_detect(proposals[None], probs[None], deltas[None], window(case), config, steps)
    assert used.tolist() == [len(labels)]
    rows = rows[0, : len(labels)]
    assert rows[:, 4].tolist() == labels.tolist()
    np.testing.assert_allclose(rows[:, 5], case["scores"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(rows[:, :4], boxes, rtol=0, atol=PIXELS)


def detect_in_loops(proposals, probs, deltas, area, config):
    """Rows [n, 6] of one image, candidate by candidate, in float64."""
    rules, model = config.detection, config.model
    found = []
    for proposal, of_class, moves in zip(proposals, probs, deltas, strict=True):
        for label in range(1, probs.shape[1]):
            delta = np.float64(moves[label]) * model.box_std
            smallest = -np.inf if model.min_log_size is None else model.min_log_size
            delta[2:] = np.clip(delta[2:], smallest, model.max_log_size)
            box = oracles.clip(oracles.decode(proposal, delta), area)
            sides = box[2] - box[0], box[3] - box[1]
            real = (proposal[2] - proposal[0]) * (proposal[3] - proposal[1]) > 0
            long = rules.min_side is None or (min(sides) >= rules.min_side and min(sides) > 0)
            if of_class[label] > np.float32(rules.min_score) and real and long:
                found.append([*box, label, of_class[label]])
    found = sorted(found, key=lambda row: -row[5])  # stable
    kept = []
    for row in found:
        same = [other for other in kept if other[4] == row[4]]
        if all(oracles.iou(row[:4], other[:4]) <= rules.nms_threshold for other in same):
            kept.append(row)
    return np.array(kept[: rules.max_detections]).reshape(-1, 6)


def random_heads(generator, batch=2, count=60, classes=5, size=(96, 160)):
    """Proposals, probabilities and deltas; some scores tie, some proposals do not exist."""
    corners = np.sort(generator.uniform(0, 1, (batch, count, 2, 2)), axis=2) * size
    proposals = np.round(corners.reshape(batch, count, 4)).astype(np.float32)
    proposals[:, -9:] = 0
    probs = softmax(generator.normal(size=(batch, count, classes)) * 2).astype(np.float32)
    probs = np.round(probs * 32) / 32
    deltas = generator.normal(size=(batch, count, classes, 4)).astype(np.float32)
    deltas[:, 3] = [0, 0, -40, 9]  # no height
    return proposals, probs, deltas


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize(
    ("count", "min_score", "min_side"),
    [(100, 0.1, 0.01), (7, 0.0, None), (400, 0.0, 0.0), (30, 0.25, 9.0), (5, 1.0, 0.0)],
)
def test_detections_of_every_class_are_those_of_loops(count, min_score, min_side, steps):
    detection = DetectionConfig(count, min_score, 0.5, candidates="every_class", min_side=min_side)
    config = replace(CONFIGS["torchvision"], detection=detection)
    proposals, probs, deltas = random_heads(np.random.default_rng(3))
    windows = np.array([[0, 0, 96, 160], [8, 16, 70, 100]], np.float32)
    rows, used = run_detect(proposals, probs, deltas, windows, config, steps)
    for image in range(2):
        expected = detect_in_loops(proposals[image], probs[image], deltas[image], windows[image], config)
        assert used[image] == len(expected)
        np.testing.assert_allclose(rows[image, : len(expected)], expected, rtol=0, atol=PIXELS)
        assert not rows[image, len(expected) :].any()


@pytest.mark.parametrize("steps", [False, True])
def test_a_model_of_the_background_alone_detects_nothing(steps):
    config = replace(CONFIGS["detectron2"], detection=DetectionConfig(5, 0.0, 0.5, candidates="every_class"))
    proposals, probs, deltas = random_heads(np.random.default_rng(3))
    windows = np.array([[0, 0, 96, 160]] * 2, np.float32)
    _, used = run_detect(proposals, np.ones_like(probs[..., :1]), deltas[:, :, :1], windows, config, steps)
    assert used.tolist() == [0, 0]


def test_candidates_that_are_left_out_are_noticed_only_if_they_could_count():
    config = replace(CONFIGS["detectron2"], detection=DetectionConfig(100, 0.0, 0.5, candidates="every_class"))
    proposals = np.tile(np.array([[8, 8, 40, 40]], np.float32), (1, 1000, 1))
    probs, deltas = np.full((1, 1000, 4), 0.25, np.float32), np.zeros((1, 1000, 4, 4), np.float32)
    windows = np.array([[0, 0, 64, 64]], np.float32)
    assert run_detect(proposals, probs, deltas, windows, config)[1].tolist() == [3]
    # 3000 candidates, of which the first 2048 are one box: whether another is behind them is not known.
    assert run_detect(proposals, probs, deltas, windows, config, steps=True)[1].tolist() == [-1]
    few = replace(config, detection=replace(config.detection, max_detections=3))
    assert run_detect(proposals, probs, deltas, windows, few, steps=True)[1].tolist() == [3]


def propose_in_loops(scores, deltas, anchors, area, config):
    """Proposals [count, 4] of one image and the levels they come from, box by box, in float64."""
    rules, model, found = config.proposals, config.model, []
    begin = 0
    for level in anchors:
        order = np.argsort(-scores[begin : begin + len(level)], kind="stable")[: rules.pre_nms_limit]
        kept = []
        for row in order:
            delta = np.float64(deltas[begin + row]) * model.rpn_box_std
            delta[2:] = np.minimum(delta[2:], model.max_log_size)
            box = oracles.clip(oracles.decode(level[row], delta), area)
            sides = box[2] - box[0], box[3] - box[1]
            if (
                min(sides) >= rules.min_side
                and min(sides) > 0
                and all(oracles.iou(box, other) <= rules.nms_threshold for other, _ in kept)
            ):
                kept.append((box, scores[begin + row]))
        found += kept
        begin += len(level)
    found = sorted(found, key=lambda row: -row[1])[: rules.post_nms_inference]
    return np.array([box for box, _ in found]).reshape(-1, 4)


@pytest.mark.parametrize("size", [(32, 32), (96, 160)])
@pytest.mark.parametrize(
    ("limit", "count", "min_side"), [(1000, 1000, 1e-3), (20, 50, 0.0), (30, 200, 8.0), (50, 20, 1e6)]
)
def test_proposals_within_levels_are_those_of_loops(size, limit, count, min_side):
    rules = ProposalConfig(limit, post_nms_inference=count, per_level=True, min_side=min_side, clip="window")
    config = replace(CONFIGS["torchvision"], proposals=rules)
    generator = np.random.default_rng(9)
    anchors = model_anchors(tf.constant(size), config.model)
    total = sum(len(level) for level in anchors)
    logits = np.round(generator.normal(size=(2, total)) * 20).astype(np.float32) / 8  # many are equal
    deltas = (generator.normal(size=(2, total, 4)) * 0.4).astype(np.float32)
    deltas[:, ::17, 0] = 50  # outside: no height
    windows = np.array([[0, 0, *size], [0, 0, size[0] - 11, size[1] - 5]], np.float32)
    found = propose(tf.constant(logits), tf.constant(deltas), anchors, config, tf.constant(windows)[:, None]).numpy()
    assert found.shape == (2, count, 4)
    for image in range(2):
        levels = [level.numpy() for level in anchors]
        expected = propose_in_loops(logits[image], deltas[image], levels, windows[image], config)
        assert (found[image].any(axis=1)).sum() == len(expected)
        np.testing.assert_allclose(found[image, : len(expected)], expected, rtol=0, atol=PIXELS)


def test_training_has_its_own_limits():
    rules = ProposalConfig(5, 8, 4, per_level=True, min_side=0.0, pre_nms_training=7)
    config = replace(CONFIGS["torchvision"], proposals=replace(rules, nms_threshold=1.0))
    anchors = model_anchors(tf.constant([64, 64]), config.model)
    total = sum(len(level) for level in anchors)
    inputs = tf.random.stateless_normal([1, total], [1, 2]), tf.zeros([1, total, 4]), anchors, config
    area = tf.constant([0.0, 0.0, 64.0, 64.0])
    assert propose(*inputs, area).shape == (1, 4, 4)
    assert propose(*inputs, area, training=True).shape == (1, 8, 4)
    one = replace(config, proposals=replace(config.proposals, pre_nms_training=1, per_level=False))
    found = propose(*inputs[:3], one, area, training=True).numpy()
    assert found.any(axis=-1).sum() == 1


def test_rows_behind_those_that_are_returned_need_not_be_final():
    """A chain of 40 boxes, each of which overlaps the next, needs more steps than there are."""
    chain = np.array([[10 * k, 0, 10 * k + 30, 10] for k in range(40)], np.float32)
    apart = np.array([[0, 100 * k, 9, 100 * k + 50] for k in range(1, 6)], np.float32)
    ids = tf.ones([1, 45])
    for boxes, few in ((np.concatenate([apart, chain]), True), (np.concatenate([chain, apart]), False)):
        every = suppress_in_steps(tf.constant(boxes[None]), ids, 45, 0.3, first_are_enough=True)
        assert every[2].numpy().tolist() == [False]
        rows, used, final = suppress_in_steps(tf.constant(boxes[None]), ids, 5, 0.3, first_are_enough=True)
        assert final.numpy().tolist() == [True]
        expected = suppress(tf.constant(boxes[None]), tf.ones([1, 45, 1], tf.bool), 5, 0.3)[0]
        assert np.array_equal(rows, expected)
        assert used.numpy().all()
        assert few is (rows.numpy()[0].tolist() == [0, 1, 2, 3, 4])
        assert not suppress_in_steps(tf.constant(boxes[None]), ids, 5, 0.3)[2].numpy()[0]
