"""Runs the genuine model of torchvision, Detectron2 or MMDetection: the program of another process.

    python source_worker.py FOLDER

It is run by its path, perhaps by another Python with other packages, so it imports nothing of ours. The folder has
`request.json`, `state.pth` (a copy of the weights) and `images.npz`; `found.npz` and `facts.json` are written to it.
The only place that imports PyTorch and the packages on it. Exit code 3: a package is missing.
"""

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NOT_INSTALLED = 3
_STRIDES = (4, 8, 16, 32, 64)
_RESNETS = {
    "resnet18": ("BasicBlock", (2, 2, 2, 2)),
    "resnet34": ("BasicBlock", (3, 4, 6, 3)),
    "resnet50": ("Bottleneck", (3, 4, 6, 3)),
    "resnet101": ("Bottleneck", (3, 4, 23, 3)),
    "resnet152": ("Bottleneck", (3, 8, 36, 3)),
}

Image = npt.NDArray[np.uint8]
# Boxes [N, 4] x1, y1, x2, y2 in image pixels, scores [N], class ids [N] from 1, and masks bool [N, H, W].
Found = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]


def main(folder: Path) -> None:
    """Run a request."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    run = {"torchvision": _torchvision, "detectron2": _detectron2, "mmdetection": _mmdetection}[request["family"]]
    with np.load(folder / "images.npz") as images:
        arrays = [images[f"image{number}"] for number in range(len(images.files))]
    facts, results = run(request, folder, arrays)
    saved: dict[str, Any] = {}
    for number, (boxes, scores, class_ids, masks) in enumerate(results):
        saved |= {f"boxes{number}": boxes, f"scores{number}": scores, f"class_ids{number}": class_ids}
        saved[f"masks{number}"] = packed(masks)
    np.savez(folder / "found.npz", **saved)
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def packed(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return a row of bits for each mask [N, H, W], also for none."""
    return np.packbits(masks.reshape(len(masks), masks.shape[1] * masks.shape[2]), axis=1)


def _state(request: dict[str, Any], folder: Path) -> tuple[dict[str, Any], str]:
    """Return the state dict as PyTorch reads the file, or the copy of it if PyTorch does not read it without code."""
    import torch  # noqa: PLC0415

    for path, how in ((Path(request["checkpoint"]), "torch.load"), (folder / "state.pth", "a copy")):
        if how == "torch.load" and path.suffix not in (".pth", ".pt"):
            continue
        allowed = getattr(torch.serialization, "safe_globals", None)  # from PyTorch 2.5 on
        try:
            with nullcontext() if allowed is None else allowed([argparse.Namespace]):
                state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:
            if how == "a copy":
                raise
            continue
        while isinstance(state, dict) and not any(torch.is_tensor(value) for value in state.values()):
            inner = [state[key] for key in ("model", "state_dict", "model_state_dict") if key in state]
            if not inner:
                break
            state = inner[0]
        names = set(request["names"])
        state = {name: value for name, value in state.items() if name in names}
        if len(state) == len(names):
            return state, how
    raise ValueError("the copy of the weights is incomplete")


