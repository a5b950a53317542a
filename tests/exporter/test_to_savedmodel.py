"""A SavedModel artifact as TensorFlow sees it, without any code of ours."""

import hashlib
import json
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import kernels, op_def_registry

from export import export_savedmodel
from export.errors import ConversionError
from runtime import read_metadata
from runtime.artifact import INPUT_NAMES, MASKS, OUTPUT_NAMES


@pytest.fixture(scope="module")
def loaded(savedmodel_artifact):
    return tf.saved_model.load(str(savedmodel_artifact))


@pytest.fixture(scope="module")
def feeds(picture):
    images = np.zeros((2, 320, 320, 3), np.uint8)
    images[0, :, :] = picture[:320, :320]
    images[1, :256] = picture[50:306, 100:420]
    return {"images": tf.constant(images), "windows": tf.constant([[0, 0, 320, 320], [0, 0, 256, 320]], tf.float32)}


def thresholds(score, suppression):
    return {"score_threshold": tf.constant(score), "nms_threshold": tf.constant(suppression)}


def test_signature_serves_the_contract(loaded, feeds):
    assert list(loaded.signatures) == ["serving_default"]
    serve = loaded.signatures["serving_default"]
    assert set(serve.structured_input_signature[1]) == set(INPUT_NAMES)
    assert set(serve.structured_outputs) == set(OUTPUT_NAMES)
    outputs = serve(**feeds, **thresholds(0.5, 0.5))
    assert set(outputs) == set(OUTPUT_NAMES)
    shapes = {name: (outputs[name].dtype.name, tuple(outputs[name].shape)) for name in OUTPUT_NAMES}
    assert shapes == {
        "num_detections": ("int32", (2,)),
        "boxes": ("float32", (2, 50, 4)),
        "scores": ("float32", (2, 50)),
        "class_ids": ("int32", (2, 50)),
        "masks": ("float32", (2, 50, 28, 28)),
    }
    assert (outputs["num_detections"].numpy() > 0).all()


def test_detect_is_the_model(loaded, feeds, demo):
    found = loaded.detect(**feeds, **thresholds(0.5, 0.5))
    expected = demo.detect(feeds["images"], feeds["windows"], 0.5, 0.5)
    assert found["num_detections"].numpy().tolist() == expected["num_detections"].numpy().tolist()
    np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=0, atol=0.01)
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found["class_ids"], expected["class_ids"])
    np.testing.assert_allclose(found["masks"], expected["masks"], rtol=0, atol=1e-4)


def test_thresholds_have_defaults(loaded, feeds):
    default = loaded.detect(**feeds)
    same = loaded.detect(**feeds, **thresholds(0.5, 0.5))
    for name in OUTPUT_NAMES:
        np.testing.assert_array_equal(default[name], same[name])
    fewer = loaded.detect(**feeds, score_threshold=tf.constant(0.99))
    more = loaded.detect(**feeds, score_threshold=tf.constant(0.0))
    counts = [int(tf.reduce_sum(outputs["num_detections"])) for outputs in (fewer, default, more)]
    assert counts[0] < counts[1] <= counts[2]  # a trained model is sure of most


def test_threshold_of_suppression_is_used(loaded, feeds):
    few, many = (loaded.detect(**feeds, nms_threshold=tf.constant(value)) for value in (0.0, 1.0))
    assert int(tf.reduce_sum(few["num_detections"])) < int(tf.reduce_sum(many["num_detections"]))


def test_a_signature_called_from_python_needs_all_inputs(loaded, feeds):
    """TensorFlow fills in the defaults of a signature in a server only; docs/artifact.md says so."""
    with pytest.raises(TypeError, match="nms_threshold, score_threshold"):
        loaded.signatures["serving_default"](**feeds)


def test_constant_thresholds_are_no_inputs_of_the_signature(constant_savedmodel_artifact, loaded, feeds):
    constant = tf.saved_model.load(str(constant_savedmodel_artifact))
    expected = loaded.detect(**feeds)
    for function in (constant.signatures["serving_default"], constant.detect):
        found = function(**feeds)
        for name in OUTPUT_NAMES:
            # On a busy machine, the mask head has differed in the last bits from one call to another.
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5 if name == MASKS else 0)
        with pytest.raises(TypeError, match="score_threshold"):
            function(**feeds, score_threshold=tf.constant(0.99))


