"""The whole model: sizes, inputs, outputs, and refused configurations."""

from dataclasses import replace
from itertools import combinations

import keras
import models
import numpy as np
import oracles
import pytest
import tensorflow as tf

from maskrcnn.anchors import model_anchors
from maskrcnn.checkpoint_predictor import CheckpointPredictor
from maskrcnn.checkpoints.matterport_h5 import group_of
from maskrcnn.checkpoints.named_weights import named_variables
from maskrcnn.configuration.model import ModelConfig
from maskrcnn.configuration.samples import COCO, DEMO, sample_config
from maskrcnn.data.synthetic.shapes import draw_shapes
from maskrcnn.demo import demo_picture
from maskrcnn.errors import ConfigError
from maskrcnn.model import MaskRCNN, Stages, split_mean
from maskrcnn.roi_align import build_atlas

IMAGE_SIZE = (128, 192)
WINDOW = (16, 0, 112, 192)


def pictures(batch=1, size=IMAGE_SIZE, channels=3):
    """Crowded scenes of shapes, which the demo model finds."""
    scenes = [draw_shapes(7, index, size=size)[0] for index in (13, 15)[:batch]]
    return np.stack(scenes)[..., np.arange(channels) % 3]


def windows(batch=1, window=WINDOW):
    return np.tile(np.array(window, np.float32), (batch, 1))


def with_model(config, **changes):
    return replace(config, model=replace(config.model, **changes))


@pytest.fixture(scope="module")
def stages():
    return models.demo().stages(pictures(2), windows(2), 0.0, 0.3)


@pytest.mark.parametrize(
    ("backbone", "total", "statistics"),
    [("resnet101", 64_158_584, 111_488), ("resnet50", 45_088_120, 59_264)],
)
def test_sizes_of_the_published_networks(backbone, total, statistics):
    variables = named_variables(MaskRCNN(with_model(COCO, backbone=backbone)))
    sizes = {name: int(np.prod(variable.shape)) for name, variable in variables.items()}
    assert sum(sizes.values()) == total
    assert sum(size for name, size in sizes.items() if "/moving_" in name) == statistics
    if backbone == "resnet101":
        assert len(variables) == 690
        assert len({group_of(name.split("/")[0]) for name in variables}) == 233


def test_mold_subtracts_the_mean_of_each_channel():
    images = pictures()
    expected = (images.astype(np.float64) - [123.7, 116.8, 103.9]).astype(np.float32)
    assert np.array_equal(models.demo().mold(images), expected)


def test_a_mean_is_split_so_that_no_bit_is_lost():
    values, generator = np.arange(256), np.random.default_rng(3)
    for mean in (
        123.7,
        116.8,
        103.9,
        43.53,
        39.56,
        48.22,
        123.675,
        0.0,
        255.0,
        1e-9,
        1 / 3,
        *generator.uniform(0, 255, 500),
    ):
        coarse, fine = np.float32(split_mean(mean))
        assert np.array_equal((np.float32(values) - coarse) - fine, (values - np.float64(mean)).astype(np.float32))


def test_a_mean_that_cannot_be_split_is_subtracted_in_double_precision():
    mean = 127.085596624762
    assert split_mean(mean) is None
    model = MaskRCNN(with_model(DEMO, mean_pixel=(mean, 1.0, 2.0)))
    images = np.tile(np.arange(256, dtype=np.uint8)[None, :, None, None], (1, 1, 1, 3))
    assert np.array_equal(model.mold(images), (images - np.float64([mean, 1.0, 2.0])).astype(np.float32))