def _torchvision(request: dict[str, Any], folder: Path, images: list[Image]) -> tuple[dict[str, str], list[Found]]:
    import torch  # noqa: PLC0415
    import torchvision  # noqa: PLC0415
    from torchvision.models import resnet  # noqa: PLC0415
    from torchvision.models.detection import MaskRCNN, backbone_utils  # noqa: PLC0415
    from torchvision.models.detection.anchor_utils import AnchorGenerator  # noqa: PLC0415
    from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead  # noqa: PLC0415
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads  # noqa: PLC0415
    from torchvision.models.detection.rpn import RPNHead  # noqa: PLC0415
    from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign  # noqa: PLC0415

    state, read = _state(request, folder)
    second = request["version"] == 2
    norm = torch.nn.BatchNorm2d if second else FrozenBatchNorm2d
    block, layers = _RESNETS[request["backbone"]]
    body = resnet.ResNet(
        getattr(resnet, block), list(layers), groups=request["groups"], width_per_group=request["group_width"],
        norm_layer=norm,
    )  # fmt: skip
    backbone = backbone_utils._resnet_fpn_extractor(body, 5, norm_layer=norm if second else None)
    anchors = AnchorGenerator(
        tuple((scale,) for scale in request["anchor_scales"]), (tuple(request["anchor_ratios"]),) * len(_STRIDES)
    )
    sampling = {"featmap_names": ["0", "1", "2", "3"], "sampling_ratio": request["sampling_ratio"]}
    heads: dict[str, Any] = {}
    if second:
        channels, convolutions = backbone.out_channels, [256] * 4
        heads["rpn_head"] = RPNHead(channels, len(request["anchor_ratios"]), conv_depth=2)
        side = request["box_pool_size"]
        heads["box_head"] = FastRCNNConvFCHead((channels, side, side), convolutions, [1024], norm_layer=norm)
        heads["mask_head"] = MaskRCNNHeads(channels, convolutions, 1, norm_layer=norm)
    model = MaskRCNN(
        backbone,
        num_classes=request["classes"] + 1,
        min_size=request["short_side"],
        max_size=request["long_side"],
        image_mean=[value / 255 for value in request["mean"]],
        image_std=[value / 255 for value in request["deviation"]],
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_test=request["pre_nms_limit"],
        rpn_post_nms_top_n_test=request["post_nms"],
        rpn_nms_thresh=request["proposal_nms"],
        box_roi_pool=MultiScaleRoIAlign(output_size=request["box_pool_size"], **sampling),
        mask_roi_pool=MultiScaleRoIAlign(output_size=request["mask_pool_size"], **sampling),
        box_score_thresh=request["min_score"],
        box_nms_thresh=request["nms"],
        box_detections_per_img=request["max_detections"],
        bbox_reg_weights=tuple(1 / value for value in request["box_std"]),
        **heads,
    ).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"the weights do not fit torchvision's model: {[*missing, *unexpected][:3]}")
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d | torch.nn.BatchNorm2d):
            module.eps = request["epsilon"]
    results = []
    for image in images:
        for pool in (model.roi_heads.box_roi_pool, model.roi_heads.mask_roi_pool):
            pool.scales = None  # else those of the first image are kept
        tensor = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255)
        with torch.inference_mode():
            found = {name: value.numpy() for name, value in model([tensor])[0].items()}
        results.append((found["boxes"], found["scores"], found["labels"], found["masks"][:, 0] >= 0.5))
    return {"package": f"torchvision {torchvision.__version__}, torch {torch.__version__}", "weights": read}, results


