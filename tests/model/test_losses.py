"""The five losses against the original's values and gradients, and the differences where the original is wrong."""

import golden
import numpy as np
import pytest
import tensorflow as tf

from maskrcnn import losses

GOLDEN = golden.load("targets_losses_seed0")
RELATIVE = 1e-5


def value_and_gradient(function, name):
    variable = tf.Variable(GOLDEN[name])
    with tf.GradientTape() as tape:
        loss = function(variable).mean()
    return float(loss), tf.convert_to_tensor(tape.gradient(loss, variable)).numpy()


def mask_loss(predictions):
    """The original's arguments: all rows, all channels."""
    class_ids = tf.reshape(tf.constant(GOLDEN["mml_class"]), [-1])
    masks = tf.transpose(tf.reshape(predictions, [-1, *predictions.shape[2:]]), [0, 3, 1, 2])
    of_class = tf.gather(masks, class_ids, batch_dims=1)
    targets = tf.reshape(tf.constant(GOLDEN["mml_target"]), [-1, *GOLDEN["mml_target"].shape[2:]])
    return losses.mrcnn_mask_loss(targets, of_class, tf.cast(class_ids > 0, tf.float32))


def box_loss(deltas, class_ids=None):
    class_ids = tf.constant(GOLDEN["mbl_class"]) if class_ids is None else class_ids
    return losses.mrcnn_bbox_loss(tf.constant(GOLDEN["mbl_target"]), class_ids, deltas, tf.ones_like(class_ids) > 0)


def class_loss(logits, active="mcl_active", bugs=True):
    valid = tf.ones(GOLDEN["mcl_target"].shape, tf.bool)
    weights = tf.constant(GOLDEN[active]) if isinstance(active, str) else active
    return losses.mrcnn_class_loss(tf.constant(GOLDEN["mcl_target"]), logits, weights, valid, bugs)


