"""Metadata of an artifact, made from a model's configuration."""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from export.target import MINIMUM_ORT
from maskrcnn.demo import demo_checkpoint
from maskrcnn.distribution import own_version
from maskrcnn.model import MaskRCNN
from runtime.artifact import ArtifactFormat, Metadata, Thresholds


def describe(
    model: MaskRCNN,
    artifact_format: ArtifactFormat,
    checkpoint: Mapping[str, str],
    opset: int | None = None,
    thresholds: Thresholds = "inputs",
) -> Metadata:
    """Return the metadata of an artifact made from a model, without a verdict."""
    config = model.config
    packages = ["tensorflow", "keras"] + (["tf2onnx", "onnx"] if artifact_format == "onnx" else [])
    minimum = {"onnxruntime": MINIMUM_ORT} if artifact_format == "onnx" else {"tensorflow": version("tensorflow")}
    return Metadata(
        format=artifact_format,
        name=config.name,
        class_names=config.model.class_names,
        image_channels=config.model.image_channels,
        resize=config.resize,
        pixels=config.pixels,
        mask_paste=config.detection.mask_paste,
        max_detections=config.detection.max_detections,
        mask_size=config.model.mask_size,
        score_threshold=config.detection.min_score,
        nms_threshold=config.detection.nms_threshold,
        opset=opset,
        thresholds=thresholds,
        engine_minimum=minimum,
        producer={"maskrcnn-export": own_version()} | {name: version(name) for name in packages},
        checkpoint=dict(checkpoint),
        config=config.to_dict(),
    )


def checkpoint_facts(path: str | Path | None) -> dict[str, str]:
    """Return the name and SHA-256 of a checkpoint; None is the demo model."""
    if path is None:
        with demo_checkpoint() as packaged:
            return checkpoint_facts(packaged) | {"name": "demo model"}
    with Path(path).open("rb") as file:
        return {"name": Path(path).name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
