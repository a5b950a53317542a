"""Training configuration: batches, targets, losses, optimizer, schedule and augmentation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from maskrcnn.configuration.dataclass_json import expected_name, switch
from maskrcnn.configuration.require import require, require_choice
from runtime.pictures.letterbox import ResizePolicy

Optimizer = Literal["sgd", "adam", "adamw"]
WeightDecayMode = Literal["l2_mean", "decoupled"]
Schedule = Literal["constant", "step", "cosine"]
BoxLossAverage = Literal["positive", "sampled"]
Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]

LOSS_NAMES = ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of training images and their masks. By default nothing changes.

    Attributes:
        flip_horizontal: Probability of a left-right flip.
        flip_vertical: Probability of a top-bottom flip.
        rotate_90: Probability of a rotation by 90, 180 or 270 degrees, all equally likely.
        scale: Range (low, high) of the scale factor, drawn log-uniformly. Above 1, a window of the image fills the
            input; below 1, the image is placed on a larger canvas of its mean color.
        brightness: Largest relative change of all values; 0.2 multiplies by 0.8 to 1.2.
        contrast: Largest relative change of the distance to the image's mean color.
        saturation: Largest relative change of the distance to gray.
        blur: Largest standard deviation of a Gaussian blur, in image pixels.
        noise: Largest standard deviation of Gaussian noise, in gray levels (0 to 255).
    """

    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    rotate_90: float = 0.0
    scale: tuple[float, ...] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip_horizontal", "flip_vertical", "rotate_90"):
            require(0 <= getattr(self, name) <= 1, f"augmentation {name} is {getattr(self, name)}: expected 0 to 1")
        for name in ("brightness", "contrast", "saturation"):
            require(0 <= getattr(self, name) < 1, f"augmentation {name} is {getattr(self, name)}: expected 0 to 1")
        for name in ("blur", "noise"):
            require(getattr(self, name) >= 0, f"augmentation {name} is {getattr(self, name)}: expected at least 0")
        require(
            len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1],
            f"augmentation scale is {self.scale}: expected (low, high), positive",
        )


@dataclass(frozen=True)
class StageConfig:
    """A training phase, in which one set of layers is trained.

    Attributes:
        layers: "heads", "3+", "4+", "5+", "all", or a regular expression that layer names must match.
        epochs: Length of this phase (not a running total).
        learning_rate: None uses `TrainingConfig.learning_rate`.
    """

    layers: str = "all"
    epochs: int = 1
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"stage epochs is {self.epochs}: expected at least 1")
        require(
            self.learning_rate is None or self.learning_rate > 0,
            f"stage learning_rate is {self.learning_rate}: expected a positive number, or null",
        )


