"""`maskrcnn-export edit`: every client sees the change, the verdict stays true, and nothing else is accepted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from fake_artifacts import VERDICT, metadata, recorded, write_artifact
from typer.testing import CliRunner

from export.cli import app
from export.edit import edit_artifact
from export.errors import EditError
from export.publish import VERDICT_SUFFIX, publish, write_onnx
from runtime import Predictor, read_metadata
from runtime.artifact import GRAPH_SHA256, SIGNATURE
from runtime.artifact_files.onnx_file import read_model, seal
from runtime.artifact_files.read import graph_digest
from runtime.artifact_files.savedmodel_folder import MANIFEST
from runtime.errors import ArtifactCorruptError, ArtifactError, ArtifactVerdictError, OutputError

WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"


def call(*arguments):
    return CliRunner().invoke(app, ["edit", *map(str, arguments)])


@pytest.fixture(params=[False, True], ids=["file", "folder"])
def fake(request, tmp_path):
    """Path of a sealed artifact without a model in it."""
    path = tmp_path / "fake"
    publish(path, metadata(request.param), write_artifact, lambda _path: VERDICT, overwrite=False)
    return path


@pytest.fixture
def copied(onnx_artifact, tmp_path):
    return Path(shutil.copy(onnx_artifact, tmp_path / "mine.onnx"))


def by_hand(path, change):
    """Change the metadata with a text editor, which knows of no digests."""
    if path.is_dir():
        content = json.loads((path / MANIFEST).read_text())
        change(content["metadata"])
        (path / MANIFEST).write_text(json.dumps(content))
    else:
        values = json.loads(read_metadata(path).to_json())
        change(values)
        sealed = seal(read_model(path), json.dumps(values))
        path.write_bytes(sealed[:-3] + b"000")


def test_a_renamed_class(fake):
    changes = edit_artifact(fake, rename={"thing": "\N{GREEN APPLE}"})
    found = read_metadata(fake)
    assert found.class_names == ("BG", "\N{GREEN APPLE}")
    assert changes == ("class 'thing' became '\N{GREEN APPLE}'",)
    assert found.edits[0].endswith(changes[0])
    assert found.verdict == recorded(VERDICT, fake)
    assert found.verdict_flaw(graph_digest(fake)) == ""
    assert json.loads(fake.with_name("fake.verdict.json").read_text()) == found.verdict
    edit_artifact(fake, rename={"\N{GREEN APPLE}": "thing"})
    again = read_metadata(fake)
    assert len(again.edits) == 2
    assert replace(again, edits=()) == replace(found, edits=(), class_names=("BG", "thing"))


def test_names_can_be_exchanged(onnx_artifact, tmp_path):
    edit_artifact(onnx_artifact, tmp_path / "out.onnx", rename={"square": "circle", "circle": "square"})
    found, before = read_metadata(tmp_path / "out.onnx"), read_metadata(onnx_artifact)
    assert found.class_names == ("BG", "circle", "square", "triangle")
    assert found.config["model"]["class_names"] == list(found.class_names)
    assert before.config["model"]["class_names"] == list(before.class_names)


def test_the_result_goes_elsewhere(fake, tmp_path):
    before, output = read_metadata(fake), tmp_path / "other"
    edit_artifact(fake, output, rename={"thing": "other"})
    assert read_metadata(fake) == before
    assert read_metadata(output).class_names == ("BG", "other")
    with pytest.raises(OutputError, match="already exists"):
        edit_artifact(fake, output, rename={"thing": "third"})
    edit_artifact(fake, output, rename={"thing": "third"}, overwrite=True)
    assert read_metadata(output).class_names == ("BG", "third")


def test_the_verdict_beside_another_artifact_is_not_replaced(fake, tmp_path):
    beside = tmp_path / f"other{VERDICT_SUFFIX}"
    beside.write_text("kept")
    with pytest.raises(OutputError, match="already exists"):
        edit_artifact(fake, tmp_path / "other", rename={"thing": "other"})
    assert beside.read_text() == "kept"
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rename": {"cat": "dog"}}, "no class 'cat'"),
        ({"rename": {"BG": "dog"}}, "no class 'BG'"),
        ({"rename": {"thing": ""}}, "empty"),
        ({"rename": {"thing": "BG"}}, "'BG'"),
        ({"score_threshold": 1.5}, "score_threshold"),
        ({"nms_threshold": -0.1}, "nms_threshold"),
        ({"score_threshold": float("nan")}, "score_threshold"),
        ({}, "nothing to do"),
        ({"score_threshold": 0.3}, "no default"),
    ],
    ids=str,
)
def test_what_cannot_be_changed(tmp_path, options, words):
    path = tmp_path / "fake"
    publish(
        path,
        metadata(False),
        lambda target, given: write_onnx(b"", target, given),
        lambda _path: VERDICT,
        overwrite=False,
    )
    before = path.read_bytes()
    with pytest.raises(EditError, match=words):
        edit_artifact(path, **options)
    assert path.read_bytes() == before
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if name != "rename"]
    arguments += [f"--rename={old}={new}" for old, new in options.get("rename", {}).items()]
    result = call(path, *arguments)
    assert result.exit_code == 2, result.output
    assert path.read_bytes() == before


def test_metadata_changed_by_hand(fake):
    by_hand(fake, lambda values: values.update(name="a new name"))
    with pytest.raises(ArtifactCorruptError, match="'maskrcnn edit ARTIFACT'"):
        Predictor(fake, "cpu")
    assert call(fake).exit_code == 0
    found = read_metadata(fake)
    assert found.name == "a new name"
    assert "by hand" in found.edits[0]
    assert found.verdict_flaw(graph_digest(fake)) == ""


def test_metadata_changed_by_hand_must_be_sound(fake):
    by_hand(fake, lambda values: values.update(max_detections=-1))
    with pytest.raises(ArtifactError, match="max_detections"):
        edit_artifact(fake)


def test_a_verdict_changed_by_hand_is_refused(fake):
    by_hand(fake, lambda values: values["verdict"].update(engine="another"))
    with pytest.raises(ArtifactError, match="verdict"):
        edit_artifact(fake)


def test_a_graph_changed_by_hand_is_refused(fake):
    if fake.is_dir():
        (fake / "weights").write_bytes(b"other weights")
    else:
        content = fake.read_bytes()
        fake.write_bytes(b"\x3a\x00" + content)  # an empty graph in front
    result = call(fake)
    assert result.exit_code == 4
    assert "another graph" in result.stderr
    assert "maskrcnn verify" in result.stderr


def test_a_file_for_a_server(tmp_path):
    path = tmp_path / "fake"
    publish(path, metadata(True), write_artifact, lambda _path: VERDICT, overwrite=False)
    (path / WARM_UP).parent.mkdir()
    (path / WARM_UP).write_bytes(b"requests")
    with pytest.raises(ArtifactCorruptError, match=r"not part of it.*maskrcnn edit"):
        read_metadata(path)
    assert call(path).exit_code == 0
    assert (path / WARM_UP).read_bytes() == b"requests"
    found = read_metadata(path)
    assert found.verdict == recorded(VERDICT, path)
    (path / "notes.txt").write_text("not for a server")
    with pytest.raises(ArtifactVerdictError, match="another graph"):
        edit_artifact(path)


def test_an_artifact_that_is_not_proven_is_not_edited(tmp_path):
    path = tmp_path / "fake"
    path.write_bytes(seal(b"", replace(metadata(False), verdict=VERDICT.to_dict() | {"passed": False}).to_json()))
    with pytest.raises(ArtifactVerdictError, match="failed"):
        edit_artifact(path, rename={"thing": "other"})


def test_show_names_the_edits(fake):
    edit_artifact(fake, rename={"thing": "apple"})
    shown = CliRunner().invoke(app, ["show", str(fake)]).stdout
    assert "class 'thing' became 'apple'" in shown
    assert "proven      yes" in shown


@pytest.fixture
def older(copied):
    """An artifact as older versions wrote it: thresholds have defaults in the graph."""
    model = onnx.load_model_from_string(read_model(copied))
    for name in ("score_threshold", "nms_threshold"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5).reshape(()), name))
    write_onnx(model.SerializeToString(), copied, read_metadata(copied))
    values = read_metadata(copied)
    bound = replace(values, verdict={**values.verdict, GRAPH_SHA256: graph_digest(copied)})
    write_onnx(model.SerializeToString(), copied, bound)
    return copied


def test_another_default_in_onnx_is_that_of_a_predictor(copied, picture):
    with Predictor(copied, "cpu", score_threshold=0.99) as predictor:
        expected = predictor(picture).scores
    graph = read_model(copied)
    edit_artifact(copied, score_threshold=0.99)
    assert read_model(copied) == graph  # every run sets the thresholds
    with Predictor(copied, "cpu") as predictor:
        assert predictor.score_threshold == 0.99
        np.testing.assert_array_equal(predictor(picture).scores, expected)


def test_constants_cannot_be_changed(constant_artifact, tmp_path):
    path = Path(shutil.copy(constant_artifact, tmp_path / "mine.onnx"))
    for options in ({"score_threshold": 0.6}, {"nms_threshold": 0.4}):
        with pytest.raises(EditError, match="constants in its graph"):
            edit_artifact(path, **options)
    edit_artifact(path, rename={"square": "box"})
    for name in ("score_threshold", "nms_threshold"):
        by_hand(path, lambda values, name=name: values.update({name: 0.25}))
        with pytest.raises(EditError, match="constants in its graph"):
            edit_artifact(path)
        shutil.copy(constant_artifact, path)


def test_another_default_in_an_older_artifact_is_every_clients(older, picture):
    copied = older
    with Predictor(copied, "cpu", score_threshold=0.99, nms_threshold=0.2) as predictor:
        letterbox, prepared = predictor.prepare(picture)
        feeds = {"images": prepared[None], "windows": np.array([letterbox.window], np.float32)}
        expected = predictor.run(**feeds)
    assert call(copied, "--score-threshold", 0.99, "--nms-threshold", 0.2).exit_code == 0
    found = read_metadata(copied)
    assert (found.score_threshold, found.nms_threshold) == (0.99, 0.2)
    assert (found.config["detection"]["min_score"], found.config["detection"]["nms_threshold"]) == (0.99, 0.2)
    with Predictor(copied, "cpu") as predictor:
        np.testing.assert_array_equal(predictor.run(**feeds)["scores"], expected["scores"])
    session = ort.InferenceSession(str(copied), providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], feeds)  # a client that knows nothing of thresholds
    np.testing.assert_array_equal(scores, expected["scores"])
    assert 0 < (scores > 0).sum() < 7  # of seven objects in the picture


def test_only_the_default_of_the_graph_changes(older, tmp_path):
    edit_artifact(older, tmp_path / "edited.onnx", score_threshold=0.25)
    before, after = (onnx.load_model_from_string(read_model(path)) for path in (older, tmp_path / "edited.onnx"))
    for model in (before, after):
        (index,) = [i for i, tensor in enumerate(model.graph.initializer) if tensor.name == "score_threshold"]
        value = onnx.numpy_helper.to_array(model.graph.initializer[index])
        assert value == (0.25 if model is after else read_metadata(older).score_threshold)
        del model.graph.initializer[index]
    assert before == after


def test_another_default_in_a_savedmodel_is_every_clients(savedmodel_artifact, tmp_path, picture):
    import tensorflow as tf

    path = shutil.copytree(savedmodel_artifact, tmp_path / "mine")
    with Predictor(path, "cpu", score_threshold=0.99) as predictor:
        letterbox, prepared = predictor.prepare(picture)
        feeds = {"images": prepared[None], "windows": np.array([letterbox.window], np.float32)}
        expected = predictor.run(**feeds)["scores"]
    assert call(path, "--score-threshold", 0.99).exit_code == 0
    with Predictor(path, "cpu") as predictor:
        np.testing.assert_array_equal(predictor.run(**feeds)["scores"], expected)
    loaded = tf.saved_model.load(str(path))
    tensors = {name: tf.constant(value) for name, value in feeds.items()}
    np.testing.assert_array_equal(loaded.detect(**tensors)["scores"].numpy(), expected)
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    defaults = saved.meta_graphs[0].signature_def[SIGNATURE].defaults  # what TensorFlow Serving reads
    assert defaults["score_threshold"].float_val[0] == np.float32(0.99)
    assert defaults["nms_threshold"].float_val[0] == np.float32(read_metadata(path).nms_threshold)
