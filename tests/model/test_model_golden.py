"""Stage by stage against the genuine code, run with the same weights on the same picture.

Every stage is compared with tensors of the genuine run; rows that the golden files mark as hanging on rounding are
left out by name, never by outcome.
"""

from functools import cache
from typing import NamedTuple

import golden
import models
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.seeded_weights import seed_weights
from maskrcnn.configuration.matterport import from_matterport
from maskrcnn.configuration.model import Config
from maskrcnn.model import MaskRCNN
from runtime.pictures.letterbox import plan_letterbox
from runtime.steps import to_detections

SMALL = "infer_small_seed0"
SHARED = ("infer_small_pad64_seed0", "infer_small_batch2_seed0")
COCO = "infer_coco_seed0"

# All differences come from sums of some thousand float32 products in another order, through 50 or 101 layers. In
# brackets the largest ones seen, those of the 101 layers last; another processor may double them.
FEATURES = 2e-5  # relative to the largest value of the tensor (3e-6, 4e-6)
BOXES = 1e-5  # coordinates of 0 to 1 (4e-7, 3e-6)
PROBABILITIES = 1e-4  # (1e-5, 5e-5)
MASKS = 1e-3  # probabilities again, further down (2e-5, 2e-4)
# A pixel whose probability is 0.5 to rounding may fall either way (one pixel of one mask did).
MASK_PIXELS, MASK_SHARE = 3, 0.001
# Proposals with exactly equal scores, which the genuine code orders by its heap (two pairs).
TIED_ROWS = {COCO: 4}


class Run(NamedTuple):
    name: str
    arrays: dict
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

    def comparable_masks(self):
        """Detections [B, D] but those that hang on the far border: the genuine code may read 0 beyond it."""
        at_border = self.arrays["detections"][..., 2:4].max(axis=-1) >= 1 - 1e-6
        return ~(at_border & self.mark("unstable_mask_rows"))

    @property
    def images(self):
        return self.arrays["resized_image"]


@cache
def run(name):
    arrays = golden.load(name) if name == SMALL else golden.load_shared(name)
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
    stages = tf.function(model.stages)(arrays["resized_image"], windows, detection.min_score, detection.nms_threshold)
    outputs = model.contract(stages, tf.constant(arrays["resized_image"]))
    return Run(name, arrays, config, model, stages, {key: value.numpy() for key, value in outputs.items()})


@pytest.fixture(
    scope="module", params=[SMALL, *SHARED, pytest.param(COCO, marks=pytest.mark.slow)], ids=lambda name: name
)
def case(request):
    return run(request.param)


def test_molded_image(case):
    if "molded_image_f32" in case.arrays:
        expected = case.arrays["molded_image_f32"]
    else:  # left out of the slim file: the genuine one is exactly this
        mean = case.config.model.mean_pixel
        expected = (case.images.astype(np.float64) - mean).astype(np.float32)
    assert np.array_equal(case.model.mold(case.images), expected)


def test_anchors(case):
    anchors = case.model.anchors(tf.constant(case.images.shape[1:3])).numpy()
    if "anchors" in case.arrays:
        step = int(case.arrays.get("anchor_step", 1))
        expected = case.arrays["anchors"][0]
    else:
        step, expected = 97, case.arrays["anchors_sample_every_97"].reshape(-1, 4)
    assert np.array_equal(anchors[::step], expected)


@pytest.mark.parametrize("level", [2, 3, 4, 5, 6])
def test_features(case, level):
    rows, columns, channels = case.arrays[f"P{level}_stride"]
    ours = getattr(case.stages, f"p{level}").numpy()[:, ::rows, ::columns, ::channels]
    assert golden.relative_difference(ours, case.arrays[f"P{level}_sample"]) < FEATURES


def test_rpn(case):
    step = int(case.arrays.get("anchor_step", 1))
    deltas = case.stages.rpn_deltas.numpy()[:, ::step]
    assert golden.relative_difference(deltas, case.arrays["rpn_bbox"]) < FEATURES
    scores = case.stages.rpn_probs.numpy()[:, ::step, 1]
    expected = case.arrays["rpn_class"][..., 1] if "rpn_class" in case.arrays else case.arrays["rpn_fg_scores"]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=PROBABILITIES)


