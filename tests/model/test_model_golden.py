"""Every stage against the original code, run with the same weights on the same image.

Each stage is compared with recorded tensors, of large ones with samples. Rows that depend on rounding are left out as
the golden files mark them, never by outcome.
"""

import zlib
from functools import cache
from typing import NamedTuple

import golden
import models
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.seeded_weights import seed_weights
from maskrcnn import boxes as box_ops
from maskrcnn.anchors import model_anchors
from maskrcnn.boxes import UNIT_WINDOW
from maskrcnn.configuration.matterport import from_matterport
from maskrcnn.configuration.model import Config
from maskrcnn.model import MaskRCNN
from runtime.pictures.letterbox import plan_letterbox
from runtime.steps import to_detections

SMALL = ("infer_small_seed0", "infer_small_pad64_seed0", "infer_small_batch2_seed0")
COCO = "infer_coco_seed0"

# All differences come from sums of some thousand float32 products in another order, through 50 or 101 layers. In
# brackets the largest ones seen, those of the 101 layers last; another processor may double them.
FEATURES = 2e-5  # relative to the largest value of the tensor (3e-6, 4e-6)
BOXES = 1e-5  # coordinates of 0 to 1 (4e-7, 3e-6)
PROBABILITIES = 1e-4  # (1e-5, 5e-5)
MASKS = 1e-3  # probabilities again, further down (2e-5, 2e-4)
# A pixel whose probability is 0.5 to rounding may fall either way (one pixel of one mask did).
MASK_PIXELS, MASK_SHARE = 3, 0.001
TIE = 2e-6  # scores closer than this may change places: 16 units in the last place of a score near 1 (4.8e-7)


class Run(NamedTuple):
    name: str
    arrays: dict
    images: np.ndarray
    config: Config
    model: MaskRCNN
    stages: object
    outputs: dict

    def mark(self, name):
        """A mark of the golden file, bool [B, rows]."""
        return self.arrays[name].reshape(len(self.images), -1)

    def golden_order(self):
        """For each golden proposal the row of ours that is nearest, [B, N], and how far it is."""
        ours, expected = self.stages.proposals.numpy(), self.arrays["rpn_rois"]
        assert ours.shape == expected.shape
        distances = np.abs(ours[:, None] - expected[:, :, None]).max(axis=-1)  # [B, golden, ours]
        return distances.argmin(axis=-1), distances.min(axis=-1)

    def proposal_scores(self):
        """The score of the anchor that each of our proposals came from, [B, N]."""
        config, stages = self.config, self.stages
        scores, best = tf.math.top_k(stages.rpn_probs[..., 1], config.proposals.pre_nms_limit)
        anchors = tf.concat(model_anchors(tf.constant(self.images.shape[1:3]), config.model), axis=0)
        deltas = tf.gather(stages.rpn_deltas, best, batch_dims=1) * tf.constant(config.model.rpn_box_std, tf.float32)
        refined = box_ops.clip(box_ops.decode(tf.gather(anchors, best), deltas), tf.constant(UNIT_WINDOW)).numpy()
        ours, found = stages.proposals.numpy(), []
        for image, proposals in enumerate(ours):
            nearest = [np.abs(refined[image] - box).max(axis=1).argmin() for box in proposals]
            assert np.abs(refined[image][nearest] - proposals).max() < BOXES
            found.append(scores.numpy()[image][nearest])
        return np.array(found)

    def comparable_masks(self):
        """Detections [B, D] but those that hang on the far border: the genuine code may read 0 beyond it."""
        at_border = self.arrays["detections"][..., 2:4].max(axis=-1) >= 1 - 1e-6
        return ~(at_border & self.mark("unstable_mask_rows"))


@cache
def run(name):
    arrays = golden.load(name)
    images = golden.network_images(arrays)
    config = from_matterport(golden.config_values(arrays))
    if name == COCO:
        model = MaskRCNN(config)
        seed_weights(model, 0)
    else:  # these differ in the picture only
        model = models.small_model()
        assert config.model == model.config.model
        assert (config.proposals, config.detection) == (model.config.proposals, model.config.detection)
    windows = arrays["window"].astype(np.float32)
    detection = config.detection
    stages = tf.function(model.stages)(images, windows, detection.min_score, detection.nms_threshold)
    outputs = model.contract(stages, tf.constant(images))
    return Run(name, arrays, images, config, model, stages, {key: value.numpy() for key, value in outputs.items()})


@pytest.fixture(scope="module", params=[*SMALL, pytest.param(COCO, marks=pytest.mark.slow)], ids=lambda name: name)
def case(request):
    return run(request.param)


def test_molded_image(case):
    molded = np.asarray(case.model.mold(case.images))
    assert np.array_equal(molded, (case.images.astype(np.float64) - case.config.model.mean_pixel).astype(np.float32))
    if case.name != COCO:
        assert zlib.crc32(molded.tobytes()) == case.arrays["molded_image_crc32"]


def test_anchors(case):
    anchors = np.concatenate(model_anchors(tf.constant(case.images.shape[1:3]), case.config.model))
    assert np.array_equal(anchors[:: case.arrays["anchor_step"]], case.arrays["anchors"][0])


