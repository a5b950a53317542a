"""What the names and shapes of a PyTorch state dict say: whose Mask R-CNN it is, its sizes, or why it is refused."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from maskrcnn.errors import CheckpointMismatchError

Family = Literal["torchvision", "detectron2", "mmdetection"]
Shapes = Mapping[str, tuple[int, ...]]

FAMILIES: tuple[Family, ...] = get_args(Family)
TITLES = {"torchvision": "torchvision", "detectron2": "Detectron2", "mmdetection": "MMDetection"}
SUPPORTED = (
    "supported are Mask R-CNNs with FPN on ResNet-18 to 152, ResNeXt or Wide ResNet: torchvision's "
    "maskrcnn_resnet50_fpn and maskrcnn_resnet50_fpn_v2, Detectron2's mask_rcnn_*_FPN, and MMDetection's "
    "mask-rcnn_*_fpn of version 2 or 3"
)

# By the number of blocks in each stage, and whether they are bottlenecks.
_DEPTHS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
# Not weights of the network: counters, constants that the configuration has, and what MMDetection keeps beside the
# weights (`ema_...` are the weights as trained, where the others are their running means).
_NOT_WEIGHTS = re.compile(
    r"(.+\.num_batches_tracked|pixel_(mean|std)|data_preprocessor\..+|ema_.+|.*anchor_generator\.cell_anchors\.\d+)$"
)


@dataclass(frozen=True)
class Recognized:
    """A network that a state dict is for.

    Attributes:
        family: The package whose names it has.
        version: 1 or 2 of torchvision's heads; 1 for the other families.
        classes: Number of classes, without the background.
        settings: What names and shapes say, by the dotted names of `Config`.
    """

    family: Family
    version: int
    classes: int
    settings: dict[str, Any]

    @property
    def title(self) -> str:
        """The network in words."""
        version = f" v{self.version}" if self.family == "torchvision" else ""
        kind = "ResNet" if self.settings["model.backbone_groups"] == 1 else "ResNeXt"
        depth = self.settings["model.backbone"].removeprefix("resnet")
        counted = "1 class" if self.classes == 1 else f"{self.classes} classes"
        return f"{TITLES[self.family]} Mask R-CNN{version} on {kind}-{depth}-FPN with {counted}"


@dataclass(frozen=True)
class _Layout:
    """The names that a family has for the layers that show a size; `{}` is a number."""

    hallmarks: str  # of the family, also where the model is another one
    stem: str
    block: str  # of stage {0} (from 0), block {1}
    shortcut: str  # of a block
    first_stage: int
    lateral: tuple[str, ...]
    rpn_convolutions: tuple[str, ...]
    rpn_logits: str
    rpn_deltas: str
    box_convolution: str
    box_layers: tuple[str, ...]
    class_logits: str
    box_deltas: str
    mask_convolutions: tuple[str, ...]
    mask_transposed: str
    masks: str
    background: int  # rows of the class logits that have no box and no mask


_LAYOUTS: dict[Family, _Layout] = {
    "torchvision": _Layout(
        hallmarks=r"backbone\.(body|features|fpn)\.|rpn\.head\.|roi_heads\.(box|mask|keypoint)_predictor\.|head\.\w+_head\.",
        stem="backbone.body.conv1",
        block="backbone.body.layer{0}.{1}",
        shortcut="downsample.0",
        first_stage=1,
        lateral=("backbone.fpn.inner_blocks.0.0", "backbone.fpn.inner_blocks.0"),
        rpn_convolutions=("rpn.head.conv.{}.0", "rpn.head.conv"),
        rpn_logits="rpn.head.cls_logits",
        rpn_deltas="rpn.head.bbox_pred",
        box_convolution="roi_heads.box_head.{}.0",
        box_layers=("roi_heads.box_head.fc6", "roi_heads.box_head.fc7", "roi_heads.box_head.5"),
        class_logits="roi_heads.box_predictor.cls_score",
        box_deltas="roi_heads.box_predictor.bbox_pred",
        mask_convolutions=("roi_heads.mask_head.{}.0", "roi_heads.mask_head.mask_fcn{}"),
        mask_transposed="roi_heads.mask_predictor.conv5_mask",
        masks="roi_heads.mask_predictor.mask_fcn_logits",
        background=0,
    ),
    "detectron2": _Layout(
        hallmarks=r"proposal_generator\.|backbone\.(bottom_up|fpn_|stem|res\d|net)|roi_heads\.|head\.(cls|bbox)_",
        stem="backbone.bottom_up.stem.conv1",
        block="backbone.bottom_up.res{0}.{1}",
        shortcut="shortcut",
        first_stage=2,
        lateral=("backbone.fpn_lateral2",),
        rpn_convolutions=("proposal_generator.rpn_head.conv",),
        rpn_logits="proposal_generator.rpn_head.objectness_logits",
        rpn_deltas="proposal_generator.rpn_head.anchor_deltas",
        box_convolution="roi_heads.box_head.conv{}",
        box_layers=("roi_heads.box_head.fc1", "roi_heads.box_head.fc2"),
        class_logits="roi_heads.box_predictor.cls_score",
        box_deltas="roi_heads.box_predictor.bbox_pred",
        mask_convolutions=("roi_heads.mask_head.mask_fcn{}",),
        mask_transposed="roi_heads.mask_head.deconv",
        masks="roi_heads.mask_head.predictor",
        background=1,
    ),
    "mmdetection": _Layout(
        hallmarks=r"rpn_head\.|roi_head\.|neck\.|bbox_head\.|mask_head\.",
        stem="backbone.conv1",
        block="backbone.layer{0}.{1}",
        shortcut="downsample.0",
        first_stage=1,
        lateral=("neck.lateral_convs.0.conv",),
        rpn_convolutions=("rpn_head.rpn_conv",),
        rpn_logits="rpn_head.rpn_cls",
        rpn_deltas="rpn_head.rpn_reg",
        box_convolution="roi_head.bbox_head.shared_convs.{}.conv",
        box_layers=("roi_head.bbox_head.shared_fcs.0", "roi_head.bbox_head.shared_fcs.1"),
        class_logits="roi_head.bbox_head.fc_cls",
        box_deltas="roi_head.bbox_head.fc_reg",
        mask_convolutions=("roi_head.mask_head.convs.{}.conv",),
        mask_transposed="roi_head.mask_head.upsample",
        masks="roi_head.mask_head.conv_logits",
        background=1,
    ),
}

# Architectures that are refused by name, by a pattern that the name of one of their weights matches; the first counts.
_REFUSED = (
    (r"res\d+_\d+_branch2a_w$|conv1_w$", "a model of Detectron (Caffe2), the predecessor of Detectron2"),
    (r"roi_heads?\.keypoint_", "a Keypoint R-CNN"),
    (r"(roi_heads\.res5|roi_head\.shared_head)\.", "a C4 model, whose heads work on C4 without FPN"),
    (r"roi_heads\.box_(head|predictor)\.\d+\.(fc\d|cls_score)", "a Cascade R-CNN"),
    (r"roi_head\.(bbox_head|mask_head)\.\d+\.", "a Cascade R-CNN or HTC"),
    (r"roi_heads\.mask_(head\.)?(point|coarse)_head|roi_head\.point_head", "a PointRend model"),
    (r"roi_head\.mask_iou_head", "a Mask Scoring R-CNN"),
    (r"roi_head\.grid_head", "a Grid R-CNN"),
    (r"(sem_seg_head|panoptic|semantic_head|roi_head\.semantic_head)", "a panoptic or semantic model"),
    (r"head\.(cls|bbox)_(subnet|score)|head\.\w+_head\.|bbox_head\.retina_", "a one-stage detector such as RetinaNet"),
    (r"(transformer|encoder|decoder|query_embed|class_embed)\.", "a detector with a transformer"),
    (r"backbone\.(bottom_up\.)?(net|patch_embed|stages)\b", "a model on another backbone than a ResNet"),
    (r"backbone\.(body\.)?(features|\d+)\.", "a model on another backbone than a ResNet"),
    (r"backbone\..*(conv2_offset|conv_offset)", "a model with deformable convolutions"),
    (r"backbone\..*(context_block|gen_attention|plugin|se_module|\.se\.)", "a model with attention in its ResNet"),
    (r"backbone\.(bottom_up\.)?stem\.(\d|conv1_\d|conv[23])", "a model whose ResNet has a deep stem"),
    (r"backbone\.(stem|res[2-5])\.", "a DC5 model, whose heads work on a dilated C5 without FPN"),
    (r"bbox_head\.fc_cls", "a model of MMDetection 1, whose boxes and classes are counted otherwise"),
    (r"(bbox_head|mask_head)\.", "a one-stage detector of MMDetection"),
)  # fmt: skip


def weights_of(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a state dict that are weights of a network."""
    return {name: value for name, value in names.items() if not _NOT_WEIGHTS.match(name)}


