"""What `maskrcnn-export tfserving` writes, called through TensorFlow alone as its server does."""

import json
import shutil
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from fake_artifacts import metadata
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from typer.testing import CliRunner

from export.cli import app
from export.edit import edit_artifact
from export.errors import ConversionError, EditError, LayoutError
from export.serving.tfserving import _allowed_batch, write_tfserving_model
from runtime import Predictor, read_metadata
from runtime.artifact import OUTPUT_NAMES
from runtime.artifact_files.read import recorded_digest
from runtime.errors import ArtifactError, OutputError

KINDS = (
    "savedmodel_artifact",
    pytest.param("constant_savedmodel_artifact", marks=pytest.mark.slow),
    pytest.param("cuda_savedmodel_artifact", marks=pytest.mark.slow),
)


@pytest.fixture(scope="module")
def served(savedmodel_artifact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "shapes"
    write_tfserving_model(savedmodel_artifact, folder, max_batch=5)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def kind(request, served, tmp_path_factory):
    """Each artifact and the folder of a server made of it."""
    artifact = request.getfixturevalue(request.param)
    if request.param == KINDS[0]:
        return artifact, served
    folder = tmp_path_factory.mktemp("models") / "shapes"
    write_tfserving_model(artifact, folder)
    return artifact, folder


def feeds(predictor, picture, count):
    prepared = [predictor.prepare(picture[row * 8 :]) for row in range(count)]
    windows = np.array([letterbox.window for letterbox, _ in prepared], np.float32)
    return {"images": np.stack([image for _, image in prepared]), "windows": windows}


def same(found, expected):
    for name in OUTPUT_NAMES:
        np.testing.assert_array_equal(found[name], expected[name])


def test_batches_without_scalars_are_the_predictors_bit_for_bit(kind, picture):
    artifact, folder = kind
    batched = tf.saved_model.load(str(folder / "1")).signatures["batched"]
    given = batched.structured_input_signature[1]
    assert set(given) == {"images", "windows"}
    assert all(each.shape.rank > 0 for each in given.values())
    with Predictor(artifact, "cpu") as predictor:
        batches = (1, 2, 5) if read_metadata(artifact).target == "cpu" else (1,)
        for count in batches:
            inputs = feeds(predictor, picture, count)
            expected = predictor.run(**inputs)
            assert expected["num_detections"].min() > 0
            same(batched(**{name: tf.constant(array) for name, array in inputs.items()}), expected)


def test_a_server_finds_both_signatures(kind):
    """The description that servers read: no scalars in `batched`, defaults where thresholds are inputs."""
    artifact, folder = kind
    (graph,) = SavedModel.FromString((folder / "1" / "saved_model.pb").read_bytes()).meta_graphs
    batched, default = graph.signature_def["batched"], graph.signature_def["serving_default"]
    assert set(batched.inputs) == {"images", "windows"}
    assert set(batched.outputs) == set(default.outputs) == set(OUTPUT_NAMES)
    assert all(each.tensor_shape.dim for each in batched.inputs.values())
    scalars = {name for name, each in default.inputs.items() if not each.tensor_shape.dim}
    inputs = read_metadata(artifact).thresholds == "inputs"
    assert scalars == ({"score_threshold", "nms_threshold"} if inputs else set())
    assert {name: each.float_val[0] for name, each in default.defaults.items()} == dict.fromkeys(scalars, 0.5)


def test_thresholds_can_be_left_out_and_set(served, savedmodel_artifact, picture):
    """A server takes the defaults of the signature for what a request leaves out."""
    with Predictor(savedmodel_artifact, "cpu") as predictor:
        inputs = feeds(predictor, picture, 2)
        expected = predictor.run(**inputs)
        middle = float(np.median(expected["scores"][0, : expected["num_detections"][0]]))
        predictor.score_threshold = middle
        strict = predictor.run(**inputs)
    loaded = tf.saved_model.load(str(served / "1"))
    tensors = {name: tf.constant(array) for name, array in inputs.items()}
    same(loaded.detect(**tensors), expected)
    given = {"score_threshold": tf.constant(middle), "nms_threshold": tf.constant(0.5)}
    same(loaded.signatures["serving_default"](**tensors, **given), strict)
    assert strict["num_detections"].sum() < expected["num_detections"].sum()
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(served / "1")).signature_def[
            "serving_default"
        ]
        values = inputs | {name: tf.make_ndarray(value) for name, value in signature.defaults.items()}
        fetches = {name: signature.outputs[name].name for name in OUTPUT_NAMES}
        same(session.run(fetches, {signature.inputs[name].name: value for name, value in values.items()}), expected)


def test_predictor_opens_the_version_as_an_artifact(kind, picture):
    artifact, folder = kind
    found, before = read_metadata(folder / "1"), read_metadata(artifact)
    assert found.thresholds == before.thresholds
    assert recorded_digest(artifact) in found.edits[-1]
    assert json.loads((folder / "layout.json").read_text())["sha256"] == recorded_digest(artifact)
    with Predictor(folder / "1", "cpu") as predictor, Predictor(artifact, "cpu") as original:
        assert predictor(picture).to_json() == original(picture).to_json()


def _messages():
    """The messages of TensorFlow Serving that a warm-up record consists of, by their numbers in its .proto files."""
    file = descriptor_pb2.FileDescriptorProto(name="log.proto", package="log", syntax="proto3")
    optional, text, message, data = 1, 9, 11, 12
    for name, fields in {
        "ModelSpec": [("name", 1, text, ""), ("signature_name", 3, text, "")],
        "Entry": [("key", 1, text, ""), ("value", 2, data, "")],  # of map<string, TensorProto>
        "PredictRequest": [("model_spec", 1, message, "ModelSpec"), ("inputs", 2, message, "Entry")],
        "PredictLog": [("request", 1, message, "PredictRequest")],
        "PredictionLog": [("predict_log", 6, message, "PredictLog")],
    }.items():
        described = file.message_type.add(name=name)
        for field, number, kind, other in fields:
            label = 3 if other == "Entry" else optional
            nested = {"type_name": f".log.{other}"} if other else {}
            described.field.add(name=field, number=number, type=kind, label=label, **nested)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("log.PredictionLog"))


