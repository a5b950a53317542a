"""Export a model to a verified SavedModel artifact."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import tensorflow as tf

from export.convert.trace import trace
from export.describe import describe
from export.errors import ConversionError
from export.pipeline import Draft, export_verified
from export.target import Target
from export.verify.verdict import Verdict
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.model import MaskRCNN
from runtime.artifact import SIGNATURE, Metadata, Thresholds
from runtime.artifact_files.savedmodel_folder import seal_folder


def export_savedmodel(
    model: MaskRCNN,
    output: str | Path,
    *,
    checkpoint: Mapping[str, str],
    target: Literal["cpu", "cuda"] = "cpu",
    thresholds: Thresholds = "inputs",
    verify_images: str | Path | None = None,
    overwrite: bool = False,
    progress: Say = say_nothing,
) -> Verdict:
    """Save a model as a SavedModel, verify it against the model, and put it in place; or write nothing.

    Args:
        model: The model to export, with its weights.
        output: The folder to write; the verdict goes to `<output>.verdict.json`.
        checkpoint: `name` and `sha256` of the weights file, recorded in the metadata.
        target: "cuda" uses only operators that TensorFlow has GPU kernels for, and fixed shapes; a GPU then waits for
            no result of the CPU. Both run on both.
        thresholds: "inputs" that every run sets, or "constants" of the model's configuration.
        verify_images: Folder of images to compare on; None uses bundled ones.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each step.

    Returns:
        The verdict, which has passed.

    Raises:
        ConversionError: The target or the kind of thresholds is unknown.
        ParityError: The artifact does not compute what the model computes.
        OutputError: The output exists or cannot be written.
        ImageError: A verification image cannot be used.
    """
    kind, on_gpu = Target(thresholds=thresholds).thresholds, target == "cuda"
    if target not in ("cpu", "cuda"):
        raise ConversionError(f"target {target!r} is not supported for a SavedModel: choose 'cpu' or 'cuda'")

    def trace_model() -> Draft:
        module = tf.Module()
        module.detect = trace(model, every_row=on_gpu, thresholds=kind, gpu_kernels=on_gpu)
        module.model_variables = [variable.value for variable in model.variables]  # saved with the function
        described = replace(describe(model, "savedmodel", checkpoint, thresholds=kind), target=target)
        return Draft(described, partial(_write, module, progress), {})

    return export_verified(
        model,
        output,
        "savedmodel",
        trace_model,
        verify_images=verify_images,
        overwrite=overwrite,
        progress=progress,
    )


def _write(module: tf.Module, progress: Say, path: Path, metadata: Metadata) -> None:
    if not metadata.verdict:  # the second call, with the verdict, only changes the metadata
        progress("saving the SavedModel")
        tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.detect})
    seal_folder(path, metadata.to_json())
