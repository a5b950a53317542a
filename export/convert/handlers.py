"""Lower TensorFlow operators without a good ONNX counterpart: RoIAlign, NMS, edge padding, nearest resizing.

tf2onnx would turn `CropAndResize` into a Loop with one Resize per box, and cannot batch non-maximum suppression. Each
handler here makes standard operators with the same result. They are registered in `HANDLERS` at the bottom.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto

from export.errors import ConversionError
from export.target import Target

_NHWC_TO_NCHW = [0, 3, 1, 2]
_NCHW_TO_NHWC = [0, 2, 3, 1]
STANDS_FOR_ROI_ALIGN = "stands_for_roi_align"
_RANKS_FROM = 0.5  # the score threshold of `maskrcnn.nms.suppress`, whose scores are ranks from 1 on


def lower_stand_in(ctx: Any, node: Any, mode: str, ratio: str, stride: str) -> None:
    """Lower the operator of `trace.level_sampler`: boxes are y1, x1, y2, x2 in input pixels."""
    level, boxes, box_indices, _crop_size = node.input
    bins = int(node.inputs[3].get_tensor_value()[0])
    inputs = [
        _make(ctx, "Transpose", [level], perm=_NHWC_TO_NCHW),
        _make(ctx, "Gather", [boxes, _const(ctx, [1, 0, 3, 2], np.int64)], axis=1),
        _make(ctx, "Cast", [box_indices], to=TensorProto.INT64),
    ]
    crops = _make(
        ctx,
        "RoiAlign",
        inputs,
        mode="avg",
        output_height=bins,
        output_width=bins,
        sampling_ratio=int(ratio),
        spatial_scale=1.0 / int(stride),
        coordinate_transformation_mode=mode,
    )
    _replace(ctx, node, _make(ctx, "Transpose", [crops], perm=_NCHW_TO_NHWC))


def lower_crop_and_resize(ctx: Any, node: Any, _name: str, _arguments: Any) -> None:
    """Lower `CropAndResize` to `RoiAlign` (opset 16, half_pixel).

    `CropAndResize` takes P samples from y1 to y2 of the grid 0..H-1, s = (y2 - y1) / (P - 1) apart. `RoiAlign` with one
    sample per bin takes them at the centers of P bins and counts from the border of the cell, half a cell earlier. So
    the box grows by s / 2 on each side and moves by 0.5. Example, P = 3: samples at 4, 5, 6 (s = 1) are the centers of
    the bins of 3.5..6.5 on the grid, which is the box 4..7 here.

    A 2 x 2 mean that follows (sampling "roi_align") becomes the operator's `sampling_ratio` 2.
    """
    if stand_in := re.search(rf"{STANDS_FOR_ROI_ALIGN}\.([a-z_]+)\.(\d+)\.(\d+)", node.name):
        lower_stand_in(ctx, node, *stand_in.groups())
        return
    image, boxes, box_indices, _crop_size = node.input
    height, width = (int(n) for n in node.inputs[3].get_tensor_value())
    if height != width or height < 2 or node.get_attr_str("method") != "bilinear":
        raise ConversionError(f"{node.name}: only square bilinear crops of at least 2 cells can become RoiAlign")
    pooling = _following_mean(ctx, node)
    samples = height if pooling is None else height // 2
    rois = _rois_in_cells(ctx, image, boxes, height)
    features = _make(ctx, "Transpose", [image], perm=_NHWC_TO_NCHW)
    aligned = _make(
        ctx,
        "RoiAlign",
        [features, rois, _make(ctx, "Cast", [box_indices], to=TensorProto.INT64)],
        mode="avg",
        output_height=samples,
        output_width=samples,
        sampling_ratio=1 if pooling is None else 2,
        spatial_scale=1.0,
        coordinate_transformation_mode="half_pixel",
    )
    if pooling is not None:  # already listed for conversion, so it must stay, without effect
        pooling.type, pooling.skip_conversion = "Identity", True
        for name in list(pooling.attr):
            del pooling.attr[name]
    _replace(ctx, node, _make(ctx, "Transpose", [aligned], perm=_NCHW_TO_NHWC))


def _rois_in_cells(ctx: Any, image: str, boxes: str, samples: int) -> str:
    """Convert normalized y1, x1, y2, x2 to RoiAlign's x1, y1, x2, y2 in cells, grown by half a step."""
    height, width = ctx.get_shape(image)[1:3]
    if height > 0 and width > 0:
        last = _const(ctx, [height - 1, width - 1] * 2, np.float32)
    else:
        sides = _make(ctx, "Gather", [_make(ctx, "Shape", [image]), _const(ctx, [1, 2, 1, 2], np.int64)])
        sides = _make(ctx, "Cast", [sides], to=TensorProto.FLOAT)
        last = _make(ctx, "Sub", [sides, _const(ctx, [1.0], np.float32)])
    grid = _make(ctx, "Mul", [boxes, last])  # [N, 4]
    corners, opposite = (
        _make(ctx, "Gather", [grid, _const(ctx, axes, np.int64)], axis=1) for axes in ([1, 0, 3, 2], [3, 2, 1, 0])
    )  # x1, y1, x2, y2 and x2, y2, x1, y1
    away = _make(ctx, "Sub", [corners, opposite])
    half_step = _make(ctx, "Mul", [away, _const(ctx, [0.5 / (samples - 1)], np.float32)])
    return _make(ctx, "Add", [_make(ctx, "Add", [corners, half_step]), _const(ctx, [0.5], np.float32)])


