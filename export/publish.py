"""Put an artifact in place only after it has passed: draft, verification, final bytes, rename, verdict beside it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from export.verify.verdict import Verdict
from runtime.artifact import ArtifactFormat, Metadata
from runtime.artifact_files.onnx_file import seal
from runtime.artifact_files.read import read_metadata
from runtime.artifact_files.savedmodel_folder import MANIFEST
from runtime.atomic import atomic_write, check_output

VERDICT_SUFFIX = ".verdict.json"
# The file that marks a folder as one of ours, which may be replaced; None for a format that is a single file.
MARKERS: Mapping[ArtifactFormat, str | None] = {"onnx": None, "savedmodel": MANIFEST}


def publish(
    output: Path,
    metadata: Metadata,
    write: Callable[[Path, Metadata], None],
    judge: Callable[[Path], Verdict],
    *,
    overwrite: bool,
) -> Verdict:
    """Write an artifact under a temporary name, judge it there, and only then put it in place.

    Args:
        output: Final path of the artifact.
        metadata: Metadata without a verdict.
        write: Writes the artifact with the given metadata to a path; called again for the same path with the verdict.
        judge: Returns the verdict on the artifact at a path; raises if it does not pass.
        overwrite: Whether an existing artifact may be replaced.
    """
    beside = output.with_name(output.name + VERDICT_SUFFIX)
    check_output(beside, overwrite=overwrite)
    marker = MARKERS[metadata.format]
    with (
        atomic_write(beside, overwrite=overwrite) as verdict_file,
        atomic_write(output, overwrite=overwrite, directory=marker is not None, marker=marker) as temporary,
    ):
        write(temporary, metadata)
        verdict = judge(temporary)
        write(temporary, replace(metadata, verdict=verdict.to_dict()))
        read_metadata(temporary)  # what applications will do first
        # Written before the artifact is in place: if the disk is full here, the old artifact must stay.
        verdict_file.write_text(json.dumps(verdict.to_dict(), indent=1) + "\n", encoding="utf-8")
    return verdict


def write_onnx(graph: bytes, path: Path, metadata: Metadata) -> None:
    """Write a serialized ONNX graph with its metadata and digest."""
    path.write_bytes(seal(graph, metadata.to_json()))
