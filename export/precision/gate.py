"""Whether a model of lower precision still finds what the model of full precision finds."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.errors import ConversionError
from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.evaluation.coco_ap import CocoSummary
from maskrcnn.evaluation.evaluate import evaluate
from maskrcnn.evaluation.speed import PicturePredictor
from runtime.detections import Detections
from runtime.errors import InputError

# Largest drop by precision and judge: of mask AP against annotations; without any, of mask AP50, where the detections
# of full precision are the truth, which no other arithmetic can equal at an IoU of 0.95.
ALLOWED = {
    ("int8", "annotations"): 0.01,
    ("int8", "float32 detections"): 0.05,
    ("fp16", "annotations"): 0.005,
    ("fp16", "float32 detections"): 0.02,
}


@dataclass(frozen=True)
class PrecisionGate:
    """What the comparison found.

    Attributes:
        precision: Of the artifact.
        against: "annotations", or "float32 detections".
        measure: "mask AP" or "mask AP50".
        pictures: How many were compared.
        objects: How many there were to be found.
        reference: The measure of the model of full precision.
        found: The measure of the artifact.
        allowed: Largest drop.
        classes: By class name, the measure of both; None for a class without objects.
        left_in_float: Parts of the network that are not of the lower precision, because they cost too much.
    """

    precision: str
    against: str
    measure: str
    pictures: int
    objects: int
    reference: float
    found: float
    allowed: float
    classes: dict[str, tuple[float | None, float | None]]
    left_in_float: tuple[str, ...] = ()

    @property
    def drop(self) -> float:
        """By how much the artifact is worse."""
        return self.reference - self.found

    @property
    def passed(self) -> bool:
        """There was something to find, and it is found still."""
        return self.objects > 0 and self.drop <= self.allowed

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        # Tuples become lists here, so that a verdict read back equals the one written.
        plain: dict[str, Any] = json.loads(json.dumps({**asdict(self), "drop": self.drop, "passed": self.passed}))
        return plain


def judge_precision(
    precision: str,
    reference: CocoSummary,
    candidate: PicturePredictor,
    dataset: Dataset,
    against: str,
    allowed: float,
) -> PrecisionGate:
    """Score a model of lower precision, and compare; one whose detections are no numbers finds nothing.

    Args:
        precision: Of the candidate.
        reference: Scores of the model of full precision on the same data set, see `score_masks`.
        candidate: Returns low scores too.
        dataset: Annotated pictures, or those of `detected_dataset`.
        against: "annotations" or "float32 detections".
        allowed: Largest drop.
    """
    measure = "AP" if against == "annotations" else "AP50"
    names = dataset.class_names[1:]
    before = {name: reference.classes[name][measure] for name in names}
    try:
        summary = score_masks(candidate, dataset)
        after, found = {name: summary.classes[name][measure] for name in names}, summary[measure] or 0.0
    except InputError:  # numbers that are none: something overflowed
        after, found = {name: None if value is None else 0.0 for name, value in before.items()}, 0.0
    return PrecisionGate(
        precision=precision,
        against=against,
        measure=f"mask {measure}",
        pictures=len(dataset),
        objects=int(sum(row["objects"] or 0 for row in reference.classes.values())),
        reference=reference[measure] or 0.0,
        found=found,
        allowed=allowed,
        classes={name: (before[name], after[name]) for name in names},
    )


def score_masks(predictor: PicturePredictor, dataset: Dataset) -> CocoSummary:
    """COCO's figures for the masks of a model that returns low scores too."""
    return evaluate(predictor, dataset).segm


def detected_dataset(predictor: PicturePredictor, pictures: Sequence[Path], min_score: float) -> Dataset:
    """The detections of a model as if they were annotations.

    Args:
        predictor: The model of full precision.
        pictures: Files.
        min_score: Detections below it do not count as objects.

    Raises:
        ImageError: A picture cannot be used.
        ConversionError: Nothing is detected on any of them.
    """
    records = tuple(
        Record(number, path, _instances(predictor(path), min_score)) for number, path in enumerate(pictures)
    )
    if not any(record.load_instances() for record in records):
        raise ConversionError(
            f"the model detects nothing on the {len(pictures)} calibration pictures, so nothing can be compared: "
            "give pictures with objects"
        )
    return Dataset("float32 detections", tuple(predictor.class_names), records)


def _instances(detections: Detections, min_score: float) -> tuple[Instance, ...]:
    kept = detections.filter(min_score=min_score)
    rows = zip(kept.class_ids.tolist(), kept.rles, strict=True)
    return tuple(Instance(class_id, mask) for class_id, mask in rows)
