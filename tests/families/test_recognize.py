"""Which network a PyTorch state dict is for, by its names and shapes, and the networks that are refused by name."""

import json
import os
from pathlib import Path

import pytest
from pytorch_models import state_dicts

from maskrcnn.checkpoints.families.recognize import FAMILIES, SUPPORTED, recognize, weights_of
from maskrcnn.errors import CheckpointMismatchError

GOLDENS = Path(os.environ.get("MASKRCNN_SHARED", Path(__file__).parents[3] / "shared")) / "goldens" / "families"


def found(shapes, family=None):
    return recognize(weights_of(shapes), "x.pth", family)


def refusal(shapes, family=None):
    with pytest.raises(CheckpointMismatchError) as refused:
        found(shapes, family)
    message = str(refused.value)
    assert message.startswith("x.pth ")
    assert "\n" not in message
    return message


@pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"{GOLDENS} is missing: set MASKRCNN_SHARED")
@pytest.mark.parametrize(
    ("name", "title", "version"),
    [
        ("v1", "torchvision Mask R-CNN v1 on ResNet-50-FPN with 90 classes", 1),
        ("v2", "torchvision Mask R-CNN v2 on ResNet-50-FPN with 90 classes", 2),
        ("d2", "Detectron2 Mask R-CNN on ResNet-50-FPN with 5 classes", 1),
    ],
)
def test_state_dicts_of_genuine_models_are_recognized(name, title, version):
    manifest = json.loads((GOLDENS / f"manifest_{name}.json").read_text())
    shapes = {key: tuple(shape) for key, shape in manifest.items()}
    network = found(shapes)
    assert (network.title, network.version) == (title, version)
    family = state_dicts.FAMILIES[network.family]
    options = {"version": version} if network.family == "torchvision" else {}
    assert weights_of(shapes) == family(classes=network.classes, **options)  # what the other tests stand on


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("depth", state_dicts.BLOCKS)
def test_every_depth_of_every_family(family, depth):
    network = found(state_dicts.FAMILIES[family](depth, classes=7))
    assert (network.family, network.classes) == (family, 7)
    assert network.settings["model.backbone"] == f"resnet{depth}"
    assert network.settings["model.backbone_shortcut"] == ("projection" if depth >= 50 else "identity")
    assert network.title.endswith(f" on ResNet-{depth}-FPN with 7 classes")


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_come_from_shapes(family):
    sizes = {"width": 16, "channels": 24, "hidden": 40, "anchors": 5, "side": 5, "groups": 4, "group_width": 32}
    settings = found(state_dicts.FAMILIES[family](classes=1, **sizes)).settings
    assert settings == {
        "model.backbone": "resnet50",
        "model.image_channels": 3,
        "model.backbone_width": 16,
        "model.backbone_groups": 4,
        "model.backbone_group_width": 32,
        "model.backbone_shortcut": "projection",
        "model.fpn_channels": 24,
        "model.fpn_batch_norm": False,
        "model.rpn_channels": 24,
        "model.rpn_convolutions": 1,
        "model.anchor_ratios": 5,
        "model.box_head_channels": 40,
        "model.box_pool_size": 5,
        "model.box_head_convolutions": 0,
        "model.box_head_layers": 2,
        "model.mask_head_channels": 24,
        "model.head_batch_norm": False,
    }


def test_resnext_and_one_class_are_named():
    network = found(state_dicts.detectron2(101, classes=1, groups=32, group_width=8))
    assert network.title == "Detectron2 Mask R-CNN on ResNeXt-101-FPN with 1 class"


def test_heads_of_version_2():
    settings = found(state_dicts.torchvision(version=2)).settings
    expected = {"fpn_batch_norm": True, "rpn_convolutions": 2, "head_batch_norm": True}
    expected |= {"box_head_convolutions": 4, "box_head_layers": 1, "box_pool_size": 7}
    assert expected.items() <= {name.removeprefix("model."): value for name, value in settings.items()}.items()


def test_names_of_older_torchvision():
    assert found(state_dicts.torchvision(old_names=True)) == found(state_dicts.torchvision())


