"""The resize policy against matterport's own results and hand-computed plans."""

import json
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from oracles import boxes_to_input
from PIL import Image

from runtime.errors import InputError
from runtime.pictures.letterbox import Letterbox, ResizePolicy, plan_letterbox

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "images_masks_seed0.npz")
CASES = json.loads(str(GOLDEN["resize_cases_json"]))

# scikit-image 0.16.2 takes its coordinates from a transform fitted by SVD; where the exact result is a whole
# number, that noise of 1e-13 decides what truncation gives. Share of values that differ by one grey level.
GOLDEN_SHARE = {0: 0.0002, 3: 0.0011, 5: 0.023, 8: 0.025}


def golden_plan(case):
    values = CASES[case]
    policy = ResizePolicy(values["mode"], values["min_dim"], values["max_dim"], values["min_scale"])
    crop = GOLDEN[f"resize{case}_crop"].tolist()
    image = GOLDEN["image"]
    return plan_letterbox(image.shape[:2], policy, (crop[0], crop[1]) if crop else None), image


@pytest.mark.parametrize("case", range(len(CASES)))
def test_plan_is_matterports(case):
    plan, _ = golden_plan(case)
    assert plan.window == tuple(GOLDEN[f"resize{case}_window"].tolist())
    assert plan.scale == GOLDEN[f"resize{case}_scale"]
    if CASES[case]["mode"] != "crop":
        (top, bottom), (left, right), _ = GOLDEN[f"resize{case}_padding"].tolist()
        assert plan.offset == (top, left)
        height, width = plan.resized_size
        assert plan.input_size == (top + height + bottom, left + width + right)


