"""Configurations of Detectron2 for its Mask R-CNN on ResNet-50, with what its own defaults leave to files."""

import copy
import json

# What its Base-RCNN-FPN.yaml and mask_rcnn_R_50_FPN_3x.yaml say about a model.
R50 = {
    "MODEL": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "MASK_ON": True,
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "RESNETS": {"OUT_FEATURES": ["res2", "res3", "res4", "res5"], "DEPTH": 50},
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128], [256], [512]], "ASPECT_RATIOS": [[0.5, 1.0, 2.0]]},
        "RPN": {
            "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
            "PRE_NMS_TOPK_TRAIN": 2000,
            "PRE_NMS_TOPK_TEST": 1000,
            "POST_NMS_TOPK_TRAIN": 1000,
            "POST_NMS_TOPK_TEST": 1000,
        },
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["p2", "p3", "p4", "p5"]},
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "POOLER_RESOLUTION": 7},
        "ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 4, "POOLER_RESOLUTION": 14},
    },
    "DATASETS": {"TRAIN": ("coco_2017_train",), "TEST": ("coco_2017_val",)},
    "INPUT": {"MIN_SIZE_TRAIN": (640, 800)},
}


def changed(values, name, value):
    """A copy of nested values with one changed, by its dotted name."""
    values = copy.deepcopy(values)
    *sections, last = name.split(".")
    part = values
    for key in sections:
        part = part.setdefault(key, {})
    part[last] = value
    return values


def yaml_text(changes):
    """The text of a file that differs from `R50` by dotted names."""
    values = R50
    for name, value in changes.items():
        values = changed(values, name, value)
    return json.dumps(values)
