"""Model to a verified `.onnx` artifact."""

from collections.abc import Callable, Mapping
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
from maskrcnn.model import MaskRCNN

# Protocol buffers cannot be larger; one file is part of the contract.
_LARGEST_MODEL = 2**31 - 2**20


def export_onnx(
    model: MaskRCNN,
    output: str | Path,
    *,
    checkpoint: Mapping[str, str],
    target: Target = CPU,
    verify_images: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _message: None,
) -> Verdict:
    """Convert, verify against the model, and write; or write nothing.

    Args:
        model: The model.
        output: The `.onnx` file; the verdict goes to `<output>.verdict.json` besides.
        checkpoint: Where the weights came from, see `describe.checkpoint_facts`.
        target: The engine that shall run it fast.
        verify_images: Folder of pictures to compare on; None takes bundled ones.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each part.

    Returns:
        The verdict, which passed.

    Raises:
        ParityError: The artifact is not equal to the model.
        ConversionError: The graph cannot be converted.
        OutputError: The output exists, or cannot be written.
        ImageError: A verification picture cannot be used.
    """

    def convert_to_onnx() -> Draft:
        shape = target.input_shape(model.config.resize)
        progress("converting to ONNX")
        converted = convert(model, target)
        if converted.artifact.ByteSize() > _LARGEST_MODEL:
            raise ConversionError("the model is larger than 2 GiB, which one ONNX file cannot hold")
        shape_axes(converted.artifact, shape)
        borders = {name: asdict(place) for name, place in converted.borders.items()}
        metadata = describe(model, "onnx", checkpoint, target.opset)
        metadata = replace(metadata, borders=borders, target=target.engine, input_shape=shape)
        write = partial(write_onnx, converted.artifact.SerializeToString())
        return Draft(metadata, write, converted.facts.to_dict())

    return export_verified(
        model,
        output,
        "onnx",
        convert_to_onnx,
        verify_images=verify_images,
        overwrite=overwrite,
        progress=progress,
    )