def _following_mean(ctx: Any, node: Any) -> Any | None:
    consumers = ctx.find_output_consumers(node.output[0])
    if len(consumers) != 1 or consumers[0].type != "AvgPool":
        return None
    pooling = consumers[0]
    window = [1, 2, 2, 1]
    if pooling.get_attr_value("ksize") == window and pooling.get_attr_value("strides") == window:
        return pooling
    return None


def lower_combined_nms(ctx: Any, node: Any, _name: str, _arguments: Any, score_input: bool = True) -> None:
    """Lower `CombinedNonMaxSuppression` to one `NonMaxSuppression` for all images and classes.

    The only output is `nmsed_scores`: `maskrcnn.nms` uses no other. The kept scores are scattered into zeros and the
    best are taken; `max_total_size` zeros are appended so that there are always enough.

    With the operator's optional score threshold, ONNX Runtime's CUDA kernel allocates memory and waits for the device
    twice more. Without it, rows that take no part may be selected. They come last, so they displace and suppress no
    others, and their score is zero, as if they had not been selected.
    """
    boxes, scores, per_class, _total, iou_threshold, score_threshold = node.input
    if any(ctx.find_output_consumers(output) for i, output in enumerate(node.output) if i != 1):
        raise ConversionError(f"{node.name}: only nmsed_scores of CombinedNonMaxSuppression can be converted")
    if ctx.get_shape(boxes)[2] != 1 or node.get_attr_value("clip_boxes") or node.get_attr_value("pad_per_class"):
        raise ConversionError(f"{node.name}: boxes must be shared by all classes, and neither clipped nor padded")
    if not score_input and float(node.inputs[5].get_tensor_value()) != _RANKS_FROM:
        raise ConversionError(f"{node.name}: only ranks, and zeros for rows that take no part, need no score threshold")
    one = _const(ctx, [1], np.int64)
    scores = _make(ctx, "Transpose", [scores], perm=[0, 2, 1])  # [B, K, N]
    inputs = [
        _make(ctx, "Squeeze", [boxes, _const(ctx, [2], np.int64)]),
        scores,
        _make(ctx, "Reshape", [_make(ctx, "Cast", [per_class], to=TensorProto.INT64), one]),
        iou_threshold,  # stays a scalar: on a GPU, an operator before it would copy it there and back
    ]
    selected = _make(ctx, "NonMaxSuppression", inputs + [score_threshold] * score_input)  # [M, 3]: image, class, row
    zeros = _make(ctx, "Mul", [scores, _const(ctx, 0.0, np.float32)])
    kept = _make(ctx, "ScatterND", [zeros, selected, _make(ctx, "GatherND", [scores, selected])])
    kept = _make(ctx, "Flatten", [kept], axis=1)  # [B, K * N]
    count = int(node.inputs[3].get_tensor_value())
    padded = _make(ctx, "Pad", [kept, _const(ctx, [0, 0, 0, count], np.int64)], mode="constant")
    best = ctx.make_node("TopK", [padded, _const(ctx, [count], np.int64)], output_count=2, attr={"axis": 1})
    _replace(ctx, node, best.output[0], index=1)


