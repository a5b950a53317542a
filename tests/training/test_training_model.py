"""The training graph against a recorded run of the original: losses, gradients, and three steps of its optimizer."""

import golden
import keras
import numpy as np
import pytest
import tensorflow as tf
from models import small_training_model
from training_runs import pictures, tiny

from maskrcnn.checkpoints.named_weights import named_variables
from maskrcnn.configuration.training import LOSS_NAMES
from maskrcnn.data.batches import BatchPlan, make_batch
from maskrcnn.head_targets import HeadTargets
from maskrcnn.model import MaskRCNN
from maskrcnn.roi_align import assign_levels
from maskrcnn.training import model as module
from maskrcnn.training.model import TrainingModel


@pytest.fixture(scope="module")
def run():
    return golden.load("train_small_seed0")


def batch_of(run):
    return {
        "images": tf.constant(np.stack([run["gt0_image"], run["gt1_image"]])),
        "rpn_match": tf.constant(run["in_rpn_match"][..., 0]),
        "rpn_bbox": tf.constant(run["in_rpn_bbox"], tf.float32),
        "class_ids": tf.constant(run["in_gt_class_ids"]),
        "boxes": tf.constant(run["in_gt_boxes"], tf.float32),
        "masks": tf.constant(run["in_gt_masks"].transpose(0, 3, 1, 2)),
        "active": tf.constant(run["in_image_meta"][:, 12:], tf.float32),
        "seeds": tf.constant([[0, row] for row in range(2)], tf.int32),
        "proposals": tf.constant(run["in_pinned_proposals"]),
    }


def pinned_targets(run):
    """Return the targets that the original sampled; P is int(64 * 0.33)."""
    return HeadTargets(
        tf.constant(run["out_target_rois"]),
        tf.reduce_any(tf.constant(run["out_target_rois"]) != 0, axis=-1),
        tf.constant(run["out_target_class_ids"]),
        tf.constant(run["out_target_bbox"]),
        tf.constant(run["out_target_mask"][:, :21]),
    )


def far_border(run):
    """Return rows whose box ends on the image's far edge, where the original depends on rounding: bool [2, 64]."""
    return (run["out_target_rois"][..., 2:] >= 1.0).any(axis=-1)


@pytest.fixture(scope="module")
def outputs(run):
    model = small_training_model()
    regions = model.regions(batch_of(run)["images"])
    return model, regions, model.heads(regions, pinned_targets(run), tf.constant([256, 256]))


def test_losses_given_the_originals_outputs(run, outputs):
    model, regions, heads = outputs
    assert run["out_mrcnn_mask_of_class"].shape == (2, 21, 28, 28)
    masks = run["out_mrcnn_mask_of_class"].reshape(-1, 28, 28)[heads.mask_rows]
    recorded = heads._replace(
        logits=tf.constant(run["out_mrcnn_class_logits"]),
        deltas=tf.constant(run["out_mrcnn_bbox"]),
        masks=tf.constant(masks),
    )
    batch, targets = batch_of(run), pinned_targets(run)
    found = model.region_losses(regions, batch) + model.head_losses(recorded, targets, batch["active"])
    for name, loss in zip(LOSS_NAMES, found, strict=True):
        assert float(loss.mean()) == pytest.approx(float(run[f"out_{name}"]), rel=1e-5), name


def test_outputs_are_the_originals(run, outputs):
    _, regions, heads = outputs
    inner = ~far_border(run)
    assert inner.mean() > 0.8
    step = run["anchor_step"]
    assert golden.relative_difference(regions.logits[:, ::step], run["out_rpn_class_logits"]) < 1e-4
    assert golden.relative_difference(regions.deltas[:, ::step], run["out_rpn_bbox"]) < 1e-4
    assert golden.relative_difference(heads.logits.numpy()[inner], run["out_mrcnn_class_logits"][inner]) < 1e-4
    assert golden.relative_difference(heads.deltas.numpy()[inner], run["out_mrcnn_bbox"][inner]) < 1e-4


class PinnedModel(TrainingModel):
    """Learns from the targets of the recorded run, which were drawn at random, through the original's crops.

    Its crops read a 0 on the far border wherever rounding puts a sample outside, ours never do; a few rows of this
    run end there.
    """

    pinned = None

    def targets(self, proposals, batch, image_size):
        return self.pinned

    def regions(self, images, windows=None):
        found = super().regions(images, windows)
        self.network.crops = lambda atlas, boxes, size, pool, image_of=None: original_crops(
            found.features, boxes, size, pool, image_of
        )
        return found


