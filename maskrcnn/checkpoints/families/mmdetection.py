"""Names of MMDetection's Mask R-CNNs with an FPN. Models of style "caffe" see BGR (`bgr`), others RGB."""

from maskrcnn.checkpoints.families.mapping import (
    Row,
    Table,
    background_last,
    no_background,
    swapped_deltas,
    swapped_deltas_without_background,
)
from maskrcnn.checkpoints.families.torchvision import resnet_rows
from maskrcnn.configuration.model import ModelConfig

_BOX, _MASK = "roi_head.bbox_head.", "roi_head.mask_head."


def table(config: ModelConfig, bgr: bool = False) -> Table:
    """Return the layers for a configuration."""
    rows = resnet_rows(config, "backbone.", bgr)
    for place, level in enumerate((2, 3, 4, 5)):
        rows.append(Row(f"fpn_c{level}p{level}", (f"neck.lateral_convs.{place}.conv",)))
        rows.append(Row(f"fpn_p{level}", (f"neck.fpn_convs.{place}.conv",)))
    rows += [
        Row("rpn_conv_shared", ("rpn_head.rpn_conv",)),
        Row("rpn_class_raw", ("rpn_head.rpn_cls",)),
        Row("rpn_bbox_pred", ("rpn_head.rpn_reg",), swapped_deltas),
    ]
    rows += [
        Row(f"mrcnn_class_conv{i + 1}", (f"{_BOX}shared_fcs.{i}",), linear=True) for i in range(config.box_head_layers)
    ]
    rows += [
        Row("mrcnn_class_logits", (f"{_BOX}fc_cls",), background_last, linear=True),
        Row("mrcnn_bbox_fc", (f"{_BOX}fc_reg",), swapped_deltas_without_background, linear=True),
    ]
    rows += [Row(f"mrcnn_mask_conv{i + 1}", (f"{_MASK}convs.{i}.conv",)) for i in range(4)]
    rows += [
        Row("mrcnn_mask_deconv", (f"{_MASK}upsample",)),
        Row("mrcnn_mask", (f"{_MASK}conv_logits",), no_background),
    ]
    return Table("MMDetection", tuple(rows))
