"""Augmentation: image and masks change together, and in no other way."""

import numpy as np
import pytest

from maskrcnn.configuration.training import AugmentationConfig
from maskrcnn.data.augment import augment
from runtime.masks.paste import place_crops

EVERYTHING = AugmentationConfig(0.5, 0.5, 0.5, (0.5, 2.5), 0.3, 0.3, 0.3, 1.5, 8.0)


def coordinates(height, width):
    """uint8 [H, W, 3]: each pixel stores its row and column, which shows where it came from after a change.

    The last channel is 0 or 255, never its mean: what was not in the picture is recognized.
    """
    y, x = np.indices((height, width))
    return np.stack([y, x, (y + x) % 2 * 255], axis=2).astype(np.uint8)


def random_masks(height, width, count, seed=0):
    """bool [N, H, W] and their tight crops: blocks with holes, the first in a corner, the second empty."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), bool)
    for n, mask in enumerate(masks):
        rows, columns = rng.integers(1, height // 2 + 2), rng.integers(1, width // 2 + 2)
        y, x = (0, 0) if n == 0 else (rng.integers(height - rows + 1), rng.integers(width - columns + 1))
        mask[y : y + rows, x : x + columns] = rng.random((rows, columns)) < 0.6
    masks[1:2] = False
    return masks, [tight(mask) for mask in masks]


def tight(mask):
    y, x = np.nonzero(mask)
    if not len(y):
        return np.zeros((0, 0), bool), (0, 0)
    return mask[y.min() : y.max() + 1, x.min() : x.max() + 1], (int(y.min()), int(x.min()))


def check_moved(image, crops, masks):
    """Check that each pixel keeps its masks and every crop is tight; return rows, columns, known."""
    known = np.isin(image[:, :, 2], (0, 255))
    rows, columns = (np.where(known, image[:, :, c], 0) for c in (0, 1))
    expected = masks[:, rows, columns] & known
    assert len(crops) == len(masks)
    assert np.array_equal(place_crops(crops, image.shape[:2]), expected)
    for (pixels, origin), mask in zip(crops, expected, strict=True):
        assert pixels.dtype == bool
        assert (pixels.shape, origin) == (tight(mask)[0].shape, tight(mask)[1])
    return rows, columns, known


def runs(image, crops, config, count):
    return [augment(image, crops, config, np.random.default_rng(seed)) for seed in range(count)]


SIZES = [(37, 52), (52, 37), (1, 9), (9, 1), (64, 64)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "oracle"),
    [("flip_horizontal", lambda full: np.flip(full, -1)), ("flip_vertical", lambda full: np.flip(full, -2))],
)
def test_flips_are_those_of_numpy(size, name, oracle):
    image = coordinates(*size)
    masks, crops = random_masks(*size, 6)
    found, moved = augment(image, crops, AugmentationConfig(**{name: 1.0}), np.random.default_rng(0))
    assert np.array_equal(np.moveaxis(found, 2, 0), oracle(np.moveaxis(image, 2, 0)))
    assert np.array_equal(place_crops(moved, size), oracle(masks))
    check_moved(found, moved, masks)


@pytest.mark.parametrize("size", SIZES)
def test_turns_are_those_of_numpy(size):
    image = coordinates(*size)
    masks, crops = random_masks(*size, 6)
    seen = set()
    for found, moved in runs(image, crops, AugmentationConfig(rotate_90=1.0), 30):
        quarters = [k for k in (1, 2, 3) if np.array_equal(found, np.rot90(image, k))]
        assert len(quarters) == 1
        assert np.array_equal(place_crops(moved, found.shape[:2]), np.rot90(masks, quarters[0], (1, 2)))
        check_moved(found, moved, masks)
        seen.update(quarters)
    assert seen == {1, 2, 3}


@pytest.mark.parametrize("size", [(37, 52), (52, 37), (120, 121), (5, 3)])
@pytest.mark.parametrize("factor", [1.3, 2.0, 40.0])
def test_zooming_in_cuts_a_window(size, factor):
    image = coordinates(*size)
    masks, crops = random_masks(*size, 6)
    for found, moved in runs(image, crops, AugmentationConfig(scale=(factor, factor)), 20):
        assert found.shape[:2] == tuple(max(1, round(side / factor)) for side in size)
        y, x = found[0, 0, :2].tolist()
        assert np.array_equal(found, image[y:, x:][: found.shape[0], : found.shape[1]])
        assert np.array_equal(
            place_crops(moved, found.shape[:2]), masks[:, y:, x:][:, : found.shape[0], : found.shape[1]]
        )
        check_moved(found, moved, masks)


@pytest.mark.parametrize("size", [(37, 52), (52, 37), (5, 3)])
@pytest.mark.parametrize("factor", [0.8, 0.5, 0.3])
def test_zooming_out_adds_a_margin_of_the_mean_color(size, factor):
    image = coordinates(*size)
    masks, crops = random_masks(*size, 6)
    places = set()
    for found, moved in runs(image, crops, AugmentationConfig(scale=(factor, factor)), 20):
        assert np.abs(np.array(found.shape[:2]) - np.array(size) / factor).max() <= 1
        _, _, known = check_moved(found, moved, masks)
        rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
        assert np.array_equal(found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], image)
        assert (found[~known] == np.rint(image.mean(axis=(0, 1)))).all()
        places.add((rows[0], columns[0]))
    assert len(places) > 1


def test_the_canvas_is_no_larger_than_a_picture_may_be(monkeypatch):
    monkeypatch.setattr("maskrcnn.data.augment.MAX_PIXELS", 5000)
    found, _ = augment(coordinates(40, 50), [], AugmentationConfig(scale=(0.01, 0.01)), np.random.default_rng(0))
    assert 4700 < found.shape[0] * found.shape[1] <= 5000
    monkeypatch.setattr("maskrcnn.data.augment.MAX_PIXELS", 100)
    found, _ = augment(coordinates(40, 50), [], AugmentationConfig(scale=(0.01, 0.01)), np.random.default_rng(0))
    assert found.shape == (40, 50, 3)


@pytest.mark.parametrize("size", [(37, 52), (101, 64), (2, 200)])
def test_all_geometry_together(size):
    image = coordinates(*size)
    masks, crops = random_masks(*size, 12)
    shapes = set()
    for found, moved in runs(image, crops, AugmentationConfig(0.5, 0.5, 0.5, (0.5, 3.0)), 60):
        check_moved(found, moved, masks)
        assert moved[1][0].shape == (0, 0)
        assert found.flags.c_contiguous
        shapes.add(found.shape)
    assert len(shapes) > 20


def test_objects_keep_their_color():
    """Masks are where the image has their color, also at edges and corners."""
    places = [np.s_[0:9, 0:7], np.s_[40:43, 0:70], np.s_[0:30, 69:70], np.s_[20:22, 30:44], np.s_[42:43, 50:60]]
    image = np.zeros((43, 70, 3), np.uint8)
    masks = np.zeros((5, 43, 70), bool)
    for n, place in enumerate(places):
        image[place] = 40 * (n + 1)
        masks[:n, *place] = False
        masks[n][place] = True
    for found, moved in runs(image, [tight(mask) for mask in masks], AugmentationConfig(0.5, 0.5, 0.5, (1, 3)), 80):
        for n, mask in enumerate(place_crops(moved, found.shape[:2])):
            assert np.array_equal(mask, found[:, :, 0] == 40 * (n + 1))


def test_nothing_is_done_by_default():
    image = coordinates(20, 30)
    _, crops = random_masks(20, 30, 4)
    rng = np.random.default_rng(0)
    found, moved = augment(image, crops, AugmentationConfig(), rng)
    assert found is image
    assert all(a[0] is b[0] and a[1] == b[1] for a, b in zip(moved, crops, strict=True) if b[0].size)
    assert rng.random() == np.random.default_rng(0).random()


def test_the_arguments_are_not_changed():
    image = coordinates(40, 60)
    masks, crops = random_masks(40, 60, 5)
    for seed in range(30):
        augment(image, crops, EVERYTHING, np.random.default_rng(seed))
    assert np.array_equal(image, coordinates(40, 60))
    assert np.array_equal(place_crops(crops, (40, 60)), masks)
    assert len(crops) == 5


def test_the_same_seed_gives_the_same():
    image = coordinates(40, 60)
    _, crops = random_masks(40, 60, 5)
    pictures = []
    for first, second in zip(*(runs(image, crops, EVERYTHING, 20) for _ in range(2)), strict=True):
        assert np.array_equal(first[0], second[0])
        assert all(np.array_equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(first[1], second[1], strict=True))
        pictures.append(first[0].tobytes())
    assert len(set(pictures)) == 20


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_pictures_without_objects_and_with_any_channels(channels):
    image = np.random.default_rng(0).integers(0, 256, (31, 45, channels), np.uint8)
    for found, moved in runs(image, [], EVERYTHING, 20):
        assert found.shape[2] == channels
        assert found.dtype == np.uint8
        assert moved == []


def test_an_object_cut_away_is_empty_and_stays_in_the_list():
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 0, 0] = masks[1, 59, 79] = True
    gone = 0
    for _, moved in runs(coordinates(60, 80), [tight(mask) for mask in masks], AugmentationConfig(scale=(2, 2)), 100):
        assert len(moved) == 2
        gone += sum(pixels.shape == (0, 0) and origin == (0, 0) for pixels, origin in moved)
    assert gone >= 100  # no window of half the size has both corners


@pytest.mark.parametrize(("factor", "low", "high"), [(2, 0.85, 0.99), (8, 0.02, 0.5)])
def test_windows_without_an_object_are_tried_again(factor, low, high):
    # A block in the middle of one side: a window of half the size has a part of it in about a fifth of its places.
    mask = np.zeros((100, 100), bool)
    mask[0:10, 45:55] = True
    config = AugmentationConfig(scale=(factor, factor))
    kept = np.mean([moved[0][0].size > 0 for _, moved in runs(coordinates(100, 100), [tight(mask)], config, 300)])
    assert low < kept < high


@pytest.mark.parametrize("name", ["flip_horizontal", "flip_vertical", "rotate_90"])
@pytest.mark.parametrize("probability", [0.0, 0.2, 0.7, 1.0])
def test_probabilities(name, probability):
    image = coordinates(4, 6)
    rng = np.random.default_rng(5)
    config = AugmentationConfig(**{name: probability})
    changed = sum(not np.array_equal(augment(image, [], config, rng)[0], image) for _ in range(1000))
    assert abs(changed - 1000 * probability) <= 4 * np.sqrt(1000 * probability * (1 - probability))


def test_turns_are_equally_likely():
    image = coordinates(4, 6)
    turns = [np.rot90(image, k).tobytes() for k in (1, 2, 3)]
    found = [augment_turn.tobytes() for augment_turn, _ in runs(image, [], AugmentationConfig(rotate_90=1.0), 900)]
    assert all(240 < found.count(turn) < 360 for turn in turns)


def test_scales_are_even_in_their_logarithm():
    rng = np.random.default_rng(0)
    config = AugmentationConfig(scale=(0.5, 4.0))
    scales = [200 / augment(coordinates(200, 100), [], config, rng)[0].shape[0] for _ in range(600)]
    assert 0.49 < min(scales) < 0.53
    assert 3.8 < max(scales) < 4.1
    shares = np.histogram(np.log2(scales), [-1.1, 0, 1, 2.1])[0] / 600
    assert np.abs(shares - 1 / 3).max() < 0.08
