"""TensorFlow on a GPU, as far as it can be tested without one: what is refused, said and counted.

A test double stands in for the list of GPUs. TensorFlow then computes on the CPU what it is asked to compute on a GPU
that is not there, as it does with an operator that has no GPU kernel.
"""

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
from bad_artifacts import reseal

from runtime import Predictor, read_metadata
from runtime.artifact_files import gpu_kernels, savedmodel_scan
from runtime.artifact_files.gpu_kernels import without_gpu_kernel
from runtime.errors import DeviceError

tf = pytest.importorskip("tensorflow", reason="needs TensorFlow")
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # noqa: E402
from tensorflow.python.framework import kernels, op_def_registry  # noqa: E402

from maskrcnn.configuration.model import ModelConfig  # noqa: E402
from maskrcnn.data.synthetic.shapes import draw_shapes  # noqa: E402
from maskrcnn.model import Stages  # noqa: E402
from maskrcnn.roi_align import pyramid_roi_align_zeros  # noqa: E402
from runtime.engines import saved_model  # noqa: E402

ELEMENT_TYPES = tuple(map(tf.as_dtype, gpu_kernels._TYPES.values()))


@pytest.fixture
def fake_gpu(monkeypatch):
    """Make TensorFlow list a GPU where it has none."""
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow has a GPU")
    device = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _kind=None: [device])


def graphs_of(path):
    saved = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return [graph.graph_def for graph in saved.meta_graphs]


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_by_name_refuses_a_graph_that_it_would_not_compute_alone(
    savedmodel_artifact, fake_gpu, monkeypatch, device
):
    monkeypatch.setattr(tf.saved_model, "load", None)  # it is refused before
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    with pytest.raises(DeviceError) as refused:
        Predictor(savedmodel_artifact, device)
    message = str(refused.value)
    for part in ("'cuda:0'", "CombinedNonMaxSuppression", str(savedmodel_artifact), "savedmodel --target cuda"):
        assert part in message
    assert "\n" not in message
    assert tf.config.experimental.tensor_float_32_execution_enabled() == tf32


def test_auto_takes_the_gpu_for_it_and_says_what_runs_on_the_cpu(savedmodel_artifact, fake_gpu, caplog):
    caplog.set_level(logging.INFO, logger="runtime")
    assert Predictor(savedmodel_artifact).device == "cuda:0"
    (record,) = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert record.levelname == "WARNING"
    for part in ("running on cuda:0", "CombinedNonMaxSuppression", "savedmodel --target cuda"):
        assert part in record.getMessage()


def test_the_graph_for_a_gpu_is_accepted_and_what_runs_elsewhere_is_named(
    cuda_savedmodel_artifact, savedmodel_artifact, fake_gpu, picture, caplog
):
    caplog.set_level(logging.INFO, logger="runtime")
    predictor = Predictor(cuda_savedmodel_artifact, "cuda")
    assert caplog.records == []
    assert predictor.device == "cuda:0"
    pictures = [picture, picture[:, 100:], picture[60:]]
    expected = [Predictor(savedmodel_artifact, "cpu")(each) for each in pictures]
    assert sum(map(len, expected)) > 10
    for found, wanted in zip(predictor.predict_batch(pictures), expected, strict=True):  # one at a time
        assert found.names == wanted.names
        np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=0, atol=0.01)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.mask_probabilities, wanted.mask_probabilities, rtol=0, atol=1e-4)
    placement = predictor.explain()  # the GPU is not there, so all was moved to the CPU
    assert placement.on_cpu["NonMaxSuppressionV4"] == 1
    assert sum(placement.on_cpu.values()) == sum(placement.counts.values())
    assert (placement.copies, "CombinedNonMaxSuppression" in placement.on_cpu) == (0, False)


