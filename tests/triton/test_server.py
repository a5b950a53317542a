"""A repository of `maskrcnn-export triton` in the real server: results of Predictor, batches, errors, digests."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from bad_pictures import encoded_pictures
from PIL import Image
from tritonclient import http
from tritonclient.utils import InferenceServerException

from export.edit import edit_artifact
from export.serving.triton import TritonOptions, write_triton_repository
from maskrcnn.data.synthetic.shapes import shapes_dataset
from runtime import Predictor
from runtime.artifact import IMAGES, NMS_THRESHOLD, OUTPUT_NAMES, SCORE_THRESHOLD, WINDOWS
from runtime.errors import ImageError
from runtime.triton import DETECTIONS, IMAGE

KINDS = (("JPEG", "RGB"), ("PNG", "RGB"), ("WEBP", "RGB"), ("PNG", "L"))
CALLERS = 8


@pytest.fixture(scope="module")
def artifact(pytestconfig):
    return pytestconfig.rootpath / "maskrcnn" / "demo.onnx"


@pytest.fixture(scope="module")
def repository(artifact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton") / "repository"
    write_triton_repository(artifact, folder, options=TritonOptions(thresholds=True, threads=1))
    return folder


@pytest.fixture(scope="module")
def server(start, repository):
    with start(repository) as (address, log):
        assert "Started HTTPService" in log.read_text(errors="replace"), log.read_text(errors="replace")
        with _client(address) as client:
            yield SimpleNamespace(address=address, log=log, client=client)


@pytest.fixture(scope="module")
def predictor(artifact):
    with Predictor(artifact, "cpu") as opened:
        yield opened


def _client(address):
    return http.InferenceServerClient(address, connection_timeout=60, network_timeout=60)


def _pictures(count):
    """Encoded images of shapes in several sizes and formats."""
    found = []
    for row, record in enumerate(shapes_dataset(count, 3, "served", (230, 310)).records):
        kind, mode = KINDS[row % len(KINDS)]
        image = Image.fromarray(record.load_image()).convert(mode)
        file = BytesIO()
        image.crop((0, 0, image.width - row % 7, image.height - row % 5)).save(file, format=kind)
        found.append(file.getvalue())
    return found


def _ask(client, encoded):
    given = http.InferInput(IMAGE, [len(encoded)], "UINT8")
    given.set_data_from_numpy(np.frombuffer(encoded, np.uint8))
    return json.loads(client.infer("demo", [given]).as_numpy(DETECTIONS).tobytes())


def _batches(client):
    (model,) = client.get_inference_statistics("demo_net")["model_stats"]
    return {each["batch_size"]: each["compute_infer"]["count"] for each in model["batch_stats"]}


def test_images_from_several_clients_are_batched_and_give_the_results_of_predictor(server, predictor):
    pictures = _pictures(64)

    def ask(encoded):  # a client belongs to a thread
        with _client(server.address) as client:
            return _ask(client, encoded)

    with ThreadPoolExecutor(CALLERS) as pool:
        found = list(pool.map(ask, pictures))
    expected = [json.loads(predictor(encoded).to_json()) for encoded in pictures]
    assert sum(len(each["detections"]) for each in expected) > 100
    for ours, theirs in zip(expected, found, strict=True):
        assert theirs["image_size"] == ours["image_size"]
        for name in ("mask", "class_id", "name", "box"):
            assert [row[name] for row in theirs["detections"]] == [row[name] for row in ours["detections"]]
        scores = [[row["score"] for row in each["detections"]] for each in (ours, theirs)]
        np.testing.assert_allclose(*scores, atol=1e-5)
    assert max(_batches(server.client)) > 1


def test_one_image_is_the_predictors_to_the_bit(server, predictor):
    for encoded in _pictures(5):
        expected = json.loads(predictor(encoded).to_json())
        assert _ask(server.client, encoded) == expected | {"device": None}  # Triton's affair


def test_a_bad_image_is_refused_with_the_sentence_of_predictor(server, predictor):
    refused = 0
    for name, encoded, _ in encoded_pictures():
        (expected,) = predictor.predict_stream([encoded], on_error="yield")
        if not isinstance(expected, ImageError):
            assert _ask(server.client, encoded) == json.loads(expected.to_json()) | {"device": None}, name
            continue
        with pytest.raises(InferenceServerException) as caught:
            _ask(server.client, encoded)
        assert caught.value.status() == "400", name
        assert str(expected) in caught.value.message(), name
        refused += 1
    assert refused > 40
    assert server.client.is_server_ready()


def _network(client, name, images, windows, batch, **thresholds):
    inputs = [
        http.InferInput(IMAGES, [batch, *images.shape[1:]], "UINT8"),
        http.InferInput(WINDOWS, [batch, 4], "FP32"),
    ]
    for given, array in zip(inputs, (images, windows), strict=True):
        given.set_data_from_numpy(np.ascontiguousarray(array))
    for key, value in thresholds.items():
        inputs.append(http.InferInput(key, [1], "FP32"))
        inputs[-1].set_data_from_numpy(np.array([value], np.float32))
    found = client.infer(name, inputs)
    return {key: found.as_numpy(key) for key in OUTPUT_NAMES}


@pytest.mark.parametrize("thresholds", [{}, {SCORE_THRESHOLD: 0.9}, {SCORE_THRESHOLD: 0.01, NMS_THRESHOLD: 0.9}])
def test_thresholds_can_be_left_out_and_set(server, predictor, artifact, thresholds):
    prepared = [predictor.prepare(encoded) for encoded in _pictures(3)]
    images = np.stack([image for _, image in prepared])
    windows = np.array([letterbox.window for letterbox, _ in prepared], np.float32)
    with Predictor(artifact, "cpu", **thresholds) as wanted:
        expected = wanted.run(images, windows)
    found = _network(server.client, "demo_net_thresholds", images, windows, 3, **thresholds)
    for key in OUTPUT_NAMES:
        np.testing.assert_allclose(found[key], expected[key], atol=1e-5)
    if not thresholds:
        alone = _network(server.client, "demo_net", images, windows, 3)
        assert alone["num_detections"].shape == (3, 1)
        np.testing.assert_allclose(alone["masks"], expected["masks"], atol=1e-5)


def test_an_overloaded_server_refuses_what_it_cannot_queue(start, repository, predictor, tmp_path):
    shutil.copytree(repository, tmp_path / "short")
    shutil.rmtree(tmp_path / "short" / "demo_net_thresholds")
    for path in (tmp_path / "short").glob("*/config.pbtxt"):
        path.write_text(path.read_text().replace("max_queue_size: 128", "max_queue_size: 1"))
    (encoded,) = _pictures(1)
    expected = json.loads(predictor(encoded).to_json())["detections"]

    def ask(address):
        try:
            with _client(address) as client:
                return [row["mask"] for row in _ask(client, encoded)["detections"]]
        except InferenceServerException as error:
            return error.status()

    with start(tmp_path / "short") as (address, _), ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, [address] * 48))
    assert "503" in answers
    assert [row["mask"] for row in expected] in answers
    assert all(answer in ("503", [row["mask"] for row in expected]) for answer in answers)


def test_models_that_do_not_batch_refuse_what_they_cannot_queue(start, artifact, predictor, tmp_path):
    """Networks for one image at a time and with settable thresholds: Triton takes the end of a queue from them, too."""
    options = TritonOptions("demo", max_batch=1, thresholds=True, threads=1)
    write_triton_repository(artifact, tmp_path / "alone", options=options)
    for path in (tmp_path / "alone").glob("*/config.pbtxt"):
        path.write_text(path.read_text().replace("max_queue_size: 128", "max_queue_size: 1"))
    letterbox, image = predictor.prepare(_pictures(1)[0])
    images, windows = image[None], np.array([letterbox.window], np.float32)
    expected = predictor.run(images, windows)["num_detections"]

    def ask(address, name):
        try:
            with _client(address) as client:
                return _network(client, name, images, windows, 1)["num_detections"].ravel().tolist()
        except InferenceServerException as error:
            return error.status()

    with start(tmp_path / "alone") as (address, log):
        for name in ("demo_net", "demo_net_thresholds"):
            with ThreadPoolExecutor(24) as pool:
                answers = list(pool.map(ask, [address] * 48, [name] * 48))
            assert "503" in answers, (name, answers, log.read_text(errors="replace"))
            assert expected.tolist() in answers, name
            assert all(answer in ("503", expected.tolist()) for answer in answers), (name, answers)


def test_the_log_has_no_traceback_and_says_what_numpy_cannot_do(server):
    log = server.log.read_text(errors="replace")
    assert "Traceback" not in log
    assert "as_numpy of this Triton's Python backend does not work" in log  # so it is in this build


def test_parts_of_two_artifacts_are_not_loaded_together(start, repository, artifact, tmp_path):
    mixed, other = tmp_path / "mixed", tmp_path / "demo.onnx"
    shutil.copytree(repository, mixed)
    edit_artifact(artifact, other, score_threshold=0.7)
    write_triton_repository(other, tmp_path / "other")
    shutil.copy(tmp_path / "other/demo_net/1/model.onnx", mixed / "demo_net/1/model.onnx")
    text = (repository / "demo_after/config.pbtxt").read_text()
    other_text = (tmp_path / "other/demo_after/config.pbtxt").read_text()
    assert text != other_text
    (mixed / "demo_after/config.pbtxt").write_text(other_text)
    with start(mixed) as (_, log):
        text = log.read_text(errors="replace")
    assert "Started HTTPService" not in text
    assert text.count("publish all of its models together") >= 2
