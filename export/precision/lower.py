"""Export a model in lower precision, if the artifact still finds what the model finds."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import onnx

from export.convert.audit import audit
from export.convert.to_onnx_graph import fix_thresholds
from export.errors import ConversionError, PrecisionError
from export.precision.gate import ALLOWED, detected_dataset, judge_precision, score_masks
from export.precision.half import borders_in, emulate_half, to_half
from export.precision.quantize import nodes_by_part, quantize
from export.publish import publish, write_onnx
from export.target import CPU, Target
from export.to_onnx import export_onnx
from export.verify.pictures import pictures_of_folder
from export.verify.verdict import PrecisionGate, Verdict
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.checkpoint_predictor import EVALUATION_SCORE_THRESHOLD
from maskrcnn.data.records import Dataset
from maskrcnn.evaluation.coco_ap import MAX_DETECTIONS, check_coco
from maskrcnn.model import MaskRCNN
from runtime.artifact import Metadata
from runtime.atomic import check_output
from runtime.predictor import Predictor

# Activation ranges settle after a few dozen images, and the comparison after a few hundred.
MOST_CALIBRATED, MOST_JUDGED = 64, 200


@dataclass(frozen=True)
class LowerPrecision:
    """A lower precision, and how to check its accuracy.

    Attributes:
        precision: "fp16", for GPUs, or "int8", for CPUs.
        pictures: Folder of images with objects, like those the model will see. For "int8", the first 64 give the ranges
            of activations. Without `truth`, the first 200 are used for the comparison.
        truth: Annotated images for the comparison, with the model's class ids; the first 200 are used. None compares
            with the detections of the float32 model on `pictures`.
        max_drop: Largest allowed drop of mask AP with `truth`, or of mask AP50 without, 0 to 1. None uses the default
            of `export.precision.gate.ALLOWED`.

    Raises:
        ConversionError: The precision is not supported.
    """

    precision: Literal["fp16", "int8"]
    pictures: str | Path
    truth: Dataset | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("fp16", "int8"):
            raise ConversionError(f"precision {self.precision!r} is not supported: choose 'fp16' or 'int8'")


def export_lower_precision(
    model: MaskRCNN,
    output: str | Path,
    lower: LowerPrecision,
    *,
    checkpoint: Mapping[str, str],
    target: Target = CPU,
    verify_images: str | Path | None = None,
    overwrite: bool = False,
    progress: Say = say_nothing,
) -> Verdict:
    """Export in float32, verify, lower the precision, compare the accuracy, and write; or write nothing.

    If the accuracy drops too much, each part of the network is tried in float32 to find the one that costs most. That
    part stays in float32, and the search continues with the rest.

    Args:
        model: The model to export, with its weights.
        output: The `.onnx` file; the verdict goes to `<output>.verdict.json`.
        lower: The precision, and how to check its accuracy.
        checkpoint: `name` and `sha256` of the weights file, recorded in the metadata.
        target: The engine that the graph is made for; must be "cpu" for "int8".
        verify_images: Folder of images to verify the float32 graph on; None uses bundled ones.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each step.

    Returns:
        The verdict on the float32 graph; its `precision` holds the comparison of the accuracy.

    Raises:
        PrecisionError: The accuracy drops too much, whatever stays in float32.
        ParityError: The float32 graph does not compute what the model computes.
        ConversionError: The graph cannot be converted, or the model detects nothing on the images.
        ImageError: An image cannot be used.
        OutputError: The output exists or cannot be written.
        MissingPackageError: pycocotools is not installed.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite)
    if lower.precision == "int8" and target.engine != "cpu":
        raise ConversionError(f"int8 is for the target 'cpu', not {target.engine!r}: choose fp16")
    check_coco(MAX_DETECTIONS)  # fails now if pycocotools is missing, not after minutes of conversion
    pictures = pictures_of_folder(lower.pictures)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "whole.onnx"
        adjustable = replace(target, thresholds="inputs")  # average precision needs low scores
        verdict = export_onnx(
            model, path, checkpoint=checkpoint, target=adjustable, verify_images=verify_images, progress=progress
        )
        search = _Search(path, pictures, lower, folder, progress)
        gate, graph = search.run()
        if not gate.passed:
            raise PrecisionError(gate)
        if target.thresholds == "constants":
            fix_thresholds(graph, model.config.detection)
        verdict = replace(verdict, precision=gate.to_dict(), graph=audit(graph, target.opset)._asdict())
        metadata = replace(search.describe(graph), thresholds=target.thresholds)
        write = partial(write_onnx, graph.SerializeToString())
        return publish(output, metadata, write, lambda _path: verdict, overwrite=overwrite)


class _Search:
    """The search for the parts of a float32 artifact that must stay in float32."""

    def __init__(
        self, path: Path, pictures: Sequence[Path], lower: LowerPrecision, folder: Path, progress: Say
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
            progress(f"float32 detections on {len(pictures[:MOST_JUDGED])} images")
            self._dataset = detected_dataset(self._whole, pictures[:MOST_JUDGED], self._whole.score_threshold)
        else:
            self._dataset = replace(truth, records=truth.records[:MOST_JUDGED])
        self._reference = score_masks(self._with_low_scores(path), self._dataset)

    def run(self) -> tuple[PrecisionGate, onnx.ModelProto]:
        """Return the first combination that passes, or the last one tried, with its graph."""
        left: list[str] = []
        gate, graph = self._try(left)
        while not gate.passed and gate.objects and len(left) < len(self._parts):
            self._progress(
                f"drop of {gate.drop:.4f}, allowed {gate.allowed:.4f}: searching for the part that costs most"
            )
            trials = (self._try([*left, part]) for part in self._parts if part not in left)
            gate, graph = min(trials, key=lambda trial: trial[0].drop)  # lazily: each trial holds a whole graph
            left = list(gate.left_in_float)
        return gate, graph

    def describe(self, graph: onnx.ModelProto) -> Metadata:
        """Return the metadata of a graph, without a verdict."""
        whole = self._whole.metadata
        return replace(whole, precision=self._precision, borders=borders_in(graph, whole.borders), verdict={})

    def _try(self, left: Sequence[str]) -> tuple[PrecisionGate, onnx.ModelProto]:
        """Lower the precision of all parts but those in `left`, and compare the accuracy."""
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
        """Open a predictor for average precision, which needs detections of low score too."""
        lowest = min(EVALUATION_SCORE_THRESHOLD, self._whole.score_threshold)
        return Predictor(path, "cpu", score_threshold=lowest, require_verdict=False)  # its verdict is being made