def test_stages_have_their_documented_shapes(stages):
    anchors = sum(128 * 192 // stride**2 * 3 for stride in (4, 8, 16, 32, 64))
    assert [tuple(tensor.shape) for tensor in stages] == [
        *((2, 128 // s, 192 // s, 64) for s in (4, 8, 16, 32, 64)),
        (2, anchors, 2),
        (2, anchors, 4),
        (2, 200, 4),
        (400, 7, 7, 64),
        (2, 200, 4),
        (2, 200, 4, 4),
        (2, 50, 4),
        (2, 50),
        (2, 50),
        (2,),
        (int(sum(stages.num_detections)), 14, 14, 64),
        (2, 50, 28, 28),
    ]
    assert sum(map(len, model_anchors(tf.constant(IMAGE_SIZE), DEMO.model))) == anchors


def test_probabilities_sum_to_one(stages):
    for probs in (stages.rpn_probs, stages.class_probs):
        np.testing.assert_allclose(tf.reduce_sum(probs, axis=-1), 1, rtol=0, atol=1e-5)


def test_the_mask_head_runs_on_the_rows_in_use(stages):
    model, counts = models.demo(), stages.num_detections.numpy()
    assert 0 < counts.sum() < 100
    atlas = build_atlas([stages.p2, stages.p3, stages.p4, stages.p5])
    every_row = model.crops(atlas, stages.detected_boxes, tf.constant(IMAGE_SIZE), 14)
    expected = model.segment(every_row, tf.reshape(stages.class_ids, [-1])).numpy().reshape(2, 50, 28, 28)
    for row, count in enumerate(counts):
        np.testing.assert_allclose(stages.masks[row, :count], expected[row, :count], rtol=0, atol=1e-5)
        assert not np.any(stages.masks[row, count:])


def test_one_row_stands_in_where_nothing_is_detected():
    model, images = models.demo(), pictures(2)
    stages = model.stages(images, windows(2), 1.0, 0.5)
    assert stages.num_detections.numpy().tolist() == [0, 0]
    assert stages.mask_rois.shape == (1, 14, 14, 64)
    assert not np.any(model.contract(stages, images)["masks"])


def test_contract_turns_boxes_and_clears_unused_rows():
    model, images = models.demo(), pictures(2)
    count, boxes = 3, np.zeros((2, 5, 4), np.float32)
    boxes[:, :count] = [[0.1, 0.2, 0.5, 0.9], [0, 0, 1, 1], [0.5, 0.25, 0.5, 0.25]]
    scores = np.zeros((2, 5), np.float32)
    tensors = dict.fromkeys(Stages._fields, tf.zeros(()))
    tensors |= {
        "detected_boxes": tf.constant(boxes),
        "scores": tf.constant(scores),
        "class_ids": tf.ones((2, 5), tf.int32),
        "num_detections": tf.constant([count, 0]),
        "masks": tf.fill((2, 5, 28, 28), 0.75),
    }
    outputs = model.contract(Stages(**tensors), tf.constant(images))
    height, width = IMAGE_SIZE[0] - 1, IMAGE_SIZE[1] - 1
    expected = [
        [0.2 * width, 0.1 * height, 0.9 * width + 1, 0.5 * height + 1],
        [0, 0, 192, 128],
        [0.25 * width, 0.5 * height, 0.25 * width + 1, 0.5 * height + 1],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    np.testing.assert_allclose(outputs["boxes"][0], expected, rtol=0, atol=1e-4)
    assert not np.any(outputs["boxes"][1])
    assert outputs["masks"].numpy()[0, :, 0, 0].tolist() == [0.75] * 3 + [0] * 2
    assert not np.any(outputs["masks"][1])


def test_detect_is_stages_and_contract(stages):
    model, images = models.demo(), pictures(2)
    outputs = model.detect(images, windows(2), 0.0, 0.3)
    assert list(outputs) == ["num_detections", "boxes", "scores", "class_ids", "masks"]
    expected = model.contract(stages, images)
    for name, tensor in outputs.items():
        assert tensor.dtype == (tf.int32 if name in ("num_detections", "class_ids") else tf.float32)
        np.testing.assert_allclose(tensor, expected[name], rtol=0, atol=1e-4)
    assert (outputs["num_detections"].numpy() > 0).all()


def test_detections_lie_in_the_window():
    outputs = models.demo().detect(pictures(), windows(), 0.0, 0.3)
    boxes = outputs["boxes"].numpy()[0, : int(outputs["num_detections"][0])]
    assert len(boxes) > 5
    assert boxes[:, 1].min() >= WINDOW[0] - 1e-3
    assert boxes[:, 3].max() <= WINDOW[2] + 1e-3
    assert boxes[:, 3].max() > WINDOW[2] - 1  # some were clipped there


def overlaps_within_classes(stages):
    """Return the IoU of every two detections of one class in the first image."""
    count = int(stages.num_detections[0])
    boxes, classes = stages.detected_boxes.numpy()[0, :count], stages.class_ids.numpy()[0, :count]
    pairs = combinations(range(count), 2)
    return np.array([oracles.iou(boxes[i], boxes[j]) for i, j in pairs if classes[i] == classes[j]])


def test_the_score_threshold_is_an_input():
    every = models.demo().detect(pictures(), windows(), 0.0, 0.3)
    middle = float(np.median(every["scores"].numpy()[0, : int(every["num_detections"][0])]))
    some = models.demo().detect(pictures(), windows(), middle, 0.3)
    count = int(some["num_detections"][0])
    assert 0 < count < int(every["num_detections"][0])
    assert (some["scores"].numpy()[0, :count] >= np.float32(middle)).all()


def test_the_nms_threshold_is_an_input():
    strict, loose = (overlaps_within_classes(models.demo().stages(pictures(), windows(), 0.0, t)) for t in (0.3, 0.9))
    assert len(strict) > 10
    assert strict.max() < 0.3 + 1e-6
    assert loose.max() > 0.5


def test_images_of_a_batch_do_not_influence_each_other():
    model, images = models.demo(), pictures(2)
    both = model.detect(images, windows(2), 0.0, 0.3)
    second = model.detect(images[1:], windows(), 0.0, 0.3)
    count = int(second["num_detections"][0])
    assert int(both["num_detections"][1]) == count > 0
    np.testing.assert_allclose(both["boxes"][1], second["boxes"][0], rtol=0, atol=1e-2)
    np.testing.assert_allclose(both["masks"][1], second["masks"][0], rtol=0, atol=1e-3)


def test_the_tap_sees_and_replaces_every_border():
    seen = []
    proposals = tf.tile(tf.constant([[[0.1, 0.1, 0.9, 0.9]]]), [1, 200, 1])

    def tap(name, tensor):
        seen.append(name)
        return proposals if name == "proposals" else tensor

    stages = models.demo().stages(pictures(), windows(), 0.0, 0.3, tap)
    assert tuple(seen) == Stages._fields
    assert np.array_equal(stages.proposals, proposals)
    # All proposals are one box now, and so are the crops made of them.
    assert np.ptp(stages.box_rois.numpy(), axis=0).max() == 0


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_other_numbers_of_channels_run(channels):
    model = MaskRCNN(with_model(DEMO, image_channels=channels, mean_pixel=(10.0,) * channels))
    outputs = model.detect(pictures(size=(64, 64), channels=channels), windows(1, (0, 0, 64, 64)), 0.0, 0.3)
    assert outputs["masks"].shape == (1, 50, 28, 28)
    molded = model.mold(np.full((1, 2, 2, channels), 30, np.uint8))
    assert np.array_equal(molded, np.full((1, 2, 2, channels), 20, np.float32))


@pytest.mark.parametrize("anchor_stride", [1, 2])
@pytest.mark.parametrize("size", [(64, 64), (192, 320)])
def test_as_many_anchors_as_rpn_rows(anchor_stride, size):
    model = MaskRCNN(with_model(DEMO, anchor_stride=anchor_stride, anchor_ratios=(0.5, 1.0)))
    stages = model.stages(pictures(size=size), windows(1, (0, 0, *size)), 0.0, 0.3)
    anchors = sum(map(len, model_anchors(tf.constant(size), model.config.model)))
    assert stages.rpn_probs.shape[1] == stages.rpn_deltas.shape[1] == anchors
    cells = [-(-size[0] // s // anchor_stride) * -(-size[1] // s // anchor_stride) for s in (4, 8, 16, 32, 64)]
    assert stages.rpn_probs.shape[1] == 2 * sum(cells)


def test_samplings_differ_and_run():
    """The demo samples with ROIAlign, matterport's weights want the other."""
    assert DEMO.model.roi_sampling == "roi_align"
    other = MaskRCNN(with_model(DEMO, roi_sampling="crop_and_resize"))
    stages = models.demo().stages(pictures(), windows(), 0.0, 0.3)
    crops = other.crops(other_atlas(stages), stages.proposals, tf.constant(IMAGE_SIZE), 7)
    assert crops.shape == stages.box_rois.shape
    assert np.abs(crops - stages.box_rois).max() > 1e-2


def other_atlas(stages):
    from maskrcnn.roi_align import build_atlas

    return build_atlas([stages.p2, stages.p3, stages.p4, stages.p5])


def custom_backbone(outputs=4):
    x = inputs = keras.Input((None, None, 3))
    features = []
    for index in range(5):
        x = keras.layers.Conv2D(8 + index, 3, strides=2, padding="same", name=f"own_{index}")(x)
        if index:
            features.append(x)
    return keras.Model(inputs, features[:outputs])


def test_a_custom_backbone_is_used():
    model = MaskRCNN(with_model(DEMO, backbone="custom"), custom_backbone())
    stages = model.stages(pictures(), windows(), 0.0, 0.3)
    assert stages.p2.shape == (1, 32, 48, 64)
    assert "own_4/kernel" in named_variables(model)


@pytest.mark.parametrize(
    ("name", "backbone", "message"),
    [
        ("custom", None, "not given"),
        ("resnet18", custom_backbone, "was given"),
        ("custom", lambda: custom_backbone(3), "3 outputs"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(name, backbone, message):
    with pytest.raises(ConfigError, match=message):
        MaskRCNN(with_model(DEMO, backbone=name), backbone and backbone())


def test_the_demo_finds_the_shapes_of_its_picture():
    """The annotations are known, because the image is drawn by the project."""
    picture, (_, masks, class_ids) = demo_picture(), draw_shapes(7, 13, size=(360, 480))
    assert picture.shape == (360, 480, 3)
    found = CheckpointPredictor(models.demo(), 0.7)(picture)
    assert sorted(found.class_ids.tolist()) == sorted(class_ids)
    for class_id, mask in zip(class_ids, masks, strict=True):
        rows = np.flatnonzero(found.class_ids == class_id)
        overlap = [(found.masks[row] & mask).sum() / (found.masks[row] | mask).sum() for row in rows]
        assert max(overlap) > 0.85


def test_samples():
    assert COCO.model.num_classes == 81
    assert COCO.model.class_names[:3] == ("BG", "person", "bicycle")
    assert COCO.model.class_names[-1] == "toothbrush"
    renamed = sample_config("nucleus", ("BG", "cell"))
    assert renamed.model.class_names == ("BG", "cell")
    assert renamed.detection == sample_config("nucleus").detection
    with pytest.raises(ConfigError, match="expected one of coco, balloon, nucleus, shapes, demo, small"):
        sample_config("cocoo")
    assert ModelConfig().num_classes == 1
