"""A model that is exported in seconds, and a folder with one image, which keeps its verification short."""

from dataclasses import replace

import pytest

GAINS = {f"res{stage}{block}_branch2b": 0.3 for stage in (2, 3, 4, 5) for block in "ab"}  # as the demo's


@pytest.fixture(scope="session")
def make_tiny():
    """Function that makes a model of a few thousand weights with detections, given changes to the network."""
    from benchmarks.seeded_weights import seed_weights
    from maskrcnn.configuration.samples import DEMO
    from maskrcnn.model import MaskRCNN
    from runtime.pictures.letterbox import ResizePolicy

    small = {
        "backbone_width": 8,
        "fpn_channels": 16,
        "rpn_channels": 16,
        "box_head_channels": 32,
        "mask_head_channels": 16,
    }

    def make(**changes):
        config = replace(
            DEMO,
            name="tiny",
            model=replace(DEMO.model, **(small | changes)),
            proposals=replace(DEMO.proposals, pre_nms_limit=500, post_nms_inference=50),
            detection=replace(DEMO.detection, max_detections=20),
            resize=ResizePolicy("square", 96, 128, 0),
        )
        model = MaskRCNN(config)
        seed_weights(model, gains=GAINS)
        return model

    return make


@pytest.fixture(scope="session")
def tiny(make_tiny):
    """A tiny model; it is shared, so do not change its weights."""
    return make_tiny()
