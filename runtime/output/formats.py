"""Detections in other formats: COCO results, JSON, supervision, pandas."""

import json
from collections.abc import Mapping, Sequence
from numbers import Integral
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from runtime.arguments import file_path, shown
from runtime.atomic import write_text
from runtime.errors import InputError, MissingPackageError
from runtime.masks.polygons import check_tolerance, coco_polygons
from runtime.masks.rle import RLE

if TYPE_CHECKING:
    from runtime.detections import Detections


Segmentation = Literal["rle", "polygon"]


def to_coco(
    detections: "Detections",
    image_id: int | str,
    category_ids: Mapping[int, int] | None = None,
    *,
    segmentation: Segmentation = "rle",
    tolerance: float = 0.0,
) -> list[dict[str, Any]]:
    """Return COCO results, as `COCO.loadRes` reads them.

    Args:
        detections: the detections in one image.
        image_id: id of the image in the dataset.
        category_ids: category id of each class id; by default the class id itself.
        segmentation: "rle", or "polygon" for outlines along the edges of pixels, which pycocotools decodes to the same
            mask bit for bit (see `runtime.masks.polygons.coco_polygons` for holes). A mask without pixels stays RLE,
            because no polygon can express it.
        tolerance: with "polygon", how far the outline may move, in pixels; see `runtime.masks.polygons.simplify_ring`.

    Returns:
        Per detection a JSON serializable dict: `image_id`, `category_id`, `bbox` [x, y, width, height] in image pixels
        with 2 decimals, `score`, `segmentation` as compressed RLE or polygons.

    Raises:
        InputError: `category_ids` lacks the class id of a detection, `segmentation` is unknown, or `tolerance` is
            negative, not finite, or not 0 for RLE.
    """
    number = plain_id(image_id)
    results = []
    masks = _segmentations(detections, segmentation, tolerance)
    rows = zip(detections.boxes, detections.scores, detections.class_ids, masks, strict=True)
    for box, score, class_id, mask in rows:
        category_id = int(class_id) if category_ids is None else category_ids.get(int(class_id))
        if category_id is None:
            name = detections.class_names[class_id]
            raise InputError(f"category_ids has no entry for class id {class_id} ({name!r}); add it")
        x1, y1, x2, y2 = box.tolist()
        results.append(
            {
                "image_id": number,
                "category_id": int(category_id),
                "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                "score": float(score),
                "segmentation": mask,
            }
        )
    return results


def plain_id(value: Any) -> int | str:
    """Return an id as an int or str, which JSON can hold; NumPy's integers are not ints.

    Raises:
        InputError: It is neither.
    """
    if not isinstance(value, bool) and isinstance(value, Integral):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iu":
        return int(value)
    raise InputError(f"image_id is {shown(value)}; expected an int or a str")


def _segmentations(
    detections: "Detections", segmentation: Segmentation, tolerance: float
) -> Sequence[RLE | list[list[float]]]:
    if segmentation not in get_args(Segmentation):
        raise InputError(f"segmentation is {segmentation!r}; expected one of {', '.join(get_args(Segmentation))}")
    check_tolerance(tolerance)
    if segmentation == "rle":
        if tolerance != 0:
            raise InputError(f"tolerance is {tolerance!r} with segmentation 'rle', which is exact; use 'polygon'")
        return detections.rles
    traced = zip(detections.polygons, detections, strict=True)
    return [coco_polygons(rings, tolerance) if rings else one.rles[0] for rings, one in traced]


def to_document(detections: "Detections") -> dict[str, Any]:
    """Return the document of `to_json` as a dict."""
    rows = zip(detections.class_ids, detections.names, detections.scores, detections.boxes, strict=True)
    return {
        "image_size": [int(side) for side in detections.image_size],
        "device": detections.device,
        "detections": [
            {
                "class_id": int(class_id),
                "name": name,
                "score": float(score),
                "box": [round(value, 2) for value in box.tolist()],
                "mask": rle,
            }
            for (class_id, name, score, box), rle in zip(rows, detections.rles, strict=True)
        ],
    }


def to_json(detections: "Detections", path: str | PathLike[str] | None = None) -> str:
    """Return one JSON document with the detections in one image.

    Args:
        detections: the detections in one image.
        path: a file to write the document to as UTF-8; replaced if it exists.

    Returns:
        `{"image_size": [height, width], "device": where the graph ran, "detections": [{"class_id", "name", "score",
        "box": [x1, y1, x2, y2], "mask": RLE}]}`, boxes in image pixels with 2 decimals.

    Raises:
        InputError: `path` is no path.
        OutputError: the file cannot be written.
    """
    text = json.dumps(to_document(detections), ensure_ascii=False)
    if path is not None:
        write_text(file_path("path", path), text + "\n")
    return text


def to_supervision(detections: "Detections") -> Any:
    """Return a `supervision.Detections` with boxes, full-size masks, scores, class ids and `class_name`.

    Raises:
        MissingPackageError: supervision is not installed.
    """
    try:
        import supervision  # noqa: PLC0415 - optional, and slow to import
    except ModuleNotFoundError as error:
        if error.name != "supervision":
            raise  # supervision is installed, but one of its own imports is missing
        raise MissingPackageError("supervision", "supervision", "Detections.to_supervision()") from error
    return supervision.Detections(
        xyxy=detections.boxes.copy(),  # copies, because supervision's own tools work in place
        mask=detections.masks.copy(),
        confidence=detections.scores.copy(),
        class_id=detections.class_ids.astype(np.int64),
        data={"class_name": np.array(detections.names, dtype=np.str_)},
    )


def to_pandas(detections: "Detections") -> Any:
    """Return a `pandas.DataFrame` with one row per detection.

    Its columns and their types are always the same: `image` (the absolute path, missing if unknown) and `class_name` of
    the type "string", `class_id` and `area` (pixels of the mask) int64, `score` and the sides of the box in image
    pixels, `x1`, `y1`, `x2`, `y2`, float32. What is not UTF-8 in names and paths is written as Python escapes.

    Raises:
        MissingPackageError: pandas is not installed.
    """
    try:
        import pandas  # noqa: PLC0415 - optional, and slow to import
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise  # as above
        raise MissingPackageError("pandas", "pandas", "Detections.to_pandas()") from error
    x1, y1, x2, y2 = detections.boxes.T
    image = detections.image_path
    columns = {
        "image": pandas.array([image and _utf8(image)] * len(detections), dtype="string"),
        "class_id": detections.class_ids.astype(np.int64),
        "class_name": pandas.array([_utf8(name) for name in detections.names], dtype="string"),
        "score": detections.scores,
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "area": detections.areas,
    }
    return pandas.DataFrame(columns)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
