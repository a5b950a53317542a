"""Model to a verified `.onnx` artifact."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import onnx

from export.convert.surgery import shape_axes
from export.convert.to_onnx_graph import convert
from export.describe import describe, engine_version
from export.errors import ConversionError, ParityError
from export.publish import publish
from export.target import CPU, Target
from export.verify.pictures import verification_pictures
from export.verify.reference import Reference
from export.verify.verdict import Verdict
from export.verify.verify import verify
from maskrcnn.model import MaskRCNN
from runtime.artifact_files.onnx_file import seal
from runtime.atomic import check_output
from runtime.engines.choose import open_backend
from runtime.engines.ort.stages import OnnxStages

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
    output = Path(output)
    check_output(output, overwrite=overwrite)
    config = model.config
    shape = target.input_shape(config.resize)
    pictures = verification_pictures(verify_images, config.model.image_channels, config.resize)
    progress("converting to ONNX")
    converted = convert(model, target)
    if converted.artifact.ByteSize() > _LARGEST_MODEL:
        raise ConversionError("the model is larger than 2 GiB, which one ONNX file cannot hold")
    shaped = onnx.ModelProto()
    shaped.CopyFrom(converted.artifact)
    shape_axes(shaped, shape)
    graph = shaped.SerializeToString()
    borders = {name: asdict(place) for name, place in converted.borders.items()}
    draft = describe(model, "onnx", checkpoint, target.opset)
    draft = replace(draft, borders=borders, target=target.engine, input_shape=shape)

    def write(path: Path, verdict: Verdict | None) -> None:
        values = {} if verdict is None else verdict.to_dict()
        path.write_bytes(seal(graph, replace(draft, verdict=values).to_json()))

    def judge(path: Path) -> Verdict:
        backend = open_backend(path, draft, "cpu")
        engine = f"onnxruntime {engine_version('onnxruntime')}, cpu"
        stages = OnnxStages.on_cpu(path, converted.artifact.SerializeToString(), borders)
        verdict = verify(Reference(model, target.every_row), backend, stages, pictures, engine, progress)
        verdict = replace(verdict, graph=converted.facts.to_dict())
        if not verdict.passed:
            raise ParityError(verdict)
        return verdict

    return publish(output, write, judge, overwrite=overwrite, directory=False)
