"""Each handler alone: a small function, converted and run, against TensorFlow's operator and the oracles."""

import os
from collections import Counter
from functools import partial

import families
import keras
import numpy as np
import onnxruntime as ort
import oracles
import pytest
import tensorflow as tf
from tf2onnx import convert as tf2onnx_convert
from tf2onnx.graph import Graph
from tf2onnx.optimizer.optimizer_base import GraphOptimizerBase
from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

from export.convert.access import attributes_of, shapes_of
from export.convert.audit import audit
from export.convert.handlers import handlers_for
from export.convert.rewrites import rewrite
from export.convert.surgery import cancel_transposes, keep_outputs
from export.convert.to_onnx_graph import quick_optimizer
from export.convert.trace import level_sampler
from export.errors import ConversionError
from export.target import CPU, Target
from maskrcnn import nms
from maskrcnn.backbone import BackboneLayers
from maskrcnn.configuration.model import ModelConfig
from maskrcnn.roi_align import pyramid_roi_align_zeros

CONTROL_FLOW = {"Loop", "If", "Scan"}
SPEC = tf.TensorSpec
FAMILY_MODEL = partial(ModelConfig, roi_sampling="roi_align", roi_padding="zeros", box_frame="continuous")


def plainly_converted(function, *signature, target=CPU):
    """The converted function as an ONNX model, made with tf2onnx's own optimizer."""
    traced = tf.function(function, input_signature=signature, autograph=False)
    model, _ = tf2onnx_convert.from_function(
        traced, input_signature=signature, opset=target.opset, custom_op_handlers=handlers_for(target)
    )
    return model


def convert(function, *signature, target=CPU):
    """The converted function as an ONNX model, and the number of its nodes by operator."""
    with quick_optimizer():
        model = plainly_converted(function, *signature, target=target)
    operators = Counter(node.op_type for node in model.graph.node)
    return model, operators


def run(model, **feeds):
    """Outputs in the order of the function's results."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def test_groups_padding_and_batch_normalization_become_attributes_and_weights_of_convolutions():
    """The strided and grouped layers of ResNeXt with PyTorch's padding, and its pooling."""
    config = ModelConfig(backbone_padding="symmetric", bias_before_batch_norm=False, batch_norm_epsilon=0.0)
    layers = BackboneLayers(config, train_batch_norm=False)
    inputs = keras.Input((None, None, 8))
    x = keras.layers.ReLU()(layers.convolution(inputs, "conv", "norm", 12, 3, 2, groups=4))
    network = keras.Model(inputs, layers.pool(x))
    generator = np.random.default_rng(0)
    for variable in network.variables:
        variable.assign(generator.uniform(0.2, 0.9, variable.shape))
    found, _ = convert(network, SPEC([None, None, None, 8], tf.float32, name="x"))
    rewrite(found, [])
    facts = audit(found, CPU.opset)
    assert facts.operators == {"Conv": 1, "MaxPool": 1, "Relu": 1, "Transpose": 2}
    attributes = {node.op_type: attributes_of(node) for node in found.graph.node}
    assert attributes["Conv"]["group"] == 4
    assert [attributes[name]["pads"] for name in ("Conv", "MaxPool")] == [[1, 1, 1, 1]] * 2
    x = generator.normal(size=(2, 13, 16, 8)).astype(np.float32)
    np.testing.assert_allclose(run(found, x=x)[0], network(x), rtol=1e-5, atol=1e-5)