@pytest.mark.parametrize("case", [case for case in range(len(CASES)) if case != 2])
def test_pixels_are_matterports_to_one_grey_level(case):
    plan, image = golden_plan(case)
    expected = GOLDEN[f"resize{case}_image"].astype(int)
    result = plan.apply(image)
    assert result.dtype == np.uint8
    assert result.shape == expected.shape
    difference = np.abs(result - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= GOLDEN_SHARE.get(case, 0.0)


@pytest.mark.parametrize(
    ("image_size", "scale", "resized", "window"),
    [
        ((480, 640), 1.6, (768, 1024), (128, 0, 896, 1024)),
        ((427, 640), 1.6, (683, 1024), (170, 0, 853, 1024)),
        ((476, 640), 1.6, (762, 1024), (131, 0, 893, 1024)),
        ((1024, 1024), 1.0, (1024, 1024), (0, 0, 1024, 1024)),
        ((1, 1), 800.0, (800, 800), (112, 112, 912, 912)),
        ((3000, 1), 1024 / 3000, (1024, 1), (0, 511, 1024, 512)),
    ],
)
def test_hand_checked_coco_plans(image_size, scale, resized, window):
    plan = plan_letterbox(image_size, ResizePolicy("square", 800, 1024, 0))
    assert (plan.scale, plan.resized_size, plan.window) == (scale, resized, window)
    assert plan.input_size == (1024, 1024)


def test_sides_round_half_to_even():
    # 5 * 0.5 = 2.5 -> 2 and 7 * 0.5 = 3.5 -> 4
    assert plan_letterbox((5, 14), ResizePolicy("square", max_dim=7)).resized_size == (2, 7)
    assert plan_letterbox((7, 14), ResizePolicy("square", max_dim=7)).resized_size == (4, 7)


def test_pad64_ignores_max_dim_and_pads_to_multiples():
    plan = plan_letterbox((300, 451), ResizePolicy("pad64", 64, max_dim=128))
    assert plan.input_size == (320, 512)
    assert plan.offset == (10, 30)  # of 61 columns the smaller half is left
    assert plan_letterbox((64, 128), ResizePolicy("pad64")).input_size == (64, 128)


@pytest.mark.parametrize("image_size", [(600, 1024), (400, 500), (3000, 1000), (1024, 1024), (1, 4000), (64, 1)])
@pytest.mark.parametrize("side", [1024, 1000, 60])
def test_fit64_is_the_square_without_the_padding_it_does_not_need(image_size, side):
    square = plan_letterbox(image_size, ResizePolicy("square", 800, side, 0))
    fitted = plan_letterbox(image_size, ResizePolicy("fit64", 800, side, 0))
    assert (fitted.scale, fitted.resized_size) == (square.scale, square.resized_size)
    assert fitted.input_size == tuple(-(-each // 64) * 64 for each in square.resized_size)
    assert all(0 <= each < 32 for each in fitted.offset)
    image = np.random.default_rng(0).integers(1, 256, (*image_size, 1), np.uint8)
    whole, part = (plan.apply(image)[slice(*plan.window[::2]), slice(*plan.window[1::2])] for plan in (square, fitted))
    np.testing.assert_array_equal(whole, part)


def test_padding_is_zero_and_the_picture_untouched_without_scaling():
    image = np.random.default_rng(0).integers(1, 256, (5, 8, 2), dtype=np.uint8)
    plan = plan_letterbox((5, 8), ResizePolicy("square", max_dim=11))
    result = plan.apply(image)
    np.testing.assert_array_equal(result[3:8, 1:9], image)
    assert result.sum() == image.sum()
    whole = plan_letterbox((5, 8), ResizePolicy("none", 800, 1024))
    assert whole.apply(image) is image


def test_values_are_truncated_not_rounded():
    image = np.array([[[0], [10]]], np.uint8)
    plan = plan_letterbox((1, 2), ResizePolicy("square", max_dim=4, min_scale=2.0))
    assert plan.resized_size == (2, 4)
    # rows: 0.75 of 0, 2.5, 7.5, 7.5
    np.testing.assert_array_equal(plan.apply(image)[1, :, 0], [0, 1, 5, 5])


def exact_pixel(image, row, column, size):
    """The bilinear value in fractions, without any rounding."""
    y = Fraction((2 * row + 1) * image.shape[0], 2 * size[0]) - Fraction(1, 2)
    x = Fraction((2 * column + 1) * image.shape[1], 2 * size[1]) - Fraction(1, 2)
    total = Fraction(0)
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                total += (1 - abs(y - i)) * (1 - abs(x - j)) * int(image[i, j])
    return total


def test_truncation_acts_on_the_exact_value():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 90), dtype=np.uint8)
    image[0, 0] = 0  # zero in range, so that clipping changes nothing
    plan = plan_letterbox((60, 90), ResizePolicy("square", max_dim=50))
    result = plan.apply(image[:, :, None])[plan.window[0] : plan.window[2], :, 0]
    values = [[exact_pixel(image, i, j, plan.resized_size) for j in range(50)] for i in range(len(result))]
    assert sum(value.denominator == 1 for row in values for value in row) > 10
    np.testing.assert_array_equal(result, [[math.floor(value) for value in row] for row in values])


def matterport_unmold(box, plan):
    """Matterport's route over normalised coordinates (y1, x1, y2, x2), before its rounding."""
    shift = np.array([0, 0, 1, 1])
    norm = np.array([*plan.input_size, *plan.input_size]) - 1.0
    window = (np.array(plan.window) - shift) / norm
    span = np.array([window[2] - window[0], window[3] - window[1]] * 2)
    relative = ((np.array(box) - shift) / norm - np.array([*window[:2], *window[:2]])) / span
    return relative * (np.array(plan.image_size * 2) - 1) + shift


@pytest.mark.parametrize("image_size", [(480, 640), (427, 640), (33, 1000), (2, 3)])
@pytest.mark.parametrize(
    "policy", [ResizePolicy("square", 200, 256), ResizePolicy("fit64", 200, 256), ResizePolicy("pad64", 128)]
)
def test_boxes_are_mapped_as_matterport_does(image_size, policy):
    plan = plan_letterbox(image_size, policy)
    boxes = np.random.default_rng(4).uniform(0, 256, (20, 4))  # y1, x1, y2, x2
    expected = np.array([matterport_unmold(box, plan) for box in boxes])
    mapped = plan.boxes_to_image(boxes[:, [1, 0, 3, 2]])
    np.testing.assert_allclose(mapped, expected[:, [1, 0, 3, 2]], atol=1e-9)


@pytest.mark.parametrize("image_size", [(480, 640), (1, 1), (3000, 1), (1, 3000), (2, 9000), (7, 5)])
@pytest.mark.parametrize("policy", [ResizePolicy("square", 800, 1024), ResizePolicy("none"), ResizePolicy("pad64")])
def test_the_window_is_the_whole_picture(image_size, policy):
    plan = plan_letterbox(image_size, policy)
    y1, x1, y2, x2 = plan.window
    height, width = image_size
    np.testing.assert_allclose(plan.boxes_to_image([[x1, y1, x2, y2]]), [[0, 0, width, height]], atol=1e-9)


@pytest.mark.parametrize("policy", [ResizePolicy("square", 40, 64), ResizePolicy("none"), ResizePolicy("pad64")])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_pillow_image_gives_the_input_of_its_pixels(policy, mode):
    pixels = np.random.default_rng(6).integers(0, 256, (150, 211, len(mode)), dtype=np.uint8)
    image = Image.fromarray(pixels if mode == "RGB" else pixels[:, :, 0])
    plan = plan_letterbox((150, 211), policy)
    np.testing.assert_array_equal(plan.apply(image), plan.apply(pixels))
    for wrong in (image.resize((150, 211)), image.convert("CMYK")):
        with pytest.raises(InputError, match="planned for"):
            plan.apply(wrong)


def test_boxes_go_there_and_back():
    rng = np.random.default_rng(5)
    boxes = rng.uniform(0, 400, (30, 4))
    for policy, crop in [(ResizePolicy("square", 300, 320), None), (ResizePolicy("crop", 128), (40, 7))]:
        plan = plan_letterbox((400, 411), policy, crop)
        np.testing.assert_allclose(plan.boxes_to_image(boxes_to_input(plan, boxes)), boxes, atol=1e-9)
        assert plan.boxes_to_image(np.zeros((0, 4))).shape == (0, 4)


def test_a_crop_keeps_its_place_in_the_picture():
    image = np.arange(20 * 30, dtype=np.uint16).astype(np.uint8).reshape(20, 30, 1)
    plan = plan_letterbox((20, 30), ResizePolicy("crop", 16), (3, 11))
    assert plan.window == (0, 0, 16, 16)
    np.testing.assert_array_equal(plan.apply(image), image[3:19, 11:27])
    np.testing.assert_allclose(plan.boxes_to_image([[1, 2, 5, 9]]), [[12, 5, 16, 12]])
    last = plan_letterbox((20, 30), ResizePolicy("crop", 16), (4, 14))
    np.testing.assert_array_equal(last.apply(image), image[4:, 14:])
    for origin in (None, (5, 0), (0, 15), (-1, 0), (0, -1)):
        with pytest.raises(InputError, match="crop_origin"):
            plan_letterbox((20, 30), ResizePolicy("crop", 16), origin)
    with pytest.raises(InputError, match=r"a crop of 16 in a scaled image of 20 x 30 needs 0\.\.4, 0\.\.14$"):
        plan_letterbox((20, 30), ResizePolicy("crop", 16), (0, 15))
    with pytest.raises(InputError, match="crop_origin"):
        plan_letterbox((20, 30), ResizePolicy("none"), (0, 0))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"mode": "fit"}, "fit"),
        ({"mode": "square"}, "max_dim"),
        ({"mode": "fit64", "min_dim": 64}, "mode 'fit64' has no max_dim"),
        ({"mode": "fit64", "max_dim": 64, "resampling": "opencv"}, "mode 'fit64' needs 'truncated'"),
        ({"mode": "square", "max_dim": 0}, "max_dim"),
        ({"mode": "square", "max_dim": 8.0}, "max_dim"),
        ({"mode": "square", "max_dim": True}, "max_dim"),
        ({"mode": "square", "max_dim": 8, "min_dim": -1}, "min_dim"),
        ({"mode": "square", "max_dim": 8, "min_scale": -1.0}, "min_scale"),
        ({"mode": "square", "max_dim": 8, "min_scale": float("nan")}, "min_scale"),
        ({"mode": "square", "max_dim": 8, "min_scale": "2"}, "min_scale"),
        ({"mode": "crop"}, "min_dim"),
        ({"mode": "pad64", "min_dim": 100}, "64"),
        ({"mode": "none", "max_dimension": 3}, "max_dimension"),
        ({"min_dim": 3}, "mode"),
    ],
)
def test_bad_policies_are_refused_by_name(fields, named):
    with pytest.raises(InputError, match=named):
        ResizePolicy.from_dict(fields)


