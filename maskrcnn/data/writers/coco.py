"""Writing COCO JSON."""

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from maskrcnn.data.records import Dataset, Instance
from maskrcnn.data.writers.images import (
    Lost,
    WrittenImage,
    check_apart,
    place_images,
    write_plain,
    written_images,
)
from runtime.atomic import atomic_write, check_output
from runtime.masks.polygons import coco_polygons, ring_area, rle_rings
from runtime.masks.rle import area, mask_box

IMAGES, ANNOTATIONS = "images", "annotations.json"


def write_coco(parts: Mapping[str, Dataset], folder: str | Path, *, overwrite: bool) -> list[Path]:
    """Write the parts of a dataset as COCO JSON, `NAME.json` each, beside a folder of links to their images.

    Args:
        parts: By name.
        folder: The folder to write.
        overwrite: Whether to replace a folder with a file of the name of the first part.

    Returns:
        Paths of the annotations.

    Raises:
        DatasetFormatError: The size of an image cannot be read.
        OutputError: Something else is at `folder`, the images are in it, or it cannot be written.
    """
    folder = Path(folder)
    whole = Dataset("", ("BG",), tuple(record for part in parts.values() for record in part.records))
    marker = f"{next(iter(parts))}.json"
    check_output(folder, overwrite=overwrite, directory=True, marker=marker)
    check_apart(whole, folder)
    images = written_images(whole, flat=False)
    with atomic_write(folder, overwrite=overwrite, directory=True, marker=marker) as temporary:
        place_images(images, temporary / IMAGES, folder / IMAGES, Lost())
        found = iter(images)
        for name, part in parts.items():
            write_plain(temporary / f"{name}.json", coco_text(part, list(islice(found, len(part))), polygons=False))
    return [folder / f"{name}.json" for name in parts]


def coco_text(dataset: Dataset, images: Sequence[WrittenImage], *, polygons: bool) -> str:
    """Return the annotations of a dataset as COCO JSON.

    Ids are those of the source where it has numbers, else 1, 2, ... Masks are exact: run lengths, or with `polygons`
    outlines along the edges of pixels, except for crowds and masks with holes, which COCO's polygons cannot hold.
    """
    numbers = [image.record.image_id for image in images]
    kept = all(isinstance(number, int) for number in numbers)
    categories = _categories(dataset)
    own = [instance.annotation_id for image in images for instance in image.instances]
    own_kept = kept and len(set(own)) == len(own) and all(isinstance(number, int) for number in own)
    rows: list[dict[str, Any]] = []
    for position, image in enumerate(images, 1):
        for instance in image.instances:
            number = instance.annotation_id if own_kept else len(rows) + 1
            image_id = image.record.image_id if kept else position
            rows.append(_annotation(instance, number, image_id, categories[instance.class_id], polygons=polygons))
    content = {
        "images": [
            {
                "id": image.record.image_id if kept else position,
                "file_name": image.name,
                "height": image.size[0],
                "width": image.size[1],
            }
            for position, image in enumerate(images, 1)
        ],
        "annotations": rows,
        "categories": [{"id": categories[i], "name": name} for i, name in enumerate(dataset.class_names) if i],
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def _categories(dataset: Dataset) -> dict[int, int]:
    """Return the category id of each class id, in whose order readers count the classes."""
    ids = [dataset.category_ids.get(i) for i in range(1, len(dataset.class_names))]
    known = [number for number in ids if number is not None]
    if len(known) == len(ids) and known == sorted(set(known)):
        return dict(enumerate(known, 1))
    return {i: i for i in range(1, len(dataset.class_names))}


def _annotation(
    instance: Instance, number: int | str | None, image_id: int | str, category: int, *, polygons: bool
) -> dict[str, Any]:
    x1, y1, x2, y2 = mask_box(instance.mask)
    segmentation: Any = instance.mask
    if polygons and not instance.crowd:
        rings = rle_rings(instance.mask)
        if all(ring_area(ring) > 0 for ring in rings):
            segmentation = coco_polygons(rings)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "segmentation": segmentation,
        "area": area(instance.mask),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": int(instance.crowd),
    }
