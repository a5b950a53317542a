"""A synthetic dataset with all kinds of predictions: shifted, missed, doubled, false, tied in score."""

from typing import NamedTuple

import numpy as np
import pytest
from pycocotools import mask as mask_api

from maskrcnn.data.records import Dataset, Instance, Record

NAMES = ("BG", "disc", "square", "rare")
CATEGORIES = {1: 18, 2: 3, 3: 77}  # class id to the file's category id: gaps, another order
SIZES = ((120, 160), (97, 131), (200, 64), (48, 48), (150, 150), (64, 300))
IMAGE_IDS = (42, 7, 1000, 3, 8, 9)


class World(NamedTuple):
    """The dataset, results for it in COCO's format, and the equivalent annotation file."""

    dataset: Dataset
    results: list
    file: dict


def encode(mask):
    rle = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def draw(size, class_id, y, x, radius):
    rows, columns = np.mgrid[: size[0], : size[1]]
    if class_id == 1:
        return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return (abs(rows - y) <= radius) & (abs(columns - x) <= radius)


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0.0, 0.0, 0.0, 0.0]
    return [float(v) for v in (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])]


def predictions_of(image_id, size, place, rng):
    """Up to three predictions around one object; scores on a grid, so that many are equal."""
    class_id, y, x, radius = place
    for _ in range(rng.choice([0, 1, 1, 1, 3])):
        shift, grown = rng.normal(0, 2.5, 2), radius * rng.uniform(0.8, 1.25)
        guess = class_id if rng.random() < 0.9 else 3 - class_id % 2
        mask = draw(size, guess, y + shift[0], x + shift[1], grown)
        yield {
            "image_id": image_id,
            "category_id": CATEGORIES[guess],
            "bbox": [round(value + rng.normal(0, 0.3), 1) for value in box_of(mask)],
            "score": round(float(rng.random()), 1),
            "segmentation": encode(mask),
        }


def make_world(seed=0, crowds=True):
    rng = np.random.default_rng(seed)
    records, results, annotations = [], [], []
    for image_id, size in zip(IMAGE_IDS, SIZES, strict=True):
        instances = []
        for _ in range(0 if image_id == 8 else 7):  # one picture has no objects, but predictions
            class_id = int(rng.integers(1, 3))
            place = (class_id, rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(4, 60))
            mask = draw(size, *place)
            crowd = crowds and bool(rng.random() < 0.2)
            box = box_of(mask)
            number = len(annotations) + 1
            annotations.append(
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": CATEGORIES[class_id],
                    "bbox": box,
                    "area": int(mask.sum()),
                    "iscrowd": int(crowd),
                    "segmentation": encode(mask),
                }
            )
            file_box = (box[0], box[1], box[0] + box[2], box[1] + box[3]) if rng.random() < 0.5 else None
            instances.append(Instance(class_id, encode(mask), crowd, file_box, number))
            results += predictions_of(image_id, size, place, rng)
        if image_id == 8:
            results += predictions_of(image_id, size, (1, 50, 50, 20), rng)
            results += predictions_of(image_id, size, (2, 90, 90, 30), rng)
        picture = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
        records.append(Record(image_id, lambda picture=picture: picture, tuple(instances)))
    file = {
        "images": [
            {"id": i, "height": h, "width": w, "file_name": f"{i}.png"}
            for i, (h, w) in zip(IMAGE_IDS, SIZES, strict=True)
        ],
        "categories": [{"id": CATEGORIES[i], "name": NAMES[i]} for i in (1, 2, 3)],
        "annotations": annotations,
    }
    return World(Dataset("made up", NAMES, tuple(records), CATEGORIES), results, file)


@pytest.fixture(scope="session", name="make_world")
def _make_world():
    return make_world


@pytest.fixture(scope="session")
def world():
    return make_world()