def test_a_side_of_one_pixel_and_no_lowest_scale_are_taken():
    assert plan_letterbox((5, 3), ResizePolicy("square", 1, 1, 0)).input_size == (1, 1)


def test_policy_round_trip_through_json():
    policy = ResizePolicy("square", 800, 1024, 2)
    assert ResizePolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy


def test_bad_sizes_are_refused():
    for size in [(0, 5), (5, 0), (-1, 5), (5, -1), (2.0, 5), (5, 2.0), (True, 5)]:
        with pytest.raises(InputError, match="image_size"):
            plan_letterbox(size, ResizePolicy("none"))
    with pytest.raises(InputError, match="3000 x 1"):
        plan_letterbox((3000, 1), ResizePolicy("pad64", 832))


def test_apply_and_boxes_refuse_other_shapes():
    plan = Letterbox((4, 6), (4, 6), (4, 6), (0, 0), 1.0)
    for image in (np.zeros((6, 4, 3), np.uint8), np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.float32)):
        with pytest.raises(InputError, match=r"planned for uint8 \[4, 6, C\]$"):
            plan.apply(image)
    with pytest.raises(InputError, match=r"\[N, 4\]"):
        plan.boxes_to_image(np.zeros(4))


def short_side(resampling, short=800, long=1333):
    return ResizePolicy("short_side", short_side=short, long_side=long, resampling=resampling)


