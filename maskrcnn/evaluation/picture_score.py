"""One score for each image, to find the worst ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from maskrcnn.data.records import Dataset, Instance
from maskrcnn.evaluation.results import Result, ScoredResult, by_picture
from runtime.masks.paste import MaskCrop, shared_pixels
from runtime.masks.rle import decode_crop

# "ignored" is a crowd or a prediction inside one.
Outcome = Literal["found", "missed", "false", "ignored"]

MATCH_IOU = 0.5
SHOWN_SCORE = 0.5


@dataclass(frozen=True)
class PictureScore:
    """How well the predictions for one image match its objects.

    Attributes:
        image_id: Id of the record.
        objects: Outcome of each instance: "found", "missed" or "ignored".
        predictions: Outcome of each prediction that counts: "found", "false" or "ignored".
        score: Sum of the mask IoUs of all matches, divided by the number of matches, missed objects and false
            positives: 0 to 1; 1 for an image without objects and predictions.
    """

    image_id: int | str
    objects: tuple[Outcome, ...]
    predictions: tuple[Outcome, ...]
    score: float

    @property
    def found(self) -> int:
        """Number of objects with a matching prediction."""
        return self.objects.count("found")

    @property
    def missed(self) -> int:
        """Number of objects without a matching prediction."""
        return self.objects.count("missed")

    @property
    def false(self) -> int:
        """Number of false positives."""
        return self.predictions.count("false")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        counts = {"found": self.found, "missed": self.missed, "false": self.false}
        return {"image_id": self.image_id, "score": round(self.score, 4), **counts}


def score_pictures(
    dataset: Dataset, results: Iterable[Result], min_score: float = SHOWN_SCORE
) -> tuple[PictureScore, ...]:
    """Score each image of a dataset, in the order of its records, without predictions below `min_score`.

    `results` are in COCO's format, with the dataset's image and category ids.

    Raises:
        DatasetFormatError: A result does not fit the dataset.
    """
    return tuple(
        score_picture(record.image_id, record.load_instances(), shown(predictions, min_score))
        for record, predictions in zip(dataset.records, by_picture(dataset, results), strict=True)
    )


def shown(predictions: Sequence[ScoredResult], min_score: float) -> list[ScoredResult]:
    """Return predictions with at least `min_score`, best first; equal scores keep their order."""
    return sorted((p for p in predictions if p.score >= min_score), key=lambda p: -p.score)


def score_picture(
    image_id: int | str, instances: Sequence[Instance], predictions: Sequence[ScoredResult]
) -> PictureScore:
    """Match each prediction, in order, with the free object of its class that has the largest mask IoU, at least 0.5.

    An unmatched prediction is ignored if at least half of it lies inside a crowd of its class.
    """
    crops = [decode_crop(instance.mask) for instance in instances]
    objects: list[Outcome] = ["ignored" if instance.crowd else "missed" for instance in instances]
    outcomes: list[Outcome] = []
    total = 0.0
    for prediction in predictions:
        crop = decode_crop(prediction.mask)
        rows = [row for row, instance in enumerate(instances) if instance.class_id == prediction.class_id]
        pairs = [(_iou(crop, crops[row]), row) for row in rows if objects[row] == "missed"]
        iou, match = max(pairs, key=lambda pair: pair[0], default=(0.0, 0))
        if iou >= MATCH_IOU:
            total += iou
            objects[match] = "found"
            outcomes.append("found")
        else:
            crowds = [crops[row] for row in rows if instances[row].crowd]
            outcomes.append("ignored" if any(_mostly_inside(crop, crowd) for crowd in crowds) else "false")
    parts = objects.count("found") + objects.count("missed") + outcomes.count("false")
    return PictureScore(image_id, tuple(objects), tuple(outcomes), total / parts if parts else 1.0)


def _iou(first: MaskCrop, second: MaskCrop) -> float:
    shared = shared_pixels(first, second)
    return shared / max(_pixels(first) + _pixels(second) - shared, 1)


def _mostly_inside(crop: MaskCrop, crowd: MaskCrop) -> bool:
    return 2 * shared_pixels(crop, crowd) >= _pixels(crop) > 0


def _pixels(place: MaskCrop) -> int:
    return int(np.count_nonzero(place[0]))
