"""Export a model in lower precision, if the artifact still finds what the model finds."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import onnx

from export.convert.audit import audit
from export.convert.to_onnx_graph import fix_thresholds
from export.errors import ConversionError, PrecisionError
from export.precision.gate import (
    ALLOWED,
    FEWEST,
    MOST_JUDGED,
    detected_dataset,
    judge_precision,
    require_evidence,
    score_masks,
)
from export.precision.half import borders_in, emulate_half, to_half
from export.precision.quantize import nodes_by_part, quantize
from export.publish import check_outputs, publish, write_onnx
from export.target import CPU, Target
from export.to_onnx import export_onnx
from export.verify.pictures import pictures_of_folder
from export.verify.verdict import PrecisionGate, Verdict
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.checkpoints.families.family_file import FamilyFile
from maskrcnn.configuration.model import EVALUATION_SCORE_THRESHOLD
from maskrcnn.data.records import Dataset, Record, require_objects
from maskrcnn.evaluation.coco_ap import MAX_DETECTIONS, check_coco
from maskrcnn.model import MaskRCNN
from runtime.artifact import Metadata
from runtime.one_line import count_of
from runtime.predictor import Predictor

MOST_CALIBRATED = 64  # activation ranges settle after a few dozen images


@dataclass(frozen=True)
class LowerPrecision:
    """A lower precision, and how to check its accuracy.

    Attributes:
        precision: "fp16", for GPUs, or "int8", for CPUs.
        pictures: Folder of images with objects, like those the model will see. For "int8", up to 64 of them give the
            ranges of activations. Without `truth`, up to 200 others are used for the comparison.
        truth: Annotated images for the comparison, with the model's class ids; the first 200 are used that are not
            among those that give the ranges. None compares with the detections of the float32 model on `pictures`.
        max_drop: Largest allowed drop of mask AP, 0 to 1. None uses the default of `export.precision.gate.ALLOWED`.

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