def _detectron2(  # noqa: PLR0915  (one setting each)
    request: dict[str, Any], folder: Path, images: list[Image]
) -> tuple[dict[str, str], list[Found]]:
    import detectron2  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from detectron2.config import get_cfg  # noqa: PLC0415
    from detectron2.data.transforms import ResizeShortestEdge  # noqa: PLC0415
    from detectron2.modeling import build_model  # noqa: PLC0415

    state, read = _state(request, folder)
    cfg = get_cfg()
    model_cfg = cfg.MODEL
    cfg.INPUT.FORMAT = "BGR" if request["bgr"] else "RGB"
    order = -1 if request["bgr"] else 1
    model_cfg.DEVICE, model_cfg.WEIGHTS, model_cfg.MASK_ON = "cpu", "", True
    model_cfg.PIXEL_MEAN, model_cfg.PIXEL_STD = request["mean"][::order], request["deviation"][::order]
    model_cfg.BACKBONE.NAME = "build_resnet_fpn_backbone"
    levels = ["res2", "res3", "res4", "res5"]
    model_cfg.RESNETS.OUT_FEATURES = model_cfg.FPN.IN_FEATURES = levels
    model_cfg.RESNETS.DEPTH = int(request["backbone"].removeprefix("resnet"))
    model_cfg.RESNETS.NUM_GROUPS, model_cfg.RESNETS.WIDTH_PER_GROUP = request["groups"], request["group_width"]
    model_cfg.RESNETS.STRIDE_IN_1X1 = request["stride_in_1x1"]
    if model_cfg.RESNETS.DEPTH < 50:
        model_cfg.RESNETS.RES2_OUT_CHANNELS = 64
    model_cfg.ANCHOR_GENERATOR.SIZES = [[scale] for scale in request["anchor_scales"]]
    model_cfg.ANCHOR_GENERATOR.ASPECT_RATIOS = [request["anchor_ratios"]]
    model_cfg.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    model_cfg.RPN.PRE_NMS_TOPK_TEST, model_cfg.RPN.POST_NMS_TOPK_TEST = request["pre_nms_limit"], request["post_nms"]
    model_cfg.RPN.NMS_THRESH = request["proposal_nms"]
    model_cfg.RPN.BBOX_REG_WEIGHTS = tuple(1 / value for value in request["rpn_box_std"])
    model_cfg.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = tuple(1 / value for value in request["box_std"])
    model_cfg.PROPOSAL_GENERATOR.MIN_SIZE = request["proposal_min_side"]
    model_cfg.ROI_HEADS.NAME, model_cfg.ROI_HEADS.IN_FEATURES = "StandardROIHeads", ["p2", "p3", "p4", "p5"]
    model_cfg.ROI_HEADS.NUM_CLASSES = request["classes"]
    model_cfg.ROI_HEADS.SCORE_THRESH_TEST, model_cfg.ROI_HEADS.NMS_THRESH_TEST = request["min_score"], request["nms"]
    model_cfg.ROI_BOX_HEAD.NAME, model_cfg.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 2
    model_cfg.ROI_MASK_HEAD.NAME, model_cfg.ROI_MASK_HEAD.NUM_CONV = "MaskRCNNConvUpsampleHead", 4
    for head, side in ((model_cfg.ROI_BOX_HEAD, "box_pool_size"), (model_cfg.ROI_MASK_HEAD, "mask_pool_size")):
        head.POOLER_RESOLUTION, head.POOLER_SAMPLING_RATIO = request[side], request["sampling_ratio"]
        head.POOLER_TYPE = "ROIAlignV2" if request["aligned"] else "ROIAlign"
    cfg.TEST.DETECTIONS_PER_IMAGE = request["max_detections"]
    model = build_model(cfg).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(not name.startswith("pixel_") and "cell_anchors" not in name for name in missing):
        raise ValueError(f"the weights do not fit Detectron2's model: {[*missing, *unexpected][:3]}")
    resize, results = ResizeShortestEdge([request["short_side"]] * 2, request["long_side"]), []
    for image in images:
        ordered = np.ascontiguousarray(image[:, :, ::order])
        resized = resize.get_transform(ordered).apply_image(ordered)
        entry = {"image": torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))}
        entry |= {"height": image.shape[0], "width": image.shape[1]}
        with torch.inference_mode():
            found = model([entry])[0]["instances"]
        results.append(
            (
                found.pred_boxes.tensor.numpy(),
                found.scores.numpy(),
                found.pred_classes.numpy() + 1,
                found.pred_masks.numpy(),
            )
        )
    return {"package": f"detectron2 {detectron2.__version__}, torch {torch.__version__}", "weights": read}, results


