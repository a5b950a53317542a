"""The Python models of a repository with a stand-in for Triton's module: results, errors, digests, NumPy's arrays."""

import importlib.util
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from bad_pictures import tiff_of_samples
from google.protobuf import json_format, text_format
from PIL import Image
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.serving.triton import TritonOptions, write_triton_repository
from runtime import Predictor
from runtime.artifact import OUTPUT_NAMES
from runtime.errors import ArtifactCorruptError, EngineError
from runtime.pictures.letterbox import ResizePolicy
from runtime.pictures.pixels import PixelPolicy


class Tensor:
    """Keeps an array as DLPack brought it; `as_numpy` may be broken, as in builds for NumPy 1."""

    conversion = staticmethod(lambda array: array)
    passage = staticmethod(lambda array: array)

    def __init__(self, name, array):
        self.name, self._array = name, array

    @classmethod
    def from_dlpack(cls, name, capsule):
        class Exported:  # NumPy takes objects, not capsules
            def __dlpack__(self, **_options):
                return capsule

            def __dlpack_device__(self):
                return 1, 0

        return cls(name, cls.passage(np.from_dlpack(Exported())))

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()

    def as_numpy(self):
        return self.conversion(self._array)


class TritonError(Exception):
    INVALID_ARG, INTERNAL = "400", "500"

    def __init__(self, message, code):
        self.message, self.code = message, code


@pytest.fixture
def triton(monkeypatch):
    """The module that Triton's processes have."""
    warnings = []
    kind = type("Tensor", (Tensor,), {})
    module = SimpleNamespace(
        Tensor=kind,
        TritonError=TritonError,
        InferenceResponse=lambda output_tensors, error=None: SimpleNamespace(tensors=output_tensors, error=error),
        get_input_tensor_by_name=lambda request, name: request[name],
        Logger=SimpleNamespace(log_warn=warnings.append),
        warnings=warnings,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    return module


def load(folder, digest=None):
    """Load a model as Triton does: its file, its configuration as JSON, its place."""
    config = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
    if digest is not None:
        config.parameters["maskrcnn_sha256"].string_value = digest
    specification = importlib.util.spec_from_file_location(folder.name, folder / "1" / "model.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    model = module.TritonPythonModel()
    values = json_format.MessageToDict(config, preserving_proto_field_name=True)
    arguments = {"model_config": json.dumps(values), "model_repository": str(folder)}
    model.initialize(arguments | {"model_version": "1", "model_name": folder.name})
    return model


def ask(triton, model, **arrays):
    (response,) = model.execute([{name: triton.Tensor(name, array) for name, array in arrays.items()}])
    if response.error is not None:
        raise response.error
    return {tensor.name: np.from_dlpack(tensor) for tensor in response.tensors}


def parts(repository, name):
    network = repository / f"{name}_net" / "1" / "model.onnx"
    return SimpleNamespace(
        before=load(repository / f"{name}_before"),
        after=load(repository / f"{name}_after"),
        session=ort.InferenceSession(network, providers=["CPUExecutionProvider"]),
    )


@pytest.fixture
def models(triton, repository):
    return parts(repository, "shapes")


def run(models, prepared):
    """Run the network as Triton does, whose tensors all have an axis."""
    inputs = {name: prepared[name] for name in ("images", "windows")}
    outputs = dict(zip(OUTPUT_NAMES, models.session.run(OUTPUT_NAMES, inputs), strict=True))
    return outputs | {"num_detections": outputs["num_detections"][:, None], "image_size": prepared["image_size"]}


def encoded(path):
    return np.frombuffer(path.read_bytes(), np.uint8)


def test_an_image_becomes_the_json_of_predictor(triton, models, packaged, pytestconfig, tmp_path, picture):
    Image.fromarray(picture[:, :199]).convert("L").save(tmp_path / "gray.png")
    with Predictor(packaged, "cpu") as predictor:
        for path in (pytestconfig.rootpath / "maskrcnn" / "demo.jpg", tmp_path / "gray.png"):
            prepared = ask(triton, models.before, image=encoded(path))
            letterbox, image = predictor.prepare(path)
            np.testing.assert_array_equal(prepared["images"], image[None])
            assert prepared["windows"].tolist() == [list(letterbox.window)]
            assert prepared["image_size"].tolist() == [list(letterbox.image_size)]
            found = ask(triton, models.after, **run(models, prepared))
            expected = json.loads(predictor(path).to_json())
            assert json.loads(found["detections"].tobytes()) == expected | {"device": None}
            assert expected["detections"]


def test_images_of_a_network_for_a_fixed_batch(triton, fixed, pytestconfig, tmp_path):
    """The network takes fewer, as they arrive, and so do the models around it."""
    path, encoded_image = fixed(4), encoded(pytestconfig.rootpath / "maskrcnn" / "demo.jpg")
    write_triton_repository(path, tmp_path / "out", options=TritonOptions("fixed"))
    found = parts(tmp_path / "out", "fixed")
    answer = ask(triton, found.after, **run(found, ask(triton, found.before, image=encoded_image)))
    with Predictor(path, "cpu") as predictor:
        rows = json.loads(predictor(encoded_image.tobytes()).to_json())["detections"]
    assert [row["mask"] for row in json.loads(answer["detections"].tobytes())["detections"]] == [
        row["mask"] for row in rows
    ]


@pytest.mark.parametrize(
    ("channels", "pixels", "resize"),
    [
        (3, PixelPolicy((0, 4095), (6, 2, 4)), ResizePolicy("square", 96, 256, 0)),
        (6, PixelPolicy((31, 3000)), ResizePolicy("fit64", 192, 256, 0)),
        (4, PixelPolicy((0, 4095), (2, 6, 4, 1)), ResizePolicy("pad64", 192)),
    ],
    ids=["range-bands", "range-6-fit64", "range-4-bands-pad64"],
)
def test_deep_images_of_many_bands(triton, of_bands, tmp_path, picture, channels, pixels, resize):
    path = of_bands(channels, pixels=pixels, resize=resize)
    write_triton_repository(path, tmp_path / "out", options=TritonOptions("bands", thresholds=True))
    models, places = parts(tmp_path / "out", "bands"), [1, 0, 2, 2, 1, 0]
    samples = (picture[:, :199, places].astype(np.uint16) * 16).clip(0, 4095)
    image = np.frombuffer(tiff_of_samples(samples), np.uint8)
    with Predictor(path, "cpu") as predictor:
        expected = json.loads(predictor(image.tobytes()).to_json())
        prepared = ask(triton, models.before, image=image)
        assert prepared["images"].shape[3] == channels
        np.testing.assert_array_equal(prepared["images"][0], predictor.prepare(image.tobytes())[1])
        found = ask(triton, models.after, **run(models, prepared))
        assert json.loads(found["detections"].tobytes()) == expected | {"device": None}
        for bad in (tiff_of_samples(samples[:, :, :2]), tiff_of_samples(samples.astype(np.float32) * np.nan)):
            (refused,) = predictor.predict_stream([bad], on_error="yield")
            with pytest.raises(TritonError) as caught:
                ask(triton, models.before, image=np.frombuffer(bad, np.uint8))
            assert caught.value.message == str(refused)
    assert expected["detections"]


@pytest.mark.parametrize("content", [b"", b"poison", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "cut"])
def test_a_bad_image_is_the_clients_fault(triton, models, content):
    with pytest.raises(TritonError) as caught:
        ask(triton, models.before, image=np.frombuffer(content, np.uint8))
    assert caught.value.code == TritonError.INVALID_ARG
    assert "image of" in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_detections", -1, "did not suffice"),
        ("num_detections", 51, "expected 0 to 50"),
        ("scores", np.nan, "expected 0 to 1"),
        ("masks", 2, "expected 0 to 1"),
        ("boxes", np.inf, "boxes outside the image"),
        ("class_ids", 9, "class_ids out of range"),
    ],
)
def test_what_a_network_must_not_return_is_an_error(triton, models, pytestconfig, name, value, message):
    prepared = ask(triton, models.before, image=encoded(pytestconfig.rootpath / "maskrcnn" / "demo.jpg"))
    outputs = run(models, prepared)
    outputs[name] = np.full_like(outputs[name], value)
    with pytest.raises(TritonError) as caught:
        ask(triton, models.after, **outputs)
    assert caught.value.code == TritonError.INTERNAL
    assert message in caught.value.message


