"""A configuration of MMDetection, already read: what it says about a Mask R-CNN, in our settings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from maskrcnn.checkpoints.families.config_values import FamilyConfig, Values, in_our_order, inverses
from maskrcnn.checkpoints.families.recognize import SUPPORTED, Recognized
from maskrcnn.errors import ConfigError

_TEST, _TRAIN = ("model.test_cfg", "test_cfg"), ("model.train_cfg", "train_cfg")
# Where version 3, and then version 2, has a value that is a setting itself.
_NUMBERS: dict[str, tuple[str, ...]] = {
    "proposals.pre_nms_limit": tuple(f"{part}.rpn.nms_pre" for part in _TEST),
    "proposals.post_nms_inference": tuple(
        f"{part}.rpn.{name}" for part in _TEST for name in ("max_per_img", "max_num")
    ),
    "proposals.nms_threshold": tuple(
        f"{part}.rpn.{name}" for part in _TEST for name in ("nms.iou_threshold", "nms_thr")
    ),
    "proposals.min_side": tuple(f"{part}.rpn.min_bbox_size" for part in _TEST),
    "proposals.pre_nms_training": tuple(f"{part}.rpn_proposal.nms_pre" for part in _TRAIN),
    "proposals.post_nms_training": tuple(
        f"{part}.rpn_proposal.{name}" for part in _TRAIN for name in ("max_per_img", "max_num")
    ),
    "model.batch_norm_epsilon": ("model.backbone.norm_cfg.eps",),
    "detection.min_score": tuple(f"{part}.rcnn.score_thr" for part in _TEST),
    "detection.nms_threshold": tuple(
        f"{part}.rcnn.nms.{name}" for part in _TEST for name in ("iou_threshold", "iou_thr")
    ),
    "detection.max_detections": tuple(f"{part}.rcnn.max_per_img" for part in _TEST),
    "training.anchors_per_image": tuple(f"{part}.rpn.sampler.num" for part in _TRAIN),
    "training.rois_per_image": tuple(f"{part}.rcnn.sampler.num" for part in _TRAIN),
    "training.roi_positive_ratio": tuple(f"{part}.rcnn.sampler.pos_fraction" for part in _TRAIN),
}
_EXPECTED: dict[str, tuple[Any, ...]] = {
    "model.type": ("MaskRCNN",),
    "model.backbone.type": ("ResNet", "ResNeXt"),
    "model.backbone.style": ("pytorch", "caffe"),
    "model.backbone.norm_cfg.type": ("BN", "SyncBN", "MMSyncBN"),
    "model.backbone.deep_stem": (False,),
    "model.backbone.avg_down": (False,),
    "model.backbone.strides": ((1, 2, 2, 2),),
    "model.backbone.dilations": ((1, 1, 1, 1),),
    "model.backbone.out_indices": ((0, 1, 2, 3),),
    "model.neck.type": ("FPN",),
    "model.neck.num_outs": (5,),
    "model.neck.start_level": (0,),
    "model.neck.end_level": (-1, 3),
    "model.neck.add_extra_convs": (False,),
    "model.neck.upsample_cfg": ({"mode": "nearest"},),
    "model.rpn_head.type": ("RPNHead",),
    "model.rpn_head.num_convs": (1,),
    "model.rpn_head.anchor_generator.type": ("AnchorGenerator",),
    "model.rpn_head.anchor_generator.center_offset": (0,),
    "model.rpn_head.anchor_generator.base_sizes": ((4, 8, 16, 32, 64),),
    "model.rpn_head.anchor_generator.octave_base_scale": (8,),
    "model.rpn_head.anchor_generator.scales_per_octave": (1,),
    "model.rpn_head.bbox_coder.type": ("DeltaXYWHBBoxCoder",),
    "model.rpn_head.bbox_coder.target_means": ((0, 0, 0, 0),),
    "model.rpn_head.bbox_coder.add_ctr_clamp": (False,),
    "model.rpn_head.bbox_coder.clip_border": (True,),
    "model.rpn_head.loss_cls.use_sigmoid": (True,),
    "model.roi_head.type": ("StandardRoIHead",),
    "model.roi_head.bbox_head.type": ("Shared2FCBBoxHead",),
    "model.roi_head.bbox_head.bbox_coder.type": ("DeltaXYWHBBoxCoder",),
    "model.roi_head.bbox_head.bbox_coder.target_means": ((0, 0, 0, 0),),
    "model.roi_head.bbox_head.bbox_coder.add_ctr_clamp": (False,),
    "model.roi_head.bbox_head.bbox_coder.clip_border": (True,),
    "model.roi_head.bbox_head.loss_cls.use_sigmoid": (False,),
    "model.roi_head.bbox_head.cls_predictor_cfg.type": ("Linear",),
    "model.roi_head.bbox_head.reg_predictor_cfg.type": ("Linear",),
    "model.roi_head.mask_head.type": ("FCNMaskHead",),
    "model.roi_head.mask_head.upsample_cfg": ({"type": "deconv", "scale_factor": 2},),
    "model.roi_head.mask_head.predictor_cfg.type": ("Conv", "Conv2d"),
} | {
    f"model.{part}.conv_cfg": ({"type": "Conv2d"}, {"type": "Conv"})
    for part in ("backbone", "neck", "rpn_head", "roi_head.bbox_head", "roi_head.mask_head")
}
_NOTHING = (
    "model.backbone.dcn",
    "model.backbone.plugins",
    "model.neck.norm_cfg",
    "model.neck.act_cfg",
    "model.roi_head.shared_head",
    "model.roi_head.mask_head.norm_cfg",
)
_EXTRACTORS = {
    "type": ("SingleRoIExtractor",),
    "finest_scale": (56,),
    "featmap_strides": ((4, 8, 16, 32),),
    "roi_layer.type": ("RoIAlign",),
    "roi_layer.pool_mode": ("avg",),
}
_PLAIN_COCO = "CocoDataset"
# The steps that pipelines for inference may have, with what they do by default, by the version of MMDetection.
_LOAD: dict[str, dict[str, Any]] = {
    name: {} for name in ("LoadImageFromFile", "LoadImageFromNDArray", "LoadImageFromWebcam")
}
_STEPS: dict[int, dict[str, dict[str, Any]]] = {
    3: _LOAD | {"LoadAnnotations": {}, "Resize": {"keep_ratio": False}, "PackDetInputs": {}},
    2: _LOAD
    | {name: {} for name in ("LoadAnnotations", "MultiScaleFlipAug", "Resize", "RandomFlip", "Normalize")}
    | {"Pad": {"size_divisor": "nothing"}, "ImageToTensor": {}, "DefaultFormatBundle": {}, "Collect": {}},
}
# Those that change the image, in their order, between loading and formatting; others may be anywhere.
_CHANGES: dict[int, dict[str, str]] = {
    3: {"Resize": "resizes"},
    2: {"Resize": "resizes", "Normalize": "normalizes", "Pad": "pads"},
}
_FORMAT = ("PackDetInputs", "ImageToTensor", "DefaultFormatBundle", "Collect")
_PREPROCESSOR = {"pad_size_divisor": 1}


def mmdetection_settings(values: Mapping[str, Any], source: str, found: Recognized) -> FamilyConfig:
    """Return what a configuration of MMDetection 2 or 3 says.

    Args:
        values: The nested values of the file.
        source: Name of the file, for messages.
        found: The network of the weights, which the configuration must fit.

    Raises:
        ConfigError: It is for a network that is not supported, for other weights, or does not say how images are
            normalized and resized.
    """
    given = Values(values, source)
    if given.get("model.type") is None:
        raise ConfigError(f"{source} is no configuration of MMDetection: it has no model")
    _refuse_version_1(given)
    for name, allowed in _EXPECTED.items():
        given.expect(name, *allowed)
    for name in _NOTHING:
        given.expect_nothing(name)
    for part in _TEST:
        given.expect(f"{part}.rcnn.mask_thr_binary", 0.5)
        for stage in ("rpn", "rcnn"):
            given.expect(f"{part}.{stage}.nms.type", "nms")
            given.expect(f"{part}.{stage}.nms.class_agnostic", False)
        given.expect(f"{part}.rpn.nms_across_levels", False)
    _require_fit(given, found)
    settings: dict[str, Any] = {ours: given.number(*names) for ours, names in _NUMBERS.items()}
    settings["model.stride_in_1x1"] = given.get("model.backbone.style") == "caffe"  # the default is "pytorch"
    if given.get("model.roi_head.bbox_head.loss_bbox.type") == "SmoothL1Loss":
        beta = given.number("model.roi_head.bbox_head.loss_bbox.beta")
        settings["training.smooth_l1_beta"] = 1.0 if beta is None else beta
    settings |= _roi_align(given) | _anchors(given)
    images = _images(given)
    bgr = images.pop("bgr")
    settings |= images
    classes = ("metainfo.classes", "metainfo.CLASSES", "classes", "data.train.classes")
    named = given.get(*classes)
    return FamilyConfig(
        {name: value for name, value in settings.items() if value is not None},
        bgr,
        () if isinstance(named, str) else given.texts(*classes),
        named if isinstance(named, str) else "",
        coco=given.get("dataset_type", "data.train.type", "train_dataloader.dataset.type") == _PLAIN_COCO,
    )


def _refuse_version_1(given: Values) -> None:
    legacy = {
        "model.rpn_head.anchor_generator.type": "LegacyAnchorGenerator",
        "model.rpn_head.bbox_coder.type": "LegacyDeltaXYWHBBoxCoder",
        "model.roi_head.bbox_head.bbox_coder.type": "LegacyDeltaXYWHBBoxCoder",
    }
    for name, kind in legacy.items():
        if given.get(name) == kind:
            given.refuse(name, "the anchors and boxes of MMDetection 1")


def _require_fit(given: Values, found: Recognized) -> None:
    sizes = found.settings
    given.fits("model.backbone.depth", int(sizes["model.backbone"].removeprefix("resnet")), "a depth of")
    groups = sizes["model.backbone_groups"]
    given.fits("model.backbone.groups", groups, "groups:")
    given.fits("model.roi_head.bbox_head.num_classes", found.classes, "classes:")
    given.fits("model.neck.out_channels", sizes["model.fpn_channels"], "channels:")


def _roi_align(given: Values) -> dict[str, Any]:
    layers = []
    for head in ("bbox", "mask"):
        place = f"model.roi_head.{head}_roi_extractor"
        for name, allowed in _EXTRACTORS.items():
            given.expect(f"{place}.{name}", *allowed)
        aligned = given.get(f"{place}.roi_layer.aligned")
        ratio = given.number(f"{place}.roi_layer.sampling_ratio", f"{place}.roi_layer.sample_num")
        layers.append((True if aligned is None else aligned, ratio or 0))
    if layers[0] != layers[1]:
        given.refuse("model.roi_head.mask_roi_extractor.roi_layer", "expected that of the box head")
    return {
        "model.roi_aligned": layers[0][0],
        "model.roi_sampling_ratio": layers[0][1],
        "model.mask_pool_size": given.number("model.roi_head.mask_roi_extractor.roi_layer.output_size"),
    }


def _anchors(given: Values) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    place = "model.rpn_head.anchor_generator"
    given.expect(f"{place}.strides", (4, 8, 16, 32, 64))
    scales, ratios = given.numbers(f"{place}.scales"), given.numbers(f"{place}.ratios")
    if scales is not None:
        if len(scales) != 1:
            given.refuse(f"{place}.scales", "expected one")
        settings["model.anchor_scales"] = tuple(scales[0] * stride for stride in (4, 8, 16, 32, 64))
    if ratios is not None:
        settings["model.anchor_ratios"] = inverses(ratios, f"{given.source}: {place}.ratios")
    for part, ours in (("rpn_head", "model.rpn_box_std"), ("roi_head.bbox_head", "model.box_std")):
        name = f"model.{part}.bbox_coder.target_stds"
        deviations = given.numbers(name)
        if deviations is not None:
            if len(deviations) != 4:
                given.refuse(name, "expected 4 numbers")
            settings[ours] = in_our_order(deviations)
    return settings


def _images(given: Values) -> dict[str, Any]:
    """Return how images are normalized and resized, with "bgr": whether the network takes blue first."""
    preprocessor = given.get("model.data_preprocessor", "data_preprocessor")
    pipelines = {place: list(_steps(pipeline)) for place, pipeline in _pipelines(given)}
    if not pipelines:
        raise ConfigError(
            f"{given.source} does not say how images are resized: expected a pipeline in test_pipeline, "
            "test_dataloader.dataset or data.test: give a complete configuration with --config FILE.py"
        )
    packed = any(kind == "PackDetInputs" for steps in pipelines.values() for kind, *_ in steps)
    version = 2 if preprocessor is None and not packed else 3
    read = {place: _pipeline(f"{given.source}: {place}", steps, version) for place, steps in pipelines.items()}
    if any(steps != next(iter(read.values())) for steps in read.values()):
        raise ConfigError(
            f"{given.source}: {' and '.join(read)} differ: expected the same, or only that with which the model is "
            "tested"
        )
    normalize, resize = next(iter(read.values()))
    place = normalize if version == 2 else preprocessor
    if not isinstance(place, Mapping) or place.get("mean") is None or place.get("std") is None:
        needed = "a step Normalize" if version == 2 else "a data_preprocessor"
        raise ConfigError(f"{given.source} does not say how images are normalized: expected {needed} with mean and std")
    part = Values(place, f"{given.source}: normalization", _PREPROCESSOR if version == 3 else {"to_rgb": True})
    if version == 3:
        part.expect("type", "DetDataPreprocessor")
        part.expect("pad_size_divisor", 32)
        part.expect("pad_value", 0)
    mean, deviation = part.numbers("mean") or (), part.numbers("std") or ()
    # Images are read with blue first, and either of the two of version 3 exchanges the channels.
    names = ("to_rgb",) if version == 2 else ("bgr_to_rgb", "rgb_to_bgr")
    for name in names:
        if not isinstance(part.get(name), bool | None):
            part.refuse(name, "expected True or False")
    exchanges = [name for name in names if part.get(name)]
    if len(exchanges) > 1:
        part.refuse(exchanges[0], f"and {exchanges[1]} too, expected one of them")
    bgr = not exchanges
    if bgr:
        mean, deviation = mean[::-1], deviation[::-1]
    pixels = {"model.mean_pixel": mean, "model.pixel_std": () if set(deviation) == {1} else deviation}
    return pixels | resize | {"bgr": bgr}


def _pipelines(given: Values) -> Iterator[tuple[str, Any]]:
    """Yield place and value of the pipelines for inference, also those inside lists and wrappers of datasets."""
    if given.get("test_pipeline") is not None:
        yield "test_pipeline", given.get("test_pipeline")
    pending = [(place, given.get(place)) for place in ("test_dataloader.dataset", "data.test")]
    while pending:
        place, dataset = pending.pop(0)
        if isinstance(dataset, list | tuple):
            pending = [*((f"{place}[{index}]", one) for index, one in enumerate(dataset)), *pending]
        elif isinstance(dataset, Mapping):
            inner = dataset.get("datasets")
            if dataset.get("pipeline") is not None:
                yield f"{place}.pipeline", dataset["pipeline"]
            elif dataset.get("dataset") is not None:
                pending.insert(0, (f"{place}.dataset", dataset["dataset"]))
            elif isinstance(inner, list | tuple):  # of several, MMDetection takes the first
                pending.insert(0, (f"{place}.datasets", inner[:1]))


def _pipeline(
    where: str, steps: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]], version: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the step that normalizes, of version 2, and the settings of resizing, of a pipeline for inference."""
    normalize: dict[str, Any] = {}
    resize: dict[str, Any] = {}
    for kind, values, outer in steps:
        if kind not in _STEPS[version]:
            raise ConfigError(f"{where} has the step {kind[:80]}: expected only {', '.join(_STEPS[version])}")
        step = Values(values, f"{where}: {kind}", _STEPS[version][kind])
        match kind:
            case "MultiScaleFlipAug":
                step.expect("flip", False)
                step.expect("scale_factor", None)
            case "RandomFlip" if (
                outer.get("type") != "MultiScaleFlipAug"
            ):  # which says itself whether images are flipped
                step.expect("flip_ratio", 0)
                step.expect("prob", 0)
            case "Normalize":
                normalize = {name: step.get(name) for name in ("mean", "std", "to_rgb")}
            case "Pad":
                step.expect("size_divisor", 32)
                step.expect("size", None)
                step.expect("pad_to_square", False)
                step.expect("pad_val.img" if isinstance(step.get("pad_val"), Mapping) else "pad_val", 0)
            case "Resize":
                resize = _resize(step, outer.get("img_scale"), "scale" if version == 3 else "img_scale")
            case _ if kind in _LOAD:
                step.expect("to_float32", False)
                step.expect("color_type", "color", "color_ignore_orientation")
                step.expect("channel_order", "bgr")
    _require_order(where, [kind for kind, *_ in steps], version)
    return normalize, resize


