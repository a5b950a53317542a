"""Export a model to a verified `.onnx` artifact."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from export.convert.surgery import shape_axes
from export.convert.to_onnx_graph import convert
from export.describe import describe
from export.errors import ConversionError
from export.pipeline import Draft, export_verified
from export.publish import write_onnx
from export.target import CPU, Target
from export.verify.verdict import Verdict
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.checkpoints.families.family_file import FamilyFile
from maskrcnn.model import MaskRCNN

_LARGEST_MODEL = 2**31 - 2**20  # the limit of protocol buffers, less room for the metadata; an artifact is one file


def export_onnx(
    model: MaskRCNN,
    output: str | Path,
    *,
    checkpoint: Mapping[str, str],
    target: Target = CPU,
    source: FamilyFile | None = None,
    verify_images: str | Path | None = None,
    overwrite: bool = False,
    progress: Say = say_nothing,
) -> Verdict:
    """Convert a model to ONNX, verify the result against the model, and write it; or write nothing.

    Args:
        model: The model to export, with its weights.
        output: The `.onnx` file; the verdict goes to `<output>.verdict.json`.
        checkpoint: `name` and `sha256` of the weights file, recorded in the metadata.
        target: The engine that the graph is made for, and whether its thresholds can be set.
        source: The PyTorch checkpoint that the model came from, see `maskrcnn.open_weights`, whose genuine model is run
            beside the artifact where its package is installed.
        verify_images: Folder of images to compare on; None uses bundled ones.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each step.

    Returns:
        The verdict, which has passed.

    Raises:
        SourceError: The genuine model of `source` cannot be run.
        ParityError: The artifact does not compute what the model computes.
        ConversionError: The graph cannot be converted.
        OutputError: The output exists or cannot be written.
        ImageError: A verification image cannot be used.
    """

    def convert_to_onnx() -> Draft:
        shape = target.input_shape(model.config.resize)
        progress("converting to ONNX")
        converted = convert(model, target)
        if converted.artifact.ByteSize() > _LARGEST_MODEL:
            raise ConversionError("the model is larger than 2 GiB, the limit of one ONNX file")
        shape_axes(converted.artifact, shape)
        borders = {name: asdict(place) for name, place in converted.borders.items()}
        metadata = describe(model, "onnx", checkpoint, target.opset, target.thresholds)
        metadata = replace(metadata, borders=borders, target=target.engine, input_shape=shape)
        write = partial(write_onnx, converted.artifact.SerializeToString())
        return Draft(metadata, write, converted.facts._asdict())

    return export_verified(
        model,
        output,
        "onnx",
        convert_to_onnx,
        source=source,
        verify_images=verify_images,
        overwrite=overwrite,
        progress=progress,
    )
