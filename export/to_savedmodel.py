"""Model to a verified SavedModel artifact."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import tensorflow as tf

from export.convert.trace import trace
from export.describe import describe
from export.pipeline import Draft, export_verified
from export.verify.verdict import Verdict
from maskrcnn.model import MaskRCNN
from runtime.artifact import SIGNATURE, Metadata
from runtime.artifact_files.savedmodel_folder import seal_folder


def export_savedmodel(
    model: MaskRCNN,
    output: str | Path,
    *,
    checkpoint: Mapping[str, str],
    verify_images: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _message: None,
) -> Verdict:
    """Save, verify against the model, and put in place; or write nothing.

    Args:
        model: The model.
        output: The folder; the verdict goes to `<output>.verdict.json` besides.
        checkpoint: Where the weights came from, see `describe.checkpoint_facts`.
        verify_images: Folder of pictures to compare on; None takes bundled ones.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each part.

    Returns:
        The verdict, which passed.

    Raises:
        ParityError: The artifact is not equal to the model.
        OutputError: The output exists, or cannot be written.
        ImageError: A verification picture cannot be used.
    """

    def trace_model() -> Draft:
        module = tf.Module()
        module.detect = trace(model)
        module.model_variables = [variable.value for variable in model.variables]  # saved with the function
        return Draft(describe(model, "savedmodel", checkpoint), partial(_write, module, progress), {})

    return export_verified(
        model,
        output,
        "savedmodel",
        trace_model,
        verify_images=verify_images,
        overwrite=overwrite,
        progress=progress,
    )


def _write(module: tf.Module, progress: Callable[[str], None], path: Path, metadata: Metadata) -> None:
    if not metadata.verdict:  # the second call, with the verdict, only changes the metadata
        progress("saving the SavedModel")
        tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.detect})
    seal_folder(path, metadata.to_json())
