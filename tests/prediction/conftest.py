"""A predictor without a network: what it finds can be told from the picture by hand."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn.prediction.job import Job
from maskrcnn.prediction.output_folder import OutputFolder
from runtime.pictures.letterbox import ResizePolicy
from runtime.steps import letterbox_picture, to_detections

NAMES = ("BG", "cat", "dog, big", '=HYPERLINK("x")')


class FakePredictor:
    """Finds in each picture the box x 2..10, y 4..9, whose class is 1 + red // 80 of the first pixel, or nothing for
    a first pixel without red. Its network refuses pictures whose first pixel is all blue."""

    class_names = NAMES
    score_threshold = 0.5
    nms_threshold = 0.3

    def __init__(self):
        self.batches = []

    def prepare(self, image):
        return letterbox_picture(image, 3, ResizePolicy("pad64"))

    def run(self, images, windows):
        self.batches.append(len(images))
        corners = [
            image[int(window[0]), int(window[1])].astype(int) for image, window in zip(images, windows, strict=True)
        ]
        if any(tuple(corner) == (0, 0, 255) for corner in corners):
            raise ArithmeticError("the network cannot take this")
        origin = windows[:, [1, 0, 1, 0]]
        return {
            "num_detections": np.array([int(corner[0] > 0) for corner in corners], np.int32),
            "boxes": (origin + np.array([2, 4, 10, 9])).astype(np.float32)[:, None],
            "scores": np.array([[0.5 + corner[1] / 512] for corner in corners], np.float32),
            "class_ids": np.array([[1 + corner[0] // 80] for corner in corners], np.int32),
            "masks": np.ones((len(images), 1, 28, 28), np.float32),
        }

    def finish(self, outputs, letterbox):
        return to_detections(outputs, letterbox, self.class_names, "aligned")


@pytest.fixture
def fake():
    return FakePredictor()


@pytest.fixture
def save():
    """Write a picture of one color, by default one of a cat of score 0.75."""

    def write(path, color=(50, 128, 0), size=(20, 30)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size[::-1], color).save(path)
        return path

    return write


@pytest.fixture
def job(fake, tmp_path):
    """A run of `fake` into a folder of its own."""

    def make(**changes):
        values = {
            "predictor": fake,
            "folder": OutputFolder(tmp_path / "out"),
            "run": "a",
            "classes": None,
            "views": (),
            "batch_size": 1,
            "every": 1,
            "stopped": lambda: False,
            "progress": lambda label, done, total: None,
        }
        return Job(**(values | changes))

    return make
