"""What a weights file says about its network: names of its layers, and settings that follow from shapes."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrcnn.checkpoints.matterport_h5 import Shapes, read_shapes
from maskrcnn.checkpoints.resnet_files import is_classifier
from maskrcnn.configuration.model import MASK_DECONVOLUTIONS, Config, ModelConfig
from maskrcnn.errors import CheckpointMismatchError

CONFIG = "maskrcnn_config"  # attribute that holds our configuration

_SUFFIX = re.compile(r"_\d+$")
# Backbones by number of blocks in stage 4, and whether they are bottlenecks.
_BLOCKS = {
    (2, False): "resnet18",
    (6, False): "resnet34",
    (6, True): "resnet50",
    (23, True): "resnet101",
    (36, True): "resnet152",
}
_TITLES = {name: name.replace("resnet", "ResNet-") for name in _BLOCKS.values()} | {"custom": "another backbone"}
# Settings by a weight that shows them, and the axis of its shape.
_SHOWN = {
    "image_channels": ("conv1/kernel", 2),
    "backbone_width": ("conv1/kernel", 3),
    "fpn_channels": ("fpn_c5p5/kernel", 3),
    "rpn_channels": ("rpn_conv_shared/kernel", 3),
    "box_head_channels": ("mrcnn_class_conv1/kernel", 3),
    "box_pool_size": ("mrcnn_class_conv1/kernel", 0),
    "mask_head_channels": ("mrcnn_mask_conv1/kernel", 3),
}


def matched(names: Collection[str], network: Collection[str]) -> dict[str, str]:
    """Return the names of a file, "<layer>/<variable>", by the names that the network has for them.

    Keras makes names unique with a number, such as `rpn_conv_shared_1` in the second model of a process. The number is
    ignored if the network has no such name, and the file no other candidate.
    """
    found = {name: name for name in names if name in network}
    candidates: dict[str, list[str]] = {}
    for name in names:
        if name not in found:
            layer, variable = name.split("/")
            plain = _SUFFIX.sub("", layer), _SUFFIX.sub("", variable)
            forms = {f"{plain[0]}/{variable}", f"{layer}/{plain[1]}", "/".join(plain)}
            for form in forms:
                if form in network and form not in found:
                    candidates.setdefault(form, []).append(name)
    return found | {form: fits[0] for form, fits in candidates.items() if len(fits) == 1}


def shown_settings(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Return the settings of `ModelConfig` that the shapes of a Mask R-CNN's weights show; None for other networks.

    Classes get numbers for names. Besides, `anchor_ratios` is as long as there are anchors in a cell.
    """
    logits, anchors = "mrcnn_class_logits/kernel", "rpn_class_raw/kernel"
    wanted = {logits: 2, anchors: 4} | {name: 4 for name, _ in _SHOWN.values()}
    known = {form: shapes[name] for form, name in matched(shapes, wanted).items()}
    if any(len(known.get(name, ())) != rank for name, rank in wanted.items() if name != "conv1/kernel"):
        return None
    plain = {_SUFFIX.sub("", name.split("/")[0]) for name in shapes}
    blocks = sum(bool(re.fullmatch(r"res4[a-z]+_branch2b", layer)) for layer in plain)
    settings: dict[str, Any] = {"backbone": _BLOCKS.get((blocks, "res4a_branch2c" in plain), "custom")}
    settings |= {key: known[name][axis] for key, (name, axis) in _SHOWN.items() if len(known.get(name, ())) == 4}
    count = known[anchors][3] // 2
    if f"{MASK_DECONVOLUTIONS[1]}/kernel" in shapes:
        settings["mask_head_deconvolutions"] = 2
    settings["anchor_ratios"] = ModelConfig.anchor_ratios if count == 3 else tuple(map(float, range(1, count + 1)))
    settings["class_names"] = ("BG", *(f"class {number}" for number in range(1, known[logits][1])))
    return settings


def described(settings: Mapping[str, Any]) -> str:
    """Say what `shown_settings` found, in words."""
    classes = len(settings["class_names"])
    sizes = ", ".join(f"{key} {settings[key]}" for key in (*_SHOWN, "mask_head_deconvolutions") if key in settings)
    return f"a Mask R-CNN on {_TITLES[settings['backbone']]} with {classes} classes, one of them background ({sizes})"


def config_of(path: str | Path) -> Config:
    """Return the configuration that a checkpoint stores.

    Raises:
        CheckpointError: The file cannot be read, or stores none; the message says what network it is for.
        ConfigError: The stored configuration cannot be used.
    """
    shapes, attributes = read_shapes(path)
    if CONFIG in attributes:
        return Config.from_json(attributes[CONFIG])
    raise CheckpointMismatchError(_without_config(path, shapes))


def config_to_complete(path: str | Path) -> tuple[Config, list[str]]:
    """Return a configuration for a checkpoint, and what must be filled in because weights do not show it.

    Raises:
        CheckpointError: The file cannot be read, or is not for a Mask R-CNN.
        ConfigError: The stored configuration cannot be used, or no network can have weights of these shapes.
    """
    shapes, attributes = read_shapes(path)
    if CONFIG in attributes:
        return Config.from_json(attributes[CONFIG]), []
    settings = shown_settings(shapes)
    if settings is None:
        raise CheckpointMismatchError(_without_config(path, shapes))
    channels = settings.get("image_channels", 3)
    if channels != 3:
        settings["mean_pixel"] = (0.0,) * channels
    classes, ratios = len(settings["class_names"]), len(settings["anchor_ratios"])
    missing = [
        f"model.class_names: {classes - 1} names after BG, in the order of training",
        "resize.min_dim, resize.max_dim: the size of the images that it was trained with",
        "model.anchor_scales: the sides of its anchors",
        "model.mean_pixel, model.roi_sampling, model.mask_pool_size, detection: if they are not the original's",
    ]
    if ratios != 3:
        missing.insert(3, f"model.anchor_ratios: {ratios} values")
    if settings["backbone"] == "custom":
        missing.append("model.backbone is not one of ours: give the Keras model as MaskRCNN(config, backbone=...)")
    config = Config()
    return replace(config, name=Path(path).name.split(".")[0], model=replace(config.model, **settings)), missing


def _without_config(path: str | Path, shapes: Shapes) -> str:
    start = f"{path} does not store a model configuration"
    settings = shown_settings(shapes)
    if settings is None:
        kind = "a ResNet classifier" if is_classifier(shapes) else "not a Mask R-CNN with matterport's names"
        return f"{start}, and is {kind}: give one with --config FILE.json (config=...)"
    coco = "; for the original's weights of COCO, give --config coco" if len(settings["class_names"]) == 81 else ""
    return (
        f"{start}. It is {described(settings)}: write one with 'maskrcnn config from {path} -o FILE.json', fill in the "
        f"names of the classes and the sizes, and give it with --config FILE.json (config=...){coco}"
    )