@pytest.mark.parametrize(
    ("image_size", "policy", "resized", "padded"),
    [
        ((240, 320), short_side("float", 288, 448), (288, 384), (288, 384)),
        ((300, 170), short_side("float", 288, 448), (448, 253), (448, 256)),
        ((320, 427), short_side("float", 416, 672), (416, 555), (416, 576)),
        ((200, 260), short_side("float", 224, 320), (224, 291), (224, 320)),
        ((240, 320), short_side("pillow", 288, 448), (288, 384), (288, 384)),
        # 640 * 800 / 426 = 1201.88, cut by torchvision and rounded by the others.
        ((426, 640), short_side("float"), (800, 1201), (800, 1216)),
        ((426, 640), short_side("pillow"), (800, 1202), (800, 1216)),
        ((426, 640), short_side("opencv"), (800, 1202), (800, 1216)),
        # 400 * 1333 / 1000 = 533.2; 45 * 1333 / 2000 = 29.99
        ((1000, 400), short_side("float"), (1333, 533), (1344, 544)),
        ((45, 2000), short_side("float"), (29, 1333), (32, 1344)),
        ((45, 2000), short_side("pillow"), (30, 1333), (32, 1344)),
        ((45, 2000), short_side("opencv"), (30, 1333), (32, 1344)),
        # A longer side of 1332.5 is within the limit before it is rounded.
        ((800, 1332), short_side("pillow"), (800, 1332), (800, 1344)),
        ((1, 4000), short_side("float"), (1, 1333), (32, 1344)),
        # MMDetection takes the larger number for the longer side, the others keep to the names.
        ((100, 100), short_side("opencv", 96, 64), (64, 64), (64, 64)),
        ((100, 120), short_side("opencv", 96, 64), (64, 77), (64, 96)),
        ((100, 120), short_side("pillow", 96, 64), (53, 64), (64, 64)),
        ((100, 120), short_side("float", 96, 64), (53, 64), (64, 64)),
    ],
)
def test_hand_checked_plans_by_the_short_side(image_size, policy, resized, padded):
    plan = plan_letterbox(image_size, policy)
    assert (plan.resized_size, plan.input_size) == (resized, padded)
    assert (plan.offset, plan.window) == ((0, 0), (0, 0, *resized))


def test_sides_by_the_short_side_are_those_of_each_package():
    """The rules as each package has them, for sizes where the order of operations decides, and others."""
    for number in range(5000):
        height, width = 1 + number * 7919 % 1999, 1 + number * 104729 % 1777
        short, long = 16 + number % 900, 16 + number * 31 % 1500
        scale = min(short / min(height, width), long / max(height, width))
        expected = {"float": (math.floor(float(height) * scale), math.floor(float(width) * scale))}
        larger = min(max(long, short) / max(height, width), min(long, short) / min(height, width))
        expected["opencv"] = int(height * float(larger) + 0.5), int(width * float(larger) + 0.5)
        size = short * 1.0
        scale = size / min(height, width)
        new = (size, scale * width) if height < width else (scale * height, size)
        if max(new) > long:
            scale = long * 1.0 / max(new)
            new = new[0] * scale, new[1] * scale
        expected["pillow"] = int(new[0] + 0.5), int(new[1] + 0.5)
        for resampling, size in expected.items():
            if max(height, width) / min(height, width) < 500:
                plan = plan_letterbox((height, width), short_side(resampling, short, long))
                assert plan.resized_size == (max(1, size[0]), max(1, size[1]))