def test_the_quick_optimizer_leaves_what_the_other_leaves(monkeypatch):
    """And what it changes in tf2onnx is as before afterwards, also after an error."""
    kernels = feature_maps(6).reshape(-1)[: 2 * 9 * 25].reshape(2, 3, 3, 5, 5)

    def network(x):
        first = tf.nn.relu(
            tf.nn.conv2d(x, kernels[0], 1, "SAME") * np.full(5, 2.0, np.float32) + np.ones(5, np.float32)
        )
        second = tf.nn.conv2d(first, kernels[1], 2, "SAME") + tf.nn.max_pool2d(first, 1, 2, "SAME")
        return tf.reshape(second, [-1, 5]), tf.reduce_mean(second, [1, 2]), tf.transpose(first, [0, 3, 1, 2])

    spec = SPEC([None, 8, 12, 5], tf.float32, name="x")
    owners = [(GraphOptimizerBase, "optimize"), (Graph, "extract_sub_graph_nodes")]
    originals = [getattr(*place) for place in owners]
    expected, (found, operators) = plainly_converted(network, spec), convert(network, spec)
    assert operators == Counter(node.op_type for node in expected.graph.node)
    assert len(found.graph.initializer) == len(expected.graph.initializer) > 4
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 5)).astype(np.float32)
    for ours, theirs in zip(run(found, x=x), run(expected, x=x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    monkeypatch.setattr(TransposeOptimizer, "_optimize", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # tf2onnx alone would go on with the graph as it was
        convert(network, spec)
    assert [getattr(*place) for place in owners] == originals
    assert "TF2ONNX_CATCH_ERRORS" not in os.environ


# CropAndResize

HEIGHT, WIDTH = 11, 17
BOXES = {
    "random": np.sort(np.random.default_rng(1).uniform(0.02, 0.98, (24, 2, 2)), axis=1).reshape(24, 4),
    "inner whole image": [[0.001, 0.001, 0.999, 0.999]] * 3,
    "tiny": [[0.31, 0.62, 0.31 + 1e-4, 0.62 + 2e-4], [0.5, 0.5, 0.5001, 0.9]],
    "no area": [[0.4, 0.4, 0.4, 0.4], [0.2, 0.3, 0.2, 0.8], [0.2, 0.3, 0.9, 0.3]],
}


def feature_maps(images=3, channels=5):
    return np.random.default_rng(0).normal(size=(images, HEIGHT, WIDTH, channels)).astype(np.float32)


def crop_function(pool_size, pooled=False):
    def crop(features, boxes, owners):
        crops = tf.image.crop_and_resize(features, boxes, owners, [pool_size, pool_size])
        return tf.nn.avg_pool2d(crops, 2, 2, "VALID") if pooled else crops

    return crop


CROP_SPECS = (
    SPEC([None, None, None, 5], tf.float32, name="features"),
    SPEC([None, 4], tf.float32, name="boxes"),
    SPEC([None], tf.int32, name="owners"),
)


@pytest.fixture(scope="module", params=[(2, 17), (7, 17), (14, 17), (7, 18)], ids=lambda p: f"P{p[0]}-opset{p[1]}")
def crop(request):
    """Crop size and converted `crop_and_resize`."""
    pool_size, opset = request.param
    return pool_size, *convert(crop_function(pool_size), *CROP_SPECS, target=Target(opset=opset))


def test_crop_becomes_one_roi_align(crop):
    _, model, operators = crop
    assert operators["RoiAlign"] == 1
    assert not CONTROL_FLOW & operators.keys()
    assert operators["Resize"] == 0
    audit(model, model.opset_import[0].version)


@pytest.mark.parametrize("kind", BOXES)
def test_crop_is_tensorflows_and_the_oracles(crop, kind):
    pool_size, model, _ = crop
    features, boxes = feature_maps(), np.asarray(BOXES[kind], np.float32)
    owners = (np.arange(len(boxes)) * 2 % 3).astype(np.int32)  # 0, 2, 1, 0, ...: not sorted
    (found,) = run(model, features=features, boxes=boxes, owners=owners)
    theirs = tf.image.crop_and_resize(features, boxes, owners, [pool_size, pool_size]).numpy()
    np.testing.assert_allclose(found, theirs, rtol=0, atol=2e-5)
    for row, (box, owner) in enumerate(zip(boxes, owners, strict=True)):
        expected = oracles.crop_corners_aligned(features[owner], box, pool_size)
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=2e-5)


def test_crop_of_the_whole_image_reads_its_corners(crop):
    pool_size, model, _ = crop
    features = feature_maps(images=1)
    (found,) = run(model, features=features, boxes=np.array([[0, 0, 1, 1]], np.float32), owners=np.zeros(1, np.int32))
    expected = oracles.crop_corners_aligned(features[0], (0, 0, 1, 1), pool_size)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose(found[0, -1, 0], features[0, -1, 0], rtol=0, atol=2e-5)
    np.testing.assert_allclose(found[0, 0, -1], features[0, 0, -1], rtol=0, atol=2e-5)


def test_crop_of_no_boxes_is_empty(crop):
    pool_size, model, _ = crop
    (found,) = run(model, features=feature_maps(), boxes=np.zeros((0, 4), np.float32), owners=np.zeros(0, np.int32))
    assert found.shape == (0, pool_size, pool_size, 5)


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("pool_size", [2, 7])
def test_mean_after_a_crop_is_part_of_roi_align(pool_size, opset):
    model, operators = convert(crop_function(2 * pool_size, pooled=True), *CROP_SPECS, target=Target(opset=opset))
    assert operators["RoiAlign"] == 1
    assert operators["AveragePool"] == 0
    (node,) = (node for node in model.graph.node if node.op_type == "RoiAlign")
    attributes = {attribute.name: attribute for attribute in node.attribute}
    assert attributes["sampling_ratio"].i == 2
    assert attributes["output_height"].i == attributes["output_width"].i == pool_size
    features, boxes = feature_maps(), np.asarray(BOXES["random"], np.float32)
    owners = (np.arange(len(boxes)) % 3).astype(np.int32)
    (found,) = run(model, features=features, boxes=boxes, owners=owners)
    theirs = crop_function(2 * pool_size, pooled=True)(features, boxes, owners).numpy()
    np.testing.assert_allclose(found, theirs, rtol=0, atol=2e-5)
    for row in (0, 7, 23):
        crop = oracles.crop_corners_aligned(features[owners[row]], boxes[row], 2 * pool_size)
        expected = crop.reshape(pool_size, 2, pool_size, 2, 5).mean(axis=(1, 3))
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=2e-5)


def test_another_mean_after_a_crop_stays():
    def crop(features, boxes, owners):
        crops = tf.image.crop_and_resize(features, boxes, owners, [9, 9])
        return tf.nn.avg_pool2d(crops, 3, 3, "VALID")

    model, operators = convert(crop, *CROP_SPECS)
    assert (operators["RoiAlign"], operators["AveragePool"]) == (1, 1)
    features, boxes, owners = feature_maps(), np.asarray(BOXES["random"], np.float32), np.ones(24, np.int32)
    (found,) = run(model, features=features, boxes=boxes, owners=owners)
    np.testing.assert_allclose(found, crop(features, boxes, owners).numpy(), rtol=0, atol=2e-5)


def test_mean_is_kept_apart_where_the_crop_itself_is_read_too():
    def crop(features, boxes, owners):
        crops = tf.image.crop_and_resize(features, boxes, owners, [8, 8])
        return tf.nn.avg_pool2d(crops, 2, 2, "VALID"), tf.nn.relu(crops)

    model, operators = convert(crop, *CROP_SPECS)
    assert (operators["RoiAlign"], operators["AveragePool"]) == (1, 1)
    features, boxes, owners = feature_maps(), np.asarray(BOXES["random"], np.float32), np.ones(24, np.int32)
    for found, theirs in zip(
        run(model, features=features, boxes=boxes, owners=owners), crop(features, boxes, owners), strict=True
    ):
        np.testing.assert_allclose(found, theirs.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("size", "method"), [([7, 5], "bilinear"), ([1, 1], "bilinear"), ([7, 7], "nearest")], ids=str)
def test_a_crop_that_roi_align_cannot_do_is_refused(size, method):
    def crop(features, boxes, owners):
        return tf.image.crop_and_resize(features, boxes, owners, size, method=method)

    assert_refused(crop, *CROP_SPECS, operator="CropAndResize")


def assert_refused(function, *signature, operator):
    """Conversion raises, or leaves the operator where the audit finds it."""
    try:
        model, operators = convert(function, *signature)
    except ConversionError:
        return
    assert operators[operator] == 1
    with pytest.raises(ConversionError, match=operator):
        audit(model, 17)


# CombinedNonMaxSuppression

MAX_OUTPUT, THRESHOLD = 6, 0.5
SUPPRESS_SPECS = (
    SPEC([None, None, 4], tf.float32, name="boxes"),
    SPEC([None, None, 3], tf.bool, name="valid"),
    SPEC([], tf.float32, name="threshold"),
)


TARGETS = [Target(engine, opset=opset) for engine in ("cpu", "cuda") for opset in (17, 18)]


@pytest.fixture(scope="module", params=TARGETS, ids=lambda target: f"{target.engine}, opset {target.opset}")
def suppression(request):
    def suppress(boxes, valid, threshold):
        return nms.suppress(boxes, valid, MAX_OUTPUT, threshold)

    return convert(suppress, *SUPPRESS_SPECS, target=request.param)


def whole_boxes(generator, images, rows):
    """Boxes with small whole coordinates, some without area: every IoU is exact, many are equal to the threshold."""
    corners = generator.integers(0, 7, (images, rows, 2, 2))
    return np.sort(corners, axis=2).reshape(images, rows, 4).astype(np.float32)


def kept_by_oracle(boxes, valid, threshold):
    ranks = np.arange(len(boxes), 0, -1)
    return sorted(oracles.nms_per_class(boxes, ranks, valid, threshold, MAX_OUTPUT))


def assert_suppression(model, boxes, valid, threshold):
    """Assert the results of TensorFlow and of the oracle; return how many rows each image keeps."""
    rows, kept = run(model, boxes=boxes, valid=valid, threshold=np.asarray(threshold, np.float32))
    theirs_rows, theirs_kept = nms.suppress(tf.constant(boxes), tf.constant(valid), MAX_OUTPUT, threshold)
    np.testing.assert_array_equal(rows, theirs_rows.numpy())
    np.testing.assert_array_equal(kept, theirs_kept.numpy())
    assert rows.dtype == np.int32
    for image in range(len(boxes)):
        assert rows[image][kept[image]].tolist() == kept_by_oracle(boxes[image], valid[image], threshold)
    return kept.sum(axis=1).tolist()


def test_suppression_becomes_one_operator(suppression):
    model, operators = suppression
    assert operators["NonMaxSuppression"] == 1
    assert not CONTROL_FLOW & operators.keys()
    audit(model, model.opset_import[0].version)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0])
