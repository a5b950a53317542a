"""A perfect detector in tiles: whatever the tiles are, merging gives the objects of the whole image, pixel for pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from runtime.detections import Detections
from runtime.masks.rle import encode_crop
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox
from runtime.tiles.predict import predict_tiles
from runtime.tiles.tiling import Tiling

NAMES = ("BG", "red", "green")


def edges_of(mask):
    """The edges of a bitmap: where a scan by columns enters and leaves it."""
    return np.flatnonzero(np.diff(mask.T.ravel().astype(np.int8), prepend=0, append=0)).astype(np.int64)


def detections(objects, size):
    """Exact detections of masks, each with class and score, best first."""
    objects = sorted(objects, key=lambda each: -each[2])
    boxes = []
    for mask, _, _ in objects:
        y, x = np.nonzero(mask)
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([score for _, _, score in objects], np.float32),
        class_ids=np.array([class_id for _, class_id, _ in objects], np.int32),
        mask_probabilities=np.zeros((len(objects), 4, 4), np.float32),
        image_size=size,
        class_names=NAMES,
        edges=tuple(edges_of(mask) for mask, _, _ in objects),
    )


class Painted:
    """A perfect detector: each channel of the image has the numbers of its objects, and each tile shows their parts.

    A part scores less, the less of the object it is.
    """

    class_names = NAMES

    def __init__(self, image):
        self.areas = [np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)]

    def prepare(self, image):
        size = image.shape[:2]
        return plan_letterbox(size, ResizePolicy("none")), image

    def run(self, images, windows):
        return {"images": images}

    def finish(self, outputs, letterbox):
        image = outputs["images"]
        found = []
        for channel in range(3):
            for number in np.unique(image[..., channel])[np.unique(image[..., channel]) > 0]:
                mask = image[..., channel] == number
                share = mask.sum() / self.areas[channel][number]
                found.append((mask, class_of(channel, number), (0.3 + 0.002 * number + 0.1 * channel) * share))
        return detections(found, image.shape[:2])


def class_of(channel, number):
    return 1 if channel < 2 else 1 + number % 2  # objects of the second channel lie on those of the first


def ellipse(y, x, tall, wide, size):
    rows, columns = np.ogrid[: size[0], : size[1]]
    return ((rows - y) / max(tall, 0.5)) ** 2 + ((columns - x) / max(wide, 0.5)) ** 2 <= 1


def paint(seed, size, count, largest):
    """Objects of all sizes, many of them touching others, in three layers that cover each other."""
    random = np.random.default_rng(seed)
    image = np.zeros((*size, 3), np.uint8)
    for number in range(1, count + 1):
        channel = int(random.integers(3))
        y, x = random.uniform(0, size)
        tall, wide = np.exp(random.uniform(0, np.log(largest), 2))
        mask = ellipse(y, x, tall, wide, size)
        if random.random() < 0.3:  # a box
            mask = np.zeros(size, np.bool_)
            mask[int(max(0, y - tall)) : int(y + tall) + 1, int(max(0, x - wide)) : int(x + wide) + 1] = True
        image[..., channel][mask & (image[..., channel] == 0)] = number
    for channel in range(3):  # an object that others have cut apart is several
        image[..., channel] = connected_only(image[..., channel])
    return image


def connected_only(numbers):
    """Keep of each object the part, connected by sides, that holds its first pixel."""
    kept = np.zeros_like(numbers)
    for number in set(np.unique(numbers).tolist()) - {0}:
        parts, _ = ndimage.label(numbers == number)
        kept[parts == parts[tuple(np.argwhere(parts)[0])]] = number
    return kept


def described(found):
    """What was found, in an order that does not depend on scores."""
    rows = zip(found.class_ids.tolist(), (rle["counts"] for rle in found.rles), found.boxes.tolist(), strict=True)
    return sorted((class_id, counts, tuple(box)) for class_id, counts, box in rows)


def whole(image):
    steps = Painted(image)
    return steps.finish({"images": image}, None)


def test_against_the_whole_sweep():
    bad = []
    for seed in range(300):
        random = np.random.default_rng(seed)
        size = tuple(random.integers(65, 300, 2).tolist())
        image = paint(seed, size, int(random.integers(1, 25)), float(random.choice([10, 30, 100, 300])))
        tiling = Tiling(int(random.integers(64, 120)), float(random.choice([0.05, 0.1, 0.2, 0.33, 0.5, 0.7])))
        found = predict_tiles(Painted(image), image, tiling, int(random.integers(1, 4)))
        if described(found) != described(whole(image)):
            bad.append((seed, size, tiling, len(found), len(whole(image))))
    print(len(bad), bad[:20])
    assert not bad
