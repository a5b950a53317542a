"""A predictor against a dataset: COCO's figures, speed, and the pictures it understands least."""

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

# Called with the number of pictures done and of all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        dataset: The pictures that were used.
        results: All predictions in COCO's format, with the image and category ids of the dataset's file.
        bbox: COCO's figures for boxes.
        segm: COCO's figures for masks.
        speed: Milliseconds per picture.
        scores: Of each picture, in the order of the records.
        min_score: Predictions below it do not count for `scores` (they do for `bbox` and `segm`).
        score_threshold: The lowest score the predictor returns; None if it does not say.
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
        """Rows of the records with the lowest scores, the worst first."""
        order = np.argsort([score.score for score in self.scores], kind="stable")
        return [int(row) for row in order[:count]]

    def to_dict(self) -> dict[str, Any]:
        """JSON serialisable; the results themselves are left out."""
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
            folder: Made where it does not exist.
            worst: How many pictures the contact sheet shows.
            overwrite: Whether files of an earlier evaluation may be replaced.

        Raises:
            OutputError: A file is there already, or cannot be written.
            ImageError: A picture of the contact sheet cannot be read any more.
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
    """Refuse a folder that `Evaluation.write` would refuse, before minutes are spent on predictions.

    Raises:
        OutputError: A file is there already.
    """
    for name in (RESULTS_FILE, SUMMARY_FILE, WORST_FILE):
        check_output(Path(folder) / name, overwrite=overwrite)


def evaluate(
    predictor: PicturePredictor,
    dataset: Dataset,
    *,
    limit: int | None = None,
    min_score: float = SHOWN_SCORE,
    max_detections: int = MAX_DETECTIONS,
    progress: Progress | None = None,
) -> Evaluation:
    """Predict every picture of a dataset, one at a time, and score the predictions.

    Average precision needs predictions of low scores too: make the predictor with a `score_threshold` of 0.05 or less
    (`EVALUATION_SCORE_THRESHOLD`, the default of `CheckpointPredictor`). The threshold of an artifact is usually far
    above that and would cost several points.

    Args:
        predictor: `runtime.Predictor`, `CheckpointPredictor`, or another one. Its classes are matched by name; those
            that the dataset does not have are left out.
        dataset: Pictures with annotated objects.
        limit: Use the first so many pictures only.
        min_score: Predictions below it do not count when pictures are ranked from worst to best.
        max_detections: As for `coco_average_precision`.
        progress: Called after each picture.

    Raises:
        DatasetError: No picture, or the dataset has a class that the predictor does not know, or its masks are of
            another size than its pictures.
        ImageError: A picture cannot be read.
        ConfigError: `limit` or `max_detections` is out of range.
        MissingPackageError: pycocotools is not installed.
    """
    check_coco(max_detections)  # before minutes are spent on predictions
    require(limit is None or limit >= 1, f"limit is {limit}: expected at least 1, or None for all pictures")
    used = replace(dataset, records=dataset.records[:limit])
    if not len(used):
        raise DatasetError(f"{dataset.name} has no pictures to evaluate: expected at least one")
    results, speed = _predict(predictor, used, progress)
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


def _predict(predictor: PicturePredictor, dataset: Dataset, progress: Progress | None) -> tuple[list[Result], Speed]:
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
