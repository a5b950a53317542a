"""An artifact against a checkpoint again: later, on another machine, or with another engine version."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from export.describe import describe
from export.verify.pictures import verification_pictures
from export.verify.verdict import Verdict
from export.verify.written import verify_written
from maskrcnn.errors import CheckpointMismatchError
from maskrcnn.model import MaskRCNN
from runtime.artifact_files.read import read_metadata
from runtime.errors import ArtifactError

_COMPARED = (
    "class_names",
    "image_channels",
    "resize",
    "mask_paste",
    "max_detections",
    "mask_size",
    "score_threshold",
    "nms_threshold",
)


def verify_artifact(
    path: str | Path,
    model: MaskRCNN,
    *,
    device: str = "cpu",
    verify_images: str | Path | None = None,
    progress: Callable[[str], None] = lambda _message: None,
) -> Verdict:
    """Compare an artifact with a model, stage by stage and whole; the artifact is not changed.

    Args:
        path: The artifact.
        model: What it shall be equal to.
        device: Where the artifact runs.
        verify_images: Folder of pictures; None takes bundled ones.
        progress: Called with a sentence before each part.

    Returns:
        The verdict, passed or not.

    Raises:
        CheckpointMismatchError: The model is of another kind than the artifact.
        ArtifactError: The artifact cannot be used.
        DeviceError: The device cannot be used.
    """
    path = Path(path)
    metadata, config = read_metadata(path), model.config
    if metadata.precision != "fp32":
        raise ArtifactError(
            f"{path} is {metadata.precision}, which is not equal to its model by intention: what it costs is in its "
            "verdict, and `maskrcnn evaluate` scores it"
        )
    described = describe(model, metadata.format, {})
    differing = [name for name in _COMPARED if getattr(metadata, name) != getattr(described, name)]
    if differing:
        raise CheckpointMismatchError(
            f"{path} was exported from {metadata.name!r} with {len(metadata.class_names)} classes, the checkpoint is "
            f"{config.name!r} with {config.model.num_classes}: they differ in {', '.join(differing)}"
        )
    pictures = verification_pictures(verify_images, config.model.image_channels, config.resize)
    verdict = verify_written(path, metadata, model, pictures, device, progress)
    return replace(verdict, engine=f"{verdict.engine} (stages on the cpu)")
