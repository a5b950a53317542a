"""The peer torchvision: `maskrcnn_resnet50_fpn` eager, under autocast and compiled, and its own ONNX export.

Used as it comes, with random weights (`calibration`) and its input set to the size of the picture. Its batch norms are
the fused ones that it builds without pretrained weights; with them it has slower ones in eager mode.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision.models.detection import maskrcnn_resnet50_fpn, transform
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.resnet import Bottleneck
from torchvision.transforms.functional import to_tensor

from benchmarks import calibration
from benchmarks.turns import THREADS, Call

_OPSET = 17
_IMAGE = "image"
_OUTPUTS = ("boxes", "labels", "scores", "masks")


class TorchvisionPeer:
    """A calibrated model and the picture it is calibrated on.

    Args:
        jpeg: The picture, as the bytes of a square JPEG file.
        classes: With the background.

    Attributes:
        proposals: Found in the picture.
        detections: Found in the picture.
    """

    def __init__(self, jpeg: bytes, classes: int) -> None:
        torch.set_num_threads(THREADS)
        torch.manual_seed(0)
        self._jpeg = jpeg
        self._image = self._decoded()
        side = self._image.shape[-1]
        self._model = maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=classes, min_size=side, max_size=side
        ).eval()
        with torch.inference_mode():
            self.proposals = self._calibrate()
            self.detections = len(self.network()["scores"])

    def save(self, path: Path) -> None:
        """Write its state dict, as people save it."""
        torch.save(self._model.state_dict(), path)

    def network(self) -> dict[str, torch.Tensor]:
        """Its forward pass up to the masks of 28 x 28, without pasting them."""
        with torch.inference_mode():
            images, _ = self._model.transform([self._image])
            features = self._model.backbone(images.tensors)
            proposals, _ = self._model.rpn(images, features)
            detections, _ = self._model.roi_heads(features, proposals, images.image_sizes)
            return detections[0]

    def run_lengths(self) -> list[Any]:
        """A JPEG file to COCO run lengths: its forward pass with pasted masks, and pycocotools, as its evaluation."""
        with torch.inference_mode():
            return _encoded(self._model([self._decoded()])[0]["masks"].float().numpy())  # autocast leaves bfloat16

    def in_bfloat16(self, call: Call) -> Call:
        """One of the calls under CPU autocast, which is one line for its users."""

        def autocast() -> object:
            with torch.autocast("cpu", torch.bfloat16):
                return call()

        return autocast

    def with_compiled_backbone(self, call: Call) -> Call:
        """One of the calls with the backbone compiled; the rest of the model has sizes that depend on the data."""
        eager, compiled = self._model.backbone, torch.compile(self._model.backbone)

        def replaced() -> object:
            self._model.backbone = compiled
            try:
                return call()
            finally:
                self._model.backbone = eager

        return replaced

    def export(self, path: Path, *, pasted: bool) -> None:
        """Write its ONNX graph, by PyTorch's older exporter; the newer one refuses this model.

        Args:
            path: Of the `.onnx` file to be written.
            pasted: Whether the graph pastes the masks, in a loop that takes nearly as long as all the rest, as it does
                for everybody who exports the model as it comes.
        """
        with warnings.catch_warnings(), nullcontext() if pasted else _masks_unpasted():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                self._model, ([self._image],), path, opset_version=_OPSET, dynamo=False, input_names=[_IMAGE]
            )
            with torch.inference_mode():
                expected = self._model([self._image])[0]
        found = _session(path).run(None, self.feeds)
        for name, array in zip(_OUTPUTS, found, strict=True):
            np.testing.assert_allclose(array, expected[name].numpy(), rtol=1e-3, atol=1e-2, err_msg=name)

    @property
    def feeds(self) -> dict[str, npt.NDArray[np.float32]]:
        """What its graph is given for the picture."""
        return {_IMAGE: self._image.numpy()}

    def onnx_runtime_network(self, path: Path) -> Call:
        """Its graph in ONNX Runtime, on the decoded picture."""
        session = _session(path)
        return lambda: session.run(None, self.feeds)

    def onnx_runtime_run_lengths(self, path: Path, *, pasted: bool) -> Call:
        """A JPEG file to COCO run lengths with its graph in ONNX Runtime; torchvision pastes what the graph did not."""
        session, (height, width) = _session(path), self._image.shape[-2:]

        def call() -> list[Any]:
            found = dict(zip(_OUTPUTS, session.run(None, {_IMAGE: self._decoded().numpy()}), strict=True))
            masks = found["masks"]
            if not pasted:
                boxes = torch.from_numpy(found["boxes"])
                masks = paste_masks_in_image(torch.from_numpy(masks), boxes, (height, width)).numpy()
            return _encoded(masks)

        return call

    def openvino_network(self, path: Path, hint: str | None) -> Call:
        """Its graph in OpenVINO, on the decoded picture, with a precision hint, or with the default of the engine."""
        from runtime.engines.openvino.library import openvino  # noqa: PLC0415  (not installed everywhere)

        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": THREADS}
        if hint is not None:
            settings["INFERENCE_PRECISION_HINT"] = hint
        compiled = openvino.Core().compile_model(path, "CPU", settings)
        return lambda: compiled(self.feeds)

    def _decoded(self) -> torch.Tensor:
        return to_tensor(Image.open(BytesIO(self._jpeg)))

    def _calibrate(self) -> int:
        model, rpn, heads = self._model, self._model.rpn, self._model.roi_heads
        for block in model.modules():
            if isinstance(block, Bottleneck):
                block.bn3.weight.fill_(calibration.RESIDUAL_GAIN)
        images, _ = model.transform([self._image])
        features = model.backbone(images.tensors)
        objectness, deltas = rpn.head(list(features.values()))
        rpn.head.cls_logits.weight.mul_(calibration.spread(_joined(objectness), calibration.OBJECTNESS_STD))
        rpn.head.bbox_pred.weight.mul_(calibration.spread(_joined(deltas), calibration.RPN_DELTAS_STD))
        proposals, _ = rpn(images, features)
        rois = heads.box_head(heads.box_roi_pool(features, proposals, images.image_sizes))
        predictor = heads.box_predictor
        predictor.cls_score.bias.zero_()
        logits, deltas = predictor(rois)
        change = calibration.class_layer(logits.numpy())
        predictor.cls_score.weight.mul_(change.factor)
        predictor.cls_score.bias.copy_(torch.from_numpy(change.bias))
        predictor.bbox_pred.weight.mul_(calibration.spread(deltas.numpy(), calibration.BOX_DELTAS_STD))
        return len(proposals[0])


def _joined(levels: list[torch.Tensor]) -> npt.NDArray[np.float32]:
    return np.concatenate([level.numpy().reshape(-1) for level in levels])


@contextmanager
def _masks_unpasted() -> Iterator[None]:
    paste = transform.paste_masks_in_image
    transform.paste_masks_in_image = lambda masks, _boxes, _size: masks
    try:
        yield
    finally:
        transform.paste_masks_in_image = paste


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _encoded(masks: npt.NDArray[np.float32]) -> list[Any]:
    return [coco_mask.encode(np.array(mask[0, :, :, None] > 0.5, np.uint8, order="F"))[0] for mask in masks]
