"""Fuzz targets for artifacts: metadata, manifest, ONNX files, and descriptions of SavedModels."""

import hashlib
import json
import zlib
from contextlib import suppress
from functools import cache

from fuzz_checks import folder, refused_with
from sample_metadata import METADATA

from runtime.artifact import Metadata, verdict_digest
from runtime.artifact_files.onnx_file import content_digest, read_sealed, recorded_file_digest, seal
from runtime.artifact_files.onnx_scan import check_onnx
from runtime.artifact_files.read import read_metadata
from runtime.artifact_files.savedmodel_folder import MANIFEST, recorded_folder_digest
from runtime.artifact_files.savedmodel_scan import check_savedmodel
from runtime.errors import ArtifactError

# What no file may bring into TensorFlow; typed by hand, so that it does not follow the lists of the scan.
_HARMFUL = frozenset(
    ("WriteFile", "ReadFile", "PyFunc", "EagerPyFunc", "PyFuncStateless", "Save", "PrintV2", "If", "While", "Send")
)


def metadata(data):
    """The JSON of an artifact's metadata, with the digest of the verdict mended, as who means harm would."""
    text = data.decode(errors="replace")
    with suppress(ValueError, RecursionError):
        values = json.loads(text)
        if isinstance(values, dict) and "verdict" in values:
            text = json.dumps(values | {"verdict_sha256": verdict_digest(values["verdict"])})
    with refused_with(ArtifactError):
        found = Metadata.from_json(text, "here")
        again = Metadata.from_json(found.to_json(), "here")
        assert again.to_json() == found.to_json()
        hash((found.format, found.name, found.class_names, found.resize, found.input_shape))


def manifest(data):
    """The manifest of a SavedModel folder of one file, with its own digest mended."""
    place = folder("manifest")
    path = place / MANIFEST
    path.parent.mkdir(exist_ok=True)
    (place / "saved_model.pb").write_bytes(b"graph")
    path.write_bytes(data)
    with refused_with(ArtifactError):
        read_metadata(place)
    with suppress(ValueError, RecursionError):
        values = json.loads(data)
        if isinstance(values, dict):
            values.pop("sha256", None)
            values["sha256"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
            path.write_text(json.dumps(values))
    for verify in (True, False):
        with refused_with(ArtifactError):
            read_metadata(place, verify)
            assert isinstance(recorded_folder_digest(place), str)


def onnx(data):
    """An ONNX file as it is; then sealed by whoever wrote it; then sealed and damaged."""
    path = folder("onnx") / "model.onnx"
    path.write_bytes(data)
    with refused_with(ArtifactError):
        check_onnx(path)
        _check_model(data)
    for verify in (True, False):
        with refused_with(ArtifactError):
            read_metadata(path, verify)
            assert len(content_digest(path, verify)) == 64
            recorded_file_digest(path)
    sealed = seal(data, METADATA.to_json())
    path.write_bytes(sealed)
    with refused_with(ArtifactError):
        assert read_sealed(path) == METADATA.to_json()
        assert content_digest(path, True) == content_digest(path, False) == recorded_file_digest(path)
        damaged = bytearray(sealed)
        place = zlib.crc32(data)
        damaged[place % len(sealed)] ^= 1 << place % 8
        path.write_bytes(damaged)
        raise AssertionError(read_sealed(path))


def _check_model(data):
    """What the scan let pass is harmless in the eyes of the onnx package, too."""
    import onnx as package
    from google.protobuf.message import DecodeError

    try:
        model = package.ModelProto.FromString(data)
    except DecodeError:  # no engine reads it
        return
    assert not model.functions
    assert not model.training_info
    _check_graph(model.graph)


def _check_graph(graph):
    assert not graph.sparse_initializer
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for node in graph.node:
        assert node.domain in ("", "ai.onnx"), node.domain
        for attribute in node.attribute:
            assert not attribute.HasField("sparse_tensor")
            assert not attribute.sparse_tensors
            for tensor in (attribute.t, *attribute.tensors):
                _check_tensor(tensor)
            if attribute.HasField("g"):
                _check_graph(attribute.g)
            for inner in attribute.graphs:
                _check_graph(inner)


def _check_tensor(tensor):
    assert tensor.data_location == tensor.DEFAULT
    assert not tensor.external_data


@cache
def _saved_model_type():
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    return SavedModel


def savedmodel(data):
    """The description of a SavedModel, `saved_model.pb`; nothing is loaded."""
    from google.protobuf.message import DecodeError

    try:
        found = _saved_model_type().FromString(data)
    except DecodeError:
        return
    with refused_with(ArtifactError):
        check_savedmodel(found, folder("savedmodel"))
        for graph in found.meta_graphs:
            nodes = list(graph.graph_def.node)
            nodes += [node for function in graph.graph_def.library.function for node in function.node_def]
            assert not _HARMFUL & {node.op for node in nodes}
            assert not graph.asset_file_def