def test_suppression_of_random_boxes(suppression, threshold):
    generator = np.random.default_rng(5)
    counts = []
    for _ in range(20):
        boxes = whole_boxes(generator, 3, 12)
        valid = generator.integers(0, 4, (3, 12, 1)) == np.arange(1, 4)  # a quarter is in no class
        counts += assert_suppression(suppression[0], boxes, valid, threshold)
    assert len(set(counts)) > 1


def test_overlap_equal_to_the_threshold_is_kept(suppression):
    boxes = np.array([[[0, 0, 2, 2], [0, 0, 2, 1], [0, 0, 1, 1]]], np.float32)  # IoU 1/2, 1/4, 1/2
    valid = np.array([[[True, False, False]] * 3])
    assert assert_suppression(suppression[0], boxes, valid, 0.5) == [3]
    assert assert_suppression(suppression[0], boxes, valid, 0.49) == [2]
    assert assert_suppression(suppression[0], boxes, valid, 0.25) == [2]


def test_classes_do_not_suppress_each_other(suppression):
    boxes = np.array([[[0, 0, 4, 4]] * 3], np.float32)
    assert assert_suppression(suppression[0], boxes, np.eye(3, dtype=bool)[None], 0.5) == [3]
    assert assert_suppression(suppression[0], boxes, np.ones((1, 3, 1), bool) * [True, False, False], 0.5) == [1]


