"""Compare an artifact on disk with its model."""

from collections.abc import Sequence
from pathlib import Path

import onnx

from export.convert.surgery import shape_axes
from export.target import Target
from export.verify.pictures import LetterboxedPicture
from export.verify.reference import Reference
from export.verify.verdict import Verdict
from export.verify.verify import verify
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.model import MaskRCNN
from runtime.artifact import Metadata
from runtime.engines.choose import open_backend
from runtime.engines.fixed_batch import FixedBatchStages
from runtime.engines.ort.stages import OnnxStages
from runtime.engines.protocol import StageCutter
from runtime.engines.saved_model import FunctionStages
from runtime.engines.versions import engine_of


def verify_written(
    path: Path,
    metadata: Metadata,
    model: MaskRCNN,
    pictures: Sequence[LetterboxedPicture],
    device: str = "cpu",
    progress: Say = say_nothing,
) -> Verdict:
    """Compare the artifact at `path` with a model; the stages run on the CPU, whole runs on `device`."""
    backend = open_backend(path, metadata, device)
    package, version = engine_of(metadata.format, backend.device)
    reference = Reference(model, Target(metadata.target).every_row)
    engine = f"{package} {version}, {backend.device}"
    return verify(reference, backend, stages_of(path, metadata), pictures, engine, progress, metadata.thresholds)


def stages_of(path: Path, metadata: Metadata) -> StageCutter:
    """Return the graph of an artifact, cut between its stages, on the CPU."""
    if metadata.format == "savedmodel":
        stages = FunctionStages.of_savedmodel(path)
        batch = metadata.input_shape[0]
        return stages if batch is None else FixedBatchStages(stages, batch)
    graph = onnx.load(path)
    shape_axes(graph)  # a fixed batch size holds for the whole graph; stages are fed any number of images
    return OnnxStages.on_cpu(path, graph.SerializeToString(), metadata.borders)
