"""Limits of a predictor: how many detections it returns, and how large its pictures are."""

import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from bad_pictures import png
from PIL import Image

from runtime import EngineOptions, Predictor
from runtime.errors import ImageError, InputError
from runtime.pictures.read import MAX_PIXELS, read_image


def test_best_detections_are_returned(artifact, predictor, picture):
    everything = predictor(picture)
    assert len(everything) > 3
    for limit in (1, 3, len(everything), predictor.metadata.max_detections):
        limited = Predictor(artifact, "cpu", max_detections=limit)
        for found in (limited(picture), limited.predict_batch([picture])[0], *limited.predict_stream([picture])):
            assert len(found) == min(limit, len(everything))
            np.testing.assert_array_equal(found.scores, np.sort(everything.scores)[::-1][:limit])
            np.testing.assert_array_equal(found.mask_probabilities, everything.mask_probabilities[:limit])


def test_limits_travel_as_they_are_now(artifact):
    predictor = Predictor(artifact, "cpu", max_detections=2, score_threshold=0.3, max_pixels=5000)
    predictor.max_detections, predictor.score_threshold, predictor.nms_threshold = 3, 0.6, 0.2
    copy = pickle.loads(pickle.dumps(predictor))
    limits = copy.max_detections, copy.score_threshold, copy.nms_threshold, copy.max_pixels
    assert limits == (3, 0.6, 0.2, 5000)


def test_largest_picture(artifact, picture, tmp_path):
    height, width = picture.shape[:2]
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    with Predictor(artifact, "cpu", max_pixels=height * width) as predictor:
        found = predictor(path)
        assert len(found) > 3
        predictor.max_pixels -= 1
        for each in (path, path.read_bytes(), picture, Image.fromarray(picture)):
            with pytest.raises(ImageError, match=f"at most {height * width - 1} are allowed.*max_pixels"):
                predictor(each)
        (refused,) = predictor.predict_stream([path], on_error="yield")
        assert isinstance(refused, ImageError)


def test_larger_than_usual():
    """More than a hundred million pixels, if asked for: then the decoder is asked, and finds one row only."""
    cut = png(10_001, 10_000, 8, 0, b"\0")
    with pytest.raises(ImageError, match="10001 x 10000 pixels"):
        read_image(cut)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(cut, max_pixels=10_001 * 10_000)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
def test_impossible_number_of_pixels(picture, limit):
    with pytest.raises(InputError, match=r"max_pixels is .* expected a positive integer"):
        read_image(picture, max_pixels=limit)


class Silent:
    """Has a `__float__`, but no text."""

    def __float__(self):
        return 0.5

    def __repr__(self):
        raise ValueError


NO_NUMBERS = {
    "text": "0.5",
    "bool": True,
    "numpy bool": np.bool_(True),
    "complex": 0.5 + 0j,
    "Decimal": Decimal("0.5"),
    "list": [0.5],
    "tuple": (1,),
    "array": np.array([0.5]),
    "0-d array": np.array(1),
    "large array": np.zeros(10**6),
    "object": Silent(),
    "nan": float("nan"),
    "numpy nan": np.float32("nan"),
    "infinity": float("inf"),
    "huge": 10**400,
    "huge fraction": Fraction(10**400),
    "no decimals": 10**5000,  # Python refuses to write it
    "negative": -3,
    "negative huge": -(10**400),
}
OUT_OF_RANGE = {
    "score_threshold": {"7": 7, "below": -0.01, "above": 1.01, "int64": np.int64(2), "above 1": np.nextafter(1, 2)},
    "nms_threshold": {"7": 7, "below": -0.01, "above": 1.01},
    "max_detections": {"0": 0, "float": 2.0, "one more": 51, "int64": np.int64(101)},
    "max_pixels": {"0": 0, "float": 1000.0, "numpy float": np.float64(1000)},
}
CASES = [
    pytest.param(name, value, id=f"{name}: {kind}")
    for name, others in OUT_OF_RANGE.items()
    for kind, value in (NO_NUMBERS | others).items()
]


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_setting_is_checked_when_it_is_assigned_as_in_the_constructor(artifact, predictor, name, value):
    before = getattr(predictor, name)
    with pytest.raises(InputError, match=rf"^{name} is .*: expected ") as assigned:
        setattr(predictor, name, value)
    assert getattr(predictor, name) == before
    assert len(str(assigned.value)) < 200
    if artifact.suffix == ".onnx":  # opening a SavedModel takes seconds
        with pytest.raises(InputError) as given:
            Predictor(artifact, "cpu", **{name: value})
        assert str(given.value) == str(assigned.value)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "score_threshold": (0, 1, 0.25, np.float32(0.25), np.float16(0.5), np.int8(1), Fraction(1, 4)),
        "nms_threshold": (0, 1, 0.25, np.float64(0.25), Fraction(1, 4)),
        "max_detections": (1, 50, np.int64(7), np.uint8(7)),
        "max_pixels": (1, np.int64(5000), 10**12),
    }.items(),
)
def test_a_setting_takes_any_real_number_of_its_range_and_none_is_the_default(predictor, name, values):
    default = getattr(predictor, name)
    for value in values:
        setattr(predictor, name, value)
        assert getattr(predictor, name) == value
        assert type(getattr(predictor, name)) in (int, float)
    setattr(predictor, name, None)
    assert getattr(predictor, name) == default


def test_none_is_the_default_of_the_artifact_in_the_constructor_too(artifact, predictor):
    names = ("score_threshold", "nms_threshold", "max_detections", "max_pixels")
    given = Predictor(artifact, "cpu", **dict.fromkeys(names))
    metadata = predictor.metadata
    defaults = (metadata.score_threshold, metadata.nms_threshold, metadata.max_detections, MAX_PIXELS)
    assert tuple(getattr(given, name) for name in names) == defaults


@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_other_arguments_are_checked_alike(predictor, picture, value):
    found = predictor(picture)
    for argument, call in {
        "min_score": lambda: found.filter(min_score=value),
        "opacity": lambda: found.draw(picture, opacity=value),
        "tolerance": lambda: found.to_coco(1, segmentation="polygon", tolerance=value),
        "batch_size": lambda: predictor.predict_batch([picture], value),
        "ahead": lambda: predictor.predict_stream([picture], 1, value),
        "sizes": lambda: predictor.warm_up([(64, value)]),
        "threads": lambda: EngineOptions(threads=value),
        "gpu_memory_limit": lambda: EngineOptions(gpu_memory_limit=value),
    }.items():
        with pytest.raises(InputError, match=rf"^{argument} (is|has) .*: expected ") as refusal:
            call()
        assert len(str(refusal.value)) < 200


def test_a_score_above_1_is_no_filter(predictor, picture):
    with pytest.raises(InputError, match="min_score is 50: expected a number from 0 to 1"):
        predictor(picture).filter(min_score=50)  # percent