def test_boxes_without_area_neither_suppress_nor_are_suppressed(suppression):
    boxes = np.array([[[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 3, 3], [1, 0, 1, 3]]], np.float32)
    valid = np.array([[[True, False, False]] * 4])
    assert assert_suppression(suppression[0], boxes, valid, 0.3) == [4]


def test_suppression_without_candidates(suppression):
    boxes = whole_boxes(np.random.default_rng(2), 2, 5)
    assert assert_suppression(suppression[0], boxes, np.zeros((2, 5, 3), bool), 0.5) == [0, 0]


def test_one_image_without_candidates_beside_one_with(suppression):
    boxes = np.array([[[0, 0, 1, 1], [5, 5, 6, 6]]] * 2, np.float32)
    valid = np.zeros((2, 2, 3), bool)
    valid[1, :, 2] = True
    assert assert_suppression(suppression[0], boxes, valid, 0.5) == [0, 2]


@pytest.mark.parametrize("rows", [1, MAX_OUTPUT - 1, MAX_OUTPUT, 40])
def test_fewer_and_more_candidates_than_rows(suppression, rows):
    boxes = np.stack([[i, i, i + 1, i + 1] for i in range(rows)]).astype(np.float32)[None]  # none overlap
    valid = np.arange(rows)[None, :, None] % 3 == np.arange(3)
    assert assert_suppression(suppression[0], boxes, valid, 0.5) == [min(rows, MAX_OUTPUT)]


