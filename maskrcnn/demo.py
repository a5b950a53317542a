"""The demo: a small model and a picture that ship with the package, so that every command works at once.

The model's weights are deterministic, not trained: it finds boxes, classes and masks that mean nothing, which is all
that proving an export needs.
"""

from importlib import resources

import numpy as np
import numpy.typing as npt

from maskrcnn.checkpoint import seed_weights
from maskrcnn.model import MaskRCNN
from maskrcnn.samples import DEMO
from runtime.images import read_image

# The last convolution of a residual block is kept small and the class logits flat, or scores saturate.
_GAINS = {f"res{stage}{block}_branch2b": 0.3 for stage in (2, 3, 4, 5) for block in "ab"} | {"mrcnn_class_logits": 0.4}


def demo_model() -> MaskRCNN:
    """The demo model with its weights."""
    model = MaskRCNN(DEMO)
    seed_weights(model, gains=_GAINS)
    return model


def demo_picture() -> npt.NDArray[np.uint8]:
    """The demo picture, uint8 [360, 480, 3] RGB."""
    return read_image(resources.files("maskrcnn").joinpath("demo.jpg").read_bytes())
