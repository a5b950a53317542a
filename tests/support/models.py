"""Models that several test files use; building and filling one takes seconds."""

from functools import cache

import golden

from maskrcnn.checkpoint import seed_weights
from maskrcnn.demo import demo_model
from maskrcnn.matterport_config import from_matterport
from maskrcnn.model import MaskRCNN


@cache
def small_model():
    """ResNet-50 with 4 classes and the weights of the goldens. Shared: do not change its weights."""
    model = MaskRCNN(from_matterport(golden.config_values(golden.load("infer_small_seed0"))))
    seed_weights(model, 0)
    return model


@cache
def demo():
    """The demo model. Shared: do not change its weights."""
    return demo_model()
