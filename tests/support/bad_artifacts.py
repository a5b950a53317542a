"""Artifacts that nobody should open: damaged, foreign, dressed up, and some that do harm."""

import json
import os
import shutil

import pytest

from runtime import Predictor
from runtime.artifact import GRAPH_SHA256, verdict_digest
from runtime.artifact_files.onnx_file import seal
from runtime.artifact_files.protobuf import field, varint_field
from runtime.artifact_files.read import graph_digest, read_metadata
from runtime.artifact_files.savedmodel_folder import MANIFEST, seal_folder
from runtime.errors import ArtifactError

NO_ENGINE = "the engine must not see an untrusted artifact"
VERIFY = pytest.mark.parametrize("verify", [True, False], ids=["verified", "not verified"])

# Field numbers of ONNX: graph of a model; node, initializer and sparse initializer of a graph.
_GRAPH, _NODE, _INITIALIZER, _SPARSE = 7, 1, 5, 15
_PLACE = field(1, b"location") + field(2, b"/etc/hostname")
_ELSEWHERE = field(8, b"w") + varint_field(2, 1) + field(13, _PLACE) + varint_field(14, 1)


def _changed(metadata, **changes):
    values = json.loads(metadata) | changes
    return json.dumps(values | {"verdict_sha256": verdict_digest(values["verdict"])})


def reseal(path, metadata):
    """Seal the model at `path`, a file or a folder, with metadata whose verdict is bound to it."""
    values = json.loads(metadata)
    values["verdict"] |= {GRAPH_SHA256: graph_digest(path)}
    text = json.dumps(values | {"verdict_sha256": verdict_digest(values["verdict"])})
    if path.is_dir():
        seal_folder(path, text)
    else:
        path.write_bytes(seal(path.read_bytes(), text))


def _spoiled():
    """Metadata that is sealed as ours is, and cannot be."""
    return {
        "version": {"schema_version": 99},
        "version-text": {"schema_version": "\x1b[2J"},
        "no-classes": {"class_names": []},
        "class-numbers": {"class_names": [1, 2]},
        "class-text": {"class_names": "BG"},
        "channels": {"image_channels": -1},
        "detections": {"max_detections": 0},
        "mask": {"mask_size": True},
        "threshold": {"score_threshold": 7},
        "resize": {"resize": {"mode": "magic"}},
        "resize-list": {"resize": [1]},
        "paste": {"mask_paste": "nicely"},
        "producer": {"producer": {"a": 1}},
        "verdict": {"verdict": [1]},
        "input-shape": {"input_shape": [0, -1, 2]},
        "engine": {"engine_minimum": {"onnxruntime": "999.0", "tensorflow": "999.0"}},
        "format": {"format": "pickle"},
    }


def _onnx(good):
    """Content of files, by name."""
    whole, metadata = good.read_bytes(), read_metadata(good).to_json()
    half = len(whole) // 2
    harmful = {
        "external": field(_INITIALIZER, _ELSEWHERE),
        "sparse": field(_SPARSE, field(1, _ELSEWHERE)),
        "library": field(_NODE, field(4, b"PyOp") + field(7, b"ai.onnx.contrib")),
        "context": field(_NODE, field(4, b"EPContext") + field(7, b"com.microsoft")),
        "attribute": field(_NODE, field(4, b"Constant") + field(5, field(1, b"value") + field(5, _ELSEWHERE))),
        "unknown-operator": field(_NODE, field(4, b"Nonsense") + field(2, b"nonsense")),
    }
    return {
        "empty": b"",
        "one-byte": b"\x08",
        "text": b"this is no model\n" * 50,
        "html": b"<!doctype html><title>404</title>",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(500),
        "zip": b"PK\x03\x04" + bytes(500),
        "pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(500),
        "zeros": bytes(5000),
        "endless-number": b"\x08" + b"\xff" * 5000,
        "length-beyond": b"\x3a\xff\xff\xff\xff\x7f" + bytes(50),
        "half": whole[:half],
        "less-one": whole[:-1],
        "more-one": whole + b"\0",
        "flipped": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
        "swapped": whole[half:] + whole[:half],
        "not-ours": field(_GRAPH, field(2, b"g")),
        "no-metadata": seal(whole, ""),
        "no-json": seal(whole, "{" * 100),
        "deep-json": seal(whole, "[" * 100_000),
        "null-json": seal(whole, "null"),
        "no-graph": seal(b"", metadata),
        "empty-graph": seal(varint_field(1, 8) + field(_GRAPH, b""), metadata),
        **{f"sealed-{name}": seal(whole + field(_GRAPH, extra), metadata) for name, extra in harmful.items()},
        "sealed-functions": seal(whole + field(25, field(1, b"f")), metadata),
        **{f"metadata-{name}": seal(whole, _changed(metadata, **change)) for name, change in _spoiled().items()},
    }