def test_requests_are_answered_one_by_one(triton, models, pytestconfig):
    good = triton.Tensor("image", encoded(pytestconfig.rootpath / "maskrcnn" / "demo.jpg"))
    bad = triton.Tensor("image", np.zeros(9, np.uint8))
    answers = models.before.execute([{"image": good}, {"image": bad}, {"image": good}])
    assert [answer.error is None for answer in answers] == [True, False, True]


def test_a_model_with_another_digest_is_not_loaded(triton, repository):
    for part in ("before", "after"):
        with pytest.raises(ArtifactCorruptError, match="publish all of its models together"):
            load(repository / f"shapes_{part}", digest="0" * 64)


def test_models_beside_another_network_are_not_loaded(triton, repository, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(repository, mixed)
    shutil.copy(mixed / "shapes_net_thresholds/1/model.onnx", mixed / "shapes_net/1/model.onnx")
    for part in ("before", "after"):
        with pytest.raises(ArtifactCorruptError, match="publish all of its models together"):
            load(mixed / f"shapes_{part}")
    shutil.rmtree(mixed / "shapes_net")  # as in the folder to which Triton copies a model of a bucket
    load(mixed / "shapes_before")


def test_a_broken_conversion_to_numpy_is_said_and_not_used(triton, repository, pytestconfig):
    def broken(_array):
        raise AssertionError("used")

    triton.Tensor.conversion = staticmethod(lambda array: array * 0)
    model = load(repository / "shapes_before")
    (sentence,) = triton.warnings
    assert f"does not work with NumPy {np.__version__}" in sentence
    triton.Tensor.conversion = staticmethod(broken)
    assert ask(triton, model, image=encoded(pytestconfig.rootpath / "maskrcnn" / "demo.jpg"))
    load(repository / "shapes_after")
    assert len(triton.warnings) == 2  # an error counts as well


def test_a_working_conversion_is_not_mentioned(triton, repository):
    load(repository / "shapes_before")
    assert triton.warnings == []


def test_a_triton_that_changes_values_is_refused(triton, repository):
    triton.Tensor.passage = staticmethod(lambda array: array + 1)
    with pytest.raises(EngineError, match="returns other values than it was given"):
        load(repository / "shapes_before")