def combined(pad_per_class=False, clip_boxes=False, output=1):
    def suppress(boxes, scores):
        results = tf.image.combined_non_max_suppression(
            boxes[:, :, None, :],
            scores,
            max_output_size_per_class=4,
            max_total_size=7,
            iou_threshold=0.4,
            score_threshold=0.2,
            pad_per_class=pad_per_class,
            clip_boxes=clip_boxes,
        )
        return results[output]

    return suppress


COMBINED_SPECS = (SPEC([None, None, 4], tf.float32, name="boxes"), SPEC([None, None, 3], tf.float32, name="scores"))


def test_on_cuda_no_score_threshold_is_needed():
    """With one, ONNX Runtime's CUDA kernel allocates memory and waits. Empty rows are selected, and change nothing."""

    def suppress(boxes, valid, threshold):
        return nms.suppress(boxes, valid, MAX_OUTPUT, threshold)

    model, _ = convert(suppress, *SUPPRESS_SPECS, target=Target("cuda"))
    (node,) = (node for node in model.graph.node if node.op_type == "NonMaxSuppression")
    assert len(node.input) == 4
    generator = np.random.default_rng(4)
    for rows in (1, 5, 40):
        boxes, valid = whole_boxes(generator, 2, rows), generator.random((2, rows, 3)) < 0.4
        assert_suppression(model, boxes, valid, 0.3)


def test_a_choice_between_values_takes_none_of_the_other_side():
    def choose(condition, values):
        return tf.where(condition[:, None], values, 7.0), tf.where(condition, 3, 4)

    specs = (SPEC([None], tf.bool, name="condition"), SPEC([None, None], tf.float32, name="values"))
    model, operators = convert(choose, *specs)
    assert operators["Where"] == 2
    values = np.array([[1, np.inf], [np.nan, np.inf]], np.float32)
    chosen, whole = run(model, condition=np.array([True, False]), values=values)
    assert chosen.tolist() == [[1, np.inf], [7, 7]]
    assert (whole.tolist(), whole.dtype) == ([3, 4], np.int32)


def test_scores_of_combined_suppression():
    model, operators = convert(combined(), *COMBINED_SPECS)
    assert operators["NonMaxSuppression"] == 1
    generator = np.random.default_rng(9)
    used = []
    for rows in (1, 3, 30):
        boxes = whole_boxes(generator, 2, rows)
        scores = generator.permutation(2 * rows * 3).reshape(2, rows, 3).astype(np.float32) / (6 * rows)
        (found,) = run(model, boxes=boxes, scores=scores)
        np.testing.assert_array_equal(found, combined()(boxes, scores).numpy())
        used += (found > 0).sum(axis=1).tolist()
    assert max(used) == 7
    assert 0 < min(used) < 7