def export_lower_precision(  # noqa: PLR0913  (one argument per option)
    model: MaskRCNN,
    output: str | Path,
    lower: LowerPrecision,
    *,
    checkpoint: Mapping[str, str],
    target: Target = CPU,
    source: FamilyFile | None = None,
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
        source: The PyTorch checkpoint that the model came from, see `maskrcnn.open_weights`, whose genuine model is run
            beside the artifact where its package is installed.
        verify_images: Folder of images to verify the float32 graph on; None uses bundled ones.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each step.

    Returns:
        The verdict on the float32 graph; its `precision` holds the comparison of the accuracy.

    Raises:
        PrecisionError: The accuracy drops too much, whatever stays in float32.
        SourceError: The genuine model of `source` cannot be run.
        ParityError: The float32 graph does not compute what the model computes.
        ConversionError: The graph cannot be converted, there are too few images to compare on others than those that
            give the ranges, the model detects nothing on the images, or it finds no more of the objects than
            `max_drop` allows to lose.
        DatasetError: `truth` has no objects on the images for the comparison.
        ImageError: An image cannot be used.
        OutputError: The output exists or cannot be written.
        MissingPackageError: pycocotools is not installed.
    """
    output = Path(output)
    check_outputs(output, "onnx", overwrite=overwrite)
    if lower.precision == "int8" and target.engine != "cpu":
        raise ConversionError(f"int8 is for the target 'cpu', not {target.engine!r}: choose fp16")
    check_coco(MAX_DETECTIONS)  # fails now if pycocotools is missing, not after minutes of conversion
    parts = _split(lower, pictures_of_folder(lower.pictures))
    truth = parts.annotated(lower.truth)
    if truth is not None:
        require_objects(truth)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "whole.onnx"
        adjustable = replace(target, thresholds="inputs")  # average precision needs low scores
        verdict = export_onnx(
            model,
            path,
            checkpoint=checkpoint,
            target=adjustable,
            source=source,
            verify_images=verify_images,
            progress=progress,
        )
        search = _Search(path, parts, lower, folder, progress)
        gate, graph = search.run()
        if not gate.passed:
            raise PrecisionError(gate)
        if target.thresholds == "constants":
            fix_thresholds(graph, model.config.detection)
        verdict = replace(verdict, precision=gate.to_dict(), graph=audit(graph, target.opset)._asdict())
        metadata = replace(search.describe(graph), thresholds=target.thresholds)
        write = partial(write_onnx, graph.SerializeToString())
        return publish(output, metadata, write, lambda _path: verdict, overwrite=overwrite)


class _Split(NamedTuple):
    """Images for the ranges of activations, and for the comparison: annotated ones, or paths without `truth`."""

    calibrated: Sequence[Path]
    judged: Sequence[Record] | Sequence[Path]

    def annotated(self, truth: Dataset | None) -> Dataset | None:
        """Return the part of `truth` to compare with; None without it."""
        if truth is None:
            return None
        return replace(truth, records=tuple(record for record in self.judged if isinstance(record, Record)))


def _split(lower: LowerPrecision, pictures: Sequence[Path]) -> _Split:
    """Divide the images so that none is used for both; at most every second of the shared ones gives ranges."""
    truth = lower.truth
    annotated = () if truth is None else truth.records
    files = {record.image.resolve() for record in annotated if isinstance(record.image, Path)}
    shared = [path for path in pictures if truth is None or path.resolve() in files]
    known = set(shared)
    free = [path for path in pictures if path not in known]
    calibrated: list[Path] = []
    if lower.precision == "int8":
        calibrated = _spread(free, MOST_CALIBRATED)
        calibrated += _spread(shared, min(MOST_CALIBRATED - len(calibrated), len(shared) // 2))
    taken = {path.resolve() for path in calibrated}
    judged: list[Record] | list[Path] = [path for path in pictures if path.resolve() not in taken]
    if truth is not None:
        judged = [each for each in annotated if not isinstance(each.image, Path) or each.image.resolve() not in taken]
    if len(judged) < FEWEST or (lower.precision == "int8" and len(calibrated) < FEWEST):
        needs = f"{FEWEST} for calibration and {FEWEST} others" if lower.precision == "int8" else str(FEWEST)
        raise ConversionError(
            f"{lower.precision} needs at least {needs} for the comparison, but there are {len(calibrated)} images for "
            f"calibration and {len(judged)} for the comparison: give more images with --calibrate or --truth"
        )
    return _Split(calibrated, judged[:MOST_JUDGED])


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Return paths at equal distances: neighbors by name are often alike, such as frames of one video."""
    count = min(count, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


class _Search:
    """The search for the parts of a float32 artifact that must stay in float32."""

    def __init__(self, path: Path, images: _Split, lower: LowerPrecision, folder: Path, progress: Say) -> None:
        self._model = onnx.load(path)
        del self._model.metadata_props[:]
        self._precision = lower.precision
        self._calibrated, self._folder, self._progress = images.calibrated, folder, progress
        self._whole = Predictor(path, "cpu")
        self._parts = nodes_by_part(self._model)
        truth = images.annotated(lower.truth)
        self._against = "float32 detections" if truth is None else "annotations"
        self._allowed = ALLOWED[lower.precision, self._against] if lower.max_drop is None else lower.max_drop
        calibrated, judged = count_of(len(images.calibrated), "image"), count_of(len(images.judged), "other")
        progress(f"{calibrated} for calibration, {judged} for the comparison")
        if truth is None:
            paths = [path for path in images.judged if isinstance(path, Path)]
            self._dataset = detected_dataset(self._whole, paths, self._whole.score_threshold)
        else:
            self._dataset = truth
        self._reference = score_masks(self._with_low_scores(path), self._dataset)
        require_evidence(self._reference, self._allowed)

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
            judged = graph = quantize(self._model, self._whole, self._calibrated, in_float, self._folder)
        else:
            graph = to_half(self._model, in_float)
            judged = emulate_half(graph)
        path = self._folder / "candidate.onnx"
        write_onnx(judged.SerializeToString(), path, self._whole.metadata)
        candidate = self._with_low_scores(path)
        gate = judge_precision(
            self._precision,
            self._reference,
            candidate,
            self._dataset,
            self._against,
            self._allowed,
            len(self._calibrated),
        )
        return replace(gate, left_in_float=tuple(left)), graph

    def _with_low_scores(self, path: Path) -> Predictor:
        """Open a predictor for average precision, which needs detections of low score too."""
        lowest = min(EVALUATION_SCORE_THRESHOLD, self._whole.score_threshold)
        return Predictor(path, "cpu", score_threshold=lowest, require_verdict=False)  # its verdict is being made
