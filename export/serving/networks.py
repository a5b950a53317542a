"""The networks that servers run: graphs with constant or default thresholds and any batch, compared with theirs."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from export.errors import ConversionError
from export.publish import write_onnx
from export.verify.pictures import LetterboxedPicture
from maskrcnn.distribution import NAME, own_version
from runtime.artifact import GRAPH_SHA256, NMS_THRESHOLD, SCORE_THRESHOLD, Metadata
from runtime.artifact_files.onnx_file import read_model
from runtime.artifact_files.read import graph_digest, recorded_digest
from runtime.predictor import Predictor

ThresholdsKind = Literal["constants", "defaults"]
Shapes = dict[str, tuple[str, list[int]]]  # NumPy dtype and sides of each tensor, -1 for any


def write_network(
    path: Path, target: Path, metadata: Metadata, kind: ThresholdsKind, picture: LetterboxedPicture
) -> Shapes:
    """Write an `.onnx` artifact as a server needs it, and compare what both compute.

    Args:
        path: An artifact accepted by `require_proven`.
        target: The file to write.
        metadata: Metadata of the artifact.
        kind: Thresholds of the metadata as "constants" instead of inputs; or as "defaults" of inputs, which ONNX
            Runtime lets a run leave out or set.
        picture: Both run on it.

    Returns:
        The inputs and outputs of the network that was written.

    Raises:
        ConversionError: They compute different values.
    """
    import onnx  # noqa: PLC0415  (slow)
    from onnx import numpy_helper  # noqa: PLC0415

    model = onnx.load_model_from_string(read_model(path))
    graph, original = model.graph, model.SerializeToString()
    values = {SCORE_THRESHOLD: metadata.score_threshold, NMS_THRESHOLD: metadata.nms_threshold}
    known = {tensor.name for tensor in graph.initializer}
    if metadata.thresholds == "inputs":
        missing = [name for name in values if name not in known]
        graph.initializer.extend(numpy_helper.from_array(np.asarray(values[n], np.float32), n) for n in missing)
        if kind == "constants":
            inputs = [value for value in graph.input if value.name not in values]
            del graph.input[:]
            graph.input.extend(inputs)
    batch = metadata.input_shape[0]
    for value in (*graph.input, *graph.output):
        sides = value.type.tensor_type.shape.dim
        if sides and batch is not None:  # the graph computes any batch: only its declaration has one size
            sides[0].dim_param = "batch"
    content = model.SerializeToString()
    if content == original:
        target.write_bytes(path.read_bytes())
    else:
        edits = (*metadata.edits, served_note(path, f"thresholds became {kind}"))
        shape = (None, *metadata.input_shape[1:])
        served = replace(metadata, edits=edits, input_shape=shape, verdict={})
        if kind == "constants":
            served = replace(served, thresholds="constants")
        write_onnx(content, target, served)
        proof = {**metadata.verdict, GRAPH_SHA256: graph_digest(target)}
        write_onnx(content, target, replace(served, verdict=proof))
        _require_equal(path, target, picture, batch or 2)
    return {value.name: _tensor(value) for value in (*graph.input, *graph.output)}


def served_note(path: Path, what: str) -> str:
    """Return the sentence for the metadata of what is written for a server."""
    today = datetime.now(UTC).date().isoformat()
    return f"{today}, {NAME} {own_version()}: for a server, from the artifact {recorded_digest(path)}: {what}"


def _tensor(value: Any) -> tuple[str, list[int]]:
    from onnx import helper  # noqa: PLC0415

    tensor = value.type.tensor_type
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return dtype, [side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim]


def _require_equal(path: Path, target: Path, picture: LetterboxedPicture, batch: int) -> None:
    with Predictor(path, "cpu") as proven, Predictor(target, "cpu") as served:
        several, one = picture_batch(picture, batch), picture_batch(picture, 1)
        require_same(proven.run(*several), served.run(*several), path)
        served.run(*one)  # a graph that takes one number of images alone would be refused
        require_same(proven.borders(*one), served.borders(*one), path)


def picture_batch(picture: LetterboxedPicture, batch: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Return `images` and `windows` of a batch of one picture."""
    return np.stack([picture.image] * batch), np.array([picture.window] * batch, np.float32)


def require_same(expected: Mapping[str, Any], found: Mapping[str, Any], path: Path) -> None:
    """Raise ConversionError unless two runs returned the same tensors, bit for bit."""
    different = [name for name in expected if not np.array_equal(expected[name], found[name])]
    if different or not expected:
        raise ConversionError(
            f"the network for a server computes other {', '.join(different)} than {path}: nothing was written; export "
            "the checkpoint again"
        )
