"""A stand-in for a predictor, and a soak of it in a process whose memory nothing else uses."""

import numpy as np

from benchmarks import soak


class Finding:
    """Stands for a predictor; finds one thing in each picture."""

    rles = ()

    def __init__(self):
        self.sizes = []

    def __call__(self, picture):
        self.sizes.append(picture.shape[:2])
        return self

    def __len__(self):
        return 1


def growth(leak):
    """Whether 400 predictions pass, and the growth of memory in MB after the first 200."""
    plan = soak.Soak(400, 200, 20.0, random_shapes=False)
    outcome = soak.soak(Finding(), np.zeros((64, 64, 3), np.uint8), plan, leak=leak)
    return outcome.passed, outcome.growth
