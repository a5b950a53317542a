"""Export a model to a verified SavedModel artifact."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import tensorflow as tf

from export.convert.trace import trace
from export.describe import describe
from export.pipeline import Draft, export_verified
from export.target import Target
from export.verify.verdict import Verdict
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.checkpoints.families.family_file import FamilyFile
from maskrcnn.model import MaskRCNN
from runtime.artifact import SIGNATURE, Metadata, Thresholds
from runtime.artifact_files.savedmodel_folder import seal_folder


def export_savedmodel(
    model: MaskRCNN,
    output: str | Path,
    *,
    checkpoint: Mapping[str, str],
    thresholds: Thresholds = "inputs",
    source: FamilyFile | None = None,
    verify_images: str | Path | None = None,
    overwrite: bool = False,
    progress: Say = say_nothing,
) -> Verdict:
    """Save a model as a SavedModel, verify it against the model, and put it in place; or write nothing.

    Args:
        model: The model to export, with its weights.
        output: The folder to write; the verdict goes to `<output>.verdict.json`.
        checkpoint: `name` and `sha256` of the weights file, recorded in the metadata.
        thresholds: "inputs" that every run sets, or "constants" of the model's configuration.
        source: The PyTorch checkpoint that the model came from, see `maskrcnn.open_weights`, whose genuine model is run
            beside the artifact where its package is installed.
        verify_images: Folder of images to compare on; None uses bundled ones.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each step.

    Returns:
        The verdict, which has passed.

    Raises:
        ConversionError: The kind of thresholds is unknown.
        SourceError: The genuine model of `source` cannot be run.
        ParityError: The artifact does not compute what the model computes.
        OutputError: The output exists or cannot be written.
        ImageError: A verification image cannot be used.
    """
    kind = Target(thresholds=thresholds).thresholds

    def trace_model() -> Draft:
        module = tf.Module()
        module.detect = trace(model, thresholds=kind)
        module.model_variables = [variable.value for variable in model.variables]  # saved with the function
        return Draft(describe(model, "savedmodel", checkpoint, thresholds=kind), partial(_write, module, progress), {})

    return export_verified(
        model,
        output,
        "savedmodel",
        trace_model,
        source=source,
        verify_images=verify_images,
        overwrite=overwrite,
        progress=progress,
    )


def _write(module: tf.Module, progress: Say, path: Path, metadata: Metadata) -> None:
    if not metadata.verdict:  # the second call, with the verdict, only changes the metadata
        progress("saving the SavedModel")
        tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.detect})
    seal_folder(path, metadata.to_json())
