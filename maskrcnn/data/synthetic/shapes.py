"""The synthetic dataset of shapes, in memory or as COCO files.

A picture is a pure function of a seed and an index (`draw_shapes`): the set in memory is drawn as it is read.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image

from maskrcnn.data.records import Dataset, Image, Instance, Record
from maskrcnn.data.synthetic.scene import CLASS_NAMES, draw_shapes
from maskrcnn.errors import DatasetError
from runtime.atomic import atomic_write
from runtime.masks import rle

__all__ = ["ANNOTATIONS", "CLASS_NAMES", "draw_shapes", "shapes_dataset", "write_shapes"]

ANNOTATIONS = "annotations.json"
# What a folder that may be replaced must hold: no dataset of someone else has it.
_MARKER = "shapes.txt"


def shapes_dataset(count: int, seed: int, name: str = "shapes", size: tuple[int, int] | None = None) -> Dataset:
    """A dataset of pictures that are drawn when they are read.

    Args:
        count: Number of pictures.
        seed: Of the dataset; other seeds give other pictures.
        name: For messages and reports.
        size: As for `draw_shapes`.

    Raises:
        DatasetError: `count` is below 1, or `seed` below 0.
    """
    if count < 1 or seed < 0:
        raise DatasetError(f"shapes: count is {count} and seed {seed}: expected at least 1 and at least 0")
    records = (
        Record(index, partial(_image, seed, index, size), partial(_instances, seed, index, size))
        for index in range(count)
    )
    return Dataset(name, CLASS_NAMES, tuple(records), {i: i for i in range(1, len(CLASS_NAMES))})


def write_shapes(
    folder: str | Path, count: int, seed: int, overwrite: bool = False, size: tuple[int, int] | None = None
) -> Path:
    """Write a dataset as COCO files: `annotations.json` with run-length encoded masks, and PNGs in `images`.

    Args:
        folder: Appears complete, or not at all.
        count: Number of pictures.
        seed: Of the dataset; the files hold the same pictures as `shapes_dataset`.
        overwrite: Whether an older folder of shapes may be replaced; no other folder ever is.
        size: As for `draw_shapes`.

    Returns:
        Path of the annotations.

    Raises:
        DatasetError: As `shapes_dataset`.
        OutputError: Something else stands there, or the disk refuses.
    """
    folder = Path(folder)
    dataset = shapes_dataset(count, seed, size=size)
    description = f"Synthetic shapes: {count} pictures, seed {seed}"
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
            image, instances = _draw_record(seed, index, size)
            height, width = image.shape[:2]
            file_name = f"{index:06d}.png"
            PIL.Image.fromarray(image).save(temporary / "images" / file_name)
            content["images"].append({"id": index, "file_name": file_name, "height": height, "width": width})
            for instance in instances:
                content["annotations"].append(_annotation(instance, len(content["annotations"]) + 1, index))
        (temporary / ANNOTATIONS).write_text(json.dumps(content), encoding="utf-8")
        (temporary / _MARKER).write_text(description + "\n", encoding="utf-8")
    return folder / ANNOTATIONS


def _image(seed: int, index: int, size: tuple[int, int] | None) -> Image:
    return draw_shapes(seed, index, size)[0]


def _instances(seed: int, index: int, size: tuple[int, int] | None) -> tuple[Instance, ...]:
    return _draw_record(seed, index, size)[1]


def _draw_record(seed: int, index: int, size: tuple[int, int] | None) -> tuple[Image, tuple[Instance, ...]]:
    image, masks, class_ids = draw_shapes(seed, index, size)
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
