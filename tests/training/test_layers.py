"""The choice of the layers to train."""

from dataclasses import replace

import keras
import pytest
import training_runs

from maskrcnn.errors import TrainingError
from maskrcnn.model import MaskRCNN
from maskrcnn.training.layers import set_trainable

HEADS = {
    *(f"fpn_c{i}p{i}" for i in (2, 3, 4, 5)),
    *(f"fpn_p{i}" for i in (2, 3, 4, 5)),
    *("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred"),
    *("mrcnn_class_conv1", "mrcnn_class_bn1", "mrcnn_class_conv2", "mrcnn_class_bn2"),
    *("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask_deconv", "mrcnn_mask"),
    *(f"mrcnn_mask_{kind}{i}" for kind in ("conv", "bn") for i in (1, 2, 3, 4)),
}


def stage(number):
    """Return the layers with weights of one stage of ResNet-18: two blocks, with a projection in the first."""
    convolutions = [f"{number}{block}_branch{branch}" for block in "ab" for branch in ("2a", "2b")]
    return {kind + name for name in [*convolutions, f"{number}a_branch1"] for kind in ("res", "bn")}


@pytest.fixture(scope="module")
def network():
    return MaskRCNN(training_runs.TINY)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("heads", HEADS),
        ("5+", HEADS | stage(5)),
        ("4+", HEADS | stage(5) | stage(4)),
        ("3+", HEADS | stage(5) | stage(4) | stage(3)),
        ("all", HEADS | stage(5) | stage(4) | stage(3) | stage(2) | {"conv1", "bn_conv1"}),
        (r"mrcnn\_mask|res5b.*", {"mrcnn_mask", "res5b_branch2a", "res5b_branch2b"}),
    ],
)
def test_exactly_these_learn(network, layers, expected):
    found = set_trainable(network, layers)
    assert set(found) == expected
    assert len(found) == len(expected)
    learning = {variable.path.split("/")[-2] for variable in network.trainable_variables}
    assert learning == expected


def test_each_call_starts_over(network):
    set_trainable(network, "conv1")
    assert {v.path.split("/")[-2] for v in network.trainable_variables} == {"conv1"}
    set_trainable(network, "heads")
    assert len(network.trainable_variables) == 2 * len(HEADS)


@pytest.mark.parametrize(
    ("layers", "hint"),
    [("mrcnn_maks", "mrcnn_mask"), ("res2a_branch2", "res2a_branch2a"), ("head", "heads"), ("3-", "3+")],
)
def test_an_expression_without_a_match_gets_similar_names(network, layers, hint):
    with pytest.raises(TrainingError, match=r"matches no layer") as error:
        set_trainable(network, layers)
    assert hint in str(error.value).split("similar names are")[1].split(";")[0].replace(",", "").split()


def test_a_broken_expression_is_named(network):
    with pytest.raises(TrainingError, match=r"'\(res'.*not a regular expression"):
        set_trainable(network, "(res")


def test_stages_of_another_backbone_are_refused():
    images = keras.Input((None, None, 3))
    levels = [keras.layers.Conv2D(8, 3, s, "same", name=f"own{s}")(images) for s in (4, 8, 16, 32)]
    config = replace(training_runs.TINY, model=replace(training_runs.TINY.model, backbone="custom"))
    network = MaskRCNN(config, keras.Model(images, levels))
    with pytest.raises(TrainingError, match=r"'4\+' names ResNet stages.*own16"):
        set_trainable(network, "4+")
    assert set(set_trainable(network, "own.*")) == {"own4", "own8", "own16", "own32"}
