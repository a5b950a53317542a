"""Sealed artifacts without a model in them: what matters to writing and checking, in milliseconds."""

from dataclasses import replace

from export.verify.verdict import CaseResult, StageResult, Verdict
from runtime.artifact import Metadata
from runtime.artifact_files.onnx_file import seal
from runtime.artifact_files.read import graph_digest
from runtime.artifact_files.savedmodel_folder import seal_folder
from runtime.pictures.letterbox import ResizePolicy

VERDICT = Verdict(
    "model",
    "engine",
    0.5,
    0.3,
    [StageResult("mask head", "masks", 0.0, 1e-4, relative=False)],
    [CaseResult("picture", 1, 1, 0.0, 0.0, 0.0, passed=True)],
)
OLD = Verdict("model of yesterday", *("engine", 0.5, 0.3), VERDICT.stages, VERDICT.cases)


def metadata(directory, verdict=None):
    return Metadata(
        format="savedmodel" if directory else "onnx",
        name="fake",
        class_names=("BG", "thing"),
        image_channels=3,
        resize=ResizePolicy("square", 64, 64, 0),
        mask_paste="matterport",
        max_detections=3,
        mask_size=28,
        score_threshold=0.5,
        nms_threshold=0.3,
        opset=17,
        verdict={} if verdict is None else verdict.to_dict(),
    )


def write_artifact(path, metadata, pause=lambda _moment: None):
    """A sealed artifact without a model in it; `pause` is called when half of it is written."""
    moment = "final" if metadata.verdict else "draft"
    if metadata.format == "savedmodel":
        (path / "weights").write_bytes(b"w" * 5000)
        pause(moment)
        seal_folder(path, metadata.to_json())
        return
    content = seal(b"", metadata.to_json())
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        pause(moment)
        file.write(content[len(content) // 2 :])


def recorded(verdict, path):
    """A verdict as the artifact at `path` records it: bound to its graph."""
    return replace(verdict, graph_sha256=graph_digest(path)).to_dict()