@dataclass(frozen=True)
class TrainingConfig:
    """Settings that only training uses.

    Attributes:
        batch_size: Images per step and device.
        steps_per_epoch: Training steps per epoch.
        validation_steps: Validation steps per epoch; 0 disables validation.
        learning_rate: Learning rate after warm-up.
        momentum: Momentum of "sgd".
        weight_decay: L2 factor; see `weight_decay_mode`.
        gradient_clip_norm: Upper bound of the global gradient norm.
        loss_weights: Factors of the five losses, in the order of `LOSS_NAMES`.
        class_weights: Weights of the rows of a class in the class loss, by its name; "BG" is the background. Others
            weigh 1. The loss is the weighted mean.
        repeat_threshold: Balanced sampling: images with a class that fewer than this share of the images have, 0 to 1,
            are used more often, by the repeat factor of LVIS, sqrt(threshold / share). 0: all equally often.
        anchors_per_image: Anchors that enter the RPN's losses.
        rois_per_image: Proposals that enter the heads' losses.
        roi_positive_ratio: Share of those proposals that match an object.
        max_instances: Objects used per image.
        truth_as_proposals: Whether the objects' own boxes are added to the proposals that are matched to them.
        smooth_l1_beta: Where the two box losses change from quadratic to linear, in units of scaled deltas; 0 is L1.
        box_loss_average: The box losses are divided by the number of values of "positive" rows, or by the number of
            all "sampled" rows, so that images with few objects weigh less.
        mini_mask_size: (height, width) of stored instance masks; None stores full-size masks.
        use_rpn_proposals: False trains the heads on random boxes around the objects, so that they do not depend on the
            RPN; see `maskrcnn.data.random_proposals`.
        train_batch_norm: None trains with batch statistics, False keeps the moving statistics, True uses batch
            statistics even in inference.
        resize: How training images are resized; None uses `Config.resize`. Only here may the mode be "crop".
        original_bugs: Reproduce known bugs of the original: padding rows count in the class loss, images without
            objects give no background rows, the active classes of the first image apply to the whole batch, and
            boxes without area are targets.
        optimizer: "sgd" (with momentum), "adam" or "adamw".
        weight_decay_mode: "l2_mean" adds factor * sum(w^2) / size(w) of every kernel and bias to the loss, as the
            original does; "decoupled" subtracts learning rate * factor * kernel in each step (arXiv 1711.05101).
        schedule: "constant", "step" (see `schedule_steps`), or "cosine", which decays to 0 at the end of the training
            phase (arXiv 1608.03983).
        schedule_steps: Fractions of the training phase, 0 to 1; "step" divides the learning rate by ten at each.
        warmup_steps: Steps of linear growth from a thousandth of the learning rate; in a training phase that is not
            longer, a tenth of the phase.
        gradient_accumulation: Steps whose gradients are averaged before the weights change.
        ema_momentum: Momentum of the moving average of all weights, which is saved and evaluated in place of the
            weights; None disables it.
        precision: Precision of the computation; weights, losses and targets stay float32.
        stages: The training phases.
        seed: Seeds the image order, augmentation, sampling, and new weights.
        augmentation: Random changes of the training images.
    """

    batch_size: int = 2
    steps_per_epoch: int = 1000
    validation_steps: int = 50
    learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.0001
    gradient_clip_norm: float = 5.0
    loss_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    class_weights: Mapping[str, float] = switch({})
    repeat_threshold: float = switch(0.0)
    anchors_per_image: int = 256
    rois_per_image: int = 200
    roi_positive_ratio: float = 0.33
    max_instances: int = 100
    truth_as_proposals: bool = switch(False)
    smooth_l1_beta: float = switch(1.0)
    box_loss_average: BoxLossAverage = switch("positive")
    mini_mask_size: tuple[int, ...] | None = (56, 56)
    use_rpn_proposals: bool = True
    train_batch_norm: bool | None = False
    resize: ResizePolicy | None = None
    original_bugs: bool = False
    optimizer: Optimizer = "sgd"
    weight_decay_mode: WeightDecayMode = "l2_mean"
    schedule: Schedule = "constant"
    schedule_steps: tuple[float, ...] = ()
    warmup_steps: int = 0
    gradient_accumulation: int = 1
    ema_momentum: float | None = None
    precision: Precision = "float32"
    stages: tuple[StageConfig, ...] = (StageConfig(),)
    seed: int = 0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        counts = ("batch_size", "steps_per_epoch", "anchors_per_image", "rois_per_image", "max_instances")
        for name in (*counts, "gradient_accumulation"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}: expected at least 1")
        for name in ("learning_rate", "gradient_clip_norm"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: expected a positive number")
        for name in ("validation_steps", "weight_decay", "warmup_steps", "seed", "smooth_l1_beta"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: expected at least 0")
        require(
            len(self.loss_weights) == len(LOSS_NAMES),
            f"loss_weights has {len(self.loss_weights)} values: expected {len(LOSS_NAMES)}, "
            f"for {', '.join(LOSS_NAMES)}",
        )
        require(
            self.mini_mask_size is None or (len(self.mini_mask_size) == 2 and min(self.mini_mask_size) > 0),
            f"mini_mask_size is {self.mini_mask_size}: expected (height, width), positive, or null",
        )
        for name, choices in _CHOICES.items():
            require_choice(name, getattr(self, name), choices)
        for name, weight in self.class_weights.items():
            require(0 <= weight < math.inf, f"class_weights[{name!r}] is {weight}: expected a number, 0 or more")
        require(0 <= self.repeat_threshold <= 1, f"repeat_threshold is {self.repeat_threshold}: expected 0 to 1")
        require(0 < self.roi_positive_ratio <= 1, f"roi_positive_ratio is {self.roi_positive_ratio}: expected 0 to 1")
        require(0 <= self.momentum < 1, f"momentum is {self.momentum}: expected 0 to 1")
        require(
            self.ema_momentum is None or 0 < self.ema_momentum < 1,
            f"ema_momentum is {self.ema_momentum}: expected 0 to 1, or null",
        )
        require(
            list(self.schedule_steps) == sorted(self.schedule_steps) and all(0 < s < 1 for s in self.schedule_steps),
            f"schedule_steps is {self.schedule_steps}: expected increasing fractions between 0 and 1",
        )
        require(len(self.stages) >= 1, "stages is empty: expected at least one")

    def weights_of(self, class_names: Sequence[str]) -> tuple[float, ...] | None:
        """Return the weight of each class in the class loss; None if `class_weights` is empty.

        Raises:
            ConfigError: `class_weights` names a class that is not among `class_names`, or all weights are 0.
        """
        if not self.class_weights:
            return None
        for name in self.class_weights:
            require(
                name in class_names,
                f"training.class_weights has the class {name!r}, which the data does not have: "
                f"{expected_name(name, class_names)}",
            )
        weights = tuple(self.class_weights.get(name, 1.0) for name in class_names)
        require(max(weights) > 0, "training.class_weights are 0 for all classes: expected one above 0")
        return weights


_CHOICES = {
    "optimizer": Optimizer,
    "box_loss_average": BoxLossAverage,
    "weight_decay_mode": WeightDecayMode,
    "schedule": Schedule,
    "precision": Precision,
}
