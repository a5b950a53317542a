"""The contact sheet: positions and colors of images and masks, and unusual inputs."""

import numpy as np
import pytest

from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.evaluation.contact_sheet import _COLORS, CELL, contact_sheet
from maskrcnn.evaluation.results import ScoredResult, by_picture
from runtime.masks.rle import encode_crop

GRAY = 90


def rectangle(size, y, x, height, width):
    return encode_crop(np.ones((height, width), bool), (y, x), size)


def record(size, *masks, class_id=1, crowd=False, name=1):
    image = np.full((*size, 3), GRAY, np.uint8)
    return Record(name, lambda: image, tuple(Instance(class_id, mask, crowd) for mask in masks))


def guess(mask, score=0.9):
    return ScoredResult(1, score, (0, 0, 1, 1), mask)


def sheet(records, predictions, names=("BG", "thing"), rows=None, min_score=0.5):
    rows = range(len(records)) if rows is None else rows
    return contact_sheet(Dataset("things", names, tuple(records)), predictions, rows, min_score)


def has(image, outcome):
    return (np.asarray(image) == _COLORS[outcome]).all(axis=2)


def used(image, outcome):
    """Whether the color is used below the legend."""
    return has(image, outcome)[50:].any()


def test_objects_have_the_color_of_their_outcome():
    size = (90, 120)  # a quarter of the cell in both directions
    found, missed = rectangle(size, 10, 10, 20, 30), rectangle(size, 50, 70, 20, 30)
    false = rectangle(size, 60, 5, 10, 10)
    image = sheet([record(size, found, missed)], [[guess(found), guess(false), guess(missed, 0.3)]])
    expected = {("found", 0, 10, 10), ("found", 1, 10, 10), ("missed", 0, 50, 70), ("false", 1, 60, 5)}
    seen = set()
    for outcome in _COLORS:
        mask = has(image, outcome)
        assert mask[:50].any()  # the legend
        for y, x in ((10, 10), (50, 70), (60, 5)):
            for column in (0, 1):
                top, left = 76 + 4 * y, 12 + 4 * x + column * (CELL[0] + 6)
                if mask[top : top + 40, left].all():
                    assert not mask[top : top + 40, left - 1].any()
                    seen.add((outcome, column, y, x))
    assert seen == expected


def test_the_picture_is_shown_twice_and_not_changed():
    size = (90, 120)
    image = np.asarray(sheet([record(size)], [[]]))
    block = (image == GRAY).all(axis=2)
    assert block[76 : 76 + CELL[1], 12 : 12 + CELL[0]].all()
    assert block[76 : 76 + CELL[1], 18 + CELL[0] : 18 + 2 * CELL[0]].all()
    assert block.sum() == pytest.approx(2 * CELL[0] * CELL[1], abs=200)  # letters have gray edges


def test_crowds_have_a_color_of_their_own():
    size = (90, 120)
    crowd = rectangle(size, 0, 0, 90, 60)
    image = sheet([record(size, crowd, crowd=True)], [[guess(rectangle(size, 10, 10, 20, 20))]])
    assert used(image, "ignored")
    for outcome in ("found", "missed", "false"):
        assert not used(image, outcome)


def test_many_objects_keep_their_outlines_free_of_labels():
    size = (360, 480)
    masks = [rectangle(size, 20, 30 * i + 2, 20, 20) for i in range(13)]
    labeled, bare = (
        has(sheet([record(size, *few)], [[guess(mask) for mask in few]]), "found") for few in (masks[:12], masks)
    )
    per_object = [labeled[50:].sum() / 12, bare[50:].sum() / 13]
    assert per_object[0] > 1.5 * per_object[1]


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2000), (2000, 1), (37, 53), (900, 200), (1200, 1600)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_pictures_of_every_size(size):
    whole = rectangle(size, 0, 0, *size)
    image = sheet([record(size, whole)], [[guess(whole)]])
    assert used(image, "found")
    assert image.width == 2 * CELL[0] + 6 + 24


def test_a_thin_mask_stays_visible():
    size = (1800, 2400)
    image = sheet([record(size, rectangle(size, 0, 1000, 1800, 1))], [[]])
    assert used(image, "missed")


def test_no_objects_and_no_predictions():
    image = sheet([record((50, 50)), record((50, 50), name=2)], [[], []])
    assert not any(used(image, outcome) for outcome in _COLORS)
    assert sheet([record((50, 50))], [[]], rows=[]).height > 50


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4, 6])
def test_channels(channels):
    array = np.full((60, 80) if channels is None else (60, 80, channels), GRAY, np.uint8)
    image = np.asarray(sheet([Record(1, lambda: array, ())], [[]]))
    assert (image[76 + 180, 12 + 240] == GRAY).all()


def test_a_whole_world(world):
    predictions = by_picture(world.dataset, world.results)
    image = contact_sheet(world.dataset, predictions, [5, 0, 3, 1, 2], 0.5)
    assert image.size == (2 * (2 * CELL[0] + 6) + 36, 54 + 3 * (CELL[1] + 22 + 12) + 12)
    long = Record("folder/" * 60 + "é.png", *[getattr(world.dataset.records[0], n) for n in ("image", "instances")])
    contact_sheet(Dataset("long", world.dataset.class_names, (long,)), predictions, [0], 0.5)