def test_proposals(case):
    order, distance = case.golden_order()
    assert distance.max() < BOXES
    rows = np.arange(order.shape[1])
    assert np.array_equal(np.sort(order, axis=1), np.broadcast_to(rows, order.shape))  # each once
    assert (order != rows).sum() <= TIED_ROWS.get(case.name, 0)


def test_box_head(case):
    order, _ = case.golden_order()
    # Where a box touches the far border the genuine code may read 0 beyond it; ours is clamped.
    rows = ~(case.mark("unstable_head_rows") | case.mark("roi_touches_far_border"))
    assert rows.mean() > 0.7
    probs = np.take_along_axis(case.stages.class_probs.numpy(), order[..., None], axis=1)
    np.testing.assert_allclose(probs[rows], case.arrays["mrcnn_class"][rows], rtol=0, atol=PROBABILITIES)
    deltas = np.take_along_axis(case.stages.box_deltas.numpy(), order[..., None, None], axis=1)
    assert golden.relative_difference(deltas[rows], case.arrays["mrcnn_bbox"][rows]) < PROBABILITIES


def golden_masks(arrays):
    """Mask of each detection's own class [B, D, 28, 28]."""
    if "mrcnn_mask_of_class" in arrays:
        masks = arrays["mrcnn_mask_of_class"]
        return masks.reshape(len(arrays["detections"]), -1, *masks.shape[-2:])
    class_ids = arrays["detections"][..., 4].astype(int)[..., None, None, None]
    return np.take_along_axis(arrays["mrcnn_mask"], class_ids, axis=-1)[..., 0]


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
    ours, expected = case.stages.masks.numpy()[rows], golden_masks(case.arrays)[rows]
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(ours, expected, rtol=0, atol=MASKS)


def final(arrays, image, batch):
    """The genuine `detect()` result of one image: boxes, class ids, scores, masks [N, H, W]."""
    suffix = str(image) if batch > 1 else ""
    rois, class_ids, scores = (arrays[f"final_{n}{suffix}"] for n in ("rois", "class_ids", "scores"))
    shape = arrays[f"final_masks_shape{suffix}"]
    bits = np.unpackbits(arrays[f"final_masks_packed{suffix}"])[: np.prod(shape)]
    return rois, class_ids, scores, np.moveaxis(bits.reshape(shape).astype(bool), -1, 0)


def test_final_boxes_and_masks_in_the_picture(case):
    batch, detection = len(case.images), case.config.detection
    for image in range(batch):
        picture = case.arrays[f"image{image}" if batch > 1 else "image"]
        letterbox = plan_letterbox(picture.shape[:2], case.config.resize)
        assert letterbox.window == tuple(case.arrays["window"][image].tolist())
        outputs = {name: values[image] for name, values in case.outputs.items()}
        detections = to_detections(outputs, letterbox, case.config.model.class_names, detection.mask_paste)
        boxes, class_ids, scores, masks = final(case.arrays, image, batch)
        assert len(detections) == len(boxes) == int(outputs["num_detections"])  # none was dropped
        # The genuine boxes are ours rounded to pixels; 0.01 more where ours lie half between two.
        np.testing.assert_allclose(detections.boxes, boxes[:, [1, 0, 3, 2]], rtol=0, atol=0.51)
        assert np.array_equal(detections.class_ids, class_ids)
        np.testing.assert_allclose(detections.scores, scores, rtol=0, atol=PROBABILITIES)
        assert masks.any(axis=(1, 2)).mean() > 0.9
        different = (detections.masks != masks).sum(axis=(1, 2))
        allowed = np.maximum(MASK_PIXELS, MASK_SHARE * masks.sum(axis=(1, 2)))
        assert (different <= allowed)[case.comparable_masks()[image, : len(boxes)]].all()
