"""COCO average precision and recall, computed by pycocotools."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from maskrcnn.configuration.require import require
from maskrcnn.data.records import Dataset
from maskrcnn.errors import DatasetFormatError
from maskrcnn.evaluation.results import Result, ScoredResult, by_picture
from runtime.errors import MissingPackageError
from runtime.masks.rle import RLE, area, mask_box

Kind = Literal["bbox", "segm"]
KINDS: tuple[Kind, ...] = ("bbox", "segm")
MAX_DETECTIONS = 100

_Row = dict[str, Any]


@dataclass(frozen=True)
class CocoSummary:
    """COCO's numbers for boxes or masks. None means that there are no objects to find (COCO writes -1).

    Attributes:
        kind: "bbox" or "segm": which IoU decides about a match.
        numbers: COCO's twelve numbers, in its order: AP, AP50, AP75, AP_small, AP_medium, AP_large, AR1, AR10, AR100,
            AR_small, AR_medium, AR_large. AP and AR without a threshold are means over IoUs from 0.50 to 0.95. Small
            is below 32 x 32 pixels, large above 96 x 96. The name of the third AR contains `max_detections`.
        classes: AP, AP50, AP75, AR and `objects` (their number, without crowds) by class name.
    """

    kind: Kind
    numbers: Mapping[str, float | None]
    classes: Mapping[str, Mapping[str, float | None]]

    def __getitem__(self, name: str) -> float | None:
        """Return one of the twelve numbers."""
        return self.numbers[name]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {"numbers": dict(self.numbers), "classes": {name: dict(row) for name, row in self.classes.items()}}


def check_coco(max_detections: int) -> None:
    """Check what `coco_average_precision` needs, before images are predicted."""
    require(max_detections >= 10, f"max_detections is {max_detections}: expected at least 10")
    _pycocotools()


def coco_average_precision(
    dataset: Dataset, results: Iterable[Result], max_detections: int = MAX_DETECTIONS
) -> dict[Kind, CocoSummary]:
    """Score results against a dataset, for boxes and for masks.

    Every image of the dataset counts, with or without objects. Ground-truth boxes come from the annotation file if it
    has them, otherwise from the masks. Areas, which decide whether an object is small, medium or large, are pixels of
    the mask.

    Args:
        dataset: The ground truth.
        results: Predictions in COCO's format, with the dataset's image and category ids.
        max_detections: Predictions that count per image and class, best scores first; at least 10.

    Raises:
        DatasetFormatError: A result does not fit the dataset, or the masks of one image differ in size.
        ConfigError: `max_detections` is out of range.
        MissingPackageError: pycocotools is not installed.
    """
    check_coco(max_detections)
    pictures = by_picture(dataset, results)
    _check_sizes(dataset, pictures)
    order = _picture_order(dataset)
    truth = _truth(dataset, order)
    return {kind: _score(dataset, truth, _predicted(pictures, order, kind), kind, max_detections) for kind in KINDS}


def _picture_order(dataset: Dataset) -> list[int]:
    """Return a number for each record. COCO breaks ties of scores by image id, so integer ids keep their order."""
    ids: list[Any] = [record.image_id for record in dataset.records]
    if all(isinstance(image_id, int) for image_id in ids):
        ids = np.argsort(np.argsort(ids)).tolist() if ids else []
        return [rank + 1 for rank in ids]
    return list(range(1, len(ids) + 1))


def _check_sizes(dataset: Dataset, pictures: Sequence[Sequence[ScoredResult]]) -> None:
    for record, predictions in zip(dataset.records, pictures, strict=True):
        objects = [instance.mask for instance in record.load_instances()]
        sizes = {tuple(mask["size"]) for mask in (*objects, *(prediction.mask for prediction in predictions))}
        if len(sizes) > 1:
            shown = ", ".join(f"{height} x {width}" for height, width in sorted(sizes))
            raise DatasetFormatError(
                f"{dataset.name}, image {record.image_id!r}: its masks have different sizes ({shown}); annotations "
                "and predictions must have the size of the decoded image"
            )


def _truth(dataset: Dataset, order: Sequence[int]) -> list[_Row]:
    rows: list[_Row] = []
    for picture, record in zip(order, dataset.records, strict=True):
        for instance in record.load_instances():
            x1, y1, x2, y2 = instance.file_box or mask_box(instance.mask)
            box = [x1, y1, x2 - x1, y2 - y1]
            rows.append(
                _row(picture, instance.class_id, box, instance.mask, area(instance.mask))
                | {"iscrowd": int(instance.crowd)}
            )
    return _numbered(rows)


def _predicted(pictures: Sequence[Sequence[ScoredResult]], order: Sequence[int], kind: Kind) -> list[_Row]:
    rows = []
    for picture, predictions in zip(order, pictures, strict=True):
        for class_id, score, box, mask in predictions:
            pixels = box[2] * box[3] if kind == "bbox" else area(mask)
            rows.append(_row(picture, class_id, list(box), mask, pixels) | {"iscrowd": 0, "score": score})
    return _numbered(rows)


def _row(picture: int, class_id: int, box: list[float], mask: RLE, pixels: float) -> _Row:
    return {"image_id": picture, "category_id": class_id, "bbox": box, "segmentation": dict(mask), "area": pixels}


def _numbered(rows: list[_Row]) -> list[_Row]:
    # From 1, because COCO uses id 0 for "no match".
    return [row | {"id": number} for number, row in enumerate(rows, 1)]


def _score(dataset: Dataset, truth: list[_Row], predicted: list[_Row], kind: Kind, most: int) -> CocoSummary:
    coco, evaluation = _pycocotools()
    # COCO looks up sizes for every mask, but uses them for polygons only.
    images = [{"id": number, "height": 0, "width": 0} for number in range(1, len(dataset) + 1)]
    categories = [{"id": i, "name": name} for i, name in enumerate(dataset.class_names) if i]
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for rows in (truth, predicted):
            side = coco()
            side.dataset = {"images": images, "categories": categories, "annotations": [dict(row) for row in rows]}
            side.createIndex()
            sides.append(side)
        run = evaluation(*sides, kind)
        run.params.maxDets = [1, 10, most]
        run.evaluate()
        run.accumulate()
    counts = np.bincount(
        [row["category_id"] for row in truth if not row["iscrowd"]], minlength=len(dataset.class_names)
    )
    return _summarize(run, dataset.class_names, counts, kind)


def _summarize(run: Any, class_names: tuple[str, ...], counts: npt.NDArray[Any], kind: Kind) -> CocoSummary:
    """Summarize COCO's curves, because COCO's own summary requires 100 detections.

    Precision is [IoU, recall, class, area, detections]; recall has no second axis.
    """
    precision, recall = run.eval["precision"], run.eval["recall"]
    levels = {"50": np.isclose(run.params.iouThrs, 0.5), "75": np.isclose(run.params.iouThrs, 0.75)}
    numbers = {"AP": _mean(precision[:, :, :, 0, -1])}
    numbers |= {f"AP{name}": _mean(precision[rows, :, :, 0, -1]) for name, rows in levels.items()}
    sizes = tuple(enumerate(run.params.areaRngLbl))[1:]
    numbers |= {f"AP_{size}": _mean(precision[:, :, :, i, -1]) for i, size in sizes}
    numbers |= {f"AR{most}": _mean(recall[:, :, 0, i]) for i, most in enumerate(run.params.maxDets)}
    numbers |= {f"AR_{size}": _mean(recall[:, :, i, -1]) for i, size in sizes}
    classes = {
        name: {
            "AP": _mean(precision[:, :, k, 0, -1]),
            **{f"AP{level}": _mean(precision[rows, :, k, 0, -1]) for level, rows in levels.items()},
            "AR": _mean(recall[:, k, 0, -1]),
            "objects": int(counts[k + 1]),
        }
        for k, name in enumerate(class_names[1:])
    }
    return CocoSummary(kind, numbers, classes)


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _pycocotools() -> tuple[Any, Any]:
    try:
        from pycocotools.coco import COCO  # noqa: PLC0415 - optional
        from pycocotools.cocoeval import COCOeval  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pycocotools":
            raise  # pycocotools is installed, but a dependency is missing
        raise MissingPackageError("pycocotools", "train", "COCO average precision") from error
    return COCO, COCOeval