def test_what_is_no_weight_is_left_out():
    beside = {"backbone.body.bn1.num_batches_tracked": (), "pixel_mean": (3, 1, 1), "pixel_std": (3, 1, 1)}
    beside |= {"proposal_generator.anchor_generator.cell_anchors.0": (3, 4), "data_preprocessor.mean": (3, 1, 1)}
    beside |= {"ema_backbone_conv1_weight": (64, 3, 7, 7)}
    assert weights_of(state_dicts.detectron2() | beside) == state_dicts.detectron2()


# Refused by name: what distinguishes an architecture, beside or in place of the weights of a Mask R-CNN.

BACKBONE = "backbone.body.conv1.weight"
STEM = {BACKBONE: (64, 3, 7, 7)}
REFUSED = {
    "Detectron (Caffe2)": {"conv1_w": (64, 3, 7, 7), "res2_0_branch2a_w": (64, 64, 1, 1)},
    "Keypoint R-CNN": {
        "roi_heads.keypoint_predictor.kps_score_lowres.weight": (512, 17, 4, 4),
        BACKBONE: (64, 3, 7, 7),
    },
    "a Keypoint": {"roi_heads.keypoint_head.conv_fcn1.weight": (512, 256, 3, 3)},
    "C4 model": {"backbone.res2.0.conv1.weight": (64, 64, 1, 1), "roi_heads.res5.0.conv1.weight": (512, 1024, 1, 1)},
    "a C4": {"backbone.conv1.weight": (64, 3, 7, 7), "roi_head.shared_head.layer4.0.conv1.weight": (512, 1024, 1, 1)},
    "DC5 model": {"backbone.stem.conv1.weight": (64, 3, 7, 7), "backbone.res5.0.conv1.weight": (512, 1024, 1, 1)},
    "Cascade R-CNN": {"roi_heads.box_head.0.fc1.weight": (1024, 12544)},
    "Cascade R-CNN or HTC": {"roi_head.bbox_head.0.fc_cls.weight": (81, 1024)},
    "PointRend": {"roi_heads.mask_head.point_head.fc1.weight": (256, 336, 1)},
    "a PointRend": {"roi_heads.mask_coarse_head.reduce_spatial_dim_conv.weight": (256, 256, 2, 2)},
    "a PointRend model": {"roi_head.point_head.fcs.0.conv.weight": (256, 336, 1)},
    "Mask Scoring": {"roi_head.mask_iou_head.convs.0.conv.weight": (256, 257, 3, 3)},
    "Grid R-CNN": {"roi_head.grid_head.convs.0.conv.weight": (576, 256, 3, 3)},
    "panoptic": {"sem_seg_head.p2.0.weight": (128, 256, 3, 3)},
    "RetinaNet": {"head.classification_head.conv.0.0.weight": (256, 256, 3, 3)} | STEM,
    "such as RetinaNet": {"head.cls_subnet.0.weight": (256, 256, 3, 3)},
    "one-stage detector such as": {"bbox_head.retina_cls.weight": (720, 256, 3, 3), "neck.x.weight": (1,)},
    "one-stage detector of MMDetection": {"bbox_head.conv_cls.weight": (80, 256, 3, 3), "neck.x.weight": (1,)},
    "transformer": {"transformer.encoder.layers.0.norm1.weight": (256,)},
    "another backbone": {"backbone.body.0.0.weight": (16, 3, 3, 3)},
    "on another backbone": {"backbone.bottom_up.net.patch_embed.proj.weight": (768, 3, 16, 16)},
    "another backbone than": {"backbone.patch_embed.projection.weight": (96, 3, 4, 4), "neck.x.weight": (1,)},
    "deformable": {"backbone.layer2.0.conv2.conv_offset.weight": (27, 128, 3, 3)},
    "deformable convolutions": {"backbone.bottom_up.res3.0.conv2_offset.weight": (18, 128, 3, 3)},
    "attention": {"backbone.layer2.0.context_block.conv_mask.weight": (1, 512, 1, 1)},
    "deep stem": {"backbone.stem.0.weight": (32, 3, 3, 3)},
    "MMDetection 1": {"bbox_head.fc_cls.weight": (81, 1024), "mask_head.convs.0.conv.weight": (256, 256, 3, 3)},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_architectures_are_refused_by_name(kind):
    for base in ({}, state_dicts.torchvision(), state_dicts.detectron2(), state_dicts.mmdetection()):
        message = refusal(base | REFUSED[kind])
        assert kind in message
        assert SUPPORTED in message
        assert "maskrcnn_resnet50_fpn_v2" in message


def without(shapes, *parts):
    left = {name: shape for name, shape in shapes.items() if not any(part in name for part in parts)}
    assert len(left) < len(shapes)
    return left


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        (without(state_dicts.torchvision(), "mask_"), "a torchvision model without a mask head, a Faster R-CNN"),
        (without(state_dicts.detectron2(), "mask_"), "a Detectron2 model without a mask head, a Faster R-CNN"),
        (without(state_dicts.mmdetection(), "mask_"), "an MMDetection model without a mask head, a Faster R-CNN"),
        (without(state_dicts.torchvision(), "roi_heads"), "without heads, a region proposal network"),
        (without(state_dicts.torchvision(), "rpn", "roi_heads"), "without a mask head"),
        (without(state_dicts.torchvision(), "fpn.inner"), r"without backbone.fpn.inner_blocks.0.0"),
        (without(state_dicts.torchvision(), "layer3.5"), "on a ResNet of 3 + 4 + 5 + 3 blocks"),
        (without(state_dicts.torchvision(), "mask_head.3"), "whose mask head has 3 convolutions, not 4"),
        (without(state_dicts.torchvision(), "running_"), "with group or layer normalization"),
        (without(state_dicts.torchvision(), "fc6", "fc7"), "whose box head has no fully connected layer"),
        (without(state_dicts.torchvision(version=2), "rpn.head.conv.1"), "with other heads or another FPN"),
        (state_dicts.torchvision() | {"rpn.head.conv.1.0.weight": (256, 256, 3, 3)}, "with other heads or another FPN"),
        (
            state_dicts.detectron2() | {"roi_heads.mask_head.mask_fcn1.norm.weight": (256,)},
            "with group or layer normalization",
        ),
        (
            state_dicts.mmdetection() | {"roi_head.mask_head.convs.0.bn.running_mean": (256,)},
            "with other heads or another FPN",
        ),
        (
            state_dicts.detectron2() | {"roi_heads.box_predictor.bbox_pred.weight": (4, 1024)},
            "with boxes that are the same for all classes",
        ),
        (
            state_dicts.mmdetection() | {"roi_head.mask_head.conv_logits.weight": (1, 256, 1, 1)},
            "with masks that are the same for all classes",
        ),
        (
            state_dicts.torchvision() | {"roi_heads.mask_predictor.mask_fcn_logits.weight": (7, 256, 1, 1)},
            "91 class scores, 364 box deltas and 7 masks, which do not fit together",
        ),
        (
            state_dicts.mmdetection() | {"rpn_head.rpn_cls.weight": (6, 256, 1, 1)},
            "whose RPN has 6 scores and 12 deltas in a cell",
        ),
        (
            state_dicts.torchvision() | {"roi_heads.box_head.fc6.weight": (1024, 12000)},
            "no square crop of 256 channels",
        ),
        (state_dicts.torchvision() | {BACKBONE: (64, 3)}, "which has not 4 axes"),
        (state_dicts.torchvision() | {"backbone.body.conv1.bias": (64,)}, "whose backbone has biases"),
    ],
)
def test_models_that_are_not_quite_a_mask_rcnn_are_refused(shapes, problem):
    message = refusal(shapes)
    assert problem in message
    assert SUPPORTED in message


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048)},
        {"layer.weight": (3,)},
        {"backbone.body.conv1.weight": (64, 3, 7, 7), "neck.x.weight": (1,)},
    ],
)
def test_unknown_and_ambiguous_names_are_an_error_that_lists_the_families(shapes):
    message = refusal(shapes)
    assert "names of no known Mask R-CNN" in message
    for title in ("torchvision", "Detectron2", "MMDetection"):
        assert title in message


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("said", FAMILIES)
def test_a_family_that_contradicts_the_file_is_an_error(family, said):
    shapes = state_dicts.FAMILIES[family]()
    if said == family:
        assert found(shapes, said) == found(shapes)
    else:
        assert f"give --family {family}, or none" in refusal(shapes, said)