def test_warm_up_records_are_requests_that_the_signatures_answer(kind):
    artifact, folder = kind
    path = folder / "1" / "assets.extra" / "tf_serving_warmup_requests"
    kinds, loaded = [], tf.saved_model.load(str(folder / "1"))
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = _messages().FromString(record)
        assert log.SerializeToString() == record  # nothing that a parser would not know
        request = log.predict_log.request
        assert request.model_spec.name == "shapes"
        inputs = {each.key: tf.make_ndarray(TensorProto.FromString(each.value)) for each in request.inputs}
        function = loaded.signatures[request.model_spec.signature_name]
        assert set(inputs) == set(function.structured_input_signature[1])
        outputs = function(**{name: tf.constant(array) for name, array in inputs.items()})
        assert outputs["num_detections"].numpy().min() > 0  # so all of the network is warm
        kinds.append((request.model_spec.signature_name, len(inputs["images"])))
    batching = (folder / "batching.config").exists()
    most = 5 if read_metadata(artifact).thresholds == "inputs" else 8
    assert kinds == ([("batched", 1), ("batched", most)] if batching else [("batched", 1), ("serving_default", 1)])
    assert batching == (read_metadata(artifact).target == "cpu")


def test_batching_parameters(served, savedmodel_artifact):
    """The fields of `tensorflow.serving.BatchingParameters`, by name: all are messages with one value."""
    text = (served / "batching.config").read_text()
    assert text.startswith(f"# maskrcnn_sha256: {recorded_digest(savedmodel_artifact)}\n")
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", syntax="proto3")
    file.message_type.add(name="Value").field.add(name="value", number=1, type=3, label=1)
    described = file.message_type.add(name="BatchingParameters")
    for number, name in enumerate(names, 1):
        described.field.add(name=name, number=number, type=11, label=1, type_name=".Value")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    parameters = message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))()
    text_format.Parse(text, parameters)
    assert parameters.max_batch_size.value == 5
    assert parameters.max_enqueued_batches.value == 128 // 5
    assert parameters.num_batch_threads.value == 1


def test_thresholds_of_the_served_model_cannot_be_edited_in_part(served, tmp_path):
    copy = shutil.copytree(served / "1", tmp_path / "copy")
    with pytest.raises(EditError, match="constants in its signature 'batched'"):
        edit_artifact(copy, score_threshold=0.9)
    edit_artifact(copy, rename={"square": "box"})
    assert "box" in read_metadata(copy).class_names


@pytest.mark.parametrize(("image_bytes", "usual"), [(1024 * 1024 * 3, 8), (2**26, 4), (2**28 - 1, 1), (2**29, 1)])
def test_the_usual_batch_is_one_that_fits(image_bytes, usual):
    path, square = Path("large"), metadata(directory=True)
    assert _allowed_batch(path, square, None, image_bytes) == usual
    most = max(2**28 // image_bytes, 1)
    assert _allowed_batch(path, square, most, image_bytes) == most
    with pytest.raises(LayoutError, match=f"give --max-batch {most} or less"):
        _allowed_batch(path, square, most + 1, image_bytes)


def test_refusals(served, savedmodel_artifact, cuda_savedmodel_artifact, tmp_path, monkeypatch):
    onnx = resources.files("maskrcnn").joinpath("demo.onnx")
    with pytest.raises(ArtifactError, match=r"is an \.onnx file"):
        write_tfserving_model(str(onnx), tmp_path / "out")
    with pytest.raises(LayoutError, match="made for batches of 1"):
        write_tfserving_model(cuda_savedmodel_artifact, tmp_path / "out", max_batch=2)
    for name in ("a b", "_a", "\N{LATIN SMALL LETTER E WITH ACUTE}"):
        with pytest.raises(LayoutError, match="begins with a letter or digit; the folder to write"):
            write_tfserving_model(savedmodel_artifact, tmp_path / name)
    most = 2**28 // (256 * 256 * 3)  # images of a warm-up request
    for batch in (0, 2.5, 2**31):
        with pytest.raises(LayoutError, match=r"the largest batch is .*: expected an integer from 1"):
            write_tfserving_model(savedmodel_artifact, tmp_path / "out", max_batch=batch)
    for batch in (most + 1, 11_000, 100_000, 2**31 - 1):
        with pytest.raises(LayoutError, match=f"the largest batch is {batch}, .* give --max-batch {most} or less"):
            write_tfserving_model(savedmodel_artifact, tmp_path / "out", max_batch=batch)
    with pytest.raises(OutputError, match="already exists"):
        write_tfserving_model(savedmodel_artifact, served)
    foreign = tmp_path / "foreign"
    (foreign / "7").mkdir(parents=True)
    with pytest.raises(OutputError, match="never replaced"):
        write_tfserving_model(savedmodel_artifact, foreign, overwrite=True)
    done = CliRunner().invoke(app, ["tfserving", "demo", "-o", str(tmp_path / "out")])
    assert done.exit_code == 4
    assert "maskrcnn export triton" in done.output
    monkeypatch.setattr("export.serving.tfserving.np", SimpleNamespace(float32=lambda _value: np.float32(1)))
    with pytest.raises(ConversionError, match="computes other"):
        write_tfserving_model(savedmodel_artifact, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"]
    assert [path.name for path in foreign.iterdir()] == ["7"]
