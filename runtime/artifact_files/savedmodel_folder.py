"""Metadata and digests of a SavedModel folder, written and read without TensorFlow.

`assets/artifact.json` holds the metadata and the SHA-256 of every other file, and of itself.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from runtime.artifact_files.onnx_file import LARGEST_METADATA, ON_PURPOSE
from runtime.errors import ArtifactCorruptError, ForeignArtifactError
from runtime.json_file import read_json_file

MANIFEST = "assets/artifact.json"
EXTRA = "assets.extra/"  # files for servers, such as the warm-up of TensorFlow Serving; nothing computes with them
_GRAPH = "saved_model.pb"


def seal_folder(folder: Path, metadata: str) -> None:
    """Write the manifest of a SavedModel folder."""
    content: dict[str, Any] = {
        "metadata": json.loads(metadata),
        "files": {name: _digest(file) for name, file in _files(folder).items()},
    }
    content["sha256"] = _self_digest(content)
    path = folder / MANIFEST
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_sealed_folder(folder: Path, verify_digest: bool = True) -> str:
    """Check a sealed folder and return its metadata as JSON.

    Raises:
        ArtifactCorruptError: A file is missing, added, truncated or changed.
        ForeignArtifactError: It has no manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        what = "a SavedModel" if (folder / _GRAPH).is_file() else "a folder"
        raise ForeignArtifactError(
            f"{folder} is {what} that maskrcnn-export did not write (it has no {MANIFEST}): "
            "export the checkpoint with 'maskrcnn export savedmodel'"
        )
    try:
        content = read_json_file(path, LARGEST_METADATA)
        expected, recorded = content["files"], content.pop("sha256")
        listed = set(expected.keys())
        metadata = json.dumps(content["metadata"], ensure_ascii=False)
        digest = _self_digest(content)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactCorruptError(f"{path} is damaged: copy or export the artifact again") from error
    if verify_digest:
        if recorded != digest:
            raise ArtifactCorruptError(
                f"{path} was changed after the export: copy or export the artifact again{ON_PURPOSE}"
            )
        found = _files(folder)
        for name in sorted(listed | found.keys()):
            if name not in listed or name not in found or expected[name] != _digest(found[name]):
                state = "missing" if name not in found else "not part of it" if name not in listed else "changed"
                raise ArtifactCorruptError(
                    f"{folder}: {name} is {state}: copy or export the artifact again{ON_PURPOSE}"
                )
    return metadata


def recorded_folder_digest(folder: Path) -> str:
    """Return the digest recorded in a sealed folder, without checking it."""
    return str(read_json_file(folder / MANIFEST, LARGEST_METADATA)["sha256"])


def folder_graph_digest(folder: Path) -> str:
    """Return the SHA-256 of the graph and its variables: of all files but the manifest and those in `assets.extra`."""
    files = {name: _digest(file) for name, file in _files(folder).items() if not name.startswith(EXTRA)}
    return _self_digest(files)


def _files(folder: Path) -> dict[str, Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): path for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _self_digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