def recognize(shapes: Shapes, source: str, family: Family | None = None) -> Recognized:
    """Return the network that a state dict is for.

    Args:
        shapes: Shapes by name, as `weights_of` leaves them.
        source: Name of the file, for messages.
        family: What the user says; None: found.

    Raises:
        CheckpointMismatchError: The state dict is for another network, or for another family than `family`.
    """
    architecture = next((title for pattern, title in _REFUSED if any(re.match(pattern, name) for name in shapes)), None)
    if architecture is not None:
        raise CheckpointMismatchError(f"{source} is {architecture}: {SUPPORTED}")
    found = _family(shapes)
    if found is None:
        example = f" (its first is {next(iter(shapes))[:80]!r})" if shapes else ""
        raise CheckpointMismatchError(f"{source} has names of no known Mask R-CNN{example}: {SUPPORTED}")
    if family is not None and family != found:
        raise CheckpointMismatchError(
            f"{source} has the names of {TITLES[found]}, not of {TITLES[family]}: give --family {found}, or none"
        )
    return _read(_Reader(shapes, source, found), found)


def _family(shapes: Shapes) -> Family | None:
    """Return the family with most names that are its own."""
    counts = {name: sum(bool(re.match(of.hallmarks, key)) for key in shapes) for name, of in _LAYOUTS.items()}
    best = max(FAMILIES, key=counts.__getitem__)
    tied = [name for name in FAMILIES if counts[name] == counts[best]]
    return best if counts[best] and len(tied) == 1 else None


