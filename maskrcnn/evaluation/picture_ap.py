"""Matterport's mAP of a dataset: the mean of the average precisions of its images."""

from collections.abc import Iterable

import numpy as np

from maskrcnn.data.records import Dataset
from maskrcnn.evaluation.metrics import average_precision
from maskrcnn.evaluation.results import Result, by_picture
from runtime.masks.rle import RLE, decode


def mean_picture_ap(dataset: Dataset, results: Iterable[Result], iou_threshold: float = 0.5) -> float:
    """Return the mean over images of `metrics.average_precision`: the mAP that matterport's notebooks print.

    The original only has predictions with a score of at least `detection.min_score` (0.7 by default): filter `results`
    to compare. Crowds are left out. An image without objects counts as 1 if nothing was predicted, otherwise as 0.

    Args:
        dataset: The ground truth; at least one image.
        results: Predictions in COCO's format, with the dataset's image and category ids.
        iou_threshold: Lowest mask IoU of a match.

    Raises:
        DatasetFormatError: A result does not fit the dataset.
    """
    values = []
    for record, predictions in zip(dataset.records, by_picture(dataset, results), strict=True):
        objects = [instance for instance in record.load_instances() if not instance.crowd]
        value = average_precision(
            np.ones((len(objects), 4)),  # boxes only mark rows that are not padding
            np.array([instance.class_id for instance in objects], np.int64),
            _stack([instance.mask for instance in objects]),
            np.ones((len(predictions), 4)),
            np.array([prediction.class_id for prediction in predictions], np.int64),
            np.array([prediction.score for prediction in predictions], np.float64),
            _stack([prediction.mask for prediction in predictions]),
            iou_threshold,
        )
        values.append(value.ap)
    return float(np.mean(values))


def _stack(masks: list[RLE]) -> np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]:
    """Return masks as bool [H, W, N]."""
    return np.stack([decode(mask) for mask in masks], axis=-1) if masks else np.zeros((1, 1, 0), np.bool_)