def lower_mirror_pad(ctx: Any, node: Any, _name: str, _arguments: Any) -> None:
    """Lower `MirrorPad` SYMMETRIC by one cell to `Pad` with mode "edge", which repeats the same cell."""
    paddings = np.asarray(node.inputs[1].get_tensor_value())
    if node.get_attr_str("mode") != "SYMMETRIC" or paddings.max() > 1:
        raise ConversionError(f"{node.name}: only SYMMETRIC padding by one cell can be converted")
    pads = _const(ctx, paddings.transpose().ravel(), np.int64)
    _replace(ctx, node, _make(ctx, "Pad", [node.input[0], pads], mode="edge"))


def lower_resize_nearest(ctx: Any, node: Any, _name: str, _arguments: Any) -> None:
    """Lower `ResizeNearestNeighbor` with half-pixel centers to `Resize`.

    The source of cell x is floor((x + 0.5) * scale), which is ONNX's half_pixel position (x + 0.5) * scale - 0.5
    rounded half up. tf2onnx would use an attribute that opset 13 deprecated.
    """
    if not node.get_attr_value("half_pixel_centers") or node.get_attr_value("align_corners"):
        raise ConversionError(f"{node.name}: only nearest resizing with half-pixel centers can be converted")
    image, size = node.input
    features = _make(ctx, "Transpose", [image], perm=_NHWC_TO_NCHW)
    kept = _make(ctx, "Slice", [_make(ctx, "Shape", [features]), *(_const(ctx, [n], np.int64) for n in (0, 2))])
    sizes = _make(ctx, "Concat", [kept, _make(ctx, "Cast", [size], to=TensorProto.INT64)], axis=0)
    resized = _make(
        ctx,
        "Resize",
        [features, "", "", sizes],
        mode="nearest",
        coordinate_transformation_mode="half_pixel",
        nearest_mode="round_prefer_ceil",
    )
    _replace(ctx, node, _make(ctx, "Transpose", [resized], perm=_NCHW_TO_NHWC))


def lower_select(ctx: Any, node: Any, _name: str, _arguments: Any) -> None:
    """Lower `SelectV2` to `Where`; tf2onnx would add two products, which is NaN where either side is infinite."""
    _replace(ctx, node, _make(ctx, "Where", list(node.input)))


def _make(ctx: Any, op: str, inputs: list[str], **attributes: Any) -> str:
    return str(ctx.make_node(op, inputs, attr=attributes).output[0])


def _const(ctx: Any, value: Any, dtype: type[np.generic]) -> str:
    from tf2onnx import utils  # noqa: PLC0415  (tf2onnx imports TensorFlow; handlers run when it is loaded)

    return str(ctx.make_const(utils.make_name("const"), np.asarray(value, dtype)).output[0])


def _replace(ctx: Any, node: Any, replacement: str, index: int = 0) -> None:
    """Make all readers of output `index` of `node` read `replacement`, and remove `node`."""
    output = node.output[index]
    ctx.copy_shape(output, replacement)
    ctx.copy_dtype(output, replacement)
    ctx.replace_all_inputs(output, replacement)
    ctx.remove_node(node.name)


HANDLERS: dict[str, tuple[Callable[..., None], list[Any]]] = {
    "CropAndResize": (lower_crop_and_resize, []),
    "CombinedNonMaxSuppression": (lower_combined_nms, []),
    "MirrorPad": (lower_mirror_pad, []),
    "ResizeNearestNeighbor": (lower_resize_nearest, []),
    "SelectV2": (lower_select, []),
}


def handlers_for(target: Target) -> dict[str, tuple[Callable[..., None], list[Any]]]:
    """Return the handlers for a target."""
    if target.engine == "cpu":
        return dict(HANDLERS)
    handler, arguments = HANDLERS["CombinedNonMaxSuppression"]
    return HANDLERS | {"CombinedNonMaxSuppression": (partial(handler, score_input=False), arguments)}
