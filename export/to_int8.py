"""Model to an `.onnx` artifact in 8 bits that still finds what the model finds, or to none."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from export.errors import PrecisionError
from export.onnx_convert import DEFAULT_OPSET
from export.pictures import pictures_of_folder
from export.precision import (
    ALLOWED_DISAGREEMENT,
    ALLOWED_DROP,
    PrecisionGate,
    detected_dataset,
    judge_precision,
    score_masks,
)
from export.publish import publish
from export.quantize import nodes_by_part, quantize
from export.to_onnx import export_onnx
from export.verdict import Verdict
from maskrcnn.data.records import Dataset
from maskrcnn.evaluation.coco_ap import MAX_DETECTIONS, check_coco
from maskrcnn.evaluation.predict import EVALUATION_SCORE_THRESHOLD
from maskrcnn.model import MaskRCNN
from runtime.artifact import Metadata
from runtime.atomic import check_output
from runtime.onnx_file import seal
from runtime.predictor import Predictor

# Ranges settle after a few dozen pictures; a gate of more than these says no more.
MOST_CALIBRATED, MOST_JUDGED = 64, 200

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """What decides about 8 bits.

    Attributes:
        pictures: Folder of pictures with objects, like those of use, for the ranges of activations; 64 are used.
        truth: Annotated pictures to be judged by, with the model's class ids; None takes what the float32 model finds
            on `pictures`.
        max_drop: Largest drop of mask AP with `truth` (0.01 by default), or of mask AP50 without (0.05).
    """

    pictures: str | Path
    truth: Dataset | None = None
    max_drop: float | None = None


def export_int8(
    model: MaskRCNN,
    output: str | Path,
    calibration: Calibration,
    *,
    checkpoint: Mapping[str, str],
    opset: int = DEFAULT_OPSET,
    verify_images: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = lambda _message: None,
) -> Verdict:
    """Export in float32, verified as always; quantize; compare what both find; and write, or write nothing.

    Where the 8-bit model is too far off, the part of the network that costs most is found by trying and left in
    float, then the next one.

    Args:
        model: The model.
        output: The `.onnx` file; the verdict goes to `<output>.verdict.json` besides.
        calibration: Pictures, and what they are judged by.
        checkpoint: Where the weights came from, see `describe.checkpoint_facts`.
        opset: Of the graph.
        verify_images: See `export_onnx`.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each part.

    Returns:
        The verdict of the float32 graph, with that of the precision in it.

    Raises:
        PrecisionError: The 8-bit model finds too little, whatever is left in float.
        ParityError: The float32 graph is not equal to the model.
        ConversionError: The graph cannot be converted, or nothing is found on the pictures.
        ImageError: A picture cannot be used.
        OutputError: The output exists, or cannot be written.
        MissingPackageError: pycocotools is not installed.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite)
    check_coco(MAX_DETECTIONS)  # what the comparison needs, before minutes are spent on the conversion
    pictures = pictures_of_folder(calibration.pictures)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "whole.onnx"
        verdict = export_onnx(
            model, path, checkpoint=checkpoint, opset=opset, verify_images=verify_images, progress=progress
        )
        search = _Search(path, pictures, calibration, folder, progress)
        gate, quantized = search.run()
        if not gate.passed:
            raise PrecisionError(gate)
        verdict = replace(verdict, precision=gate.to_dict())
        metadata = search.metadata

        def write(place: Path, judged: Verdict | None) -> None:
            values = {} if judged is None else judged.to_dict()
            place.write_bytes(seal(quantized, replace(metadata, verdict=values).to_json()))

        return publish(output, write, lambda _path: verdict, overwrite=overwrite, directory=False)


class _Search:
    """Quantizes a graph, and leaves in float what costs too much.

    Args:
        path: The float32 artifact.
        pictures: For calibration, and for the comparison if there is no truth.
        calibration: What it is judged by.
        folder: For temporary files.
        progress: Called with a sentence before each part.
    """

    def __init__(
        self,
        path: Path,
        pictures: Sequence[Path],
        calibration: Calibration,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._model = onnx.load(path)
        del self._model.metadata_props[:]
        self._pictures, self._folder, self._progress = pictures[:MOST_CALIBRATED], folder, progress
        self._whole = Predictor(path, "cpu")
        self.metadata: Metadata = replace(self._whole.metadata, precision="int8")
        self._parts = nodes_by_part(self._model)
        truth = calibration.truth
        self._against = "float32 detections" if truth is None else "annotations"
        usual = ALLOWED_DISAGREEMENT if truth is None else ALLOWED_DROP
        self._allowed = usual if calibration.max_drop is None else calibration.max_drop
        if truth is None:
            progress(f"float32 detections on {len(pictures[:MOST_JUDGED])} pictures")
            self._dataset = detected_dataset(self._whole, pictures[:MOST_JUDGED], self._whole.score_threshold)
        else:
            self._dataset = replace(truth, records=truth.records[:MOST_JUDGED])
        self._reference = score_masks(self._with_low_scores(path), self._dataset)

    def run(self) -> tuple[PrecisionGate, bytes]:
        """The first combination that passes, or the last one; with its graph."""
        left: list[str] = []
        gate, graph = self._try(left)
        while not gate.passed and gate.objects and len(left) < len(self._parts):
            self._progress(f"drop of {gate.drop:.4f}, allowed {gate.allowed:.4f}: looking for the part that costs most")
            trials = (self._try([*left, part]) for part in self._parts if part not in left)
            gate, graph = min(trials, key=lambda trial: trial[0].drop)  # one by one: each holds a whole graph
            left = list(gate.left_in_float)
        return gate, graph

    def _try(self, left: Sequence[str]) -> tuple[PrecisionGate, bytes]:
        """Quantize all but some parts, and judge."""
        self._progress("quantizing" + (f", with {', '.join(left)} in float" if left else ""))
        in_float = [node for part in left for node in self._parts[part]]
        graph = quantize(self._model, self._whole, self._pictures, in_float, self._folder).SerializeToString()
        path = self._folder / "candidate.onnx"
        path.write_bytes(seal(graph, self.metadata.to_json()))
        candidate = self._with_low_scores(path)
        gate = judge_precision("int8", self._reference, candidate, self._dataset, self._against, self._allowed)
        return replace(gate, left_in_float=tuple(left)), graph

    def _with_low_scores(self, path: Path) -> Predictor:
        """A predictor for average precision, which needs low scores, too."""
        return Predictor(path, "cpu", score_threshold=min(EVALUATION_SCORE_THRESHOLD, self._whole.score_threshold))
