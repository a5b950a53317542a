"""Rings against pixels filled by the even-odd rule, a flood fill, pycocotools, and shapes typed by hand."""

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.masks.polygons import coco_polygons, ring_area, simplify_ring, trace_rings
from runtime.masks.rle import decode, encode_crop
from runtime.masks.rle_string import read_counts

HAND = {
    "one pixel": (["#"], [[[0, 0], [1, 0], [1, 1], [0, 1]]]),
    "L": (["#.", "##"], [[[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [0, 2]]]),
    "two that touch at a corner": (
        ["#.", ".#"],
        [[[0, 0], [1, 0], [1, 1], [0, 1]], [[1, 1], [2, 1], [2, 2], [1, 2]]],
    ),
    "a hole": (
        ["###", "#.#", "###"],
        [[[0, 0], [3, 0], [3, 3], [0, 3]], [[1, 2], [2, 2], [2, 1], [1, 1]]],
    ),
    "full": (["##", "##"], [[[0, 0], [2, 0], [2, 2], [0, 2]]]),
    "none": (["...", "..."], []),
}


def edges_of(mask):
    """As `mask_edges` gives them: the places of begins and ends, column by column."""
    counts = read_counts(encode_crop(mask, (0, 0), mask.shape)["counts"])
    places = np.cumsum(counts)
    return places[: len(places) - (len(places) % 2)]


def rings_of(mask):
    return trace_rings(edges_of(mask), mask.shape[0])


def fill(rings, shape):
    """Even-odd: every vertical piece of boundary turns over all pixels to its right."""
    mask = np.zeros(shape, bool)
    for ring in rings:
        for (x, y), (next_x, next_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            assert (x == next_x) != (y == next_y)
            if x == next_x:
                mask[min(y, next_y) : max(y, next_y), x:] ^= True
    return mask


def count_parts(mask, *, diagonal):
    """Flood fill, one pixel at a time."""
    waiting = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0) and (diagonal or 0 in (a, b))]
    parts = 0
    while waiting:
        parts += 1
        reached = [waiting.pop()]
        while reached:
            y, x = reached.pop()
            for neighbour in {(y + a, x + b) for a, b in steps} & waiting:
                waiting.remove(neighbour)
                reached.append(neighbour)
    return parts


def random_masks():
    rng = np.random.default_rng(0)
    for share in (0.03, 0.3, 0.5, 0.7, 0.95):
        for _ in range(40):
            yield rng.random(rng.integers(1, 13, 2)) < share


@pytest.mark.parametrize("name", HAND)
def test_hand_typed_shapes(name):
    rows, expected = HAND[name]
    mask = np.array([[sign == "#" for sign in row] for row in rows])
    rings = rings_of(mask)
    assert all(ring.dtype == np.int32 for ring in rings)
    # The same corners in the same order, wherever a ring begins.
    found = [np.roll(ring, -[*map(tuple, ring.tolist())].index(min(map(tuple, ring.tolist()))), 0) for ring in rings]
    wanted = [np.roll(ring, -ring.index(min(ring)), 0).tolist() for ring in map(list, expected)]
    assert [ring.tolist() for ring in found] == wanted


def test_filled_rings_are_the_mask_and_one_goes_round_each_part_and_hole():
    holes_seen = 0
    for mask in random_masks():
        rings = rings_of(mask)
        np.testing.assert_array_equal(fill(rings, mask.shape), mask)
        areas = [ring_area(ring) for ring in rings]
        assert sum(areas) == mask.sum()
        holes = count_parts(np.pad(~mask, 1, constant_values=True), diagonal=True) - 1
        holes_seen += holes
        assert sum(area > 0 for area in areas) == count_parts(mask, diagonal=False)
        assert sum(area < 0 for area in areas) == holes
    assert holes_seen > 50


def test_pycocotools_decodes_the_same_mask():
    coco = pytest.importorskip("pycocotools.mask")
    for mask in random_masks():
        polygons = coco_polygons(rings_of(mask))
        assert len(polygons) == count_parts(mask, diagonal=False)
        if polygons:
            encoded = coco.merge(coco.frPyObjects(polygons, *mask.shape))
            np.testing.assert_array_equal(decode(encoded), mask)


def test_a_hole_belongs_to_the_part_around_it():
    """A frame, within it a smaller frame: each polygon by itself is one frame."""
    mask = np.zeros((9, 11), bool)
    mask[:, :] = True
    mask[1:-1, 1:-1] = False
    inner = np.zeros_like(mask)
    inner[3:6, 3:7] = True
    inner[4, 4:6] = False
    coco = pytest.importorskip("pycocotools.mask")
    polygons = coco_polygons(rings_of(mask | inner))
    alone = [decode(coco.frPyObjects([polygon], *mask.shape)[0]) for polygon in polygons]
    np.testing.assert_array_equal(alone, [mask, inner])


def distance_to_ring(point, ring):
    """To the nearest of many points along each of its lines: an upper bound."""
    ends = np.roll(ring, -1, axis=0)
    share = np.linspace(0, 1, 401)[:, None, None]
    along = ring + share * (ends - ring)
    return np.hypot(*np.moveaxis(along - point, -1, 0)).min()


@pytest.mark.parametrize("tolerance", [0.8, 2.0, 5.0])
def test_no_corner_lies_farther_from_the_simplified_ring_than_the_tolerance(tolerance):
    y, x = np.mgrid[:90, :130]
    wave = np.hypot(y - 45, x - 65) < 35 + 7 * np.sin(np.arctan2(y - 45, x - 65) * 5)
    (ring,) = rings_of(wave)
    short = simplify_ring(ring, tolerance)
    assert 3 <= len(short) < len(ring) / 2
    assert {tuple(corner) for corner in short.tolist()} <= {tuple(corner) for corner in ring.tolist()}
    assert max(distance_to_ring(corner, short) for corner in ring) <= tolerance + 0.01


def test_rings_that_cannot_be_shorter():
    (square,) = rings_of(np.ones((2, 3), bool))
    assert simplify_ring(square, 0) is square
    np.testing.assert_array_equal(simplify_ring(square, 0.5), square)
    assert len(simplify_ring(square, 100)) == 3
    assert abs(ring_area(simplify_ring(square, 100))) > 0
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="tolerance"):
            simplify_ring(square, wrong)
