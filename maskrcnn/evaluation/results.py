"""COCO results of a dataset: mapping of classes, and grouping of results by image."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from maskrcnn.data.records import Dataset, Record
from maskrcnn.errors import DatasetError, DatasetFormatError
from runtime.detections import Detections
from runtime.masks.rle import RLE

# `image_id`, `category_id`, `bbox` [x, y, width, height], `score`, `segmentation` (RLE), as COCO writes them.
Result = dict[str, Any]


class ScoredResult(NamedTuple):
    """A result with the dataset's class id; `box` is x, y, width, height, box and mask are in image pixels."""

    class_id: int
    score: float
    box: tuple[float, float, float, float]
    mask: RLE


def category_ids(dataset: Dataset) -> dict[int, int]:
    """Return the category id of each class id: that of the annotation file, or an unused number."""
    known = dict(dataset.category_ids)
    free = count(max(known.values(), default=0) + 1)
    return {class_id: known[class_id] if class_id in known else next(free) for class_id in _classes(dataset)}


def match_classes(class_names: Sequence[str], dataset: Dataset) -> dict[int, int]:
    """Return the dataset's class id of each class id of a model, matched by name.

    Classes of the model that the dataset does not have are left out.

    Raises:
        DatasetError: The dataset has a class that the model does not have.
    """
    unknown = [name for name in dataset.class_names[1:] if name not in class_names[1:]]
    if unknown:
        raise DatasetError(
            f"{dataset.name} has classes that the model does not have ({_listed(unknown)}; it has "
            f"{_listed(class_names[1:]) or 'none'}): use its names, which `maskrcnn edit` can change in an artifact, "
            "and annotations of its classes alone"
        )
    ids = {name: class_id for class_id, name in enumerate(dataset.class_names)}
    return {class_id: ids[name] for class_id, name in enumerate(class_names) if class_id and ids.get(name)}


def picture_results(
    detections: Detections, record: Record, classes: Mapping[int, int], categories: Mapping[int, int]
) -> list[Result]:
    """Return the COCO results of one image.

    Detections of classes that the dataset does not have, or that are not annotated in this image, are left out, because
    nothing tells whether they are right. `classes` is from `match_classes`, `categories` from `category_ids`.
    """
    active = record.active_class_ids
    wanted = {theirs: ours for theirs, ours in classes.items() if active is None or ours in active}
    kept = detections.filter(classes=sorted(wanted))
    return kept.to_coco(record.image_id, {theirs: categories[ours] for theirs, ours in wanted.items()})


def by_picture(dataset: Dataset, results: Iterable[Result]) -> list[list[ScoredResult]]:
    """Return the results of each image, in the order of the records and of the results.

    Raises:
        DatasetFormatError: A result lacks a key, or has an image or category that the dataset does not have.
    """
    rows = {record.image_id: row for row, record in enumerate(dataset.records)}
    classes = {category: class_id for class_id, category in category_ids(dataset).items()}
    pictures: list[list[ScoredResult]] = [[] for _ in rows]
    for number, result in enumerate(results):
        try:
            row, class_id = rows.get(result["image_id"]), classes.get(result["category_id"])
            x, y, width, height = map(float, result["bbox"])
            prediction = (float(result["score"]), (x, y, width, height), result["segmentation"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetFormatError(
                f"result {number} is not a COCO result; expected image_id, category_id, bbox, score, segmentation"
            ) from error
        if row is None or class_id is None:
            raise DatasetFormatError(
                f"result {number} has image {result['image_id']!r} and category {result['category_id']!r}; "
                f"{dataset.name} does not have both"
            )
        pictures[row].append(ScoredResult(class_id, *prediction))
    return pictures


def _classes(dataset: Dataset) -> range:
    return range(1, len(dataset.class_names))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
