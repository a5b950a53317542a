"""Limits of a predictor: how many detections it returns, and how large its pictures are."""

import pickle

import numpy as np
import pytest
from bad_pictures import png
from PIL import Image

from runtime import Predictor
from runtime.errors import ImageError, InputError
from runtime.pictures.read import read_image


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
def test_impossible_number_of_pixels(artifact, picture, limit):
    with pytest.raises(InputError, match=r"max_pixels is .* expected an integer of at least 1"):
        Predictor(artifact, "cpu", max_pixels=limit)
    with pytest.raises(InputError, match=r"max_pixels is .* expected a positive integer"):
        read_image(picture, max_pixels=limit)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3", "one more"])
def test_impossible_limit(artifact, predictor, limit):
    most = predictor.metadata.max_detections
    with pytest.raises(InputError, match=f"expected an integer from 1 to {most}"):
        Predictor(artifact, "cpu", max_detections=most + 1 if limit == "one more" else limit)
