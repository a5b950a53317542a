"""Verify an artifact again: later, on another machine, or with another engine version."""

from dataclasses import replace
from pathlib import Path

from export.describe import describe
from export.verify.pictures import verification_pictures
from export.verify.verdict import Verdict
from export.verify.written import verify_written
from maskrcnn.callbacks import Say, say_nothing
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
    progress: Say = say_nothing,
) -> Verdict:
    """Compare an artifact with a model, stage by stage and as a whole. The artifact is not changed.

    Args:
        path: An `.onnx` file or SavedModel folder.
        model: The model that the artifact should equal.
        device: Device that runs the whole artifact, as for `Predictor`; the stages always run on the CPU.
        verify_images: Folder of images to compare on; None uses bundled ones.
        progress: Called with a sentence before each step.

    Returns:
        The verdict, passed or not.

    Raises:
        CheckpointMismatchError: The model's configuration differs from the artifact's.
        ArtifactError: The artifact cannot be used.
        DeviceError: The device cannot be used.
        ImageError: A verification image cannot be used.
    """
    path = Path(path)
    metadata, config = read_metadata(path), model.config
    if metadata.precision != "fp32":
        raise ArtifactError(
            f"{path} is {metadata.precision}, so it differs from its model on purpose: its verdict records the loss of "
            "accuracy, and `maskrcnn evaluate` measures it"
        )
    described = describe(model, metadata.format, {})
    differing = [name for name in _COMPARED if getattr(metadata, name) != getattr(described, name)]
    if differing:
        raise CheckpointMismatchError(
            f"{path} was exported from {metadata.name!r} with {len(metadata.class_names)} classes, but the checkpoint "
            f"is {config.name!r} with {config.model.num_classes}: they differ in {', '.join(differing)}"
        )
    pictures = verification_pictures(verify_images, config.model.image_channels, config.resize)
    verdict = verify_written(path, metadata, model, pictures, device, progress)
    return replace(verdict, engine=f"{verdict.engine} (stages on the cpu)")