@dataclass(frozen=True)
class _Reader:
    """Shapes of the layers of one state dict; what is missing or odd is an error."""

    shapes: Shapes
    source: str
    family: Family

    def refuse(self, problem: str) -> CheckpointMismatchError:
        article = "an" if self.family == "mmdetection" else "a"
        return CheckpointMismatchError(f"{self.source} is {article} {TITLES[self.family]} model {problem}: {SUPPORTED}")

    def has(self, layer: str) -> bool:
        return f"{layer}.weight" in self.shapes

    def kernel(self, layer: str, rank: int) -> tuple[int, ...]:
        shape = self.shapes.get(f"{layer}.weight")
        if shape is None:
            raise self.refuse(f"without {layer}")
        if len(shape) != rank or min(shape) < 1:
            raise self.refuse(f"whose {layer}.weight is {list(shape)}, which has not {rank} axes")
        return shape

    def count(self, pattern: str, first: int = 0) -> int:
        """Return the number of layers that have the numbers `first`, `first` + 1, ... in `pattern`."""
        number = first
        while self.has(pattern.format(number)):
            number += 1
        return number - first

    def normed(self, *norms: str) -> bool:
        """Return whether a layer has batch normalization; `norms` are the names that its norm can have."""
        for norm in norms:
            if f"{norm}.running_mean" in self.shapes:
                return True
            if f"{norm}.weight" in self.shapes and len(self.shapes[f"{norm}.weight"]) == 1:
                raise self.refuse(f"with group or layer normalization ({norm})")
        return False


