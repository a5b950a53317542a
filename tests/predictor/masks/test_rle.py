"""Run-length encoding against pycocotools and strings typed by hand."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from runtime.errors import InputError
from runtime.masks.rle import area, decode, decode_crop, encode_crop, mask_box
from runtime.masks.rle_string import read_counts, write_all_counts, write_counts


@st.composite
def crops(draw):
    """A picture size, a crop in it (often touching its edges), and its origin."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    y, x = draw(st.integers(0, height)), draw(st.integers(0, width))
    h, w = draw(st.integers(0, height - y)), draw(st.integers(0, width - x))
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
    return (height, width), (y, x), np.random.default_rng(seed).random((h, w)) < share


def place(size, origin, crop):
    mask = np.zeros(size, bool)
    mask[origin[0] : origin[0] + crop.shape[0], origin[1] : origin[1] + crop.shape[1]] = crop
    return mask


@given(crops())
@settings(max_examples=300, deadline=None)
def test_equals_pycocotools_byte_for_byte(case):
    coco = pytest.importorskip("pycocotools.mask")
    size, origin, crop = case
    mask = place(size, origin, crop)
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    rle = encode_crop(crop, origin, size)
    assert rle["counts"].encode() == expected["counts"]
    assert rle["size"] == expected["size"]
    assert area(rle) == coco.area(expected) == mask.sum()
    x, y, width, height = coco.toBbox(expected).tolist()
    assert mask_box(rle) == (x, y, x + width, y + height)
    np.testing.assert_array_equal(decode(expected), mask)
    np.testing.assert_array_equal(coco.decode({**rle, "counts": rle["counts"].encode()}), mask)


def test_a_large_mask_equals_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    y, x = np.mgrid[:900, :1400]
    crop = np.hypot(y - 450, x - 700) < 440
    expected = coco.encode(np.asfortranarray(place((3000, 4000), (2100, 17), crop).astype(np.uint8)))
    assert encode_crop(crop, (2100, 17), (3000, 4000))["counts"].encode() == expected["counts"]


def test_hand_encoded_mask():
    # [[0, 1, 1],     column by column: 0 0 | 1 0 | 1 1  ->  counts 2 1 1 2; the last is written as
    #  [0, 0, 1]]     its difference 2 - 1 = 1
    mask = np.array([[0, 1, 1], [0, 0, 1]], bool)
    assert encode_crop(mask, (0, 0), (2, 3)) == {"size": [2, 3], "counts": "2111"}
    np.testing.assert_array_equal(decode({"size": [2, 3], "counts": [2, 1, 1, 2]}), mask)
    assert area({"size": [2, 3], "counts": [2, 1, 1, 2]}) == 3


def test_runs_join_across_columns_of_full_height():
    # Two full columns are one run of 6; the mask reaches the last pixel, so no count follows.
    crop = np.ones((3, 2), bool)
    assert read_counts(encode_crop(crop, (0, 1), (3, 3))["counts"]).tolist() == [3, 6]
    assert read_counts(encode_crop(crop, (0, 0), (3, 3))["counts"]).tolist() == [0, 6, 3]
    assert read_counts(encode_crop(crop, (0, 0), (4, 3))["counts"]).tolist() == [0, 3, 1, 3, 5]


def test_empty_masks():
    for crop in (np.zeros((0, 0), bool), np.zeros((3, 2), bool), np.zeros((0, 4), bool)):
        rle = encode_crop(crop, (0, 0), (4, 5))
        assert read_counts(rle["counts"]).tolist() == [20]
        assert area(rle) == 0
        assert decode(rle).shape == (4, 5)


@given(st.lists(st.integers(0, 2**33), max_size=30))
def test_count_strings_round_trip(counts):
    assert read_counts(write_counts(counts)).tolist() == counts


@given(st.lists(st.lists(st.integers(0, 2**33), max_size=9), max_size=6))
def test_counts_of_many_masks_are_written_as_those_of_each(masks):
    together = np.array([count for counts in masks for count in counts], np.int64)
    lengths = np.array([len(counts) for counts in masks], np.int64)
    assert write_all_counts(together, lengths) == [write_counts(counts) for counts in masks]


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 3]},
        {"counts": "2111"},
        [2, 1],
        {"size": [2], "counts": "2111"},
        {"size": [2.0, 3.0], "counts": "2111"},
        {"size": "23", "counts": "2111"},
        {"size": [-2, -3], "counts": "2111"},
        {"size": [3, 3], "counts": "2111"},  # 6 pixels, not 9
        {"size": [2, 3], "counts": ""},
        {"size": [2, 3], "counts": "211P"},  # the last group says that another follows
        {"size": [2, 3], "counts": "21 1"},
        {"size": [2, 3], "counts": "211\u00e9"},
        {"size": [2, 3], "counts": b"211\xff"},
        {"size": [2, 3], "counts": "o" * 12 + "0"},  # more bits than a count can have
        {"size": [2, 3], "counts": [2, 5, -1]},
        {"size": [2, 3], "counts": [2, 4.0]},
        {"size": [2, 3], "counts": [2**70, 4]},
        {"size": [2, 3], "counts": None},
    ],
)
def test_malformed_encodings_are_refused(rle):
    with pytest.raises(InputError) as refused:
        decode(rle)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("crop", "origin"),
    [
        (np.ones((3, 3), bool), (0, 2)),
        (np.ones((3, 3), bool), (-1, 0)),
        (np.ones((3, 3), np.uint8), (0, 0)),
        (np.ones(3, bool), (0, 0)),
    ],
)
def test_crops_that_do_not_fit_are_refused(crop, origin):
    with pytest.raises(InputError):
        encode_crop(crop, origin, (4, 4))


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (5, 7), (64, 3), (40, 61)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_a_crop_is_the_tight_part_of_the_whole_mask(shape, share):
    mask = np.random.default_rng(shape[0]).random(shape) < share
    crop, (y, x) = decode_crop(encode_crop(mask, (0, 0), shape))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        assert crop.shape == (0, 0)
        assert (y, x) == (0, 0)
        return
    assert (y, x) == (rows[0], columns[0])
    assert np.array_equal(crop, mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


@pytest.mark.parametrize(
    ("counts", "box"),
    [
        ([24], (0, 0, 0, 0)),
        ([0, 24], (0, 0, 4, 6)),
        ([8, 2, 14], (1, 2, 2, 4)),
        ([8, 4, 12], (1, 2, 2, 6)),  # up to the foot of a column, not over it
        ([8, 5, 11], (1, 0, 3, 6)),  # over it, into the next
        ([3, 4, 0, 2, 5, 0, 0, 1, 0, 0, 9], (0, 0, 3, 6)),
        ([8, 2, 10, 1, 3, 0, 0], (1, 2, 4, 4)),
    ],
)
def test_a_mask_box_spans_the_pixels(counts, box):
    rle = {"size": [6, 4], "counts": counts}
    assert mask_box(rle) == box
    crop, (y, x) = decode_crop(rle)
    assert (x, y, x + crop.shape[1], y + crop.shape[0]) == box


def test_a_crop_of_runs_that_are_empty_or_touch():
    """Counts that other writers leave: zero lengths in the middle split a run without ending it."""
    counts = [3, 4, 0, 2, 5, 0, 0, 1, 0, 0, 9]
    whole = decode({"size": [6, 4], "counts": counts})
    crop, (y, x) = decode_crop({"size": [6, 4], "counts": counts})
    placed = np.zeros_like(whole)
    placed[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    assert np.array_equal(placed, whole)
    assert whole.sum() == 7
