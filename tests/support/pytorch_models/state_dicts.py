"""Names and shapes of state dicts of torchvision, Detectron2 and MMDetection, and small ones with values."""

import numpy as np

# Of each stage, by depth; deeper than 34: bottlenecks.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SIZES = {"width": 64, "channels": 256, "hidden": 1024, "anchors": 3, "side": 7, "groups": 1, "group_width": 64}
TINY = {"width": 8, "channels": 16, "hidden": 32}


def _norm(name, channels):
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def _layer(name, *shape, bias=True):
    transposed = shape[-1] == 2 and len(shape) == 4
    return {f"{name}.weight": shape} | ({f"{name}.bias": (shape[transposed],)} if bias else {})


def _resnet(depth, sizes, stem, block, norm_of, shortcut):
    """Weights of a ResNet; `block(stage, index)`, `norm_of(convolution)` and `shortcut` are names of a family."""
    width = sizes["width"]
    found = {f"{stem}.weight": (width, 3, 7, 7)} | _norm(norm_of(stem), width)
    bottleneck, incoming = depth >= 50, width
    for stage, count in enumerate(BLOCKS[depth]):
        planes = width * 2**stage
        inner = planes * sizes["group_width"] // 64 * sizes["groups"] if bottleneck else planes
        outgoing = 4 * planes if bottleneck else planes
        for index in range(count):
            name = block(stage, index)
            if bottleneck:
                kernels = [(inner, incoming, 1, 1), (inner, inner // sizes["groups"], 3, 3), (outgoing, inner, 1, 1)]
            else:
                kernels = [(inner, incoming, 3, 3), (outgoing, inner, 3, 3)]
            for number, shape in enumerate(kernels, start=1):
                found |= {f"{name}.conv{number}.weight": shape} | _norm(norm_of(f"{name}.conv{number}"), shape[0])
            if index == 0 and (stage or incoming != outgoing):
                found |= {f"{name}.{shortcut}.weight": (outgoing, incoming, 1, 1)}
                found |= _norm(norm_of(f"{name}.{shortcut}"), outgoing)
            incoming = outgoing
    return found, [width * 2**stage * (4 if bottleneck else 1) for stage in range(4)]


def torchvision(depth=50, classes=90, version=1, old_names=False, **sizes):
    """Shapes of maskrcnn_resnet50_fpn (`version` 2: _v2) and its relatives; `classes` is without the background."""
    sizes = SIZES | sizes
    found, levels = _resnet(
        depth,
        sizes,
        "backbone.body.conv1",
        lambda stage, index: f"backbone.body.layer{stage + 1}.{index}",
        lambda name: name.replace("downsample.0", "downsample.1").replace("conv", "bn"),
        "downsample.0",
    )
    channels, hidden, second = sizes["channels"], sizes["hidden"], version == 2
    inner = "" if old_names else ".0"

    def convolution(name, *shape, norm=""):
        return _layer(f"{name}{inner}", *shape, bias=not second) | (_norm(f"{name}.1", shape[0]) if second else {})

    for level, incoming in enumerate(levels):
        found |= convolution(f"backbone.fpn.inner_blocks.{level}", channels, incoming, 1, 1)
    for level in range(4):
        found |= convolution(f"backbone.fpn.layer_blocks.{level}", channels, channels, 3, 3)
    for number in range(version):
        name = "rpn.head.conv" if old_names else f"rpn.head.conv.{number}.0"
        found |= _layer(name, channels, channels, 3, 3)
    found |= _layer("rpn.head.cls_logits", sizes["anchors"], channels, 1, 1)
    found |= _layer("rpn.head.bbox_pred", 4 * sizes["anchors"], channels, 1, 1)
    crop = channels * sizes["side"] ** 2
    if second:
        for number in range(4):
            found |= convolution(f"roi_heads.box_head.{number}", channels, channels, 3, 3)
        found |= _layer("roi_heads.box_head.5", hidden, crop)
    else:
        found |= _layer("roi_heads.box_head.fc6", hidden, crop) | _layer("roi_heads.box_head.fc7", hidden, hidden)
    found |= _layer("roi_heads.box_predictor.cls_score", classes + 1, hidden)
    found |= _layer("roi_heads.box_predictor.bbox_pred", 4 * (classes + 1), hidden)
    for number in range(4):
        old = f"roi_heads.mask_head.mask_fcn{number + 1}"
        name = f"roi_heads.mask_head.{number}"
        shape = (channels, channels, 3, 3)
        found |= _layer(old, *shape) if old_names else convolution(name, *shape)
    found |= _layer("roi_heads.mask_predictor.conv5_mask", channels, channels, 2, 2)
    return found | _layer("roi_heads.mask_predictor.mask_fcn_logits", classes + 1, channels, 1, 1)


def detectron2(depth=50, classes=80, **sizes):
    """Shapes of mask_rcnn_R_50_FPN_3x and its relatives."""
    sizes = SIZES | sizes
    found, levels = _resnet(
        depth,
        sizes,
        "backbone.bottom_up.stem.conv1",
        lambda stage, index: f"backbone.bottom_up.res{stage + 2}.{index}",
        lambda name: f"{name}.norm",
        "shortcut",
    )
    channels, hidden = sizes["channels"], sizes["hidden"]
    for level, incoming in enumerate(levels, start=2):
        found |= _layer(f"backbone.fpn_lateral{level}", channels, incoming, 1, 1)
        found |= _layer(f"backbone.fpn_output{level}", channels, channels, 3, 3)
    head = "proposal_generator.rpn_head"
    found |= _layer(f"{head}.conv", channels, channels, 3, 3)
    found |= _layer(f"{head}.objectness_logits", sizes["anchors"], channels, 1, 1)
    found |= _layer(f"{head}.anchor_deltas", 4 * sizes["anchors"], channels, 1, 1)
    found |= _layer("roi_heads.box_head.fc1", hidden, channels * sizes["side"] ** 2)
    found |= _layer("roi_heads.box_head.fc2", hidden, hidden)
    found |= _layer("roi_heads.box_predictor.cls_score", classes + 1, hidden)
    found |= _layer("roi_heads.box_predictor.bbox_pred", 4 * classes, hidden)
    for number in range(1, 5):
        found |= _layer(f"roi_heads.mask_head.mask_fcn{number}", channels, channels, 3, 3)
    found |= _layer("roi_heads.mask_head.deconv", channels, channels, 2, 2)
    return found | _layer("roi_heads.mask_head.predictor", classes, channels, 1, 1)


def mmdetection(depth=50, classes=80, **sizes):
    """Shapes of mask-rcnn_r50_fpn_1x_coco and its relatives, of MMDetection 2 and 3."""
    sizes = SIZES | sizes
    found, levels = _resnet(
        depth,
        sizes,
        "backbone.conv1",
        lambda stage, index: f"backbone.layer{stage + 1}.{index}",
        lambda name: name.replace("downsample.0", "downsample.1").replace("conv", "bn"),
        "downsample.0",
    )
    channels, hidden = sizes["channels"], sizes["hidden"]
    for level, incoming in enumerate(levels):
        found |= _layer(f"neck.lateral_convs.{level}.conv", channels, incoming, 1, 1)
        found |= _layer(f"neck.fpn_convs.{level}.conv", channels, channels, 3, 3)
    found |= _layer("rpn_head.rpn_conv", channels, channels, 3, 3)
    found |= _layer("rpn_head.rpn_cls", sizes["anchors"], channels, 1, 1)
    found |= _layer("rpn_head.rpn_reg", 4 * sizes["anchors"], channels, 1, 1)
    found |= _layer("roi_head.bbox_head.fc_cls", classes + 1, hidden)
    found |= _layer("roi_head.bbox_head.fc_reg", 4 * classes, hidden)
    found |= _layer("roi_head.bbox_head.shared_fcs.0", hidden, channels * sizes["side"] ** 2)
    found |= _layer("roi_head.bbox_head.shared_fcs.1", hidden, hidden)
    for number in range(4):
        found |= _layer(f"roi_head.mask_head.convs.{number}.conv", channels, channels, 3, 3)
    found |= _layer("roi_head.mask_head.upsample", channels, channels, 2, 2)
    return found | _layer("roi_head.mask_head.conv_logits", classes, channels, 1, 1)


FAMILIES = {"torchvision": torchvision, "detectron2": detectron2, "mmdetection": mmdetection}


_SMALL = ("bbox_pred", "anchor_deltas", "rpn_reg", "fc_reg")  # boxes stay near their anchors and proposals


def values(shapes, seed=0):
    """Random weights of these shapes with which a network detects something, and rounding stays small."""
    numbers, found = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        kind = name.rsplit(".", 1)[1]
        if kind == "running_var" or (kind == "weight" and len(shape) == 1):
            array = 1 + 0.1 * numbers.random(shape)
        elif len(shape) == 1:
            array = 0.05 * numbers.standard_normal(shape)
        else:
            gain = 0.1 if any(part in name for part in _SMALL) else np.sqrt(2) if "backbone." in name else 1
            array = numbers.standard_normal(shape)
            array -= array.mean(axis=tuple(range(1, len(shape))), keepdims=True)  # activations are positive
            array *= gain / np.sqrt(np.prod(shape[1:]))
        found[name] = array.astype(np.float32)
    return found