def test_copies_between_devices_are_counted():
    """As TensorFlow records them, between two devices of a CPU."""
    v1, record = tf.compat.v1, tf.compat.v1.RunMetadata()
    options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE, output_partition_graphs=True)
    with v1.Graph().as_default() as graph:
        given = v1.placeholder(tf.float32, [3])
        with tf.device("/CPU:1"):
            there = tf.exp(given)
        with tf.device("/CPU:0"):
            back = tf.nn.relu(there)
        with v1.Session(graph=graph, config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(back, {given: [1.0, 2.0, 3.0]}, options=options, run_metadata=record)
    placement = saved_model._placement("cuda:0", record)
    assert placement.copies == 2
    assert placement.on_cpu == {"Exp": 1, "Relu": 1}
    assert placement.counts["CPU:1", "_Recv"] == 1
    assert placement.milliseconds.keys() == placement.counts.keys()


def with_two_steps(graphs):
    """End the steps of NMS after the second."""
    for function in (function for graph in graphs for function in graph.library.function):
        users = {
            node.input[0].split(":")[0]: node for node in function.node_def if node.op in ("BatchMatMulV2", "Relu")
        }
        for node in function.node_def:
            if node.name == "suppression/stage_nms_last":
                second = users[users["suppression/stage_nms_first"].name]
                node.input[0] = f"{second.name}:activations:0"
            elif node.op == "Sub" and node.input[0] == "suppression/stage_nms_last:output:0":
                node.input[1] = "suppression/stage_nms_first:output:0"


def test_nms_continues_where_its_steps_do_not_suffice(
    cuda_savedmodel_artifact, savedmodel_artifact, tmp_path, monkeypatch
):
    path = shutil.copytree(cuda_savedmodel_artifact, tmp_path / "two_steps")
    saved = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    with_two_steps(graph.graph_def for graph in saved.meta_graphs)
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())
    reseal(path, read_metadata(path, verify_digest=False).to_json())
    limits = {"score_threshold": 0.0, "nms_threshold": 0.001}
    few = Predictor(path, "cpu", require_verdict=False, **limits)
    free = Predictor(savedmodel_artifact, "cpu", **limits)
    letterbox, prepared = few.prepare(draw_shapes(7, 5, size=(256, 256))[0])
    images, windows = np.stack([prepared, 0 * prepared]), np.float32([letterbox.window] * 2)
    loaded = tf.saved_model.load(str(path))
    alone = loaded.detect(images[:1], windows[:1], *(tf.constant(value, tf.float32) for value in limits.values()))
    assert alone["num_detections"].numpy().tolist() == [-1]  # no number of rows that could be taken for a result
    assert not alone["boxes"].numpy().any()
    cut = []

    class Cut(saved_model.FunctionStages):
        def __init__(self, *arguments):
            cut.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(saved_model, "FunctionStages", Cut)
    for _ in range(2):
        found, expected = few.run(images, windows), free.run(images, windows)
    assert len(cut) == 1  # the graph is frozen once
    assert set(few.borders(images[:1], windows[:1])) == set(Stages._fields)
    assert expected["num_detections"][0] > 2
    for name in ("num_detections", "class_ids"):
        np.testing.assert_array_equal(found[name], expected[name])
    for name, tolerance in (("boxes", 0.01), ("scores", 1e-5), ("masks", 1e-4)):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance)


def test_operators_without_a_gpu_kernel_are_found(savedmodel_artifact, cuda_savedmodel_artifact):
    assert without_gpu_kernel(graphs_of(savedmodel_artifact)) == ["CombinedNonMaxSuppression"]
    assert without_gpu_kernel(graphs_of(cuda_savedmodel_artifact)) == []

    @tf.function
    def called(x):
        return tf.argmax(x)

    @tf.function(input_signature=[tf.TensorSpec([3, 4], tf.int64)])
    def custom(x):
        return called(x), tf.argmax(tf.cast(x, tf.float32)), tf.nn.relu(tf.cast(x, tf.int32))

    graph = custom.get_concrete_function().graph.as_graph_def()
    assert without_gpu_kernel([graph]) == ["ArgMax (int64)", "Relu (int32)"]


@pytest.mark.parametrize("level", ["floor", "nearest"])
def test_a_savedmodel_may_crop_as_pytorch_does_also_for_a_gpu(level):
    model = replace(ModelConfig(), roi_sampling="roi_align", roi_padding="zeros", roi_level=level)
    sides = (32, 16, 8, 4)

    @tf.function(input_signature=[tf.TensorSpec([1, 5, 4]), *(tf.TensorSpec([1, side, side, 8]) for side in sides)])
    def crop(boxes, *levels):
        return pyramid_roi_align_zeros(levels, boxes, tf.constant([128, 128]), 7, model)

    graph = crop.get_concrete_function().graph.as_graph_def()
    assert {node.op for node in graph.node} <= savedmodel_scan._COMPUTING
    assert without_gpu_kernel([graph]) == []


def served(registered, attribute, devices):
    """Element types of an attribute for which there is a kernel."""
    kinds = set()
    for kernel in registered:
        if kernel.device_type in devices:
            named = [constraint for constraint in kernel.constraint if constraint.name == attribute]
            types = [kind for constraint in named for kind in constraint.allowed_values.list.type]
            kinds |= set(map(tf.as_dtype, types)) if named else set(ELEMENT_TYPES)
    return kinds


def test_the_table_of_gpu_kernels_is_tensorflows():
    if not tf.test.is_built_with_cuda():
        pytest.skip("this TensorFlow was built without CUDA")
    rows = set()
    for operator in savedmodel_scan._COMPUTING:
        registered = list(kernels.get_registered_kernels_for_op(operator).kernel)
        if not {"GPU", "DEFAULT"} & {kernel.device_type for kernel in registered}:
            rows.add(operator)
        for attribute in op_def_registry.get(operator).attr:
            allowed = set(map(tf.as_dtype, attribute.allowed_values.list.type)) or set(ELEMENT_TYPES)
            missing = served(registered, attribute.name, ("CPU", "DEFAULT")) & allowed
            missing -= served(registered, attribute.name, ("GPU", "DEFAULT"))
            kinds = " ".join(kind.name for kind in ELEMENT_TYPES if kind in missing)
            if attribute.type == "type" and kinds:
                rows.add(f"{operator} {attribute.name} {kinds}")
    order = [kind.name for kind in ELEMENT_TYPES]
    table = set()
    for row in gpu_kernels._ROWS:
        table.add(" ".join(row[:2] + sorted(row[2:], key=order.index)))
    assert table == rows
