"""The steps that both exports share: check the output, convert, verify against the model, put in place."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from export.errors import ParityError
from export.publish import check_outputs, publish
from export.verify.pictures import verification_pictures
from export.verify.source import compare_written
from export.verify.verdict import Verdict
from export.verify.written import verify_written
from maskrcnn.callbacks import Say
from maskrcnn.checkpoints.families.family_file import FamilyFile
from maskrcnn.model import MaskRCNN
from runtime.artifact import ArtifactFormat, Metadata


class Draft(NamedTuple):
    """An artifact that has not been verified: the arguments of `publish`, and facts about the graph for the verdict."""

    metadata: Metadata
    write: Callable[[Path, Metadata], None]
    graph: Mapping[str, Any]


def export_verified(
    model: MaskRCNN,
    output: str | Path,
    artifact_format: ArtifactFormat,
    convert: Callable[[], Draft],
    *,
    source: FamilyFile | None,
    verify_images: str | Path | None,
    overwrite: bool,
    progress: Say,
) -> Verdict:
    """Convert a model, compare the artifact with it, and put the artifact in place; or write nothing.

    Raises:
        ParityError: The artifact does not compute what the model computes, or what the genuine model of `source` does.
        SourceError: That model cannot be run.
    """
    output, config = Path(output), model.config
    check_outputs(output, artifact_format, overwrite=overwrite)
    pictures = verification_pictures(verify_images, config.model.image_channels, config.resize, config.pixels)
    draft = convert()

    def judge(path: Path) -> Verdict:
        verdict = verify_written(path, draft.metadata, model, pictures, progress=progress)
        verdict = replace(verdict, graph=dict(draft.graph))
        if source is not None and verdict.passed:
            found = compare_written(path, draft.metadata, source, verify_images, progress=progress)
            verdict = replace(verdict, source=found)
        if not verdict.passed:
            raise ParityError(verdict)
        return verdict

    return publish(output, draft.metadata, draft.write, judge, overwrite=overwrite)
