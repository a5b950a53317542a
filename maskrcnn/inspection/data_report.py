"""What the page shows of a dataset, with a model or without one. Nothing here needs TensorFlow."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from maskrcnn.anchor_grids import anchor_grids
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.configuration.model import Config
from maskrcnn.data.augment_hook import AugmentHook
from maskrcnn.data.readers.findings import DatasetFinding, summary
from maskrcnn.data.records import Dataset, Record
from maskrcnn.data.sample import Sample, load_sample, training_resize
from maskrcnn.inspection.charts import (
    bar_chart,
    channel_names,
    distribution_chart,
    overlaid_histograms,
    size_chart,
    to_svg,
    value_chart,
)
from maskrcnn.inspection.data_pictures import anchor_scene, augmented_scenes, input_scene, mini_mask, truth_scene
from maskrcnn.inspection.data_statistics import DIFFERENCES, DatasetStatistics, dataset_statistics
from maskrcnn.inspection.output import Inspection
from maskrcnn.inspection.page_model import Block, Charts, Images, Numbers, Scenes, Section, Table, Text
from maskrcnn.inspection.truth import Truth, truth_of
from maskrcnn.intermediates.prepared import PreparedImage, shown
from runtime.one_line import class_list, count_of, printable_path

_SHOWN_MINI_MASKS, _SHOWN_SIZES = 6, 20
_LONG_TABLE = 12  # rows from which a table is closed at first

_SECTIONS = (
    ("data", "1 Dataset", "What maskrcnn data check finds, and the objects of each class."),
    ("images", "2 Images", "Sizes and colors of the images as they are read."),
    ("objects", "3 Objects", "How many objects an image has, and how large they are."),
    ("samples", "4 Samples", "Images with their objects, and how training prepares them."),
)


def inspect_dataset(  # noqa: PLR0913  (one argument per part of the page)
    dataset: Dataset,
    config: Config | None = None,
    *,
    findings: Sequence[DatasetFinding] = (),
    listed: int | None = None,
    left_out: int = 0,
    limit: int = 4,
    title: str = "Inside a dataset",
    progress: Say = say_nothing,
    hook: AugmentHook | None = None,
) -> Inspection:
    """Inspect a dataset without a model.

    Args:
        dataset: Images with annotations.
        config: Says how training reads and prepares images, and which anchors it has; by default `Config()`. The
            classes are those of the dataset.
        findings: What `check_dataset` found.
        listed: Number of images that the annotations list; by default those of `dataset`.
        left_out: Number of images that cannot be used and are not in `dataset`.
        limit: Number of images to show.
        title: Heading of the page.
        progress: Called with a sentence before each part.
        hook: Changes the samples of augmentation first.

    Raises:
        ImageError: One of the images to show cannot be read.
        DatasetError: Its annotations cannot be read, or have another size than the image.
    """
    config = config or Config()
    model = replace(config.model, class_names=dataset.class_names)
    config = replace(config, model=model, resize=training_resize(config))
    progress("statistics")
    statistics = dataset_statistics(dataset, config, listed=listed, left_out=left_out)
    sections = {key: Section(key, name, intro) for key, name, intro in _SECTIONS}
    checked = statistics.pictures + statistics.left_out
    part = f" ({checked} of {statistics.listed} images)" if checked < statistics.listed else ""
    sections["data"].common += [*finding_blocks(findings, part), *class_blocks(statistics)]
    sections["images"].common += image_blocks(statistics)
    sections["objects"].common += object_blocks(statistics, config)
    names, pictures = [], []
    for number, record in enumerate(dataset.records[:limit]):
        names.append(picture_name(record))
        progress(f"image {number + 1} of {min(limit, len(dataset))}: {names[-1]}")
        sample = load_sample(record, config, np.random.default_rng(0), training=False)
        read = shown(record.load_image(config.model.image_channels, config.pixels))
        prepared = PreparedImage(config, read, sample.letterbox, sample.image)
        blocks, numbers = sample_blocks(prepared, truth_of(record, prepared), sample, record, hook)
        sections["samples"].of_picture[number] = blocks
        pictures.append({"name": names[-1], **numbers})
    figures = {
        "pictures": pictures,
        "data": statistics.numbers,
        "findings": [finding_values(finding) for finding in findings],
    }
    facts = [
        count_of(statistics.listed, "image"),
        class_list(dataset.class_names),
        f"configuration {config.name}",
    ]
    return Inspection(title, facts, names, list(sections.values()), figures)


def picture_name(record: Record) -> str:
    """Return the name of an image on the page: that of its file, or its id."""
    return printable_path(str(record.image_id) if callable(record.image) else record.image.name)


def finding_values(finding: DatasetFinding) -> dict[str, Any]:
    """Return a finding as JSON values."""
    return {
        "level": finding.level,
        "kind": finding.kind,
        "where": finding.where,
        "message": finding.message,
        "count": finding.count,
    }


def finding_blocks(findings: Sequence[DatasetFinding], part: str = "") -> list[Block]:
    """Describe the findings of a dataset check, one row per kind; `part` says of which images, if not of all."""
    if not findings:
        return []
    rows = [[level, kind, str(count), first] for level, kind, count, first in summary(findings)]
    marks = {(row, 0): "bad" for row, cells in enumerate(rows) if cells[0] != "info"}
    return [Table(f"Findings of the dataset check{part}", ["level", "kind", "count", "first"], rows, marks)]


def class_blocks(statistics: DatasetStatistics) -> list[Block]:
    """Describe what a dataset has, class by class, and how well its boxes fit its masks."""
    numbers = statistics.numbers
    named = {
        "dataset.left_out": ("images that cannot be used", numbers["left_out"]),
        "dataset.objects": ("objects", numbers["objects"]),
        **({"dataset.crowds": ("crowds, which are no objects", numbers["crowds"])} if numbers["crowds"] else {}),
        "dataset.empty": ("objects without a pixel", numbers["empty"]),
        "dataset.pictures_without_objects": ("images without objects", numbers["pictures_without_objects"]),
        "dataset.file_boxes": ("boxes in the file", numbers["file_boxes"]),
    }
    rows = {"dataset.pictures": ("images read", f"{statistics.pictures} of {statistics.listed}")}
    rows |= {key: (name, str(count)) for key, (name, count) in named.items()}
    for limit in DIFFERENCES:
        share = numbers["boxes_differ"][str(limit)]
        value = "-" if share is None else f"{share:.2%}"
        rows[f"dataset.boxes_differ_{limit}"] = (f"boxes that differ from their mask by {limit} px or more", value)
    blocks: list[Block] = [Numbers("The dataset", rows)]
    if statistics.per_class:
        total = max(1, numbers["objects"])
        cells = [
            [name, str(count), f"{count / total:.1%}", str(statistics.pictures_per_class[name])]
            for name, count in sorted(statistics.per_class.items(), key=lambda row: -row[1])
        ]
        marks = {(row, 1): "bad" for row, (_, count, *_) in enumerate(cells) if count == "0"}
        columns = ["class", "objects", "share of all objects", "images"]
        filled = {name: count for name, count in statistics.per_class.items() if count}
        if filled:
            blocks.append(Charts("Classes", "", [to_svg(bar_chart(filled, "Objects per class", "objects"))]))
        blocks.append(Table("All classes", columns, cells, marks, len(cells) > _LONG_TABLE))
    return blocks


def image_blocks(statistics: DatasetStatistics) -> list[Block]:
    """Describe the images of a dataset: sizes, aspect ratios, colors."""
    numbers, mean = statistics.numbers, statistics.mean_color
    if mean is None:
        return []
    count = len(statistics.sizes)
    ratios = statistics.sizes[:, 1] / statistics.sizes[:, 0]
    channels = channel_names(len(mean))
    rows = {"dataset.sizes": ("different sizes", str(len(numbers["sizes"])))}
    rows |= _ends("aspect_ratios", "aspect ratio (width / height)", numbers["aspect_ratios"])
    for number, (name, value) in enumerate(zip(channels, mean, strict=True)):
        deviation = numbers["std_color"][number]
        rows[f"dataset.mean_color.{number}"] = (f"mean of {name}, 0 to 255", f"{value:.2f}")
        rows[f"dataset.std_color.{number}"] = (f"standard deviation of {name}", f"{deviation:.2f}")
    charts = [
        to_svg(size_chart(statistics.sizes, f"Sizes of the images ({count})")),
        to_svg(distribution_chart(ratios, "Aspect ratio of the images", "width / height")),
        to_svg(value_chart(statistics.values, "Values of the pixels")),
    ]
    setting = "[" + ", ".join(f"{value:.1f}" for value in mean) + "]"
    text = (
        "The setting model.mean_pixel of the configuration, as an option of maskrcnn train or in the configuration "
        "file. All images count the same here, because training scales them to one size. Training that starts from "
        "other weights keeps the mean that these were trained with."
    )
    common = list(numbers["sizes"].items())
    title = "Sizes of the images" + (f", the {_SHOWN_SIZES} most frequent" if len(common) > _SHOWN_SIZES else "")
    cells = [[size, str(number), f"{number / count:.1%}"] for size, number in common[:_SHOWN_SIZES]]
    return [
        Numbers("The images", rows),
        Charts("Sizes and colors", "", charts),
        Table(title, ["width x height", "images", "share"], cells, folded=len(cells) > _LONG_TABLE),
        Text(
            "Mean color for the configuration",
            text,
            [f"--set 'model.mean_pixel={setting}'", f'"mean_pixel": {setting}'],
        ),
    ]


def object_blocks(statistics: DatasetStatistics, config: Config) -> list[Block]:
    """Describe the objects of a dataset: how many an image has, their sizes, and the anchors for them."""
    numbers, boxes = statistics.numbers, statistics.boxes
    rows = _ends("objects_per_picture", "objects per image", numbers["objects_per_picture"])
    rows |= _ends("box_heights", "height of a box (image pixels)", numbers["box_heights"])
    rows |= _ends("box_widths", "width of a box (image pixels)", numbers["box_widths"])
    rows |= _ends("box_aspect_ratios", "width / height of a box", numbers["box_aspect_ratios"])
    blocks: list[Block] = [Numbers("The objects", rows)] if rows else []
    charts = []
    if statistics.pictures:
        charts.append(to_svg(distribution_chart(statistics.objects_per_picture, "Objects per image", "objects")))
    if len(boxes):
        charts.append(
            to_svg(distribution_chart(statistics.sides, "Size of objects", "square root of the area (image pixels)"))
        )
        panels = {
            "height (image pixels)": boxes[:, 0],
            "width (image pixels)": boxes[:, 1],
            "width / height": boxes[:, 1] / boxes[:, 0],
            "side in training (pixels)": statistics.input_sides,
        }
        drawn = {unit: {"boxes": np.asarray(values, np.float64)} for unit, values in panels.items()}
        charts.append(to_svg(overlaid_histograms(drawn, f"Boxes of the objects ({len(boxes)})")))
    if charts:
        text = "The side in training is the square root of height x width after the image is scaled for the network."
        blocks.append(Charts("Number and sizes of objects", text, charts))
    return [*blocks, _anchor_table(statistics, config)]


def _anchor_table(statistics: DatasetStatistics, config: Config) -> Table:
    """Return the anchors of each level, and how many objects are nearest to their size."""
    model, scales = config.model, np.array(config.model.anchor_scales, np.float64)
    nearest = np.abs(np.log(statistics.input_sides[:, None] / scales)).argmin(axis=1)
    counts = np.bincount(nearest, minlength=len(scales))
    cells = [
        [f"P{level}", f"{scale:g}", f"{stride}", str(count), f"{count / max(1, len(nearest)):.1%}"]
        for level, (scale, stride, count) in enumerate(zip(scales, model.backbone_strides, counts, strict=True), 2)
    ]
    columns = ["level", "side (pixels)", "stride (pixels)", "objects nearest in size", "share"]
    return Table("Anchors, and objects of their size in training", columns, cells)


def sample_blocks(
    prepared: PreparedImage,
    truth: Truth | None,
    sample: Sample | None,
    record: Record,
    hook: AugmentHook | None = None,
) -> tuple[list[Block], dict[str, Any]]:
    """Describe the input of the network and how training prepares the objects; without annotations, the input alone."""
    size = prepared.image.shape[0], prepared.image.shape[1]
    grids = anchor_grids(prepared.config.model, size)
    figures: dict[str, Any] = {
        "data.anchors": {f"P{level}": grid.y1.size * len(grid.x1) for level, grid in enumerate(grids, 2)}
    }
    blocks: list[Block] = [Scenes("Input of the network", [input_scene(prepared), anchor_scene(prepared)])]
    if truth is None or sample is None:
        return blocks, figures
    blocks.append(Scenes("Annotated objects", [truth_scene(prepared, truth)]))
    config, mini = prepared.config, prepared.config.training.mini_mask_size
    if mini is not None and sample.crops:
        images, overlaps = [], []
        for row, (pixels, _) in enumerate(sample.crops[:_SHOWN_MINI_MASKS]):
            class_id = int(sample.class_ids[row])
            name = config.model.class_names[abs(class_id)] + (" (crowd)" if class_id < 0 else "")
            image, iou = mini_mask(sample, row, (mini[0], mini[1]), config.detection.mask_paste)
            overlaps.append(iou)
            images.append((image, f"{name}: {pixels.shape[1]} x {pixels.shape[0]} pixels, IoU {iou:.3f}"))
        figures["data.mini_mask_ious"] = overlaps
        intro = (
            f"Each object's mask in its box, the {mini[1]} x {mini[0]} mini mask that training stores (setting "
            "training.mini_mask_size), and the mask restored from it: red pixels got lost, blue ones were added. The "
            "IoU of the first and the last shows how much detail is lost."
        )
        blocks.append(Images("Mini masks", intro, images, wide=True))
    blocks.append(Scenes("Augmentations of this image", augmented_scenes(record, config, hook=hook)))
    return blocks, figures


def _ends(key: str, name: str, values: Mapping[str, float] | None) -> dict[str, tuple[str, str]]:
    """Return smallest, median and largest value as one row; nothing of nothing."""
    if values is None:
        return {}
    text = " / ".join(f"{values[end]:.4g}" for end in ("min", "median", "max"))
    return {f"dataset.{key}": (f"{name}: smallest / median / largest", text)}
