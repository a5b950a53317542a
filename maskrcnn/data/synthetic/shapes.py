"""The synthetic dataset of shapes, in memory or as COCO files."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image

from maskrcnn.data.records import Dataset, Image, Instance, Record
from maskrcnn.data.synthetic.scene import CLASS_NAMES, draw_shapes
from maskrcnn.errors import DatasetError
from runtime.atomic import atomic_write
from runtime.masks import rle

ANNOTATIONS = "annotations.json"
# Only folders with this file are replaced.
_MARKER = "shapes.txt"


def shapes_dataset(
    count: int,
    seed: int,
    name: str = "shapes",
    size: tuple[int, int] | None = None,
    shares: tuple[float, ...] | None = None,
) -> Dataset:
    """Return a dataset of synthetic images, which are drawn when they are read.

    Args:
        count: Number of images.
        seed: Determines the images.
        name: Used in messages and reports.
        size: (height, width) in pixels, at least 32; by default, random sides from 160 to 256.
        shares: Share of squares, circles and triangles among the shapes, in any unit; by default, all are equal.

    Raises:
        DatasetError: `count` is less than 1, or `seed` less than 0, or `shares` are not three numbers, 0 or more, with
            one above 0.
    """
    if count < 1 or seed < 0:
        raise DatasetError(f"shapes: count is {count} and seed {seed}: expected at least 1 and at least 0")
    check_shares(shares)
    records = (
        Record(index, partial(_image, seed, index, size, shares), partial(_instances, seed, index, size, shares))
        for index in range(count)
    )
    return Dataset(name, CLASS_NAMES, tuple(records), {i: i for i in range(1, len(CLASS_NAMES))})


def check_shares(shares: tuple[float, ...] | None) -> None:
    """Raise DatasetError unless `shares` are as for `shapes_dataset`."""
    if shares is None:
        return
    if len(shares) != len(CLASS_NAMES) - 1 or not min(shares) >= 0 or not 0 < sum(shares) < math.inf:
        raise DatasetError(
            f"shapes: shares are {shares}: expected those of {', '.join(CLASS_NAMES[1:])}, 0 or more and not all 0"
        )


def write_shapes(
    folder: str | Path,
    count: int,
    seed: int,
    overwrite: bool = False,
    size: tuple[int, int] | None = None,
    shares: tuple[float, ...] | None = None,
) -> Path:
    """Write the images of `shapes_dataset` as COCO files: `annotations.json` with RLE masks, and PNGs in `images`.

    The folder is written atomically. `overwrite` replaces a folder of shapes, but never another folder.

    Returns:
        Path of the annotations.

    Raises:
        DatasetError: As `shapes_dataset`.
        OutputError: Something else exists at `folder`, or it cannot be written.
    """
    folder = Path(folder)
    dataset = shapes_dataset(count, seed, size=size, shares=shares)
    description = f"Synthetic shapes: {count} images, seed {seed}"
    if shares is not None:
        description += f", shares {' '.join(format(share, 'g') for share in shares)}"
    content: dict[str, Any] = {
        "info": {"description": description},
        "images": [],
        "annotations": [],
        "categories": [
            {"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(dataset.class_names) if i
        ],
    }
    with atomic_write(folder, overwrite=overwrite, directory=True, marker=_MARKER) as temporary:
        (temporary / "images").mkdir()
        for index in range(count):
            image, instances = _draw_record(seed, index, size, shares)
            height, width = image.shape[:2]
            file_name = f"{index:06d}.png"
            PIL.Image.fromarray(image).save(temporary / "images" / file_name)
            content["images"].append({"id": index, "file_name": file_name, "height": height, "width": width})
            for instance in instances:
                content["annotations"].append(_annotation(instance, len(content["annotations"]) + 1, index))
        (temporary / ANNOTATIONS).write_text(json.dumps(content), encoding="utf-8")
        (temporary / _MARKER).write_text(description + "\n", encoding="utf-8")
    return folder / ANNOTATIONS


def _image(seed: int, index: int, size: tuple[int, int] | None, shares: tuple[float, ...] | None) -> Image:
    return draw_shapes(seed, index, size, shares)[0]


def _instances(
    seed: int, index: int, size: tuple[int, int] | None, shares: tuple[float, ...] | None
) -> tuple[Instance, ...]:
    return _draw_record(seed, index, size, shares)[1]


def _draw_record(
    seed: int, index: int, size: tuple[int, int] | None, shares: tuple[float, ...] | None
) -> tuple[Image, tuple[Instance, ...]]:
    image, masks, class_ids = draw_shapes(seed, index, size, shares)
    height, width = image.shape[:2]
    instances = (
        Instance(class_id, rle.encode_crop(mask, (0, 0), (height, width)))
        for mask, class_id in zip(masks, class_ids, strict=True)
    )
    return image, tuple(instances)


def _annotation(instance: Instance, annotation_id: int, image_id: int) -> dict[str, Any]:
    x1, y1, x2, y2 = rle.mask_box(instance.mask)
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": instance.class_id,
        "segmentation": instance.mask,
        "area": rle.area(instance.mask),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": 0,
    }
