"""Writing a dataset in another format, with links to its images."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from maskrcnn.data.readers.labelme import LABELS_FILE
from maskrcnn.data.readers.options import WrittenFormat
from maskrcnn.data.records import Dataset
from maskrcnn.data.writers.coco import ANNOTATIONS, IMAGES, coco_text
from maskrcnn.data.writers.images import (
    Lost,
    WrittenImage,
    check_apart,
    place_images,
    write_plain,
    written_images,
)
from maskrcnn.errors import DatasetError
from runtime.atomic import atomic_write, check_output
from runtime.masks.polygons import Ring, join_polygons, ring_area, rle_rings, short_polygons
from runtime.output.annotations import labelme_text, yolo_line

CLASS_ATTRIBUTE = "class"  # of regions in files of the VGG Image Annotator
# A file in every folder that a format is written to; a folder without it is never replaced.
_MARKERS: dict[WrittenFormat, str] = {
    "coco": ANNOTATIONS, "labelme": LABELS_FILE, "via": "via_project.json", "yolo": "data.yaml",
}  # fmt: skip


def convert_dataset(dataset: Dataset, folder: str | Path, to: WrittenFormat, *, overwrite: bool = False) -> list[str]:
    """Write a dataset in another format: annotations, and links to the images.

    Args:
        dataset: Any dataset whose images are files or can be loaded.
        folder: The folder to write.
        to: "coco", "labelme", "via" or "yolo".
        overwrite: Whether to replace a folder that was written like this before.

    Returns:
        A line for each kind of thing that the format cannot hold, with its number.

    Raises:
        DatasetError: The format is unknown, or cannot hold a name.
        OutputError: Something else is at `folder`, the images are in it, or it cannot be written.
    """
    if to not in get_args(WrittenFormat):
        raise DatasetError(f"the format to write is {to!r}; expected one of {', '.join(get_args(WrittenFormat))}")
    folder, lost = Path(folder), Lost()
    check_folder(folder, to, overwrite=overwrite)
    check_apart(dataset, folder)
    images = written_images(dataset, flat=to in ("labelme", "yolo"))
    with atomic_write(folder, overwrite=overwrite, directory=True, marker=_MARKERS[to]) as temporary:
        if to == "labelme":
            place_images(images, temporary, folder, lost)
        else:
            place_images(images, temporary / IMAGES, folder / IMAGES, lost)
        _WRITERS[to](dataset, images, temporary, lost)
    return lost.lines


def check_folder(folder: Path, to: WrittenFormat, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written; see `runtime.atomic.check_output`."""
    check_output(folder, overwrite=overwrite, directory=True, marker=_MARKERS[to])


def _write_coco(dataset: Dataset, images: Sequence[WrittenImage], folder: Path, _: Lost) -> None:
    write_plain(folder / ANNOTATIONS, coco_text(dataset, images, polygons=True))


def _write_labelme(dataset: Dataset, images: Sequence[WrittenImage], folder: Path, lost: Lost) -> None:
    names = dataset.class_names
    write_plain(folder / LABELS_FILE, "".join(f"{name}\n" for name in names[1:]))
    _count_unused(dataset, images, lost)
    for image in images:
        objects = [(names[class_id], rings, None) for class_id, rings in _outlines(image, lost)]
        write_plain((folder / image.name).with_suffix(".json"), labelme_text(objects, image.size, image.name))


def _write_via(dataset: Dataset, images: Sequence[WrittenImage], folder: Path, lost: Lost) -> None:
    names = dataset.class_names
    _count_unused(dataset, images, lost)
    entries: dict[str, Any] = {}
    for image in images:
        regions = []
        for class_id, rings in _outlines(image, lost, one=True):
            corners = join_polygons(short_polygons(rings))
            shape = {"name": "polygon", "all_points_x": corners[::2], "all_points_y": corners[1::2]}
            regions.append({"shape_attributes": shape, "region_attributes": {CLASS_ATTRIBUTE: names[class_id]}})
        source = image.record.image
        size = (source if isinstance(source, Path) else folder / IMAGES / image.name).stat().st_size
        entry = {"filename": image.name, "size": size, "regions": regions, "file_attributes": {}}
        entries[f"{image.name}{size}"] = entry
    options = {name: name for name in names[1:]}
    attribute = {"type": "dropdown", "description": "", "options": options, "default_options": {}}
    core = {"buffer_size": 18, "filepath": {}, "default_filepath": f"./{IMAGES}/"}
    content = {
        "_via_settings": {"core": core, "project": {"name": dataset.name}},
        "_via_img_metadata": entries,
        "_via_attributes": {"region": {CLASS_ATTRIBUTE: attribute}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(entries),
    }
    write_plain(folder / _MARKERS["via"], json.dumps(content, ensure_ascii=False) + "\n")


def _write_yolo(dataset: Dataset, images: Sequence[WrittenImage], folder: Path, lost: Lost) -> None:
    # JSON is YAML, too, and a name such as "yes" or "1" stays a text in it.
    names = json.dumps(list(dataset.class_names[1:]))
    write_plain(folder / _MARKERS["yolo"], f"train: {IMAGES}\nval: {IMAGES}\nnames: {names}\n")
    (folder / "labels").mkdir()
    for image in images:
        lines = [yolo_line(number - 1, rings, image.size) for number, rings in _outlines(image, lost, one=True)]
        write_plain((folder / "labels" / image.name).with_suffix(".txt"), "".join(lines))


def _outlines(image: WrittenImage, lost: Lost, *, one: bool = False) -> Iterator[tuple[int, list[Ring]]]:
    """Yield class id and rings of each object, and count what the format holds with additions only, or not at all.

    `one` says that the format has one outline for each object.
    """
    for instance in image.instances:
        if instance.crowd:
            lost.add("crowd regions left out, because the format has none (they will train as background)")
            continue
        rings = rle_rings(instance.mask)
        if any(ring_area(ring) < 0 for ring in rings):
            lost.add("masks with holes, to which a line leads and back, because the format has no holes")
        if one and sum(ring_area(ring) > 0 for ring in rings) > 1:
            lost.add("objects of several parts, joined by lines, because the format has one outline for each object")
        yield instance.class_id, rings


def _count_unused(dataset: Dataset, images: Sequence[WrittenImage], lost: Lost) -> None:
    """Count classes without objects: some formats name a class only with its objects."""
    used = {each.class_id for image in images for each in image.instances if not each.crowd}
    unused = [name for class_id, name in enumerate(dataset.class_names) if class_id and class_id not in used]
    if unused:
        names = ", ".join(unused)
        lost.add(f"classes left out, because the format names a class only with its objects ({names})", len(unused))


_WRITERS: dict[WrittenFormat, Callable[[Dataset, Sequence[WrittenImage], Path, Lost], None]] = {
    "coco": _write_coco, "labelme": _write_labelme, "via": _write_via, "yolo": _write_yolo,
}  # fmt: skip