def _require_order(where: str, kinds: Sequence[str], version: int) -> None:
    """Refuse steps that are missing, are there twice or come in another order, all of which give another image."""
    for kind, what in _CHANGES[version].items():
        if kind not in kinds:
            raise ConfigError(f"{where} has no step that {what} images: {SUPPORTED}")
    twice = [kind for kind in kinds if kinds.count(kind) > 1]
    if twice:
        raise ConfigError(f"{where} has the step {twice[0]} twice: expected it once")
    found = [kind for kind in kinds if kind in (*_LOAD, *_CHANGES[version], *_FORMAT)]
    loading, last = ([kind for kind in found if kind in group] for group in (_LOAD, _FORMAT))
    expected = [*loading[:1], *_CHANGES[version], *last]
    if found != expected:
        raise ConfigError(f"{where} has the steps {', '.join(found)}: expected {', '.join(expected)}, in this order")


def _steps(pipeline: Any) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield kind and values of the steps of a pipeline, also of those inside others, and the values around them."""
    pending: list[tuple[Any, Mapping[str, Any]]] = [(pipeline, {})]
    while pending:
        step, outer = pending.pop(0)
        if isinstance(step, list | tuple):
            pending = [*((inner, outer) for inner in step), *pending]
            continue
        values = step if isinstance(step, Mapping) else {"type": step}
        yield str(values.get("type")), values, outer
        pending.insert(0, (values.get("transforms", ()), values))


def _resize(step: Values, outer: Any, name: str) -> dict[str, Any]:
    """Return the settings of a step that resizes, where the step around it may have the sides (`outer`)."""
    required = {"keep_ratio": True, "backend": "cv2", "interpolation": "bilinear", "ratio_range": None}
    for key, allowed in required.items():
        step.expect(key, allowed)
    inner = step.get(name)
    sides = _sides(step, name, inner if outer is None else outer)
    if inner is not None and _sides(step, name, inner) != sides:
        raise ConfigError(
            f"{step.source} has the {name} {str(inner)[:80]}, and the step around it {str(outer)[:80]}: expected the "
            "same"
        )
    return sides


def _sides(step: Values, name: str, scale: Any) -> dict[str, Any]:
    while isinstance(scale, list | tuple) and len(scale) == 1:
        scale = scale[0]  # a single scale of several that could be tested
    sides = (scale, scale) if isinstance(scale, int) else scale
    whole = isinstance(sides, list | tuple) and len(sides) == 2
    if not whole or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise ConfigError(f"{step.source} has the {name} {str(scale)[:80]}: expected two sides")
    return {"resize.short_side": min(sides), "resize.long_side": max(sides)}
