"""Names of Detectron2's Mask R-CNNs with an FPN. Its input is BGR unless its configuration says otherwise."""

from maskrcnn.backbone import Block
from maskrcnn.checkpoints.families.mapping import (
    Row,
    Table,
    background_last,
    block_rows,
    no_background,
    swapped_deltas,
    swapped_deltas_without_background,
)
from maskrcnn.configuration.model import ModelConfig

_STEM = "backbone.bottom_up.stem.conv1"
_RPN = "proposal_generator.rpn_head."
_BOX, _MASK = "roi_heads.box_head.", "roi_heads.mask_head."
_PREDICTOR = "roi_heads.box_predictor."


def table(config: ModelConfig, bgr: bool = True) -> Table:
    """Return the layers for a configuration."""
    rows = [Row("conv1", (_STEM,), bgr=bgr), Row("bn_conv1", (f"{_STEM}.norm",)), *block_rows(config, _names)]
    for level in (2, 3, 4, 5):
        rows.append(Row(f"fpn_c{level}p{level}", (f"backbone.fpn_lateral{level}",)))
        rows.append(Row(f"fpn_p{level}", (f"backbone.fpn_output{level}",)))
    rows += [
        Row("rpn_conv_shared", (f"{_RPN}conv",)),
        Row("rpn_class_raw", (f"{_RPN}objectness_logits",)),
        Row("rpn_bbox_pred", (f"{_RPN}anchor_deltas",), swapped_deltas),
    ]
    rows += [Row(f"mrcnn_class_conv{i}", (f"{_BOX}fc{i}",), linear=True) for i in range(1, config.box_head_layers + 1)]
    rows += [
        Row("mrcnn_class_logits", (f"{_PREDICTOR}cls_score",), background_last, linear=True),
        Row("mrcnn_bbox_fc", (f"{_PREDICTOR}bbox_pred",), swapped_deltas_without_background, linear=True),
    ]
    rows += [Row(f"mrcnn_mask_conv{i}", (f"{_MASK}mask_fcn{i}",)) for i in (1, 2, 3, 4)]
    rows += [
        Row("mrcnn_mask_deconv", (f"{_MASK}deconv",)),
        Row("mrcnn_mask", (f"{_MASK}predictor",), no_background),
    ]
    return Table("Detectron2", tuple(rows))


def _names(block: Block, number: str) -> tuple[str, str]:
    name = number if number == "shortcut" else f"conv{number}"
    convolution = f"backbone.bottom_up.res{block.stage}.{block.place}.{name}"
    return convolution, f"{convolution}.norm"
