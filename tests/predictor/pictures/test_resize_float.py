"""Resizing in float32 against SciPy, exact fractions, torchvision's recorded results, and PyTorch where it is."""

from fractions import Fraction

import numpy as np
import pytest
from golden import family_operators, family_picture
from scipy import ndimage

from runtime.errors import InputError
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox
from runtime.pictures.resize_float import resize_float, sample_float

SIZES = [
    ((7, 9), (20, 31)),
    ((40, 33), (13, 9)),
    ((5, 64), (64, 5)),
    ((1, 3), (4, 4)),
    ((3, 1), (9, 2)),
    ((8, 8), (8, 8)),
]


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_equals_scipy(source, target, channels):
    image = noise(*source, channels)
    places = [(np.arange(m) + 0.5) * (n / m) - 0.5 for n, m in zip(source, target, strict=True)]
    grid = np.meshgrid(*places, indexing="ij")
    expected = [
        ndimage.map_coordinates(image[..., i].astype(float), grid, order=1, mode="nearest") for i in range(channels)
    ]
    found = resize_float(image, target)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack(expected, axis=2), atol=2e-3)


@pytest.mark.parametrize(
    ("source", "target"), [(480, 800), (1333, 777), (2000, 900), (97, 96), (6, 6), (1, 50), (50, 1)]
)
def test_positions_are_those_of_float32_rounded_once(source, target):
    samples = sample_float(source, target)
    scale = Fraction(float(np.float32(source) / np.float32(target)))
    for i in range(target):
        position = np.float32(float(max(scale * (2 * i + 1) / 2 - Fraction(1, 2), Fraction(0))))
        lower = min(int(position), source - 1)
        assert (samples.lower[i], samples.upper[i]) == (lower, min(lower + 1, source - 1))
        assert samples.weight[i] == position - np.float32(lower)


@pytest.mark.parametrize("case", range(4))
def test_is_torchvisions_input(case):
    golden = family_operators()[f"resize/{case}/torchvision"]
    height, width = ((60, 80), (200, 330), (300, 90), (97, 96))[case]
    letterbox = plan_letterbox(
        (height, width), ResizePolicy("short_side", short_side=96, long_side=160, resampling="float")
    )
    assert letterbox.resized_size == golden.shape[1:]
    found = letterbox.apply(family_picture(f"resize{case}", height, width))
    assert found.shape == (*letterbox.input_size, 3)
    y2, x2 = letterbox.resized_size
    np.testing.assert_allclose(found[:y2, :x2] / 255, np.moveaxis(golden, 0, -1), rtol=0, atol=3e-7)
    assert not found[y2:].any()
    assert not found[:, x2:].any()


@pytest.mark.parametrize(("source", "target"), [*SIZES, ((200, 330), (97, 160)), ((60, 80), (400, 533))])
def test_equals_pytorch(source, target):
    torch = pytest.importorskip("torch")
    image = noise(*source)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float()[None]
    expected = torch.nn.functional.interpolate(tensor, size=target, mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(resize_float(image, target), expected.permute(1, 2, 0).numpy(), rtol=0, atol=6e-5)


@pytest.mark.parametrize(("source", "target"), [*SIZES, ((50, 41), (33, 77)), ((31, 60), (64, 32))])
def test_rounds_across_then_down(source, target):
    """Two products and a sum along rows, then along columns, each rounded to float32."""
    image, rows, columns = noise(*source), *map(sample_float, source, target)
    part = image.astype(np.float32)
    for axis, samples in ((1, columns), (0, rows)):
        weight = samples.weight.reshape([-1 if each == axis else 1 for each in range(3)])
        part = part.take(samples.lower, axis) * (1 - weight) + part.take(samples.upper, axis) * weight
    np.testing.assert_array_equal(resize_float(image, target), part)


def test_a_place_for_the_result_changes_nothing():
    image = noise(50, 41)
    canvas = np.full((40, 80, 3), -1, np.float32)
    assert resize_float(image, (33, 77), canvas[:33, :77]).base is canvas
    np.testing.assert_array_equal(canvas[:33, :77], resize_float(image, (33, 77)))
    assert (canvas[33:] == -1).all()
    assert (canvas[:, 77:] == -1).all()


@pytest.mark.parametrize(("shape", "size"), [((3, 3), (2, 2)), ((0, 3, 3), (2, 2)), ((3, 3, 3), (0, 2))])
def test_what_cannot_be_resized_is_refused(shape, size):
    with pytest.raises(InputError, match="expected"):
        resize_float(np.zeros(shape), size)
