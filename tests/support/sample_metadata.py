"""Metadata as an export writes it, every field of it used."""

from runtime.artifact import Metadata
from runtime.pictures.letterbox import ResizePolicy

METADATA = Metadata(
    format="onnx",
    name="fruit",
    class_names=("BG", "pomme", "\N{GREEN APPLE}", 'a "quoted" one\n'),
    image_channels=3,
    resize=ResizePolicy("pad64", 128, None, 1.5),
    mask_paste="aligned",
    max_detections=7,
    mask_size=28,
    score_threshold=0.25,
    nms_threshold=0.5,
    opset=17,
    engine_minimum={"onnxruntime": "1.25"},
    producer={"maskrcnn-export": "0.1.0"},
    checkpoint={"name": "fruit.h5", "sha256": "ab" * 32},
    verdict={"passed": True, "cases": [{"boxes": 1e-05, "decisions": []}], "graph": None},
)
