"""The configuration of a model: frozen dataclasses, validated on construction, convertible to JSON and back.

It has six sections: the network (`ModelConfig`), proposals (`ProposalConfig`), detections (`DetectionConfig`), image
resizing (`ResizePolicy`) and samples (`PixelPolicy`), both shared with the runtime, and training (`TrainingConfig`).
`docs/configuration.md` maps each field of matterport's `Config` to its place here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from maskrcnn.configuration.dataclass_json import from_dict, parse_object, switch, to_dict
from maskrcnn.configuration.require import require, require_choice
from maskrcnn.configuration.training import TrainingConfig
from runtime.masks.edges import PasteMode
from runtime.pictures.letterbox import ResizePolicy
from runtime.pictures.pixels import PLAIN, PixelPolicy

BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "custom"]
BackbonePadding = Literal["same", "symmetric"]
BackboneShortcut = Literal["projection", "identity"]
Objectness = Literal["softmax", "sigmoid"]
Padding = Literal["black", "mean"]
RoiSampling = Literal["crop_and_resize", "roi_align"]
RoiPadding = Literal["edge", "zeros"]
RoiLevel = Literal["nearest", "floor"]
BoxFrame = Literal["inclusive", "continuous"]
AnchorStep = Literal["stride", "fitted"]
ClipArea = Literal["input", "window"]
Candidates = Literal["best_class", "every_class"]

MAX_IMAGE_CHANNELS = 6
# Transposed convolutions of the mask head; a network has the first, or both.
MASK_DECONVOLUTIONS = ("mrcnn_mask_deconv", "mrcnn_mask_deconv2")
STRIDES = (4, 8, 16, 32, 64)
# A size delta of 20 multiplies a side by 5e8. After clipping to the image, larger deltas would give the same box, and
# limiting them avoids NaN from inf - inf.
MAX_LOG_SIZE = 20.0


@dataclass(frozen=True)
class ModelConfig:
    """The network architecture: everything that the weights depend on.

    Attributes:
        class_names: Names by class id; 0 is the background.
        image_channels: 1 to 6.
        mean_pixel: One value per channel, 0 to 255, subtracted from the input.
        backbone: Built-in architecture, or "custom" for a Keras model passed to `MaskRCNN`.
        backbone_width: Filters of the stem; 64 is the published size.
        backbone_strides: Input pixels per cell on P2..P6. Informational: only the default is supported.
        fpn_channels: Channels of P2..P6.
        anchor_scales: Anchor side in input pixels, one per level P2..P6.
        anchor_ratios: Width / height of the anchors in each cell.
        anchor_stride: Distance between anchor centers, in cells.
        rpn_channels: Filters of the shared RPN convolution.
        rpn_box_std: Scale of the RPN's deltas (dy, dx, log dh, log dw).
        box_std: Scale of the box head's deltas.
        box_head_channels: Size of the box head's fully connected layers.
        mask_head_channels: Filters of the mask head.
        box_pool_size: Side of the box head's crop.
        mask_pool_size: Side of the mask head's crop.
        mask_head_deconvolutions: Number of transposed convolutions of the mask head, 1 or 2. Each doubles the side of
            the masks: 28 or 56 from crops of 14.
        roi_sampling: "crop_and_resize" (one sample per bin, corners aligned; required by matterport's weights) or
            "roi_align" (2 x 2 samples per bin, half-pixel centers; Mask R-CNN, section 3).
        pixel_std: One value per channel, in the units of `mean_pixel`, by which the difference is divided; empty: 1.
        padding: Value of the padding after normalization: "black" (minus the mean) or "mean" (zero).
        stride_in_1x1: Whether the stride of a bottleneck is in its first 1 x 1 convolution or in the 3 x 3.
        backbone_padding: Of strided 3 x 3 convolutions and of the pooling: "same" (TensorFlow's: right and bottom
            first) or "symmetric" (1 on all sides).
        backbone_shortcut: In a first block whose output has the shape of its input: "projection" or "identity".
        backbone_groups: Groups of the 3 x 3 convolution of a bottleneck; more than 1 for ResNeXt.
        backbone_group_width: Channels of one group in the first stage, for `backbone_width` 64.
        batch_norm_epsilon: Added to variances; may be 0.
        bias_before_batch_norm: Whether convolutions that batch normalization follows have a bias (the FPN's have none).
        head_batch_norm: Whether the box and mask heads have batch normalization.
        fpn_batch_norm: Whether batch normalization takes the place of the bias in the FPN's convolutions.
        rpn_convolutions: Number of 3 x 3 convolutions of the RPN.
        objectness: "softmax" (two logits per anchor: background, object) or "sigmoid" (one).
        box_head_convolutions: Number of 3 x 3 convolutions of the box head, each with `fpn_channels` filters. With
            them, `head_batch_norm` leaves the fully connected layers alone.
        box_head_layers: Number of fully connected layers of the box head.
        roi_padding: Of "roi_align": a sample outside a level reads its edge ("edge"), or zero from one cell outside
            on ("zeros", as in PyTorch).
        roi_aligned: Whether cell i of a level has its center at i + 0.5, or at i. If False, boxes are cropped as if
            their sides were at least one cell. Only with `roi_padding` "zeros".
        roi_sampling_ratio: Samples per bin and axis; 0: as many as the bin has cells, rounded up. Other than 2 only
            with `roi_padding` "zeros".
        roi_level: How 4 + log2(side / 224) becomes the level of a box: to the "nearest" or by "floor".
        box_frame: Frame of the boxes in the network: "inclusive" (normalized, see `boxes`) or "continuous" (input
            pixels, far sides exclusive).
        min_log_size: Smallest size delta; smaller ones count as this. None: no limit.
        max_log_size: Largest size delta.
        anchor_rounding: Whether half the sides of anchors are rounded to whole pixels, half to even.
        anchor_step: Pixels between anchors: the level's "stride", or "fitted" to the input (its side divided by the
            cells of the level, rounded down).
    """

    class_names: tuple[str, ...] = ("BG",)
    image_channels: int = 3
    mean_pixel: tuple[float, ...] = (123.7, 116.8, 103.9)
    backbone: BackboneName = "resnet101"
    backbone_width: int = 64
    backbone_strides: tuple[int, ...] = STRIDES
    fpn_channels: int = 256
    anchor_scales: tuple[float, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1, 2)
    anchor_stride: int = 1
    rpn_channels: int = 512
    rpn_box_std: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2)
    box_std: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2)
    box_head_channels: int = 1024
    mask_head_channels: int = 256
    box_pool_size: int = 7
    mask_pool_size: int = 14
    mask_head_deconvolutions: int = switch(1)
    roi_sampling: RoiSampling = "crop_and_resize"
    pixel_std: tuple[float, ...] = switch(())
    padding: Padding = switch("black")
    stride_in_1x1: bool = switch(True)
    backbone_padding: BackbonePadding = switch("same")
    backbone_shortcut: BackboneShortcut = switch("projection")
    backbone_groups: int = switch(1)
    backbone_group_width: int = switch(64)
    batch_norm_epsilon: float = switch(1e-3)
    bias_before_batch_norm: bool = switch(True)
    head_batch_norm: bool = switch(True)
    fpn_batch_norm: bool = switch(False)
    rpn_convolutions: int = switch(1)
    objectness: Objectness = switch("softmax")
    box_head_convolutions: int = switch(0)
    box_head_layers: int = switch(2)
    roi_padding: RoiPadding = switch("edge")
    roi_aligned: bool = switch(True)
    roi_sampling_ratio: int = switch(2)
    roi_level: RoiLevel = switch("nearest")
    box_frame: BoxFrame = switch("inclusive")
    min_log_size: float | None = switch(None)
    max_log_size: float = switch(MAX_LOG_SIZE)
    anchor_rounding: bool = switch(False)
    anchor_step: AnchorStep = switch("stride")

    def __post_init__(self) -> None:
        for name, choices in _MODEL_CHOICES.items():
            require_choice(name, getattr(self, name), choices)
        require(len(self.class_names) >= 1, "class_names is empty: expected at least the background, 'BG'")
        repeated = sorted({name for name in self.class_names if self.class_names.count(name) > 1})
        require(not repeated, f"class_names has {repeated[:1]} more than once: class names must be unique")
        require(
            1 <= self.image_channels <= MAX_IMAGE_CHANNELS,
            f"image_channels is {self.image_channels}: expected 1 to {MAX_IMAGE_CHANNELS}",
        )
        require(
            len(self.mean_pixel) == self.image_channels,
            f"mean_pixel has {len(self.mean_pixel)} values for {self.image_channels} image_channels: "
            "give one per channel",
        )
        require(
            len(self.pixel_std) in (0, self.image_channels),
            f"pixel_std has {len(self.pixel_std)} values for {self.image_channels} image_channels: "
            "give one per channel, or none",
        )
        strides = self.backbone_strides
        require(
            strides == STRIDES,
            f"backbone_strides is {strides}: only {STRIDES} is supported, also with a custom backbone",
        )
        require(
            len(self.anchor_scales) == len(strides),
            f"anchor_scales has {len(self.anchor_scales)} values: expected {len(strides)}, one per level",
        )
        require(len(self.anchor_ratios) >= 1, "anchor_ratios is empty: expected at least one")
        self._check_sampling()
        limits = self.min_log_size, self.max_log_size
        require(
            0 < self.max_log_size <= MAX_LOG_SIZE and (self.min_log_size is None or self.min_log_size < 0),
            f"min_log_size and max_log_size are {limits}: expected a negative number or none, and a positive one of at "
            f"most {MAX_LOG_SIZE:g}",
        )
        for name in ("rpn_box_std", "box_std"):
            require(len(getattr(self, name)) == 4, f"{name} needs 4 values (dy, dx, log dh, log dw)")
        for name in _POSITIVE_MODEL_FIELDS:
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                require(value > 0, f"{name} is {values}: expected positive numbers")
        require(
            0 <= self.batch_norm_epsilon < 1,
            f"batch_norm_epsilon is {self.batch_norm_epsilon}: expected a number from 0 to below 1",
        )
        require(
            self.box_head_convolutions >= 0,
            f"box_head_convolutions is {self.box_head_convolutions}: expected 0 or more",
        )
        require(
            self.mask_head_deconvolutions in (1, 2),
            f"mask_head_deconvolutions is {self.mask_head_deconvolutions}: expected 1 or 2",
        )
        self._check_groups()

    def _check_groups(self) -> None:
        if self.backbone in ("resnet18", "resnet34"):
            require(
                (self.backbone_groups, self.backbone_group_width) == (1, 64),
                f"backbone_groups is {self.backbone_groups} and backbone_group_width {self.backbone_group_width}: "
                f"{self.backbone} has no bottlenecks, so expected 1 and 64",
            )
        width = self.backbone_width * self.backbone_group_width
        require(
            width % 64 == 0,
            f"backbone_width {self.backbone_width} times backbone_group_width {self.backbone_group_width} is {width}: "
            "expected a multiple of 64",
        )

    def _check_sampling(self) -> None:
        require(
            self.roi_sampling_ratio >= 0,
            f"roi_sampling_ratio is {self.roi_sampling_ratio}: expected the samples per bin and axis, or 0 for as many "
            "as a bin has cells",
        )
        if self.roi_padding == "zeros":
            require(
                self.roi_sampling == "roi_align",
                f"roi_padding is 'zeros' and roi_sampling {self.roi_sampling!r}: only 'roi_align' has zeros outside",
            )
            return
        require(
            self.roi_aligned and self.roi_sampling_ratio == 2,
            f"roi_aligned is {self.roi_aligned} and roi_sampling_ratio {self.roi_sampling_ratio}: other than True and "
            "2, they need roi_sampling 'roi_align' with roi_padding 'zeros'",
        )

    @property
    def num_classes(self) -> int:
        """Number of classes, including the background."""
        return len(self.class_names)

    @property
    def objectness_logits(self) -> int:
        """Number of the RPN's logits for each anchor."""
        return 2 if self.objectness == "softmax" else 1

    @property
    def log_sizes(self) -> tuple[float | None, float]:
        """`min_log_size` and `max_log_size`."""
        return self.min_log_size, self.max_log_size

    @property
    def mask_size(self) -> int:
        """Side of the predicted masks: each transposed convolution doubles that of the crops."""
        return self.mask_pool_size * 2**self.mask_head_deconvolutions


_POSITIVE_MODEL_FIELDS = (
    "backbone_width",
    "fpn_channels",
    "anchor_scales",
    "anchor_ratios",
    "anchor_stride",
    "rpn_channels",
    "rpn_box_std",
    "box_std",
    "box_head_channels",
    "mask_head_channels",
    "box_pool_size",
    "mask_pool_size",
    "pixel_std",
    "backbone_groups",
    "backbone_group_width",
    "rpn_convolutions",
    "box_head_layers",
)
_MODEL_CHOICES = {
    "backbone": BackboneName,
    "roi_sampling": RoiSampling,
    "padding": Padding,
    "backbone_padding": BackbonePadding,
    "backbone_shortcut": BackboneShortcut,
    "objectness": Objectness,
    "roi_padding": RoiPadding,
    "roi_level": RoiLevel,
    "box_frame": BoxFrame,
    "anchor_step": AnchorStep,
}


@dataclass(frozen=True)
class ProposalConfig:
    """Which anchors become proposals.

    Attributes:
        pre_nms_limit: Best anchors kept before non-maximum suppression, over all levels together.
        post_nms_training: Proposals per image in training.
        post_nms_inference: Proposals per image in inference.
        nms_threshold: An anchor is dropped if its IoU with a better one exceeds this.
        pre_nms_training: `pre_nms_limit` of training; None: the same.
        per_level: Whether the limit before suppression holds, and boxes suppress each other, within each pyramid level
            or over all levels together.
        min_side: Boxes with a shorter side, in input pixels, or without area are left out before suppression; None:
            none are. Needs `model.box_frame` "continuous".
        clip: Area to which boxes are clipped: the whole "input", or the "window" of the image in it.
    """

    pre_nms_limit: int = 6000
    post_nms_training: int = 2000
    post_nms_inference: int = 1000
    nms_threshold: float = 0.7
    pre_nms_training: int | None = switch(None)
    per_level: bool = switch(False)
    min_side: float | None = switch(None)
    clip: ClipArea = switch("input")

    def __post_init__(self) -> None:
        for name in ("pre_nms_limit", "pre_nms_training", "post_nms_training", "post_nms_inference"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} is {value}: expected at least 1")
        require(0 <= self.nms_threshold <= 1, f"nms_threshold is {self.nms_threshold}: expected 0 to 1")
        require_choice("clip", self.clip, ClipArea)
        _check_min_side(self.min_side)


def _check_min_side(value: float | None) -> None:
    require(value is None or value >= 0, f"min_side is {value}: expected a number of pixels, 0 or more, or none")


# Average precision ranks all predictions of a dataset, including those that a user would not want to see: each one that
# is left out ends the precision-recall curve earlier. Below this score, almost none is correct.
EVALUATION_SCORE_THRESHOLD = 0.05


@dataclass(frozen=True)
class DetectionConfig:
    """Which proposals become detections.

    Attributes:
        max_detections: Rows of every output tensor.
        min_score: Lowest score kept (>=); 0 keeps everything except background. With "every_class", scores must be
            above it, as in other packages. Default of an artifact's `score_threshold`.
        nms_threshold: Largest IoU that two detections of one class may have. Default of an artifact's
            `nms_threshold`.
        drop_empty_boxes: Drop boxes without area before the best are chosen. The original keeps them, and they can
            use up rows.
        mask_paste: How mask probabilities become pixels; see `runtime.masks.paste`.
        candidates: Whether a proposal can become a detection of its "best_class", if that is not the background, or of
            "every_class" whose score is high enough, with one box for each.
        min_side: As in `ProposalConfig`, after clipping.
    """

    max_detections: int = 100
    min_score: float = 0.7
    nms_threshold: float = 0.3
    drop_empty_boxes: bool = False
    mask_paste: PasteMode = "matterport"
    candidates: Candidates = switch("best_class")
    min_side: float | None = switch(None)

    def __post_init__(self) -> None:
        require_choice("mask_paste", self.mask_paste, PasteMode)
        require_choice("candidates", self.candidates, Candidates)
        _check_min_side(self.min_side)
        require(self.max_detections >= 1, f"max_detections is {self.max_detections}: expected at least 1")
        for name in ("min_score", "nms_threshold"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"detection {name} is {value}: expected 0 to 1")


@dataclass(frozen=True)
class Config:
    """A complete model configuration: network, proposals, detections, image size and training."""

    name: str = "maskrcnn"
    model: ModelConfig = field(default_factory=ModelConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    resize: ResizePolicy = field(default_factory=lambda: ResizePolicy("square", 800, 1024, 0))
    training: TrainingConfig = field(default_factory=TrainingConfig)
    pixels: PixelPolicy = PLAIN

    def __post_init__(self) -> None:
        bands, channels = self.pixels.bands, self.model.image_channels
        require(
            bands is None or len(bands) == channels,
            f"bands is {bands}; expected {channels}, as many as model.image_channels: for another number, set that and "
            "as many values of model.mean_pixel",
        )
        for section, side in (("proposals", self.proposals.min_side), ("detection", self.detection.min_side)):
            require(
                side is None or self.model.box_frame == "continuous",
                f"{section}.min_side is {side}: sides are in pixels only where model.box_frame is 'continuous'",
            )
        require(
            self.resize.mode != "crop",
            "resize mode 'crop' discards most of an image: set it in training.resize, and use 'pad64' here",
        )
        for policy in (self.resize, self.training.resize):
            if policy is None or policy.mode not in ("square", "crop"):
                continue
            side = policy.max_dim if policy.mode == "square" else policy.min_dim
            require(
                side is not None and side % policy.size_multiple == 0,
                f"resize to {side} pixels (mode {policy.mode!r}): expected a multiple of {policy.size_multiple}",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_dict` rebuilds an equal configuration from them.

        Settings for models of other frameworks are left out where they have their defaults.
        """
        return to_dict(self, complete=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration from the values of `to_dict`; missing fields keep their defaults.

        Raises:
            ConfigError: A field is unknown, has the wrong type, or is out of range.
        """
        return from_dict(cls, values, "config")

    def to_json(self) -> str:
        """Return indented JSON text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the text of `to_json`.

        Raises:
            ConfigError: The text is not a JSON object, or as in `from_dict`.
        """
        return cls.from_dict(parse_object(text, "the configuration"))
