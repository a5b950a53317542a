"""Where tiles are, and which sizes are refused."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from runtime.errors import InputError
from runtime.pictures.letterbox import ResizePolicy
from runtime.tiles.tiling import Tile, Tiling, cut


@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    tile=st.integers(64, 200),
    overlap=st.floats(0, 0.9),
)
def test_tiles_cover_the_image_and_overlap(size, tile, overlap):
    tiles = Tiling(tile, overlap).tiles(size)
    covered = np.zeros(size, np.bool_)
    for each in tiles:
        assert each.bottom - each.top == min(tile, size[0])
        assert each.right - each.left == min(tile, size[1])
        covered[each.top : each.bottom, each.left : each.right] = True
    assert covered.all()
    for starts in ({each.top for each in tiles}, {each.left for each in tiles}):
        assert (np.diff(sorted(starts)) <= tile - round(tile * overlap)).all()


def test_the_last_tiles_are_moved_into_the_image():
    assert Tiling(100, 0.2).tiles((100, 190)) == [Tile(0, 0, 100, 100), Tile(0, 80, 100, 180), Tile(0, 90, 100, 190)]


@pytest.mark.parametrize("mode", ["RGB", "L", None])
def test_a_tile_has_the_pixels_of_the_image(mode):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 150, 1 if mode == "L" else 3), np.uint8)
    picture = pixels if mode is None else Image.fromarray(pixels.squeeze(), mode=mode)
    found = cut(picture, Tile(20, 70, 84, 150))
    np.testing.assert_array_equal(found, pixels[20:84, 70:150])
    assert not np.may_share_memory(found, pixels)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tile": 0}, "tile is 0: expected an integer of at least 64, the side of a tile in pixels"),
        ({"tile": -1024}, "tile is -1024: expected an integer"),
        ({"tile": 63}, "tile is 63: expected an integer"),
        ({"tile": 512.0}, "tile is 512.0: expected an integer"),
        ({"tile": True}, "tile is True: expected an integer"),
        ({"tile": (512, 640)}, "tile is (512, 640): expected an integer"),
        ({"overlap": 1.0}, "overlap is 1.0: expected a number from 0 to 0.9, of the tile"),
        ({"overlap": -0.1}, "overlap is -0.1: expected a number"),
        ({"overlap": float("nan")}, "overlap is nan: expected a number"),
        ({"overlap": "0.2"}, "overlap is '0.2': expected a number"),
    ],
)
def test_bad_arguments(values, message):
    with pytest.raises(InputError) as error:
        Tiling(**values)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("policy", "tile", "message"),
    [
        (ResizePolicy("square", 800, 1024), 99, "tile is 99, which this model would enlarge 8.08 times: give at least"),
        (ResizePolicy("short_side", resampling="float"), 99, "tile is 99, which this model would enlarge 8.08 times"),
        (ResizePolicy("none"), 1000, "tile is 1000, and this model does not resize: give a multiple of 64"),
    ],
)
def test_tiles_that_a_model_cannot_use(policy, tile, message):
    with pytest.raises(InputError) as error:
        Tiling(tile).check(policy)
    assert str(error.value).startswith(message)
    if "at least" in message:
        Tiling(int(str(error.value).split("at least ")[1].split(",")[0])).check(policy)


@pytest.mark.parametrize("tile", [64, 512, 10**9])
def test_tiles_that_fit(tile):
    Tiling(tile).check(ResizePolicy("square", 64, 64))
    Tiling(tile).check(ResizePolicy("pad64"))
    Tiling(tile).check(ResizePolicy("none"))
