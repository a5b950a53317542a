"""Does a model in lower precision still find what the float32 model finds?"""

from collections.abc import Sequence
from pathlib import Path

from export.errors import ConversionError
from export.verify.verdict import PrecisionGate
from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.evaluation.coco_ap import CocoSummary
from maskrcnn.evaluation.evaluate import evaluate
from maskrcnn.evaluation.speed import PicturePredictor
from runtime.detections import Detections
from runtime.engines.outputs import NotFiniteError

# Largest allowed drop of mask AP. Other arithmetic does not draw the same masks up to an IoU of 0.95, so int8 may lose
# more against float32 detections. Measured with the demo model on 8 to 40 images that it was not calibrated on: int8
# loses 0.005 to 0.023 against those and gains 0.003 to 0.012 against annotations; fp16 loses nothing.
# bf16 loses 0.007 against those and gains 0.001.
ALLOWED = {
    ("int8", "annotations"): 0.01,
    ("int8", "float32 detections"): 0.03,
    ("fp16", "annotations"): 0.005,
    ("fp16", "float32 detections"): 0.005,
    ("bf16", "annotations"): 0.005,
    ("bf16", "float32 detections"): 0.02,
}
MOST_JUDGED = 200  # images: the comparison settles after a few hundred
FEWEST = 6  # with fewer, a single image would decide


def judge_precision(
    precision: str,
    reference: CocoSummary,
    candidate: PicturePredictor,
    dataset: Dataset,
    against: str,
    allowed: float,
    calibrated: int = 0,
) -> PrecisionGate:
    """Score a model in lower precision and compare; one whose detections are not finite finds nothing.

    `reference` comes from `score_masks` on the same dataset; the other arguments are those of `PrecisionGate`. The
    candidate must return detections of low score too. Its other errors are raised: they say nothing about accuracy.
    """
    names = dataset.class_names[1:]
    before = {name: reference.classes[name]["AP"] for name in names}
    try:
        summary = score_masks(candidate, dataset)
        after, found = {name: summary.classes[name]["AP"] for name in names}, summary["AP"] or 0.0
    except NotFiniteError:  # something overflowed
        after, found = {name: None if value is None else 0.0 for name, value in before.items()}, 0.0
    return PrecisionGate(
        precision=precision,
        against=against,
        measure="mask AP",
        calibrated=calibrated,
        pictures=len(dataset),
        objects=int(sum(row["objects"] or 0 for row in reference.classes.values())),
        reference=reference["AP"] or 0.0,
        found=found,
        allowed=allowed,
        classes={name: (before[name], after[name]) for name in names},
    )


def score_masks(predictor: PicturePredictor, dataset: Dataset) -> CocoSummary:
    """Return COCO's scores for the masks of a model, which must return detections of low score too."""
    return evaluate(predictor, dataset).segm


def require_evidence(reference: CocoSummary, allowed: float) -> None:
    """Raise ConversionError unless float32 finds so much that a model which finds nothing would be refused."""
    found = reference["AP"] or 0.0
    if found > allowed:
        return
    if found == 0:
        raise ConversionError(
            "the float32 model finds none of the objects, so no drop can be measured: check that --truth and "
            "--truth-images belong together and that the classes are the model's, or give other images"
        )
    raise ConversionError(
        f"the float32 model has a mask AP of {found:.4f}, which is not above the allowed drop of {allowed:g}, so a "
        "model that finds nothing would be accepted: check --truth, or allow a smaller drop with --max-drop"
    )


def detected_dataset(predictor: PicturePredictor, pictures: Sequence[Path], min_score: float) -> Dataset:
    """Return the detections of the float32 model, from `min_score` on, as if they were annotations.

    Raises:
        ConversionError: Nothing is detected on any image.
    """
    records = tuple(
        Record(number, path, _instances(predictor(path), min_score)) for number, path in enumerate(pictures)
    )
    if not any(record.load_instances() for record in records):
        raise ConversionError(
            f"the float32 model detects nothing on the images for the comparison ({len(pictures)}), so nothing can be "
            "compared: give images with objects"
        )
    return Dataset("float32 detections", tuple(predictor.class_names), records)


def _instances(detections: Detections, min_score: float) -> tuple[Instance, ...]:
    kept = detections.filter(min_score=min_score)
    rows = zip(kept.class_ids.tolist(), kept.rles, strict=True)
    return tuple(Instance(class_id, mask) for class_id, mask in rows)