def test_the_short_side_has_the_usual_defaults():
    policy = ResizePolicy("short_side", resampling="float")
    assert (policy.short_side, policy.long_side) == (800, 1333)
    assert (policy.size_multiple, policy.image_dtype) == (32, "float32")
    assert ResizePolicy.from_dict(policy.to_dict()) == policy
    assert ResizePolicy("short_side", resampling="pillow").image_dtype == "uint8"
    assert (ResizePolicy("pad64").size_multiple, ResizePolicy("pad64").image_dtype) == (64, "uint8")
    assert ResizePolicy("pad64").to_dict() == {"mode": "pad64", "min_dim": None, "max_dim": None, "min_scale": None}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "short_side"}, "resampling is 'truncated'; mode 'short_side' needs 'float', 'pillow' or 'opencv'"),
        ({"mode": "pad64", "resampling": "float"}, "resampling is 'float'; mode 'pad64' needs 'truncated'"),
        ({"mode": "short_side", "resampling": "nearest"}, "resampling is 'nearest'; expected one of truncated, float"),
        ({"mode": "short_side", "resampling": ["float"]}, "expected one of truncated, float"),
        (
            {"mode": "short_side", "resampling": "float", "min_dim": 800},
            "min_dim is 800; mode 'short_side' does not",
        ),
        ({"mode": "short_side", "resampling": "float", "max_dim": 64}, "max_dim is 64; mode 'short_side' does not use"),
        (
            {"mode": "short_side", "resampling": "float", "min_scale": 2.0},
            "min_scale is 2.0; mode 'short_side'",
        ),
        (
            {"mode": "square", "max_dim": 64, "short_side": 64},
            "short_side is 64; mode 'square' does not use it: set",
        ),
        ({"mode": "none", "long_side": 64}, "long_side is 64; mode 'none' does not use it"),
        ({"mode": "short_side", "resampling": "float", "short_side": 0}, "short_side is 0; expected an integer from 1"),
        ({"mode": "short_side", "resampling": "float", "long_side": 1e3}, "long_side is 1000.0; expected an integer"),
        ({"mode": "short_side", "resampling": "float", "long_side": 10_001}, "expected an integer from 1 to 10000"),
    ],
)
def test_a_short_side_that_cannot_be_is_refused(values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        ResizePolicy(**values)


@pytest.mark.parametrize("resampling", ["float", "pillow", "opencv"])
@pytest.mark.parametrize(("size", "channels"), [((50, 40), 3), ((64, 96), 3), ((31, 90), 1), ((33, 20), 5)])
def test_the_input_by_the_short_side(resampling, size, channels):
    image = np.random.default_rng(5).integers(1, 256, (*size, channels), np.uint8)
    plan = plan_letterbox(size, short_side(resampling, 64, 128))
    found = plan.apply(image)
    assert found.shape == (*plan.input_size, channels)
    assert found.dtype == ("float32" if resampling == "float" else "uint8")
    assert found.flags.c_contiguous
    height, width = plan.resized_size
    assert found[:height, :width].min() >= 1
    assert not found[height:].any()
    assert not found[:, width:].any()
    assert abs(found[:height, :width].mean() - image.mean()) < 8
    if channels in (1, 3):
        opened = Image.fromarray(image if channels == 3 else image[:, :, 0])
        np.testing.assert_array_equal(plan.apply(opened), found)
    if plan.resized_size == size:
        np.testing.assert_array_equal(found[:height, :width], image)


@pytest.mark.parametrize("resampling", ["float", "pillow", "opencv"])
def test_boxes_by_the_short_side_are_in_proportion_in_float32(resampling):
    plan = plan_letterbox((300, 170), short_side(resampling, 288, 448))
    height, width = plan.resized_size
    np.testing.assert_allclose(plan.boxes_to_image([[0, 0, width, height]]), [[0, 0, 170, 300]], rtol=1e-7)
    boxes = np.random.default_rng(0).uniform(0, 400, (50, 4)).astype(np.float32)
    for column, ratio in enumerate((170 / width, 300 / height) * 2):
        if resampling == "opencv":
            expected = boxes[:, column] / np.float32(1 / ratio)
        else:
            expected = boxes[:, column] * np.float32(ratio)
        np.testing.assert_array_equal(plan.boxes_to_image(boxes)[:, column], expected)


@pytest.mark.parametrize("resampling", ["float", "pillow", "opencv"])
def test_detected_boxes_by_the_short_side(resampling):
    plan = plan_letterbox((100, 200), short_side(resampling, 50, 100))
    boxes = np.array([[10, 10, 10.1, 10.1], [90, 40, 120, 60], [5, 5, 5, 9], [101, 3, 110, 9]], np.float32)
    mapped, kept = plan.detected_to_image(boxes)
    assert mapped.dtype == np.float32
    assert kept.tolist() == [True, True, False, resampling != "pillow"]  # small boxes stay, unlike after rounding
    assert mapped[1].tolist() == ([180, 80, 200, 100] if resampling == "pillow" else [180, 80, 240, 120])
