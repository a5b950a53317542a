"""Pillow's resizing of arrays and images against Detectron2's recorded results."""

import numpy as np
import PIL
import pytest
from golden import family_operators, family_picture
from PIL import Image

from runtime.errors import InputError
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox
from runtime.pictures.resize_pillow import resize_pillow

# Before version 13, Pillow rounds once more on the way in some sizes.
_LEVELS = 0 if int(PIL.__version__.split(".")[0]) >= 13 else 1


@pytest.mark.parametrize("case", range(4))
def test_is_detectron2s_input(case):
    golden = family_operators()[f"resize/{case}/detectron2"]
    height, width = ((60, 80), (200, 330), (300, 90), (97, 96))[case]
    policy = ResizePolicy("short_side", short_side=96, long_side=160, resampling="pillow")
    letterbox = plan_letterbox((height, width), policy)
    assert letterbox.resized_size == golden.shape[:2]
    image = family_picture(f"resize{case}", height, width)
    for source in (image, Image.fromarray(image)):
        found = letterbox.apply(source)
        assert found.dtype == np.uint8
        difference = found[: golden.shape[0], : golden.shape[1]].astype(int) - golden
        assert np.abs(difference).max() <= _LEVELS
        assert found.sum() == golden.sum(dtype=np.int64) + difference.sum()  # black elsewhere


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("size", [(9, 90), (80, 20), (40, 33)])
def test_every_channel_is_resized_alike(channels, size):
    image = np.random.default_rng(0).integers(0, 256, (40, 33, channels), np.uint8)
    found = resize_pillow(image, size)
    assert found.shape == (*size, channels)
    for i in range(channels):
        plane = Image.fromarray(image[:, :, i]).resize(size[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(found[:, :, i], np.asarray(plane))
    if channels == 1:
        np.testing.assert_array_equal(resize_pillow(Image.fromarray(image[:, :, 0]), size), found)


def test_a_reduced_image_is_anti_aliased():
    stripes = np.tile(np.array([[0], [255]], np.uint8), (40, 80))[:, :, None]
    assert np.ptp(resize_pillow(stripes, (20, 20))[2:-2]) <= 2


@pytest.mark.parametrize(
    ("image", "size"),
    [(np.zeros((3, 3, 3)), (2, 2)), (np.zeros((3, 3), np.uint8), (2, 2)), (np.zeros((3, 3, 1), np.uint8), (2, 0))],
)
def test_what_cannot_be_resized_is_refused(image, size):
    with pytest.raises(InputError, match="expected"):
        resize_pillow(image, size)