def _mmdetection(request: dict[str, Any], folder: Path, images: list[Image]) -> tuple[dict[str, str], list[Found]]:
    import mmcv  # noqa: PLC0415
    import mmdet  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from mmdet.registry import MODELS  # noqa: PLC0415
    from mmdet.structures import DetDataSample  # noqa: PLC0415
    from mmdet.utils import register_all_modules  # noqa: PLC0415
    from mmengine.config import ConfigDict  # noqa: PLC0415

    state, read = _state(request, folder)
    register_all_modules()
    order = -1 if request["bgr"] else 1
    grouped = request["groups"] > 1
    backbone = {
        "type": "ResNeXt" if grouped else "ResNet",
        "depth": int(request["backbone"].removeprefix("resnet")),
        "norm_cfg": {"type": "BN"},
        "style": "caffe" if request["stride_in_1x1"] else "pytorch",
    } | ({"groups": request["groups"], "base_width": request["group_width"]} if grouped else {})

    def extractor(side: int) -> dict[str, Any]:
        layer = {"type": "RoIAlign", "output_size": side, "sampling_ratio": request["sampling_ratio"]}
        layer["aligned"] = request["aligned"]
        strides = list(_STRIDES[:4])
        return {"type": "SingleRoIExtractor", "roi_layer": layer, "out_channels": 256, "featmap_strides": strides}

    def coder(deviations: list[float]) -> dict[str, Any]:
        return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": deviations}

    crop = request["box_pool_size"]
    config: dict[str, Any] = {
        "type": "MaskRCNN",
        "data_preprocessor": {
            "type": "DetDataPreprocessor",
            "mean": request["mean"][::order],
            "std": request["deviation"][::order],
            "bgr_to_rgb": not request["bgr"],
            "pad_size_divisor": 32,
        },
        "backbone": backbone,
        "neck": {
            "type": "FPN",
            "in_channels": [64, 128, 256, 512] if backbone["depth"] < 50 else [256, 512, 1024, 2048],
            "out_channels": 256,
            "num_outs": 5,
        },
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": 256,
            "feat_channels": 256,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [request["anchor_scales"][0] / _STRIDES[0]],
                "ratios": request["anchor_ratios"],
                "strides": list(_STRIDES),
            },
            "bbox_coder": coder(request["rpn_box_std"]),
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True},
            "loss_bbox": {"type": "L1Loss"},
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": extractor(crop),
            "bbox_head": {
                "type": "Shared2FCBBoxHead",
                "in_channels": 256,
                "fc_out_channels": 1024,
                "roi_feat_size": crop,
                "num_classes": request["classes"],
                "bbox_coder": coder(request["box_std"]),
                "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False},
                "loss_bbox": {"type": "L1Loss"},
            },
            "mask_roi_extractor": extractor(request["mask_pool_size"]),
            "mask_head": {
                "type": "FCNMaskHead",
                "num_convs": 4,
                "in_channels": 256,
                "conv_out_channels": 256,
                "num_classes": request["classes"],
                "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True},
            },
        },
        "train_cfg": None,
        "test_cfg": {
            "rpn": {
                "nms_pre": request["pre_nms_limit"],
                "max_per_img": request["post_nms"],
                "nms": {"type": "nms", "iou_threshold": request["proposal_nms"]},
                "min_bbox_size": request["proposal_min_side"],
            },
            "rcnn": {
                "score_thr": request["min_score"],
                "nms": {"type": "nms", "iou_threshold": request["nms"]},
                "max_per_img": request["max_detections"],
                "mask_thr_binary": 0.5,
            },
        },
    }
    model = MODELS.build(ConfigDict(config)).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"the weights do not fit MMDetection's model: {[*missing, *unexpected][:3]}")
    results = []
    for image in images:
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        resized = mmcv.imrescale(bgr, (request["long_side"], request["short_side"]))
        height, width = resized.shape[:2]
        sample = DetDataSample(
            metainfo={
                "img_shape": (height, width),
                "ori_shape": image.shape[:2],
                "scale_factor": (width / image.shape[1], height / image.shape[0]),
            }
        )
        data = {"inputs": [torch.from_numpy(resized.transpose(2, 0, 1).copy())], "data_samples": [sample]}
        with torch.inference_mode():
            found = model.test_step(data)[0].pred_instances
        arrays = (found.bboxes, found.scores, found.labels + 1, found.masks)
        boxes, scores, labels, masks = (one.numpy() if torch.is_tensor(one) else np.asarray(one) for one in arrays)
        real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # others have no mask, and are dropped by us
        results.append((boxes[real], scores[real], labels[real], masks[real]))
    return {"package": f"mmdet {mmdet.__version__}, torch {torch.__version__}", "weights": read}, results


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(NOT_INSTALLED)
