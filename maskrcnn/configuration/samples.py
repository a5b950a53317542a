"""Ready configurations: matterport's four samples and the demo model."""

import os
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from maskrcnn.configuration.files import read_config
from maskrcnn.configuration.model import Config, DetectionConfig, ModelConfig, ProposalConfig
from maskrcnn.configuration.training import AugmentationConfig, StageConfig, TrainingConfig
from maskrcnn.errors import ConfigError
from runtime.pictures.letterbox import ResizePolicy

# Class ids are positions in this tuple; COCO's category ids have gaps.
# fmt: off
COCO_CLASS_NAMES = (
    "BG", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)
# fmt: on

COCO = Config(
    name="coco",
    model=ModelConfig(class_names=COCO_CLASS_NAMES),
    training=TrainingConfig(
        stages=(StageConfig("heads", 40), StageConfig("4+", 80), StageConfig("all", 40, 0.0001)),
        augmentation=AugmentationConfig(flip_horizontal=0.5),
    ),
)

BALLOON = Config(
    name="balloon",
    model=ModelConfig(class_names=("BG", "balloon")),
    detection=DetectionConfig(min_score=0.9),
    training=TrainingConfig(steps_per_epoch=100, stages=(StageConfig("heads", 30),)),
)

NUCLEUS = Config(
    name="nucleus",
    model=ModelConfig(
        class_names=("BG", "nucleus"),
        backbone="resnet50",
        anchor_scales=(8, 16, 32, 64, 128),
        mean_pixel=(43.53, 39.56, 48.22),
    ),
    # Where these differ from the original, docs/configuration.md says why.
    proposals=ProposalConfig(post_nms_training=1000, post_nms_inference=2000, nms_threshold=0.7),
    detection=DetectionConfig(max_detections=400, min_score=0.0),
    resize=ResizePolicy("pad64", 512, 512, 2.0),
    training=TrainingConfig(
        batch_size=6,
        steps_per_epoch=105,
        validation_steps=4,
        anchors_per_image=64,
        rois_per_image=128,
        max_instances=200,
        resize=ResizePolicy("crop", 512, 512, 2.0),
        stages=(StageConfig("heads", 20), StageConfig("all", 20)),
        augmentation=AugmentationConfig(
            flip_horizontal=0.5, flip_vertical=0.5, rotate_90=0.5, brightness=0.5, blur=2.5
        ),
    ),
)

SHAPES = Config(
    name="shapes",
    model=ModelConfig(class_names=("BG", "square", "circle", "triangle"), anchor_scales=(8, 16, 32, 64, 128)),
    resize=ResizePolicy("square", 128, 128, 0),
    training=TrainingConfig(
        batch_size=8,
        steps_per_epoch=100,
        validation_steps=5,
        rois_per_image=32,
        stages=(StageConfig("heads", 1), StageConfig("all", 1, 0.0001)),
    ),
)

# Small enough to ship, to run in a fraction of a second on a laptop, and to train on a CPU.
DEMO = Config(
    name="demo",
    model=ModelConfig(
        class_names=("BG", "square", "circle", "triangle"),
        backbone="resnet18",
        backbone_width=16,
        fpn_channels=64,
        rpn_channels=64,
        box_head_channels=128,
        mask_head_channels=64,
        anchor_scales=(16, 32, 64, 128, 256),
        roi_sampling="roi_align",
    ),
    proposals=ProposalConfig(pre_nms_limit=1000, post_nms_training=300, post_nms_inference=200),
    detection=DetectionConfig(
        max_detections=50, min_score=0.5, nms_threshold=0.5, drop_empty_boxes=True, mask_paste="aligned"
    ),
    resize=ResizePolicy("square", 256, 256, 0),
    training=TrainingConfig(
        batch_size=8,
        steps_per_epoch=200,
        validation_steps=0,
        learning_rate=0.002,
        weight_decay=0.01,
        anchors_per_image=128,
        rois_per_image=64,
        max_instances=20,
        train_batch_norm=None,
        optimizer="adamw",
        weight_decay_mode="decoupled",
        schedule="cosine",
        warmup_steps=100,
        stages=(StageConfig("all", 15),),
        augmentation=AugmentationConfig(flip_horizontal=0.5, flip_vertical=0.5),
    ),
)

# For a few dozen images and a CPU or a small GPU: the demo's network leaves time for many passes over augmented images.
SMALL = Config(
    name="small",
    model=replace(DEMO.model, class_names=("BG", "object")),
    proposals=ProposalConfig(pre_nms_limit=1500, post_nms_training=500, post_nms_inference=400),
    detection=replace(DEMO.detection, max_detections=100),
    resize=ResizePolicy("square", 512, 512, 0),
    training=replace(
        DEMO.training,
        batch_size=4,
        steps_per_epoch=100,
        weight_decay=0.05,
        anchors_per_image=256,
        rois_per_image=96,
        max_instances=100,
        stages=(StageConfig("all", 20),),
        augmentation=AugmentationConfig(
            flip_horizontal=0.5,
            flip_vertical=0.5,
            rotate_90=0.5,
            scale=(0.6, 1.6),
            brightness=0.3,
            contrast=0.3,
            saturation=0.2,
        ),
    ),
)

SAMPLES: dict[str, Config] = {c.name: c for c in (COCO, BALLOON, NUCLEUS, SHAPES, DEMO, SMALL)}


def sample_config(name: str, class_names: tuple[str, ...] | None = None) -> Config:
    """Return a sample configuration, optionally with other class names.

    Args:
        name: "coco", "balloon", "nucleus", "shapes", "demo" or "small".
        class_names: Background first; None keeps those of the sample.

    Raises:
        ConfigError: There is no sample of that name.
    """
    if name not in SAMPLES:
        raise ConfigError(f"there is no sample configuration {name!r}: expected one of {', '.join(SAMPLES)}")
    config = SAMPLES[name]
    if class_names is None:
        return config
    return replace(config, model=replace(config.model, class_names=class_names))


def find_config(name_or_path: str | Path) -> Config:
    """Read a configuration file; if there is none, return the sample configuration of that name.

    Raises:
        ConfigError: There is neither, or the file cannot be used.
    """
    path = Path(name_or_path)
    name = str(name_or_path)
    if name in SAMPLES and not path.is_file():
        return SAMPLES[name]
    if not path.suffix and path.name == name and not os.path.lexists(name):
        meant = "".join(f"did you mean {near}? " for near in get_close_matches(name, SAMPLES, n=1))
        raise ConfigError(f"there is no configuration {name}: {meant}expected a file or one of {', '.join(SAMPLES)}")
    return read_config(path)