def test_score_equal_to_the_threshold_is_dropped():
    model, _ = convert(combined(), *COMBINED_SPECS)
    boxes = np.array([[[0, 0, 1, 1], [3, 3, 4, 4], [6, 6, 7, 7]]], np.float32)
    scores = np.zeros((1, 3, 3), np.float32)
    scores[0, :, 1] = np.float32(0.2), np.nextafter(np.float32(0.2), np.float32(1)), 0.1
    (found,) = run(model, boxes=boxes, scores=scores)
    np.testing.assert_array_equal(found, combined()(boxes, scores).numpy())
    assert (found > 0).sum() == 1


@pytest.mark.parametrize("output", [0, 2, 3], ids=["boxes", "classes", "counts"])
def test_other_outputs_of_combined_suppression_are_refused(output):
    assert_refused(combined(output=output), *COMBINED_SPECS, operator="CombinedNonMaxSuppression")


@pytest.mark.parametrize("setting", ["pad_per_class", "clip_boxes"])
def test_other_kinds_of_combined_suppression_are_refused(setting):
    assert_refused(combined(**{setting: True}), *COMBINED_SPECS, operator="CombinedNonMaxSuppression")


def test_boxes_per_class_are_refused():
    def suppress(boxes, scores):
        return tf.image.combined_non_max_suppression(boxes, scores, 4, 7, pad_per_class=False, clip_boxes=False)[1]

    specs = (SPEC([None, None, 3, 4], tf.float32, name="boxes"), COMBINED_SPECS[1])
    assert_refused(suppress, *specs, operator="CombinedNonMaxSuppression")


# MirrorPad

IMAGE_SPEC = SPEC([None, None, None, 2], tf.float32, name="image")


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize(
    "paddings", [[[0, 0], [1, 1], [1, 1], [0, 0]], [[0, 0], [1, 0], [0, 1], [0, 0]]], ids=["all round", "two sides"]
)
def test_mirror_pad_repeats_the_edge(paddings, opset):
    def pad(image):
        return tf.pad(image, paddings, mode="SYMMETRIC")

    model, operators = convert(pad, IMAGE_SPEC, target=Target(opset=opset))
    assert operators["Pad"] == 1
    audit(model, opset)
    for shape in ((2, 3, 5, 2), (1, 1, 1, 2)):
        image = np.random.default_rng(3).normal(size=shape).astype(np.float32)
        (found,) = run(model, image=image)
        np.testing.assert_array_equal(found, np.pad(image, paddings, mode="edge"))
        np.testing.assert_array_equal(found, pad(image).numpy())


@pytest.mark.parametrize(("mode", "width"), [("REFLECT", 1), ("SYMMETRIC", 2)])
def test_another_mirror_pad_is_refused(mode, width):
    def pad(image):
        return tf.pad(image, [[0, 0], [width, width], [0, 0], [0, 0]], mode=mode)

    assert_refused(pad, IMAGE_SPEC, operator="MirrorPad")


# ResizeNearestNeighbor


@pytest.mark.parametrize("opset", [17, 18])
def test_nearest_resize_doubles_by_repeating(opset):
    def double(image):
        return tf.image.resize(image, 2 * tf.shape(image)[1:3], method="nearest")

    model, operators = convert(double, IMAGE_SPEC, target=Target(opset=opset))
    assert operators["Resize"] == 1
    audit(model, opset)
    image = np.random.default_rng(4).normal(size=(2, 5, 9, 2)).astype(np.float32)
    (found,) = run(model, image=image)
    np.testing.assert_array_equal(found, image.repeat(2, axis=1).repeat(2, axis=2))
    np.testing.assert_array_equal(found, double(image).numpy())