def test_signature_definition_has_both_defaults(savedmodel_artifact):
    """What a server reads: defaults lie in the file, not in Python."""
    saved = saved_model_pb2.SavedModel.FromString((savedmodel_artifact / "saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def["serving_default"]
    assert set(signature.inputs) == set(INPUT_NAMES)
    assert set(signature.outputs) == set(OUTPUT_NAMES)
    defaults = {name: float(tf.make_ndarray(value)) for name, value in signature.defaults.items()}
    assert defaults == {"score_threshold": pytest.approx(0.5), "nms_threshold": pytest.approx(0.5)}


def test_every_batch_and_size_is_accepted(loaded):
    for shape in ((1, 64, 128, 3), (3, 192, 64, 3)):
        windows = tf.constant([[0, 0, shape[1], shape[2]]] * shape[0], tf.float32)
        outputs = loaded.detect(images=tf.zeros(shape, tf.uint8), windows=windows)
        assert outputs["boxes"].shape == (shape[0], 50, 4)


def test_manifest_lists_every_file(savedmodel_artifact):
    content = json.loads((savedmodel_artifact / "assets" / "artifact.json").read_text(encoding="utf-8"))
    inside = {p.relative_to(savedmodel_artifact).as_posix() for p in savedmodel_artifact.rglob("*") if p.is_file()}
    assert set(content["files"]) == inside - {"assets/artifact.json"}
    assert {"saved_model.pb", "variables/variables.index"} <= set(content["files"])
    for name, digest in content["files"].items():
        assert hashlib.sha256((savedmodel_artifact / name).read_bytes()).hexdigest() == digest
    assert content["metadata"]["format"] == "savedmodel"
    assert content["metadata"]["verdict"]["passed"] is True


def test_verdict_lies_beside(savedmodel_artifact):
    beside = savedmodel_artifact.with_name(savedmodel_artifact.name + ".verdict.json")
    content = json.loads((savedmodel_artifact / "assets" / "artifact.json").read_text(encoding="utf-8"))
    assert json.loads(beside.read_text(encoding="utf-8")) == content["metadata"]["verdict"]


def test_a_savedmodel_for_cuda_takes_one_image_of_one_size(cuda_savedmodel_artifact):
    metadata = read_metadata(cuda_savedmodel_artifact)
    assert (metadata.target, metadata.input_shape) == ("cuda", (1, 256, 256))
    assert metadata.verdict["passed"] is True
    signature = tf.saved_model.load(str(cuda_savedmodel_artifact)).signatures["serving_default"]
    assert signature.structured_input_signature[1]["images"].shape == (1, 256, 256, 3)
    assert {name: tuple(spec.shape) for name, spec in signature.structured_outputs.items()} == {
        "num_detections": (1,),
        "boxes": (1, 50, 4),
        "scores": (1, 50),
        "class_ids": (1, 50),
        "masks": (1, 50, 28, 28),
    }


@cache
def registered(operator):
    return list(kernels.get_registered_kernels_for_op(operator).kernel)


def gpu_kernel(node):
    """The kernel that TensorFlow registers for a GPU and the attributes of a node."""
    defaults = {each.name: each.default_value for each in op_def_registry.get(node.op).attr}  # left out in a SavedModel
    for kernel in registered(node.op):
        given = {each.name: node.attr.get(each.name, defaults[each.name]).type for each in kernel.constraint}
        serves = all(given[each.name] in each.allowed_values.list.type for each in kernel.constraint)
        if serves and kernel.device_type in ("GPU", "DEFAULT"):
            return kernel
    raise AssertionError(f"{node.op} {node.name} has no GPU kernel")


def arguments(node, described):
    """Names of the arguments of a node, each as often as it has tensors."""
    for each in described:
        count = node.attr[each.number_attr].i if each.number_attr else 1
        yield from [each.name] * (len(node.attr[each.type_list_attr].list.type) if each.type_list_attr else count)


def downloads(function):
    """The nodes that need a value on the host that another leaves on the GPU; values known beforehand do not count."""
    constant, found = set(), []
    on_gpu = {each.name for each in function.signature.input_arg if each.type != tf.resource.as_datatype_enum}
    for node in function.node_def:
        definition, kernel = op_def_registry.get(node.op), gpu_kernel(node)
        given = [name for name in node.input if not name.startswith("^")]
        if node.op in ("Const", "Shape", "Size") or (given and all(name.split(":")[0] in constant for name in given)):
            constant.add(node.name)
            continue
        needed = zip(given, arguments(node, definition.input_arg), strict=True)
        if any(name in on_gpu and argument in kernel.host_memory_arg for name, argument in needed):
            found.append(node.name)
        for each in definition.output_arg:
            if each.name not in kernel.host_memory_arg:
                count = sum(name == each.name for name in arguments(node, definition.output_arg))
                on_gpu |= {f"{node.name}:{each.name}:{index}" for index in range(count)}
    return found


def test_with_gpu_kernels_only_integer_outputs_leave_the_gpu(cuda_savedmodel_artifact):
    """Also with kernels for a GPU, most operators on int32 run on the host."""
    if not tf.test.is_built_with_cuda():
        pytest.skip("this TensorFlow was built without CUDA")
    saved = saved_model_pb2.SavedModel.FromString((cuda_savedmodel_artifact / "saved_model.pb").read_bytes())
    (detect,) = (
        function
        for function in saved.meta_graphs[0].graph_def.library.function
        if any(node.op == "NonMaxSuppressionV4" for node in function.node_def)
    )
    assert sorted(downloads(detect)) == ["stage_class_ids", "stage_num_detections"]


def test_targets_of_a_savedmodel(demo, tmp_path):
    with pytest.raises(ConversionError, match="target 'tensorrt' is not supported for a SavedModel"):
        export_savedmodel(demo, tmp_path / "demo", checkpoint={}, target="tensorrt")
    assert not list(tmp_path.iterdir())


def test_an_operator_without_a_gpu_kernel_is_not_exported_for_cuda(demo, tmp_path, monkeypatch):
    """As a custom backbone may have one."""

    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.int32)])
    def detect(images):
        return {"boxes": tf.nn.relu(images)}

    monkeypatch.setattr("export.to_savedmodel.trace", lambda *_arguments, **_options: detect)
    with pytest.raises(ConversionError, match=r"no GPU kernel for Relu \(int32\).*change the backbone.*target 'cpu'"):
        export_savedmodel(demo, tmp_path / "demo", checkpoint={}, target="cuda")
    assert not list(tmp_path.iterdir())