def original_crops(features, boxes, image_size, pool, image_of):
    """Crop every box from every level and keep the crop of its own level."""
    levels = tf.reshape(assign_levels(boxes, image_size), [-1])
    if image_of is None:
        image_of = tf.repeat(tf.range(tf.shape(boxes)[0]), tf.shape(boxes)[1])
    flat = tf.stop_gradient(tf.reshape(boxes, [-1, 4]))
    crops = [tf.image.crop_and_resize(level, flat, image_of, [pool, pool]) for level in features[:4]]
    return tf.add_n([tf.where((levels == i)[:, None, None, None], crop, 0.0) for i, crop in enumerate(crops, start=2)])


# Layers that no gradient reaches through the targets. The original lets the box loss move the proposals through the
# targets made of them, and with them everything the RPN's deltas depend on; here targets are constants (Fast R-CNN,
# section 2.3). It shows in a quarter of a percent of the gradient of the rest.
BESIDE_THE_PROPOSALS = ("mrcnn_", "rpn_class_raw")


@pytest.fixture(scope="module")
def stepped(run):
    """Four steps of the original's optimizer: logs of each, gradients of the first, weights before the fourth."""
    model = small_training_model(PinnedModel)
    model.pinned = pinned_targets(run)
    model.compile(optimizer=keras.optimizers.SGD(0.001, momentum=0.9, global_clipnorm=5.0))
    step, batch = tf.function(model.train_step), batch_of(run)
    variables = named_variables(model.network)
    logs, weights = [], []
    for _ in range(4):
        for metric in model.metrics:
            metric.reset_state()
        weights.append({key: variable.numpy() for key, variable in variables.items()})
        logs.append({name: float(value) for name, value in step(batch).items()})
    scale = 0.001 * min(1.0, 5.0 / logs[0]["gradient_norm"])
    gradients = {key: (array - weights[1][key]) / scale for key, array in weights[0].items()}
    return logs, gradients, weights


def beside_the_proposals(run):
    """Rows and names of the recorded weights whose gradient must be equal."""
    names = [str(name).split(":")[0] for name in run["grad_weight_names"]]
    found = [(row, name) for row, name in enumerate(names) if name.startswith(BESIDE_THE_PROPOSALS)]
    assert len(found) > 30
    return found


@pytest.mark.slow
def test_gradients_are_the_originals(run, stepped):
    logs, gradients, _ = stepped
    assert logs[0]["loss"] == pytest.approx(float(run["grad_total_loss"]), rel=1e-5)
    assert logs[0]["gradient_norm"] == pytest.approx(float(run["grad_global_norm"]), rel=5e-3)
    for row, name in beside_the_proposals(run):
        # The reference is the difference of two float32 weights, hence the absolute tolerance.
        norm = np.linalg.norm(gradients[name].astype(np.float64))
        assert norm == pytest.approx(run["grad_norms"][row], rel=5e-3, abs=0.02), name


@pytest.mark.slow
def test_losses_along_three_steps_are_the_originals(run, stepped):
    names = ("loss", *LOSS_NAMES)
    found = np.array([[log[name] for name in names] for log in stepped[0]])
    expected = run["sgd_losses_before_each_step_and_after_last"]
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=2e-2)


@pytest.mark.slow
def test_weights_after_three_steps_are_the_originals(run, stepped):
    offsets, samples = run["grad_sample_offsets"], run["sgd_weights_after3_samples"]
    moved, before, after = 0, stepped[2][0], stepped[2][3]
    for row, name in beside_the_proposals(run):
        expected = samples[offsets[row] : offsets[row + 1]]
        step = np.abs(expected - sampled(before[name])).max()
        moved += step > 0
        rounding = 3 * 1.2e-7 * np.abs(expected).max()  # of three additions
        assert np.abs(sampled(after[name]) - expected).max() <= 2e-2 * step + rounding, name
    assert moved > 25


def sampled(array):
    flat = np.asarray(array).ravel()
    return flat[np.arange(0, flat.size, max(1, flat.size // 64))[:64]]


@pytest.mark.parametrize("average", ["positive", "sampled"])
def test_validation_losses_of_uneven_parts_are_those_of_the_whole(monkeypatch, average):
    model = TrainingModel(MaskRCNN(tiny(box_loss_average=average, truth_as_proposals=True)))
    plan = BatchPlan(pictures(3), 3, shuffle=False)

    def sums(device, devices):
        """The sums and counts that a device shares with the others."""
        seen = []
        monkeypatch.setattr(module, "_sum_over_replicas", lambda values: seen.append(np.array(values)) or values)
        batch = make_batch(model.network.config, plan, 0, training=False, device=device, devices=devices)
        model.test_step({name: tf.constant(array) for name, array in batch.items()})
        return np.array(seen)

    whole = sums(0, 1)
    assert (whole > 0).all()
    np.testing.assert_allclose(sums(0, 2) + sums(1, 2), whole, rtol=1e-5)
    np.testing.assert_allclose(np.sum([sums(device, 4) for device in range(4)], axis=0), whole, rtol=1e-5)
    assert not sums(3, 4).any()