def _folders(good):
    """What is done to a copy of the folder, by name; and whether it is sealed again afterwards."""
    metadata = read_metadata(good).to_json()

    def write(name, content):
        return lambda folder: (folder / name).write_bytes(content)

    def append(name):
        return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b"\0")

    def manifest(**changes):
        def change(folder):
            content = json.loads((folder / MANIFEST).read_text()) | changes
            (folder / MANIFEST).write_text(json.dumps(content))

        return change

    def reseal(**changes):
        return lambda folder: seal_folder(folder, _changed(metadata, **changes))

    def sealed(act):
        return lambda folder: (act(folder), seal_folder(folder, metadata))

    return {
        "no-manifest": lambda folder: (folder / MANIFEST).unlink(),
        "manifest-text": write(MANIFEST, b"hello"),
        "manifest-deep": write(MANIFEST, b"[" * 100_000),
        "manifest-list": write(MANIFEST, b"[]"),
        "manifest-folder": lambda folder: ((folder / MANIFEST).unlink(), (folder / MANIFEST).mkdir()),
        "manifest-files": manifest(files={"../../etc/hostname": "00"}),
        "manifest-digest": manifest(sha256="00"),
        "file-missing": lambda folder: (folder / "saved_model.pb").unlink(),
        "file-more": write("more", b"x"),
        "file-changed": append("saved_model.pb"),
        "variables-changed": append("variables/variables.index"),
        "variables-gone": lambda folder: shutil.rmtree(folder / "variables"),
        "sealed-empty-graph": sealed(write("saved_model.pb", b"")),
        "sealed-text-graph": sealed(write("saved_model.pb", b"this is no graph")),
        "sealed-variables": sealed(write("variables/variables.index", b"x")),
        **{f"metadata-{name}": reseal(**change) for name, change in _spoiled().items()},
    }


def write_artifacts(folder, onnx, savedmodel):
    """Path by name, below an empty folder; "good-..." are sound."""
    folder.mkdir()
    cases = {"good-onnx": onnx, "good-savedmodel": savedmodel}
    for name, content in _onnx(onnx).items():
        cases[f"onnx-{name}"] = folder / f"{name}.onnx"
        cases[f"onnx-{name}"].write_bytes(content)
    for name, act in _folders(savedmodel).items():
        cases[f"folder-{name}"] = folder / name
        act(shutil.copytree(savedmodel, folder / name))
    for name in ("pipe", "dangling", "loop", "nothing"):
        cases[name] = folder / name
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    cases |= {"device": "/dev/zero", "long": "x" * 5000, "nul": "a\0b.onnx", "escape": "\x1b[2J.onnx"}
    (folder / "hollow").mkdir()
    return cases | {"hollow": folder / "hollow"}


def refusal(path, verify=True):
    """The message with which a predictor refuses an artifact, in one line that names it."""
    with pytest.raises(ArtifactError) as refused:
        Predictor(path, "cpu", verify_digest=verify)
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    return message