def _read(read: _Reader, family: Family) -> Recognized:
    layout = _LAYOUTS[family]
    _require_masks(read, layout)
    settings = _backbone(read, layout)
    lateral = next((layer for layer in layout.lateral if read.has(layer)), layout.lateral[0])
    channels = settings["model.fpn_channels"] = read.kernel(lateral, 4)[0]
    settings["model.fpn_batch_norm"] = read.normed(
        "backbone.fpn.inner_blocks.0.1",
        "backbone.fpn_lateral2.norm",
        "neck.lateral_convs.0.bn",
        "neck.lateral_convs.0.gn",
    )
    settings |= _rpn(read, layout)
    settings |= _box_head(read, layout, channels)
    settings |= _mask_head(read, layout, channels)
    classes = _classes(read, layout)
    version = 2 if settings["model.rpn_convolutions"] == 2 else 1
    _require_variant(read, settings, version)
    return Recognized(family, version, classes, settings)


def _require_masks(read: _Reader, layout: _Layout) -> None:
    if read.has(layout.masks):
        return
    if read.has(layout.class_logits):
        raise read.refuse("without a mask head, a Faster R-CNN")
    if read.has(layout.rpn_logits):
        raise read.refuse("without heads, a region proposal network")
    raise read.refuse("without a mask head")


def _backbone(read: _Reader, layout: _Layout) -> dict[str, Any]:
    stem = read.kernel(layout.stem, 4)
    blocks, numbers = [], range(layout.first_stage, layout.first_stage + 4)
    for stage in numbers:
        blocks.append(read.count(layout.block.replace("{0}", str(stage)).replace("{1}", "{}") + ".conv2"))
    first = layout.block.format(numbers[0], 0)
    bottleneck = read.has(f"{first}.conv3")
    depth = _DEPTHS.get((tuple(blocks), bottleneck))
    if depth is None:
        raise read.refuse(f"on a ResNet of {' + '.join(map(str, blocks))} blocks")
    if f"{layout.stem}.bias" in read.shapes:
        raise read.refuse("whose backbone has biases")
    beside = layout.stem.removesuffix("conv1")
    if not read.normed(f"{layout.stem}.norm", f"{beside}bn1", f"{beside}gn1"):
        raise read.refuse("whose backbone has no batch normalization")
    second = read.kernel(f"{first}.conv2", 4)
    if second[0] % second[1] or second[1] * 64 % stem[0]:
        raise read.refuse(f"whose {first}.conv2.weight is {list(second)}, with {stem[0]} channels before it")
    return {
        "model.backbone": depth,
        "model.image_channels": stem[1],
        "model.backbone_width": stem[0],
        "model.backbone_groups": second[0] // second[1] if bottleneck else 1,
        "model.backbone_group_width": second[1] * 64 // stem[0] if bottleneck else 64,
        "model.backbone_shortcut": "projection" if read.has(f"{first}.{layout.shortcut}") else "identity",
    }


def _rpn(read: _Reader, layout: _Layout) -> dict[str, Any]:
    logits, deltas = read.kernel(layout.rpn_logits, 4), read.kernel(layout.rpn_deltas, 4)
    if deltas[0] != 4 * logits[0]:
        raise read.refuse(f"whose RPN has {logits[0]} scores and {deltas[0]} deltas in a cell, not 1 to 4")
    numbered = [read.count(pattern) for pattern in layout.rpn_convolutions if "{}" in pattern]
    convolutions = max([*numbered, *(int(read.has(name)) for name in layout.rpn_convolutions if "{}" not in name)])
    if not convolutions:
        raise read.refuse(f"without {layout.rpn_convolutions[-1]}")
    return {
        "model.rpn_channels": logits[1],
        "model.rpn_convolutions": convolutions,
        "model.anchor_ratios": logits[0],  # replaced by as many ratios
    }


