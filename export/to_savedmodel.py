"""Export a model to a verified SavedModel artifact."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import tensorflow as tf

from export.convert.trace import trace
from export.describe import describe
from export.errors import ConversionError
from export.pipeline import Draft, export_verified
from export.target import DYNAMIC, Target
from export.verify.verdict import Verdict
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.checkpoints.families.family_file import FamilyFile
from maskrcnn.model import MaskRCNN
from runtime.artifact import SIGNATURE, Metadata, Thresholds
from runtime.artifact_files.gpu_kernels import without_gpu_kernel
from runtime.artifact_files.savedmodel_folder import seal_folder

SavedModelTarget = Literal["cpu", "cuda"]


def export_savedmodel(  # noqa: PLR0913  (one argument per option)
    model: MaskRCNN,
    output: str | Path,
    *,
    checkpoint: Mapping[str, str],
    target: SavedModelTarget = "cpu",
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
        target: "cuda" uses only operators that TensorFlow has GPU kernels for, and takes one image at a time; it runs
            on a CPU too. A GPU computes a part of "cpu" on the CPU.
        thresholds: "inputs" that every run sets, or "constants" of the model's configuration.
        source: The PyTorch checkpoint that the model came from, see `maskrcnn.open_weights`, whose genuine model is run
            beside the artifact where its package is installed.
        verify_images: Folder of images to compare on; None uses bundled ones.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each step.

    Returns:
        The verdict, which has passed.

    Raises:
        ConversionError: The target or the kind of thresholds is unknown, or an operator has no GPU kernel.
        SourceError: The genuine model of `source` cannot be run.
        ParityError: The artifact does not compute what the model computes.
        OutputError: The output exists or cannot be written.
        ImageError: A verification image cannot be used.
    """
    if target not in get_args(SavedModelTarget):
        raise ConversionError(f"target {target!r} is not supported for a SavedModel: choose one of cpu, cuda")
    goal = Target(target, thresholds=thresholds)
    on_gpu = target == "cuda"
    shape = (1, *goal.input_shape(model.config.resize)[1:]) if on_gpu else DYNAMIC

    def trace_model() -> Draft:
        module = tf.Module()
        module.detect = trace(
            model,
            every_row=goal.every_row,
            shape=shape,
            nms_in_steps=on_gpu,
            thresholds=thresholds,
        )
        if on_gpu:
            _audit(module.detect)
        module.model_variables = [variable.value for variable in model.variables]  # saved with the function
        metadata = describe(model, "savedmodel", checkpoint, thresholds=thresholds)
        metadata = replace(metadata, target=target, input_shape=shape)
        return Draft(metadata, partial(_write, module, progress), {})

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


def _audit(function: Any) -> None:
    """Refuse a graph that a GPU would compute in part on the CPU; only a custom backbone can have such operators."""
    missing = without_gpu_kernel([function.get_concrete_function().graph.as_graph_def()])
    if missing:
        raise ConversionError(
            f"TensorFlow has no GPU kernel for {', '.join(missing)}: it would run on the CPU and copy data back and "
            "forth; change the backbone, or choose the target 'cpu'"
        )


def _write(module: tf.Module, progress: Say, path: Path, metadata: Metadata) -> None:
    if not metadata.verdict:  # the second call, with the verdict, only changes the metadata
        progress("saving the SavedModel")
        tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.detect})
    seal_folder(path, metadata.to_json())