@pytest.mark.parametrize("level", [2, 3, 4, 5, 6])
def test_features(case, level):
    rows, columns, channels = case.arrays[f"P{level}_stride"]
    ours = getattr(case.stages, f"p{level}").numpy()[:, ::rows, ::columns, ::channels]
    assert golden.relative_difference(ours, case.arrays[f"P{level}_sample"]) < FEATURES


def test_rpn(case):
    step = case.arrays["anchor_step"]
    deltas = case.stages.rpn_deltas.numpy()[:, ::step]
    assert golden.relative_difference(deltas, case.arrays["rpn_bbox"]) < FEATURES
    scores = case.stages.rpn_probs.numpy()[:, ::step, 1]
    np.testing.assert_allclose(scores, case.arrays["rpn_fg_scores"], rtol=0, atol=PROBABILITIES)


def test_proposals(case):
    order, distance = case.golden_order()
    assert distance.max() < BOXES
    rows = np.arange(order.shape[1])
    assert np.array_equal(np.sort(order, axis=1), np.broadcast_to(rows, order.shape))  # each once
    # Rows whose scores are equal to rounding may change places, and those that the golden file marks.
    scores = np.take_along_axis(case.proposal_scores(), order, axis=1)
    marked = case.mark("unstable_proposal_rows")
    assert (np.diff(scores, axis=1) <= TIE)[~(marked[:, 1:] | marked[:, :-1])].all()


def test_box_head(case):
    step = case.arrays["head_step"]
    order = case.golden_order()[0][:, ::step]
    # Where a box touches the far border, the original code may read 0 beyond it; ours is clamped.
    rows = ~(case.mark("unstable_head_rows") | case.mark("roi_touches_far_border"))[:, ::step]
    assert rows.mean() > 0.7
    probs = np.take_along_axis(case.stages.class_probs.numpy(), order[..., None], axis=1)
    np.testing.assert_allclose(probs[rows], case.arrays["mrcnn_class"][rows], rtol=0, atol=PROBABILITIES)
    deltas = np.take_along_axis(case.stages.box_deltas.numpy(), order[..., None, None], axis=1)
    assert golden.relative_difference(deltas[rows], case.arrays["mrcnn_bbox"][rows]) < PROBABILITIES


def test_detections(case):
    stages, expected = case.stages, case.arrays["detections"]
    found = (expected[..., 4] > 0).sum(axis=1)
    assert (found > 0).all()
    assert stages.num_detections.numpy().tolist() == found.tolist()
    assert np.array_equal(stages.class_ids, expected[..., 4])
    np.testing.assert_allclose(stages.detected_boxes, expected[..., :4], rtol=0, atol=BOXES)
    np.testing.assert_allclose(stages.scores, expected[..., 5], rtol=0, atol=PROBABILITIES)


def test_masks(case):
    rows = case.comparable_masks()
    assert rows.mean() > 0.95
    step = case.arrays["mask_step"]
    ours, expected = case.stages.masks.numpy()[rows][:, ::step, ::step], case.arrays["mrcnn_mask_of_class"][rows]
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(ours, expected, rtol=0, atol=MASKS)


def final(arrays, image):
    """The result of the original `detect()` for one image: boxes, class ids, scores, masks [N, H, W]."""
    rois, class_ids, scores = (arrays[f"final_{n}{image}"] for n in ("rois", "class_ids", "scores"))
    shape = (len(rois), *arrays[f"image_shape{image}"][:2])
    bits = np.unpackbits(arrays[f"final_masks_packed{image}"])[: np.prod(shape)]
    return rois, class_ids, scores, bits.reshape(shape).astype(bool)


def test_final_boxes_and_masks_in_the_picture(case):
    detection = case.config.detection
    for image in range(len(case.images)):
        letterbox = plan_letterbox(tuple(case.arrays[f"image_shape{image}"][:2].tolist()), case.config.resize)
        assert letterbox.window == tuple(case.arrays["window"][image].tolist())
        outputs = {name: values[image] for name, values in case.outputs.items()}
        detections = to_detections(outputs, letterbox, case.config.model.class_names, detection.mask_paste)
        boxes, class_ids, scores, masks = final(case.arrays, image)
        assert len(detections) == len(boxes) == int(outputs["num_detections"])  # none was dropped
        # The genuine boxes are ours rounded to pixels; 0.01 more where ours lie half between two.
        np.testing.assert_allclose(detections.boxes, boxes[:, [1, 0, 3, 2]], rtol=0, atol=0.51)
        assert np.array_equal(detections.class_ids, class_ids)
        np.testing.assert_allclose(detections.scores, scores, rtol=0, atol=PROBABILITIES)
        assert masks.any(axis=(1, 2)).mean() > 0.9
        different = (detections.masks != masks).sum(axis=(1, 2))
        allowed = np.maximum(MASK_PIXELS, MASK_SHARE * masks.sum(axis=(1, 2)))
        assert (different <= allowed)[case.comparable_masks()[image, : len(boxes)]].all()
