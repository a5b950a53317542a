"""Small annotation files and images for tests of the readers."""

import copy
import json

import numpy as np
from PIL import Image

SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]  # 10 x 10 pixels, and corners of whole numbers: exactly those

_COCO = {
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    "images": [
        {"id": 1, "file_name": "a.png", "height": 40, "width": 60},
        {"id": 5, "file_name": "b.png", "height": 30, "width": 50},
    ],
    "annotations": [
        {"id": 11, "image_id": 1, "category_id": 7, "iscrowd": 0, "bbox": [10, 10, 10, 10], "segmentation": [SQUARE]},
        {"id": 12, "image_id": 1, "category_id": 3, "iscrowd": 0, "bbox": [30, 5, 20, 10], "segmentation": [
            [30, 5, 50, 5, 50, 15, 30, 15]]},
        {"id": 13, "image_id": 1, "category_id": 3, "iscrowd": 1, "segmentation": {
            "size": [40, 60], "counts": [0, 40, 2360]}},
    ],
}  # fmt: skip


def coco():
    """Two images, the second without objects; two classes with gaps in their ids; a crowd."""
    return copy.deepcopy(_COCO)


def write_picture(path, height, width, **options):
    """Write a gray image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path, **options)
    return path


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_coco(folder, content=None, images="images"):
    """Write an annotation file beside a folder with its two images."""
    write_picture(folder / images / "a.png", 40, 60)
    write_picture(folder / images / "b.png", 30, 50)
    return write_json(folder / "data.json", coco() if content is None else content)


def write_map(path, values, palette=False):
    """Write an instance map with 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette([value for index in range(256) for value in (index, 255 - index, 7 * index % 256)])
    image.save(path)
    return path


def rectangle(height, width, y1, x1, y2, x2):
    """Bool [height, width] with one rectangle, far sides exclusive."""
    mask = np.zeros((height, width), np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask
