"""Artifacts around another graph, with a verdict that claims to be about it, for tests of what is checked later."""

import json

from runtime.artifact import GRAPH_SHA256, verdict_digest
from runtime.artifact_files.onnx_file import seal
from runtime.artifact_files.read import graph_digest
from runtime.artifact_files.savedmodel_folder import seal_folder


def reseal(path, metadata):
    """Seal the model at `path`, a file or a folder, with metadata whose verdict is bound to it."""
    values = json.loads(metadata)
    values["verdict"] |= {GRAPH_SHA256: graph_digest(path)}
    text = json.dumps(values | {"verdict_sha256": verdict_digest(values["verdict"])})
    if path.is_dir():
        seal_folder(path, text)
    else:
        path.write_bytes(seal(path.read_bytes(), text))