CASES = {
    "rcl": (lambda x: losses.rpn_class_loss(tf.constant(GOLDEN["rcl_match"][..., 0]), x), "rcl_logits"),
    "rbl": (
        lambda x: losses.rpn_bbox_loss(tf.constant(GOLDEN["rbl_target"]), tf.constant(GOLDEN["rbl_match"][..., 0]), x),
        "rbl_bbox",
    ),
    "mcl": (class_loss, "mcl_logits"),
    "mbl": (box_loss, "mbl_pred"),
    "mml": (mask_loss, "mml_pred"),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_the_originals(name):
    function, argument = CASES[name]
    loss, gradient = value_and_gradient(function, argument)
    assert loss == pytest.approx(float(GOLDEN[f"{name}_loss"]), rel=RELATIVE)
    assert golden.relative_difference(gradient, GOLDEN[f"{name}_grad"]) < RELATIVE


def test_smooth_l1_is_the_originals():
    found = losses.smooth_l1(tf.constant(GOLDEN["sl1_true"]), tf.constant(GOLDEN["sl1_pred"]))
    np.testing.assert_allclose(found, GOLDEN["sl1_out"], rtol=1e-6, atol=1e-7)


def test_all_classes_active():
    everything = tf.ones_like(GOLDEN["mcl_active"])
    loss = class_loss(tf.constant(GOLDEN["mcl_logits"]), everything).mean()
    assert float(loss) == pytest.approx(float(GOLDEN["mcl_loss_all_active"]), rel=RELATIVE)


def test_nothing_to_compare_gives_zero():
    neutral = tf.zeros([2, 40], tf.int32)
    assert float(losses.rpn_class_loss(neutral, tf.constant(GOLDEN["rcl_logits"])).mean()) == 0.0
    targets, deltas = tf.constant(GOLDEN["rbl_target"]), tf.constant(GOLDEN["rbl_bbox"])
    assert float(losses.rpn_bbox_loss(targets, neutral, deltas).mean()) == 0.0
    assert float(box_loss(tf.constant(GOLDEN["mbl_pred"]), neutral).mean()) == 0.0
    assert float(losses.mrcnn_mask_loss(tf.zeros([3, 8, 8]), tf.fill([3, 8, 8], 0.5), tf.zeros([3])).mean()) == 0.0
    none_active = tf.zeros_like(GOLDEN["mcl_active"])
    assert float(class_loss(tf.constant(GOLDEN["mcl_logits"]), none_active, bugs=False).mean()) == 0.0


def test_class_loss_uses_each_images_own_active_classes_and_no_padding():
    logits = tf.constant([[[0.0, 2.0, 1.0], [0.0, 1.0, 2.0]], [[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]])
    class_ids = tf.constant([[1, 2], [1, 0]])
    active = tf.constant([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])  # image 0 knows class 1, image 1 class 2
    valid = tf.constant([[True, True], [True, False]])
    # Only row 0 of image 0 is predicted as a class that counts there and is not padding; row 1 of image 1 is padding.
    expected = -np.log(np.exp(2) / (np.exp(0) + np.exp(2) + np.exp(1)))
    found = losses.mrcnn_class_loss(class_ids, logits, active, valid)
    assert float(found.count) == 1.0
    assert float(found.mean()) == pytest.approx(expected, rel=1e-6)
    original = losses.mrcnn_class_loss(class_ids, logits, active, valid, original_bugs=True)
    assert float(original.count) == 3.0


def test_class_weights_make_the_class_loss_a_weighted_mean():
    rng = np.random.default_rng(3)
    logits, class_ids = rng.normal(size=(2, 5, 3)).astype(np.float32), rng.integers(0, 3, (2, 5))
    valid = rng.random((2, 5)) < 0.7
    weights = np.array([0.5, 0.0, 4.0])
    losses_of_rows = np.log(np.exp(logits).sum(axis=2)) - np.take_along_axis(logits, class_ids[..., None], 2)[..., 0]
    rows = weights[class_ids] * valid
    arguments = [tf.constant(each) for each in (class_ids.astype(np.int32), logits, np.ones((2, 3), np.float32), valid)]
    found = losses.mrcnn_class_loss(*arguments, class_weights=weights.tolist())
    assert float(found.count) == pytest.approx(rows.sum())
    assert float(found.mean()) == pytest.approx((rows * losses_of_rows).sum() / rows.sum(), rel=1e-5)
    for bugs in (False, True):
        ones = losses.mrcnn_class_loss(*arguments, original_bugs=bugs, class_weights=[1, 1, 1])
        plain = losses.mrcnn_class_loss(*arguments, original_bugs=bugs)
        assert [float(part) for part in ones] == [float(part) for part in plain]
    one = tf.ones([1, 1], tf.int32)
    only = losses.mrcnn_class_loss(one, arguments[1][:1, :1], arguments[2][:1], one > 0, class_weights=[1, 0, 1])
    assert float(only.mean()) == 0.0


def test_losses_are_torchvisions():
    """The expected values are those of torchvision 0.29: `RegionProposalNetwork.compute_loss`, `fastrcnn_loss`."""
    rng = np.random.RandomState(7)

    def draw(*shape):
        return tf.constant(rng.randn(*shape) * 0.3, tf.float32)

    match = tf.constant(rng.choice([-1, 0, 1], (2, 60), p=[0.4, 0.4, 0.2]), tf.int32)
    logits, deltas, targets = draw(2, 60, 1) * 10.0, draw(2, 60, 4), draw(2, 60, 4)
    positive = match == 1
    rows = [tf.boolean_mask(target, chosen) for target, chosen in zip(targets, positive, strict=True)]
    packed = tf.stack([tf.pad(row, [[0, 60 - len(row)], [0, 0]]) for row in rows])
    assert float(losses.rpn_class_loss(match, logits).mean()) == pytest.approx(1.1493885517, rel=RELATIVE)
    found = losses.rpn_bbox_loss(packed, match, deltas, 1 / 9, "sampled")
    assert float(found.mean()) == pytest.approx(0.3991847038, rel=RELATIVE)

    class_ids = tf.constant(rng.randint(0, 4, (2, 40)), tf.int32)
    valid = tf.ones([2, 40], tf.bool)
    logits, deltas, targets = tf.constant(rng.randn(2, 40, 4), tf.float32), draw(2, 40, 4, 4), draw(2, 40, 4)
    found = losses.mrcnn_class_loss(class_ids, logits, tf.ones([2, 4]), valid)
    assert float(found.mean()) == pytest.approx(1.6961807013, rel=RELATIVE)
    found = losses.mrcnn_bbox_loss(targets, class_ids, deltas, valid, 1 / 9, "sampled")
    assert float(found.mean()) == pytest.approx(0.8541021347, rel=RELATIVE)


def test_smooth_l1_with_a_beta_of_0_is_l1():
    targets, values = tf.constant([0.0, 1.0, -2.0]), tf.constant([0.0, 1.25, 1.0])
    np.testing.assert_array_equal(losses.smooth_l1(targets, values, 0.0), [0.0, 0.25, 3.0])
    np.testing.assert_allclose(losses.smooth_l1(targets, values, 0.5), [0.0, 0.0625, 2.75])


def test_weight_penalty_is_the_mean_square_of_each_kernel_and_bias():
    kernel, bias = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="kernel"), tf.Variable([2.0], name="bias")

    class Named:
        def __init__(self, variable, name):
            self.variable, self.name = variable, name

        def __tf_tensor__(self, dtype=None, name=None):
            return tf.convert_to_tensor(self.variable)

    variables = [Named(kernel, "kernel"), Named(bias, "bias"), Named(tf.Variable([9.0]), "gamma")]
    assert float(losses.weight_penalty(variables, 0.1)) == pytest.approx(0.1 * (30 / 4 + 4))