@pytest.mark.parametrize("size", [(15, 27), (7, 4), (2, 3), (10, 18)], ids=str)
def test_nearest_resize_to_any_size_is_tensorflows(size):
    def resize(image, to):
        return tf.image.resize(image, to, method="nearest")

    model, _ = convert(resize, IMAGE_SPEC, SPEC([2], tf.int32, name="to"))
    image = np.random.default_rng(4).normal(size=(2, 5, 9, 2)).astype(np.float32)
    (found,) = run(model, image=image, to=np.array(size, np.int32))
    assert found.shape == (2, *size, 2)
    np.testing.assert_array_equal(found, resize(image, size).numpy())


@pytest.mark.parametrize("options", [{}, {"align_corners": True}], ids=["corner origin", "aligned corners"])
def test_another_nearest_resize_is_refused(options):
    def resize(image):
        return tf.compat.v1.image.resize_nearest_neighbor(image, [10, 18], **options)

    assert_refused(resize, IMAGE_SPEC, operator="ResizeNearestNeighbor")


# ROIAlign of the families


@families.needs_goldens
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_of_a_level_is_torchvisions(aligned, ratio):
    features, boxes = families.roi_inputs()
    sample = level_sampler(FAMILY_MODEL(roi_aligned=aligned, roi_sampling_ratio=ratio))
    specs = (SPEC([None, None, None, 4], tf.float32, name="f"), SPEC([None, 4], tf.float32, name="b"))
    crop = lambda f, b: sample(f, b, tf.zeros([tf.shape(b)[0]], tf.int32), 7, 4)  # noqa: E731
    model, operators = convert(crop, *specs)
    assert operators["RoiAlign"] == 1
    expected = families.roi_results(aligned, ratio)
    found = run(model, f=features, b=boxes)[0].transpose(0, 2, 3, 1)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("every_level", [False, True])
@pytest.mark.parametrize(("aligned", "ratio"), [(False, 2), (True, 0)])
def test_crops_of_a_pyramid_are_those_of_tensorflow(aligned, ratio, every_level):
    config, size = FAMILY_MODEL(roi_aligned=aligned, roi_sampling_ratio=ratio, roi_level="floor"), (352, 480)
    generator = np.random.default_rng(2)
    levels = [generator.normal(size=(2, size[0] // s, size[1] // s, 3)).astype(np.float32) for s in (4, 8, 16, 32)]
    corners = np.sort(generator.uniform(0, 1, (2, 12, 2, 2)), axis=2) * size
    boxes = corners.reshape(2, 12, 4).astype(np.float32)
    boxes[0, :3] = [[0, 0, 0, 0], [351.75, 0, 352, 480], [0, 0, 112, 112]]

    def crops(p2, p3, p4, p5, boxes, sampler=None):
        levels = (p2, p3, p4, p5)
        return pyramid_roi_align_zeros(levels, boxes, tf.constant(size), 5, config, None, sampler, every_level)

    def converted(p2, p3, p4, p5, boxes):
        return crops(p2, p3, p4, p5, boxes, level_sampler(config))

    specs = [SPEC([None, None, None, 3], tf.float32, name=f"p{k}") for k in range(2, 6)]
    model, _ = convert(converted, *specs, SPEC([None, None, 4], tf.float32, name="boxes"))
    cancel_transposes(model)
    name = model.graph.output[0].name
    model = keep_outputs(model, [name])
    operators = audit(model, CPU.opset).operators
    assert operators["RoiAlign"] == 4
    assert sum("perm" in attributes_of(node) for node in model.graph.node) == 5  # of four levels, and of the crops
    assert not CONTROL_FLOW & set(operators)
    (layout,) = (node for node in model.graph.node if node.output[0] == name)
    assert shapes_of(model)[layout.input[0]][1:] == [3, 5, 5]  # rewrites of the heads need them
    feeds = {f"p{k}": level for k, level in enumerate(levels, start=2)}
    for given in (boxes, boxes[:, 1:2]):  # the second have levels without a box
        expected = crops(*(tf.constant(level) for level in levels), tf.constant(given))
        np.testing.assert_allclose(run(model, **feeds, boxes=given)[0], expected, rtol=0, atol=1e-5)
