"""The peer torchvision: `maskrcnn_resnet50_fpn` eager, and its ONNX export in ONNX Runtime.

Used as it comes, with random weights (`calibration`) and its input set to the size of the picture. Its batch norms are
the fused ones that it builds without pretrained weights; with them it has slower ones in eager mode.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from pycocotools import mask as coco_mask
from torchvision.io import ImageReadMode, decode_image
from torchvision.models.detection import maskrcnn_resnet50_fpn, transform
from torchvision.models.resnet import Bottleneck

from benchmarks import calibration
from benchmarks.turns import THREADS, Call

_OPSET = 17
_IMAGE = "image"


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
        self._jpeg = torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
        self._image = self._decoded()
        side = self._image.shape[-1]
        self._model = maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=classes, min_size=side, max_size=side
        ).eval()
        with torch.inference_mode():
            self.proposals = self._calibrate()
            self.detections = len(self.network()["scores"])

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
            found = self._model([self._decoded()])[0]
            masks = (found["masks"] > 0.5).numpy()
        return [coco_mask.encode(np.array(mask[0, :, :, None], np.uint8, order="F"))[0] for mask in masks]

    def exported(self, path: Path) -> tuple[Call, dict[str, npt.NDArray[np.float32]]]:
        """Its export in ONNX Runtime, without the loop that pastes masks, which takes nearly as long as all the rest.

        Args:
            path: Of the `.onnx` file to be written.

        Returns:
            A run on the picture, and what the graph is given for it.
        """
        paste = transform.paste_masks_in_image
        transform.paste_masks_in_image = lambda masks, _boxes, _size: masks
        try:
            with warnings.catch_warnings():  # of the exporter being the old one; the new one refuses this model
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    self._model, ([self._image],), path, opset_version=_OPSET, dynamo=False, input_names=[_IMAGE]
                )
        finally:
            transform.paste_masks_in_image = paste
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feeds = {_IMAGE: self._image.numpy()}
        exported = session.run(None, feeds)
        eager = self.network()
        for name, array in zip(("boxes", "labels", "scores", "masks"), exported, strict=True):
            np.testing.assert_allclose(array, eager[name].numpy(), rtol=1e-3, atol=1e-2, err_msg=name)
        return lambda: session.run(None, feeds), feeds

    def _decoded(self) -> torch.Tensor:
        return decode_image(self._jpeg, ImageReadMode.RGB).float() / 255

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
