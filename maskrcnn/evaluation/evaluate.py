"""Evaluation of a predictor on a dataset: COCO's numbers, speed, and a score per image."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.configuration.require import require
from maskrcnn.data.records import Dataset
from maskrcnn.errors import DatasetError
from maskrcnn.evaluation.coco_ap import MAX_DETECTIONS, CocoSummary, check_coco, coco_average_precision
from maskrcnn.evaluation.contact_sheet import contact_sheet
from maskrcnn.evaluation.picture_score import SHOWN_SCORE, PictureScore, score_pictures
from maskrcnn.evaluation.results import Result, by_picture, category_ids, match_classes, picture_results
from maskrcnn.evaluation.speed import PicturePredictor, Speed, predict_timed
from runtime.atomic import atomic_write, check_output

RESULTS_FILE, SUMMARY_FILE, WORST_FILE = "results.json", "summary.json", "worst.png"


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        dataset: The images that were evaluated.
        results: All predictions in COCO's format, with the image and category ids of the annotation file.
        bbox: COCO's numbers for boxes.
        segm: COCO's numbers for masks.
        speed: Milliseconds per image.
        scores: One score per image, in the order of the records.
        min_score: Predictions with lower scores do not count in `scores` (but do in `bbox` and `segm`).
        score_threshold: The lowest score that the predictor returns; None if unknown.
    """

    dataset: Dataset
    results: list[Result]
    bbox: CocoSummary
    segm: CocoSummary
    speed: Speed
    scores: tuple[PictureScore, ...]
    min_score: float
    score_threshold: float | None

    def worst(self, count: int) -> list[int]:
        """Return the indices of the `count` records with the lowest scores, worst first."""
        order = np.argsort([score.score for score in self.scores], kind="stable")
        return [int(row) for row in order[:count]]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, without the results themselves."""
        return {
            "dataset": self.dataset.name,
            "pictures": len(self.dataset),
            "predictions": len(self.results),
            "score_threshold": self.score_threshold,
            "bbox": self.bbox.to_dict(),
            "segm": self.segm.to_dict(),
            "speed": self.speed.to_dict(),
            "worst_min_score": self.min_score,
            "worst": [self.scores[row].to_dict() for row in self.worst(len(self.scores))],
        }

    def write(self, folder: str | Path, *, worst: int = 8, overwrite: bool = False) -> None:
        """Write `results.json` (COCO results), `summary.json` (`to_dict`), and `worst.png` (a contact sheet).

        Args:
            folder: Created if it does not exist.
            worst: Number of images on the contact sheet.
            overwrite: Whether to replace files of an earlier evaluation.

        Raises:
            OutputError: A file exists already, or cannot be written.
            ImageError: An image of the contact sheet cannot be read.
        """
        folder = Path(folder)
        check_outputs(folder, overwrite=overwrite)
        for name, content in ((RESULTS_FILE, self.results), (SUMMARY_FILE, self.to_dict())):
            with atomic_write(folder / name, overwrite=overwrite) as path:
                indent = 2 if name == SUMMARY_FILE else None
                path.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")
        pictures = by_picture(self.dataset, self.results)
        sheet = contact_sheet(self.dataset, pictures, self.worst(worst), self.min_score)
        with atomic_write(folder / WORST_FILE, overwrite=overwrite) as path:
            sheet.save(path, format="PNG")


def check_outputs(folder: str | Path, *, overwrite: bool = False) -> None:
    """Raise OutputError if `Evaluation.write` would refuse to write to `folder`."""
    for name in (RESULTS_FILE, SUMMARY_FILE, WORST_FILE):
        check_output(Path(folder) / name, overwrite=overwrite)


def evaluate(
    predictor: PicturePredictor,
    dataset: Dataset,
    *,
    limit: int | None = None,
    min_score: float = SHOWN_SCORE,
    max_detections: int = MAX_DETECTIONS,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict every image of a dataset, one at a time, and score the predictions.

    Average precision needs predictions with low scores: use a predictor with a `score_threshold` of 0.05 or less
    (`EVALUATION_SCORE_THRESHOLD`, the default of `CheckpointPredictor`). The default threshold of an artifact is
    usually much higher and would cost several points.

    Args:
        predictor: A `runtime.Predictor`, `CheckpointPredictor`, or any callable with `class_names` that returns
            `Detections`. Its classes are matched by name; classes that the dataset does not have are left out.
        dataset: Images with annotated objects.
        limit: Evaluate only this many images; None evaluates all.
        min_score: Predictions with lower scores do not count when images are ranked from worst to best.
        max_detections: Predictions that count per image and class for COCO's numbers; at least 10.
        progress: Called with the number of images done and their total after each image.

    Returns:
        COCO's numbers, speed, a score per image, and all predictions.

    Raises:
        DatasetError: There are no images, the predictor lacks a class of the dataset, or masks have another size than
            their image.
        ImageError: An image cannot be read.
        ConfigError: `limit` or `max_detections` is out of range.
        MissingPackageError: pycocotools is not installed.
    """
    check_coco(max_detections)
    require(limit is None or limit >= 1, f"limit is {limit}: expected at least 1, or None for all images")
    used = replace(dataset, records=dataset.records[:limit])
    if not len(used):
        raise DatasetError(f"{dataset.name} has no images to evaluate: expected at least one")
    results, speed = predict_dataset(predictor, used, progress)
    summaries = coco_average_precision(used, results, max_detections)
    return Evaluation(
        dataset=used,
        results=results,
        bbox=summaries["bbox"],
        segm=summaries["segm"],
        speed=speed,
        scores=score_pictures(used, results, min_score),
        min_score=min_score,
        score_threshold=getattr(predictor, "score_threshold", None),
    )


def predict_dataset(
    predictor: PicturePredictor, dataset: Dataset, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Result], Speed]:
    """Predict every image of a dataset, one at a time; return all predictions and the speed."""
    classes, categories = match_classes(predictor.class_names, dataset), category_ids(dataset)
    results: list[Result] = []
    times = []
    for number, record in enumerate(dataset.records, 1):
        image = record.image() if callable(record.image) else record.image
        detections, milliseconds = predict_timed(predictor, image)
        results += picture_results(detections, record, classes, categories)
        times.append(milliseconds)
        if progress is not None:
            progress(number, len(dataset))
    return results, Speed.of(times)
