"""Model to an `.onnx` artifact in lower precision that still finds what the model finds, or to none."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import onnx

from export.convert.audit import audit
from export.errors import ConversionError, PrecisionError
from export.precision.gate import ALLOWED, PrecisionGate, detected_dataset, judge_precision, score_masks
from export.precision.half import borders_in, emulate_half, to_half
from export.precision.quantize import nodes_by_part, quantize
from export.publish import publish, write_onnx
from export.target import CPU, Target
from export.to_onnx import export_onnx
from export.verify.pictures import pictures_of_folder
from export.verify.verdict import Verdict
from maskrcnn.checkpoint_predictor import EVALUATION_SCORE_THRESHOLD
from maskrcnn.data.records import Dataset
from maskrcnn.evaluation.coco_ap import MAX_DETECTIONS, check_coco
from maskrcnn.model import MaskRCNN
from runtime.artifact import Metadata
from runtime.atomic import check_output
from runtime.predictor import Predictor

# Ranges settle after a few dozen pictures; a gate of more than these says no more.
MOST_CALIBRATED, MOST_JUDGED = 64, 200

Progress = Callable[[str], None]


@dataclass(frozen=True)
class LowerPrecision:
    """What is made, and what decides about it.

    Attributes:
        precision: "fp16", for GPUs, or "int8", for CPUs.
        pictures: Folder of pictures with objects, like those of use, to be judged by where there is no `truth`, and for
            "int8" the ranges of activations, from the first 64.
        truth: Annotated pictures to be judged by, with the model's class ids; None takes what the float32 model finds
            on `pictures`.
        max_drop: Largest drop of mask AP with `truth`, or of mask AP50 without; None takes that of
            `export.precision.gate.ALLOWED`.

    Raises:
        ConversionError: A precision that is not offered.
    """

    precision: Literal["fp16", "int8"]
    pictures: str | Path
    truth: Dataset | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("fp16", "int8"):
            raise ConversionError(f"precision {self.precision!r} is not offered: choose 'fp16' or 'int8'")


def export_lower_precision(
    model: MaskRCNN,
    output: str | Path,
    lower: LowerPrecision,
    *,
    checkpoint: Mapping[str, str],
    target: Target = CPU,
    verify_images: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = lambda _message: None,
) -> Verdict:
    """Export in float32, verified as always; lower the precision; compare what both find; and write, or write nothing.

    Where that costs too much, the part of the network that costs most is found by trying and left in float32, then the
    next one.

    Args:
        model: The model.
        output: The `.onnx` file; the verdict goes to `<output>.verdict.json` besides.
        lower: The precision, and what it is judged by.
        checkpoint: Where the weights came from, see `describe.checkpoint_facts`.
        target: The engine that shall run it fast; "cpu" for "int8".
        verify_images: See `export_onnx`.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each part.

    Returns:
        The verdict of the float32 graph, with that of the precision in it.

    Raises:
        PrecisionError: The artifact finds too little, whatever is left in float32.
        ParityError: The float32 graph is not equal to the model.
        ConversionError: The graph cannot be converted, or nothing is found on the pictures.
        ImageError: A picture cannot be used.
        OutputError: The output exists, or cannot be written.
        MissingPackageError: pycocotools is not installed.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite)
    if lower.precision == "int8" and target.engine != "cpu":
        raise ConversionError(f"int8 is for the target 'cpu', not {target.engine!r}: choose fp16 there")
    check_coco(MAX_DETECTIONS)  # what the comparison needs, before minutes are spent on the conversion
    pictures = pictures_of_folder(lower.pictures)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "whole.onnx"
        verdict = export_onnx(
            model, path, checkpoint=checkpoint, target=target, verify_images=verify_images, progress=progress
        )
        search = _Search(path, pictures, lower, folder, progress)
        gate, graph = search.run()
        if not gate.passed:
            raise PrecisionError(gate)
        verdict = replace(verdict, precision=gate.to_dict(), graph=audit(graph, target.opset).to_dict())
        metadata = search.describe(graph)
        write = partial(write_onnx, graph.SerializeToString())
        return publish(output, metadata, write, lambda _path: verdict, overwrite=overwrite)


class _Search:
    """Lowers the precision of a graph, and leaves in float32 what costs too much.

    Args:
        path: The float32 artifact.
        pictures: For calibration, and for the comparison if there is no truth.
        lower: The precision, and what it is judged by.
        folder: For temporary files.
        progress: Called with a sentence before each part.
    """

    def __init__(
        self,
        path: Path,
        pictures: Sequence[Path],
        lower: LowerPrecision,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._model = onnx.load(path)
        del self._model.metadata_props[:]
        self._precision = lower.precision
        self._pictures, self._folder, self._progress = pictures[:MOST_CALIBRATED], folder, progress
        self._whole = Predictor(path, "cpu")
        self._parts = nodes_by_part(self._model)
        truth = lower.truth
        self._against = "float32 detections" if truth is None else "annotations"
        self._allowed = ALLOWED[lower.precision, self._against] if lower.max_drop is None else lower.max_drop
        if truth is None:
            progress(f"float32 detections on {len(pictures[:MOST_JUDGED])} pictures")
            self._dataset = detected_dataset(self._whole, pictures[:MOST_JUDGED], self._whole.score_threshold)
        else:
            self._dataset = replace(truth, records=truth.records[:MOST_JUDGED])
        self._reference = score_masks(self._with_low_scores(path), self._dataset)

    def run(self) -> tuple[PrecisionGate, onnx.ModelProto]:
        """The first combination that passes, or the last one; with its graph."""
        left: list[str] = []
        gate, graph = self._try(left)
        while not gate.passed and gate.objects and len(left) < len(self._parts):
            self._progress(f"drop of {gate.drop:.4f}, allowed {gate.allowed:.4f}: looking for the part that costs most")
            trials = (self._try([*left, part]) for part in self._parts if part not in left)
            gate, graph = min(trials, key=lambda trial: trial[0].drop)  # one by one: each holds a whole graph
            left = list(gate.left_in_float)
        return gate, graph

    def describe(self, graph: onnx.ModelProto) -> Metadata:
        """Return the metadata of a graph, without a verdict."""
        whole = self._whole.metadata
        return replace(whole, precision=self._precision, borders=borders_in(graph, whole.borders), verdict={})

    def _try(self, left: Sequence[str]) -> tuple[PrecisionGate, onnx.ModelProto]:
        """Lower the precision of all but some parts, and judge."""
        self._progress(f"to {self._precision}" + (f", with {', '.join(left)} in float32" if left else ""))
        in_float = [node for part in left for node in self._parts[part]]
        if self._precision == "int8":
            judged = graph = quantize(self._model, self._whole, self._pictures, in_float, self._folder)
        else:
            graph = to_half(self._model, in_float)
            judged = emulate_half(graph)
        path = self._folder / "candidate.onnx"
        write_onnx(judged.SerializeToString(), path, self._whole.metadata)
        candidate = self._with_low_scores(path)
        gate = judge_precision(self._precision, self._reference, candidate, self._dataset, self._against, self._allowed)
        return replace(gate, left_in_float=tuple(left)), graph

    def _with_low_scores(self, path: Path) -> Predictor:
        """A predictor for average precision, which needs low scores, too."""
        return Predictor(path, "cpu", score_threshold=min(EVALUATION_SCORE_THRESHOLD, self._whole.score_threshold))
