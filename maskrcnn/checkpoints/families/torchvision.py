"""Names of torchvision's Mask R-CNNs: `maskrcnn_resnet50_fpn`, its version 2, and others of `resnet_fpn_backbone`."""

from maskrcnn.checkpoints.families.mapping import Row, Table, block_rows, swapped_deltas
from maskrcnn.configuration.model import ModelConfig

_HEADS = "roi_heads."


def table(config: ModelConfig, bgr: bool = False) -> Table:
    """Return the layers for a configuration: new names, and the old ones of files from before normalized heads."""
    rows = [
        *resnet_rows(config, "backbone.body.", bgr),
        *_fpn_rows(config),
        *_rpn_rows(config),
        *_box_rows(config),
        *_mask_rows(config),
    ]
    return Table("torchvision", tuple(rows))


def resnet_rows(config: ModelConfig, prefix: str, bgr: bool) -> list[Row]:
    """Return the rows of a backbone with the names of torchvision's ResNets, which MMDetection uses too."""
    stem = [Row("conv1", (f"{prefix}conv1",), bgr=bgr), Row("bn_conv1", (f"{prefix}bn1",))]

    def names(stage: int, place: int, number: str) -> tuple[str, str]:
        block = f"{prefix}layer{stage - 1}.{place}."
        if number == "shortcut":
            return f"{block}downsample.0", f"{block}downsample.1"
        return f"{block}conv{number}", f"{block}bn{number}"

    return stem + block_rows(config, lambda block, number: names(block.stage, block.place, number))


def _fpn_rows(config: ModelConfig) -> list[Row]:
    rows = []
    for place, level in enumerate((2, 3, 4, 5)):
        for layer, kind in ((f"fpn_c{level}p{level}", "inner"), (f"fpn_p{level}", "layer")):
            name = f"backbone.fpn.{kind}_blocks.{place}"
            if config.fpn_batch_norm:
                rows += [Row(layer, (f"{name}.0",)), Row(f"{layer}_bn", (f"{name}.1",))]
            else:
                rows.append(Row(layer, (f"{name}.0", name)))
    return rows


def _rpn_rows(config: ModelConfig) -> list[Row]:
    rows = [Row("rpn_conv_shared", ("rpn.head.conv.0.0", "rpn.head.conv"))]
    rows += [Row(f"rpn_conv_shared{i + 1}", (f"rpn.head.conv.{i}.0",)) for i in range(1, config.rpn_convolutions)]
    return [
        *rows,
        Row("rpn_class_raw", ("rpn.head.cls_logits",)),
        Row("rpn_bbox_pred", ("rpn.head.bbox_pred",), swapped_deltas),
    ]


def _box_rows(config: ModelConfig) -> list[Row]:
    rows = []
    convolutions = config.box_head_convolutions
    for place in range(convolutions):
        rows.append(Row(f"mrcnn_box_conv{place + 1}", (f"{_HEADS}box_head.{place}.0",)))
        if config.head_batch_norm:
            rows.append(Row(f"mrcnn_box_bn{place + 1}", (f"{_HEADS}box_head.{place}.1",)))
    for place in range(config.box_head_layers):
        # A flattening comes between, and a ReLU follows each layer.
        name = f"{convolutions + 1 + 2 * place}" if convolutions else f"fc{6 + place}"
        rows.append(Row(f"mrcnn_class_conv{place + 1}", (f"{_HEADS}box_head.{name}",), linear=True))
    return [
        *rows,
        Row("mrcnn_class_logits", (f"{_HEADS}box_predictor.cls_score",), linear=True),
        Row("mrcnn_bbox_fc", (f"{_HEADS}box_predictor.bbox_pred",), swapped_deltas, linear=True),
    ]


def _mask_rows(config: ModelConfig) -> list[Row]:
    rows = []
    for place in range(4):
        names = f"{_HEADS}mask_head.{place}.0", f"{_HEADS}mask_head.mask_fcn{place + 1}"
        rows.append(Row(f"mrcnn_mask_conv{place + 1}", names))
        if config.head_batch_norm:
            rows.append(Row(f"mrcnn_mask_bn{place + 1}", (f"{_HEADS}mask_head.{place}.1",)))
    return [
        *rows,
        Row("mrcnn_mask_deconv", (f"{_HEADS}mask_predictor.conv5_mask",)),
        Row("mrcnn_mask", (f"{_HEADS}mask_predictor.mask_fcn_logits",)),
    ]