def _box_head(read: _Reader, layout: _Layout, channels: int) -> dict[str, Any]:
    start = 1 if read.family == "detectron2" else 0
    convolutions = read.count(layout.box_convolution, start)
    layers = [layer for layer in layout.box_layers if read.has(layer)]
    if not layers:
        raise read.refuse("whose box head has no fully connected layer")
    first = read.kernel(layers[0], 2)
    for number in range(start, start + convolutions):
        filters = read.kernel(layout.box_convolution.format(number), 4)[0]
        if filters != channels:
            raise read.refuse(f"whose box head has convolutions of {filters} channels, and whose FPN has {channels}")
    side = math.isqrt(first[1] // channels)
    if side * side * channels != first[1] or side < 1:
        raise read.refuse(
            f"whose {layers[0]}.weight takes {first[1]} values, which are no square crop of {channels} channels"
        )
    normed = bool(convolutions) and read.normed(
        "roi_heads.box_head.0.1", "roi_heads.box_head.conv1.norm", "roi_head.bbox_head.shared_convs.0.bn",
        "roi_head.bbox_head.shared_convs.0.gn",
    )  # fmt: skip
    if convolutions and not normed:
        raise read.refuse("whose box head has convolutions without batch normalization")
    return {
        "model.box_head_channels": first[0],
        "model.box_pool_size": side,
        "model.box_head_convolutions": convolutions,
        "model.box_head_layers": len(layers),
    }


def _mask_head(read: _Reader, layout: _Layout, channels: int) -> dict[str, Any]:
    counts = {}
    for pattern in layout.mask_convolutions:
        start = 1 if pattern.endswith("fcn{}") else 0
        counts[pattern, start] = read.count(pattern, start)
    (pattern, start), count = max(counts.items(), key=lambda item: item[1])
    if count != 4:
        raise read.refuse(f"whose mask head has {count} convolutions, not 4")
    first = read.kernel(pattern.format(start), 4)
    if first[1] != channels:
        raise read.refuse(f"whose mask head takes {first[1]} channels of {channels}")
    read.kernel(layout.mask_transposed, 4)
    normed = read.normed(
        "roi_heads.mask_head.0.1", "roi_heads.mask_head.mask_fcn1.norm", "roi_head.mask_head.convs.0.bn",
        "roi_head.mask_head.convs.0.gn",
    )  # fmt: skip
    return {"model.mask_head_channels": first[0], "model.head_batch_norm": normed}


def _classes(read: _Reader, layout: _Layout) -> int:
    rows = read.kernel(layout.class_logits, 2)[0]
    boxes, masks = read.kernel(layout.box_deltas, 2)[0], read.kernel(layout.masks, 4)[0]
    each = rows - layout.background
    if each < 1 or rows < 2:
        raise read.refuse(f"with {rows} class scores, of which one is the background's")
    if each > 1 and (boxes == 4 or masks == 1):
        raise read.refuse(
            f"with {'boxes' if boxes == 4 else 'masks'} that are the same for all classes (class-agnostic)"
        )
    if boxes != 4 * each or masks != each:
        raise read.refuse(f"with {rows} class scores, {boxes} box deltas and {masks} masks, which do not fit together")
    return rows - 1


_PLAIN = {"fpn_batch_norm": False, "head_batch_norm": False, "box_head_convolutions": 0, "box_head_layers": 2}
_SECOND = {"fpn_batch_norm": True, "head_batch_norm": True, "box_head_convolutions": 4, "box_head_layers": 1}


def _require_variant(read: _Reader, settings: Mapping[str, Any], version: int) -> None:
    """Refuse mixtures: a model has plain heads, or, in torchvision, all of what its version 2 has."""
    expected = _SECOND if version == 2 else _PLAIN
    if version == 2 and read.family != "torchvision":
        raise read.refuse("with two convolutions in its RPN")
    for name, value in expected.items():
        found = settings[f"model.{name}"]
        if found != value:
            raise read.refuse(f"with other heads or another FPN (as a setting, {name} would be {found}, not {value})")
