"""COCO results of a dataset: whose class is whose, and which result belongs to which picture."""

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
    """A result in the terms of its dataset.

    Attributes:
        class_id: Index into the dataset's class names.
        score: 0 to 1.
        box: x, y, width, height in picture pixels.
        mask: Run-length encoding in picture pixels.
    """

    class_id: int
    score: float
    box: tuple[float, float, float, float]
    mask: RLE


def category_ids(dataset: Dataset) -> dict[int, int]:
    """Category id of each class id: the file's own where it has one, else numbers that are free."""
    known = dict(dataset.category_ids)
    free = count(max(known.values(), default=0) + 1)
    return {class_id: known[class_id] if class_id in known else next(free) for class_id in _classes(dataset)}


def match_classes(class_names: Sequence[str], dataset: Dataset) -> dict[int, int]:
    """The dataset's class id of each class id of a model, by name.

    A model may know more classes than the dataset has; those are left out.

    Raises:
        DatasetError: The dataset has a class that the model does not know.
    """
    unknown = [name for name in dataset.class_names[1:] if name not in class_names[1:]]
    if unknown:
        raise DatasetError(
            f"{dataset.name} has classes that the model does not know ({_listed(unknown)}; it knows "
            f"{_listed(class_names[1:]) or 'none'}): choose classes that both have, maskrcnn.data.records.combine does"
        )
    ids = {name: class_id for class_id, name in enumerate(dataset.class_names)}
    return {class_id: ids[name] for class_id, name in enumerate(class_names) if class_id and ids.get(name)}


def picture_results(
    detections: Detections, record: Record, classes: Mapping[int, int], categories: Mapping[int, int]
) -> list[Result]:
    """COCO results of one picture, boxes rounded to 0.1 pixels as COCO asks for.

    Detections of classes that the dataset does not have, or whose objects are not annotated in this picture, are
    left out: nobody can say whether they are right.

    Args:
        detections: Of the picture, with the model's class ids.
        record: The picture.
        classes: From `match_classes`.
        categories: From `category_ids`.
    """
    active = record.active_class_ids
    wanted = {theirs: ours for theirs, ours in classes.items() if active is None or ours in active}
    kept = detections.filter(classes=sorted(wanted))
    results = kept.to_coco(record.image_id, {theirs: categories[ours] for theirs, ours in wanted.items()})
    return [result | {"bbox": [round(value, 1) for value in result["bbox"]]} for result in results]


def by_picture(dataset: Dataset, results: Iterable[Result]) -> list[list[ScoredResult]]:
    """The predictions of each picture, in the order of the records and of the results.

    Raises:
        DatasetFormatError: A result lacks a key, or is of a picture or category that the dataset does not have.
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
                f"result {number} is no COCO result of an object; expected image_id, category_id, bbox, score, "
                "segmentation"
            ) from error
        if row is None or class_id is None:
            raise DatasetFormatError(
                f"result {number} is of picture {result['image_id']!r}, category {result['category_id']!r}; "
                f"{dataset.name} does not have them both"
            )
        pictures[row].append(ScoredResult(class_id, *prediction))
    return pictures


def _classes(dataset: Dataset) -> range:
    return range(1, len(dataset.class_names))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
