"""Models that several test files use; building and filling one takes seconds."""

from dataclasses import replace
from functools import cache

import golden

from benchmarks.seeded_weights import seed_weights
from maskrcnn.configuration.matterport import from_matterport
from maskrcnn.demo import demo_model
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


def small_training_model(cls=None):
    """A new training model of the golden run: ResNet-50, its weights and configuration, the original's bugs."""
    from maskrcnn.training.model import TrainingModel

    config = from_matterport(golden.config_values(golden.load("train_small_seed0")))
    config = replace(config, training=replace(config.training, original_bugs=True))
    network = MaskRCNN(config)
    seed_weights(network, 0)
    return (cls or TrainingModel)(network)
