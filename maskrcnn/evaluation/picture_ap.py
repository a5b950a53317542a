"""Matterport's figure for a dataset: the mean of the pictures' average precisions."""

from collections.abc import Iterable

import numpy as np

from maskrcnn.data.records import Dataset
from maskrcnn.evaluation.metrics import average_precision
from maskrcnn.evaluation.results import Result, by_picture
from runtime.masks.rle import RLE, decode


def mean_picture_ap(dataset: Dataset, results: Iterable[Result], iou_threshold: float = 0.5) -> float:
    """Mean over pictures of `metrics.average_precision`: the mAP that matterport's notebooks print.

    The original keeps predictions of a score of at least `detection.min_score` (0.7 by default) only: filter `results`
    to compare with its figures. Crowds are left out. A picture without objects counts 1 if nothing was predicted,
    else 0.

    Args:
        dataset: One or more pictures.
        results: In COCO's format, with the dataset's image and category ids.
        iou_threshold: Lowest mask IoU of a match.

    Raises:
        DatasetFormatError: A result does not fit the dataset.
    """
    values = []
    for record, predictions in zip(dataset.records, by_picture(dataset, results), strict=True):
        objects = [instance for instance in record.load_instances() if not instance.crowd]
        value = average_precision(
            np.ones((len(objects), 4)),  # boxes only tell rows in use from padding
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
    """Masks bool [H, W, N]."""
    return np.stack([decode(mask) for mask in masks], axis=-1) if masks else np.zeros((1, 1, 0), np.bool_)
