"""Put an artifact in place only after it has passed: draft, verification, final bytes, rename, verdict beside it."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from export.verify.verdict import Verdict
from runtime.artifact import GRAPH_SHA256, ArtifactFormat, Metadata
from runtime.artifact_files.onnx_file import read_model, seal
from runtime.artifact_files.read import graph_digest, read_metadata, require_proven
from runtime.artifact_files.savedmodel_folder import MANIFEST, seal_folder
from runtime.atomic import atomic_write, check_output

VERDICT_SUFFIX = ".verdict.json"
# The file that marks a folder as one of ours, which may be replaced; None for a format that is a single file.
MARKERS: Mapping[ArtifactFormat, str | None] = {"onnx": None, "savedmodel": MANIFEST}


def check_outputs(output: Path, artifact_format: ArtifactFormat, *, overwrite: bool) -> None:
    """Refuse the path of an artifact early, also for the verdict beside it.

    Raises:
        OutputError: One of them exists and may not be replaced, or cannot be written.
    """
    marker = MARKERS[artifact_format]
    check_output(output, overwrite=overwrite, directory=marker is not None, marker=marker)
    check_output(output.with_name(output.name + VERDICT_SUFFIX), overwrite=overwrite)


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

    Returns:
        The verdict, bound to the graph.
    """
    judged: list[Verdict] = []

    def judge_and_bind(path: Path) -> dict[str, Any]:
        judged.append(replace(judge(path), graph_sha256=graph_digest(path)))
        return judged[0].to_dict()

    _put_in_place(output, metadata, write, judge_and_bind, overwrite=overwrite)
    return judged[0]


def publish_edited(
    output: Path, metadata: Metadata, write: Callable[[Path, Metadata], None], *, overwrite: bool
) -> None:
    """Write an artifact that was edited, with the verdict in its metadata, bound to the graph that is written."""
    _put_in_place(
        output,
        replace(metadata, verdict={}),
        write,
        lambda path: {**metadata.verdict, GRAPH_SHA256: graph_digest(path)},
        overwrite=overwrite,
    )


def _put_in_place(
    output: Path,
    metadata: Metadata,
    write: Callable[[Path, Metadata], None],
    judge: Callable[[Path], dict[str, Any]],
    *,
    overwrite: bool,
) -> None:
    beside = output.with_name(output.name + VERDICT_SUFFIX)
    check_output(beside, overwrite=overwrite)
    marker = MARKERS[metadata.format]
    with (
        atomic_write(beside, overwrite=overwrite) as verdict_file,
        atomic_write(output, overwrite=overwrite, directory=marker is not None, marker=marker) as temporary,
    ):
        write(temporary, metadata)
        verdict = judge(temporary)
        write(temporary, replace(metadata, verdict=verdict))
        require_proven(temporary, read_metadata(temporary))  # what applications will do first
        # Written before the artifact is in place: if the disk is full here, the old artifact must stay.
        verdict_file.write_text(json.dumps(verdict, indent=1) + "\n", encoding="utf-8")


def write_copy(source: Path) -> Callable[[Path, Metadata], None]:
    """Return the `write` of `publish` that copies what computes in an artifact."""
    if source.is_file():
        return partial(write_onnx, read_model(source))

    def write(path: Path, metadata: Metadata) -> None:
        if not metadata.verdict:  # the second call, with the verdict, only changes the metadata
            shutil.copytree(source, path, dirs_exist_ok=True)
        seal_folder(path, metadata.to_json())

    return write


def write_onnx(graph: bytes, path: Path, metadata: Metadata) -> None:
    """Write a serialized ONNX graph with its metadata and digest."""
    path.write_bytes(seal(graph, metadata.to_json()))
