"""`maskrcnn-export` as a user meets it: usage, happy paths, and one line with an exit code for every failure."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from export.cli import app
from export.edit import edit_artifact
from export.verify import pictures
from export.verify.verdict import Verdict
from maskrcnn import demo_model
from maskrcnn.checkpoints.checkpoint import save_checkpoint, save_matterport
from maskrcnn.checkpoints.named_weights import HEAD_LAYERS, get_arrays
from runtime import Predictor
from runtime.artifact_files.read import read_metadata
from runtime.errors import ArtifactCorruptError

REPOSITORY = Path(__file__).parents[2]
NOT_EQUAL, USAGE, MISSING, UNUSABLE, PICTURE, OUTPUT = 1, 2, 3, 4, 5, 6


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeeded(*arguments):
    """Return stdout of a command that must succeed."""
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    assert "error" not in result.stderr
    return result.stdout


def failed(code, *arguments):
    """Return the error message of a command that must fail with this exit code."""
    return error_of(call(*arguments), code)


def error_of(result, code):
    """Return the error message of a failed command: one line, no traceback."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("... ", "warning: "))]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.output
    assert "wrote" not in result.stdout
    return lines[0].removeprefix("error: ")


@pytest.fixture(scope="session")
def checkpoints(tiny, make_tiny, tmp_path_factory):
    """A folder with checkpoints of the tiny model, sound and broken, and configurations."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save_checkpoint(tiny, folder / "tiny.weights.h5")
    save_matterport(tiny, folder / "matterport.h5")
    (folder / "tiny.json").write_text(tiny.config.to_json())
    values = tiny.config.to_dict()
    values["model"]["class_names"] = ["BG", "a", "b", "c", "d", "e"]
    (folder / "six.json").write_text(json.dumps(values))
    values = tiny.config.to_dict()
    values["model"]["backbone"] = "resnet50"
    (folder / "resnet50.json").write_text(json.dumps(values))
    whole = (folder / "tiny.weights.h5").read_bytes()
    (folder / "empty.h5").write_bytes(b"")
    (folder / "truncated.h5").write_bytes(whole[: len(whole) // 2])
    (folder / "text.h5").write_text("these are no weights")
    return folder


# Usage


@pytest.mark.parametrize(
    "arguments",
    [
        ("onnx",),
        ("savedmodel",),
        ("verify",),
        ("onnx", "demo", "-o", "x", "--opzet", "17"),
        ("convert",),
        ("onnx", "demo", "-o", "x", "--opset", "new"),
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments):
    result = call(*arguments)
    assert result.exit_code == USAGE
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments", [("onnx", "-o", "x.onnx"), ("savedmodel", "-o", "x"), ("verify", "x.onnx")], ids=lambda line: line[0]
)
def test_a_forgotten_checkpoint_is_not_the_demo(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == USAGE
    assert re.search(r"checkpoint\b.*\bdemo\b", result.output, re.IGNORECASE | re.DOTALL)
    assert list(tmp_path.iterdir()) == []


# Happy paths


def test_onnx_of_a_checkpoint(checkpoints, one_picture, tmp_path, picture):
    output = tmp_path / "new folder" / "model.onnx"
    source = checkpoints / "tiny.weights.h5"
    shown = succeeded("onnx", source, "-o", output, "--opset", 18, "--verify-images", one_picture)
    assert "verdict: passed" in shown
    assert f"wrote {output}" in shown
    metadata = read_metadata(output)
    assert (metadata.name, metadata.opset) == ("tiny", 18)
    assert metadata.checkpoint["name"] == "tiny.weights.h5"
    assert len(metadata.checkpoint["sha256"]) == 64
    assert len(Predictor(output, device="cpu")(picture)) > 0
    message = failed(OUTPUT, "onnx", source, "-o", output)
    assert "already exists" in message
    assert "--force" in message


def test_savedmodel_of_a_matterport_file_described_by_a_configuration(checkpoints, one_picture, tmp_path):
    output = tmp_path / "model"
    (output / "assets").mkdir(parents=True)
    for name in ("artifact.json", "old"):
        (output / "assets" / name).write_text("to be replaced")
    arguments = ("savedmodel", checkpoints / "matterport.h5", "--config", checkpoints / "tiny.json", "-o", output)
    shown = succeeded(*arguments, "--verify-images", one_picture, "--force")
    assert "verdict: passed" in shown
    assert read_metadata(output).format == "savedmodel"
    assert not (output / "assets" / "old").exists()
    assert "verdict: passed" in succeeded(
        "verify", output, "--against", checkpoints / "tiny.weights.h5", "--verify-images", one_picture
    )


def test_heads_of_another_number_of_classes_are_left_out(checkpoints, tiny, tmp_path, monkeypatch):
    given = []

    def export(model, _output, **_options):
        given.append(model)
        return Verdict("model", "engine", 0.5, 0.3, [], [])

    monkeypatch.setattr("export.to_onnx.export_onnx", export)
    source, config = checkpoints / "matterport.h5", checkpoints / "six.json"
    result = call("onnx", source, "--config", config, "--exclude-heads", "-o", tmp_path / "m.onnx")
    assert result.exit_code == 0
    assert "6 excluded" in result.stderr
    arrays, theirs = get_arrays(given[0]), get_arrays(tiny)
    assert arrays["mrcnn_class_logits/bias"].shape == (6,)
    others = [name for name in theirs if name.split("/")[0] not in HEAD_LAYERS]
    assert len(others) == len(theirs) - 6
    for name in others:
        np.testing.assert_array_equal(arrays[name], theirs[name])


@pytest.mark.parametrize("kind", ["onnx", "savedmodel"])
def test_show(request, kind):
    shown = succeeded("show", request.getfixturevalue(f"{kind}_artifact"))
    assert f"{kind}, model 'demo'" in shown
    assert "4: BG, square, circle, triangle" in shown
    assert "verdict     passed" in shown
    assert "proven      yes" in shown
    for name in ("images", "windows", "score_threshold", "nms_threshold", "boxes", "masks"):
        assert f"    {name} " in shown
    assert "score 0.5, nms 0.5 (inputs, set by every run)" in shown


def test_show_of_constant_thresholds(constant_artifact):
    shown = succeeded("show", constant_artifact)
    assert "score 0.5, nms 0.5 (constants" in shown
    assert "    score_threshold " not in shown


@pytest.mark.parametrize("command", ["onnx", "savedmodel"])
def test_thresholds_are_inputs_or_constants(checkpoints, tmp_path, monkeypatch, command):
    given = []

    def export(_model, _output, *, target=None, thresholds=None, **_options):
        given.append(thresholds or target.thresholds)
        return Verdict("model", "engine", 0.5, 0.3, [], [])

    monkeypatch.setattr(f"export.to_{command}.export_{command}", export)
    for options in ([], ["--thresholds", "inputs"], ["--thresholds", "constants"]):
        succeeded(command, checkpoints / "tiny.weights.h5", "-o", tmp_path / "m.onnx", *options)
    assert given == ["inputs", "inputs", "constants"]
    assert call(command, "demo", "-o", tmp_path / "m.onnx", "--thresholds", "defaults").exit_code == 2


def test_verify_against_the_demo_model(onnx_artifact, one_picture):
    shown = succeeded("verify", onnx_artifact, "--against", "demo", "--verify-images", one_picture)
    assert "(stages on the cpu) against keras" in shown
    assert "verdict: passed" in shown


@pytest.mark.parametrize("edited", [False, True], ids=["another graph", "edited"])
def test_verify_gives_an_artifact_the_verdict_that_it_lacks(onnx_artifact, one_picture, tmp_path, edited):
    """An artifact that another tool rewrote, or one with other names and defaults, is proven as it is."""
    path, output = tmp_path / "rewritten.onnx", tmp_path / "proven.onnx"
    if edited:
        edit_artifact(onnx_artifact, path, rename={"square": "box"}, nms_threshold=0.7)
    model = onnx.load(path if edited else onnx_artifact)
    model.graph.doc_string = "optimized"
    onnx.save(model, path)
    with pytest.raises(ArtifactCorruptError):
        Predictor(path, "cpu")
    arguments = ("verify", path, "--against", "demo", "--verify-images", one_picture, "-o", output)
    assert f"wrote {output}" in succeeded(*arguments)
    with Predictor(output, "cpu") as predictor:
        assert predictor.class_names[1] == ("box" if edited else "square")
        assert predictor.metadata.verdict["engine"].endswith("(stages on the cpu)")
    assert json.loads((tmp_path / "proven.onnx.verdict.json").read_text()) == predictor.metadata.verdict
    assert "already exists" in failed(OUTPUT, *arguments)


def test_a_checkpoint_called_demo_is_not_the_demo_model(checkpoints, tiny, one_picture, tmp_path, monkeypatch):
    given = []

    def export(model, _output, checkpoint, **_options):
        given.append((model.config.name, checkpoint))
        return Verdict("model", "engine", 0.5, 0.3, [], [])

    monkeypatch.setattr("export.to_savedmodel.export_savedmodel", export)
    monkeypatch.chdir(tmp_path)
    succeeded("savedmodel", "demo", "-o", "x")
    (tmp_path / "demo").mkdir()
    succeeded("savedmodel", "demo", "-o", "x")
    (tmp_path / "demo").rmdir()
    shutil.copy(checkpoints / "tiny.weights.h5", "demo")
    succeeded("savedmodel", "demo", "-o", "x")
    assert [(name, facts["name"]) for name, facts in given[:2]] == [("demo", "demo model")] * 2
    name, facts = given[2]
    assert (name, facts["name"], len(facts["sha256"])) == (tiny.config.name, "demo", 64)


def test_the_demo_model_is_described_as_any_checkpoint(checkpoints, tmp_path):
    arguments = ("onnx", "demo", "--config", checkpoints / "resnet50.json", "-o", tmp_path / "m.onnx")
    assert "has another architecture" in failed(UNUSABLE, *arguments)


def test_verify_against_other_weights(onnx_artifact, one_picture, tmp_path):
    model = demo_model()
    bias = next(v for v in model.mask_head.get_layer("mrcnn_mask").variables if v.name == "bias")
    bias.assign(bias.numpy() + np.float32(0.01))
    save_checkpoint(model, tmp_path / "other.weights.h5")
    arguments = ("verify", onnx_artifact, "--against", tmp_path / "other.weights.h5", "--verify-images", one_picture)
    arguments += ("-o", tmp_path / "never.onnx")
    result = call(*arguments)
    assert "the artifact does not match the model: stage 'mask head': masks differs" in error_of(result, NOT_EQUAL)
    assert "verdict: FAILED" in result.stdout
    assert not (tmp_path / "never.onnx").exists()


def test_demo(tiny, tmp_path, monkeypatch):
    """The whole command, with a smaller model to save time."""
    monkeypatch.setattr("maskrcnn.demo.demo_model", lambda: tiny)
    bundled = pictures._bundled
    monkeypatch.setattr(pictures, "_bundled", lambda channels: bundled(channels)[:1])
    shown = succeeded("demo", "-o", tmp_path / "out")
    written = [line.removeprefix("wrote ") for line in shown.splitlines() if line.startswith("wrote ")]
    assert sorted(Path(path).name for path in written) == [
        "demo.onnx",
        "demo.onnx.verdict.json",
        "demo_savedmodel",
        "demo_savedmodel.verdict.json",
        "image.png",
        "overlay_demo.png",
        "overlay_demo_savedmodel.png",
    ]
    assert all(Path(path).exists() for path in written)
    with Image.open(tmp_path / "out" / "image.png") as picture:
        before = np.asarray(picture)
    for name in ("overlay_demo.png", "overlay_demo_savedmodel.png"):
        with Image.open(tmp_path / "out" / name) as overlay:
            assert overlay.size == (480, 360)
            assert (np.asarray(overlay.convert("RGB")) != before).any()
    assert shown.count("verdict: passed") == 2


# Checkpoints and configurations that cannot be used


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.h5", "there is no checkpoint at"),
        ("empty.h5", "is empty"),
        ("truncated.h5", "is truncated or damaged"),
        ("text.h5", "is not an HDF5 file"),
        ("", "is a folder"),
    ],
)
@pytest.mark.parametrize("command", ["onnx", "savedmodel"])
def test_checkpoint_that_cannot_be_read(checkpoints, tmp_path, command, name, message):
    assert message in failed(UNUSABLE, command, checkpoints / name, "-o", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_that_cannot_be_read_for_verify(checkpoints, onnx_artifact):
    message = failed(UNUSABLE, "verify", onnx_artifact, "--against", checkpoints / "truncated.h5")
    assert "is truncated or damaged" in message


def test_flipped_byte_in_a_checkpoint(checkpoints, tmp_path):
    content = bytearray((checkpoints / "tiny.weights.h5").read_bytes())
    content[len(content) * 3 // 4] ^= 1
    (tmp_path / "flipped.weights.h5").write_bytes(content)
    assert "damaged" in failed(UNUSABLE, "onnx", tmp_path / "flipped.weights.h5", "-o", tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ("six.json", ["trained for 4 classes", "has 6", "--exclude-heads"]),
        ("resnet50.json", ["has another architecture", "'backbone'"]),
    ],
    ids=["other class count", "other architecture"],
)
def test_checkpoint_of_another_model(checkpoints, tmp_path, config, parts):
    arguments = ("onnx", checkpoints / "matterport.h5", "--config", checkpoints / config, "-o", tmp_path / "m.onnx")
    message = failed(UNUSABLE, *arguments)
    assert all(part in message for part in parts)


def test_checkpoint_that_does_not_describe_itself(checkpoints, tmp_path):
    message = failed(UNUSABLE, "onnx", checkpoints / "matterport.h5", "-o", tmp_path / "m.onnx")
    assert "does not store a model configuration" in message
    assert "--config" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"model": {"backbonne": "resnet18"}}',
            "unknown setting 'backbonne' in config.model: did you mean 'backbone'?",
        ),
        ("{not json", "is not JSON"),
        ("[1, 2]", "is not a JSON object"),
        ('{"model": {"fpn_channels": "many"}}', "config.model.fpn_channels is 'many'"),
        ('{"detection": {"min_score": 1.5}}', "min_score is 1.5"),
        (b"\xff\xfe\x00", "it is not UTF-8 text"),
        (None, "cannot read the configuration"),
    ],
    ids=["unknown key", "not JSON", "not an object", "wrong type", "out of range", "not text", "missing file"],
)
def test_configuration_that_cannot_be_used(checkpoints, tmp_path, text, message):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    arguments = ("onnx", checkpoints / "matterport.h5", "--config", path, "-o", tmp_path / "m.onnx")
    assert message in failed(UNUSABLE, *arguments)


def test_opset_that_is_not_offered(checkpoints, tmp_path):
    result = call("onnx", checkpoints / "tiny.weights.h5", "-o", tmp_path / "m.onnx", "--opset", 16)
    assert result.exit_code == USAGE
    assert "than or equal to 17" in result.output


# Outputs and images that cannot be used


@pytest.mark.parametrize("command", ["onnx", "savedmodel"])
def test_existing_output(checkpoints, tmp_path, command):
    output = tmp_path / "model"
    output.write_text("mine")
    message = failed(OUTPUT, command, checkpoints / "tiny.weights.h5", "-o", output)
    assert "--force" in message
    assert output.read_text() == "mine"


def test_folder_with_other_things_is_never_replaced(checkpoints, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    arguments = ("savedmodel", checkpoints / "tiny.weights.h5", "-o", tmp_path / "photos", "--force")
    assert "never replaced" in failed(OUTPUT, *arguments)
    assert (tmp_path / "photos" / "a.jpg").read_text() == "mine"


@pytest.mark.parametrize("command", ["onnx", "savedmodel"])
def test_output_below_a_file(checkpoints, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    message = failed(OUTPUT, command, checkpoints / "tiny.weights.h5", "-o", tmp_path / "file" / "model")
    assert "is a file, not a folder" in message


def test_demo_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    failed(OUTPUT, "demo", "-o", tmp_path / "file")
    failed(OUTPUT, "demo", "-o", tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["onnx", "savedmodel"])
def test_verification_pictures_that_are_not_there(checkpoints, tmp_path, command):
    arguments = (command, checkpoints / "tiny.weights.h5", "-o", tmp_path / "m", "--verify-images")
    assert "is not a folder" in failed(PICTURE, *arguments, tmp_path / "nowhere")
    (tmp_path / "pictures").mkdir()
    assert "has no images" in failed(PICTURE, *arguments, tmp_path / "pictures")
    (tmp_path / "pictures" / "a.png").write_bytes(b"no picture")
    assert "a.png" in failed(PICTURE, *arguments, tmp_path / "pictures")
    assert not (tmp_path / "m").exists()


def test_verification_pictures_for_verify(onnx_artifact, tmp_path):
    arguments = ("verify", onnx_artifact, "--against", "demo", "--verify-images", tmp_path / "nowhere")
    assert "is not a folder" in failed(PICTURE, *arguments)


# Artifacts that cannot be used


def missing(tmp_path, _onnx, _savedmodel):
    return tmp_path / "nowhere.onnx"


def tampered_file(tmp_path, onnx, _savedmodel):
    content = bytearray(onnx.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "tampered.onnx").write_bytes(content)
    return tmp_path / "tampered.onnx"


def truncated_file(tmp_path, onnx, _savedmodel):
    (tmp_path / "truncated.onnx").write_bytes(onnx.read_bytes()[:-1000])
    return tmp_path / "truncated.onnx"


def empty_file(tmp_path, _onnx, _savedmodel):
    (tmp_path / "empty.onnx").write_bytes(b"")
    return tmp_path / "empty.onnx"


def foreign_file(tmp_path, _onnx, _savedmodel):
    from onnx import TensorProto, helper, save

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([], "g", [value], [value])
    save(helper.make_model(graph), tmp_path / "foreign.onnx")
    return tmp_path / "foreign.onnx"


def tampered_folder(tmp_path, _onnx, savedmodel):
    shutil.copytree(savedmodel, tmp_path / "tampered")
    (tmp_path / "tampered" / "fingerprint.pb").write_bytes(b"other")
    return tmp_path / "tampered"


def foreign_folder(tmp_path, _onnx, savedmodel):
    shutil.copytree(savedmodel, tmp_path / "foreign")
    (tmp_path / "foreign" / "assets" / "artifact.json").unlink()
    return tmp_path / "foreign"


SPOILED = [
    (missing, "there is no artifact at"),
    (tampered_file, "was changed after it was exported"),
    (truncated_file, "truncated"),
    (empty_file, "is empty"),
    (foreign_file, "maskrcnn-export did not write"),
    (tampered_folder, "fingerprint.pb is changed"),
    (foreign_folder, "maskrcnn-export did not write"),
]


@pytest.mark.parametrize("command", ["show", "verify"])
@pytest.mark.parametrize(("spoil", "message"), SPOILED, ids=[spoil.__name__ for spoil, _ in SPOILED])
def test_artifact_that_cannot_be_used(
    onnx_artifact, savedmodel_artifact, checkpoints, tmp_path, command, spoil, message
):
    against = ("--against", checkpoints / "tiny.weights.h5") if command == "verify" else ()
    assert message in failed(UNUSABLE, command, spoil(tmp_path, onnx_artifact, savedmodel_artifact), *against)


def test_verify_against_a_checkpoint_of_another_kind(onnx_artifact, checkpoints):
    message = failed(UNUSABLE, "verify", onnx_artifact, "--against", checkpoints / "tiny.weights.h5")
    assert "they differ in resize" in message


# Missing devices and packages


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "tpu"])
def test_unknown_device(onnx_artifact, device):
    message = failed(MISSING, "verify", onnx_artifact, "--against", "demo", "--device", device)
    assert f"unknown device '{device}'" in message


def test_cuda_that_is_not_there_for_onnx(onnx_artifact, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    message = failed(MISSING, "verify", onnx_artifact, "--against", "demo", "--device", "cuda")
    assert "device 'cuda' was requested" in message
    assert "maskrcnn-export[onnx-gpu]" in message


def test_cuda_that_is_not_there_for_a_savedmodel(savedmodel_artifact, monkeypatch):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda *_kind: [])
    message = failed(MISSING, "verify", savedmodel_artifact, "--against", "demo", "--device", "cuda:1")
    assert "device 'cuda:1' was requested" in message
    assert "maskrcnn-export[tf-gpu]" in message


def test_missing_package_names_its_extra(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    message = failed(MISSING, "onnx", checkpoints / "tiny.weights.h5", "-o", tmp_path / "m.onnx")
    assert "'tf2onnx', which is not installed: pip install 'maskrcnn-export[export]'" in message


def test_an_error_of_our_own_making_is_not_hidden(onnx_artifact, monkeypatch):
    def stumble(*_arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("runtime.artifact_files.read.read_metadata", stumble)
    assert isinstance(call("show", onnx_artifact).exception, ZeroDivisionError)


# The program itself


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )


def test_program_gives_exit_code_and_one_line(tmp_path):
    result = run_python("-m", "export", "show", tmp_path / "nowhere.onnx")
    assert (result.returncode, result.stdout) == (UNUSABLE, "")
    assert result.stderr == f"error: there is no artifact at {tmp_path / 'nowhere.onnx'}\n"
