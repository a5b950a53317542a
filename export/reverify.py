"""Verify an artifact again: later, on another machine, or with another engine version."""

from dataclasses import replace
from pathlib import Path

from export.describe import describe
from export.publish import check_outputs, publish, write_copy
from export.verify.pictures import verification_pictures
from export.verify.source import compare_written
from export.verify.verdict import Verdict
from export.verify.written import verify_written
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.checkpoints.families.family_file import FamilyFile
from maskrcnn.errors import CheckpointMismatchError
from maskrcnn.model import MaskRCNN
from runtime.artifact_files.read import read_metadata
from runtime.errors import ArtifactError

_EDITABLE = ("class_names", "score_threshold", "nms_threshold")  # by `export.edit`
_COMPARED = (*_EDITABLE, "image_channels", "pixels", "resize", "mask_paste", "max_detections", "mask_size")


def verify_artifact(
    path: str | Path,
    model: MaskRCNN,
    *,
    device: str = "cpu",
    source: FamilyFile | None = None,
    verify_images: str | Path | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Say = say_nothing,
) -> Verdict:
    """Compare an artifact with a model, stage by stage and as a whole.

    With `output`, an artifact that passes is written there with the new verdict: one whose own verdict is of an older
    version, or whose graph another tool rewrote. Its digest is then not compared, because the comparison with the model
    says more.

    Args:
        path: An `.onnx` file or SavedModel folder.
        model: The model that the artifact should equal.
        device: Device that runs the whole artifact, as for `Predictor`; the stages always run on the CPU.
        source: The PyTorch checkpoint that the model came from, see `maskrcnn.open_weights`, whose genuine model is run
            beside the artifact where its package is installed.
        verify_images: Folder of images to compare on; None uses bundled ones.
        output: Where to write the artifact with the new verdict; None writes nothing.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each step.

    Returns:
        The verdict, passed or not.

    Raises:
        CheckpointMismatchError: The model's configuration differs from the artifact's.
        ArtifactError: The artifact cannot be used.
        SourceError: The genuine model of `source` cannot be run.
        DeviceError: The device cannot be used.
        ImageError: A verification image cannot be used.
        OutputError: The output exists or cannot be written.
    """
    path = Path(path)
    metadata, config = read_metadata(path, verify_digest=output is None), model.config
    if metadata.precision != "fp32":
        raise ArtifactError(
            f"{path} is {metadata.precision}, so it differs from its model on purpose: its verdict records the loss of "
            "accuracy, and `maskrcnn evaluate` measures it"
        )
    described = describe(model, metadata.format, {})
    compared = _COMPARED[len(_EDITABLE) :] if metadata.edits else _COMPARED
    differing = [name for name in compared if getattr(metadata, name) != getattr(described, name)]
    if metadata.edits and len(metadata.class_names) != config.model.num_classes:
        differing.append("the number of classes")
    if differing:
        raise CheckpointMismatchError(
            f"{path} was exported from {metadata.name!r} with {len(metadata.class_names)} classes, but the checkpoint "
            f"is {config.name!r} with {config.model.num_classes}: they differ in {', '.join(differing)}"
        )
    pictures = verification_pictures(verify_images, config.model.image_channels, config.resize, config.pixels)
    if output is not None:
        check_outputs(Path(output), metadata.format, overwrite=overwrite)
    verdict = verify_written(path, metadata, model, pictures, device, progress)
    verdict = replace(verdict, engine=f"{verdict.engine} (stages on the cpu)")
    if source is not None and verdict.passed:
        found = compare_written(path, metadata, source, verify_images, device, progress)
        verdict = replace(verdict, source=found)
    if output is None or not verdict.passed:
        return verdict
    unproven = replace(metadata, verdict={})
    return publish(Path(output), unproven, write_copy(path), lambda _path: verdict, overwrite=overwrite)
