"""A value range and bands: from the metadata to the predictor, in both formats; and an artifact from memory."""

import json
import pickle

import numpy as np
import pytest
from bad_pictures import encode
from PIL import Image

from runtime import InputError, Predictor
from runtime.artifact import Metadata
from runtime.artifact_files.read import read_metadata
from runtime.errors import ArtifactCorruptError, ArtifactError


def same(first, second):
    np.testing.assert_array_equal(first.boxes, second.boxes)
    assert first.rles == second.rles


@pytest.fixture
def deep(picture):
    """The picture as a 12-bit camera gives it, with the same 8-bit values once it is scaled."""
    return np.rint(np.asarray(picture, np.float64) / 255 * 4095).astype(np.uint16)


def test_the_range_in_the_metadata_decides(doctored, predictor, picture, deep):
    path = doctored(pixels={"value_range": [0, 4095], "bands": None})
    with Predictor(path, "cpu", require_verdict=False) as scaled:
        assert scaled.value_range == (0, 4095)
        assert scaled.metadata.pixels.value_range == (0, 4095)
        expected = predictor(picture)
        assert len(expected)
        same(scaled(deep), expected)
        same(scaled(picture), expected)  # 8 bits stay as they are
        assert [len(found) for found in scaled.predict_batch([deep, picture])] == [len(expected)] * 2


def test_arguments_decide_over_the_metadata_and_are_pickled(artifact, picture, deep):
    with Predictor(artifact, "cpu", value_range=(0, 4095), bands=(3, 2, 1)) as scaled:
        expected = scaled(picture)
        same(scaled(deep), expected)
        turned = encode(Image.fromarray(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])))
        same(scaled(turned), expected)
        copy = pickle.loads(pickle.dumps(scaled))
        assert (copy.value_range, copy.bands) == ((0, 4095), (3, 2, 1))
        same(copy(deep), expected)
        copy.close()


@pytest.mark.parametrize("settings", [{"value_range": (3, 1)}, {"value_range": 7}, {"bands": (1, 2)}, {"bands": "321"}])
def test_settings_that_are_refused(onnx_artifact, settings):
    with pytest.raises(InputError, match="expected"):
        Predictor(onnx_artifact, "cpu", **settings)


def test_older_artifacts_and_damaged_metadata(artifact):
    values = json.loads(read_metadata(artifact).to_json())
    assert values.pop("pixels") == {"value_range": None, "bands": None}
    assert Metadata.from_json(json.dumps(values), "x").pixels.value_range is None
    for bad in ({"value_range": [1]}, {"other": 1}, [1], 7, {"bands": [0]}, {"value_range": [0, "a"]}):
        with pytest.raises(ArtifactCorruptError):
            Metadata.from_json(json.dumps(values | {"pixels": bad}), "x")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_an_artifact_from_memory(onnx_artifact, picture, kind):
    content = onnx_artifact.read_bytes()
    with Predictor(kind(content), "cpu") as given, Predictor(onnx_artifact, "cpu") as expected:
        path = given.path
        assert path.read_bytes() == content
        same(given(picture), expected(picture))
        with pickle.loads(pickle.dumps(given)) as copy:
            same(copy(picture), expected(picture))
        assert path.exists()
    assert not path.exists()
    given.close()


def test_bytes_that_are_no_artifact_leave_no_file(collect, onnx_artifact, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for content in (b"", b"no model", onnx_artifact.read_bytes()[:-5]):
        with pytest.raises(ArtifactError):
            Predictor(content, "cpu")
    predictor = Predictor(onnx_artifact.read_bytes(), "cpu")
    assert len(list(tmp_path.iterdir())) <= 2
    del predictor
    collect()
    assert not list(tmp_path.glob("*.onnx"))
