"""Reader of YOLO segmentation datasets: a text file for each image, with a class and an outline in each line.

`labels` has the files; the image of `.../labels/a.txt` is `.../images/a.jpg`. Class names are in `data.yaml` or, from
annotation tools, in `classes.txt`. Coordinates are shares of the image's width and height.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn.configuration.yaml_text import parse_yaml
from maskrcnn.data.readers.findings import Row, RowError, Scan
from maskrcnn.data.readers.json_rows import get_name, read_text, shown, whole
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.data.readers.outlines import rectangle
from maskrcnn.data.readers.picture_files import list_pictures, picture_size
from maskrcnn.data.readers.picture_rows import BACKGROUND, PictureRows
from maskrcnn.errors import DatasetError, DatasetFormatError
from runtime.one_line import count_of

_YAML = (".yaml", ".yml")
_SPLITS = ("train", "val", "valid", "test")
_IMAGES, _LABELS = "images", "labels"
_BOX = 4  # numbers of a box: center, width and height


@dataclass(frozen=True)
class YoloFolder:
    """A folder of images and its labels; `names` is the file with the class names, None if there is none."""

    images: Path
    labels: Path
    names: Path | None


def is_yolo_file(path: Path) -> bool:
    """Return whether a file has the name of a dataset's description."""
    return path.suffix.lower() in _YAML


def find_yolo(path: Path) -> YoloFolder | None:
    """Return the images and labels that a folder stands for, or None if it is no YOLO dataset.

    It may be the folder with `images` and `labels`, or a folder inside `images`.
    """
    parts = path.resolve().parts
    places = [(path / _IMAGES, path / _LABELS)]
    if _IMAGES in parts:
        last = len(parts) - 1 - parts[::-1].index(_IMAGES)
        places.append((path, Path(*parts[:last], _LABELS, *parts[last + 1 :])))
    for images, labels in places:
        names = _find_names(images)
        if images.is_dir() and labels.is_dir() and (_has_text(labels) or names) and list_pictures(images):
            return YoloFolder(images, labels, names)
    return None


def yolo_splits(path: Path) -> dict[str, Path]:
    """Return the folders of the images of each split that a data.yaml names, those that exist.

    Raises:
        DatasetFormatError: It cannot be read.
    """
    content = _read_yaml(path)
    root = content.get("path")
    base = path.parent / root if isinstance(root, str) and (path.parent / root).is_dir() else path.parent
    found: dict[str, Path] = {}
    for split in _SPLITS:
        value = content.get(split)
        for each in value if isinstance(value, list) else [value]:
            folder = _existing(base, each)
            if folder is not None:
                found.setdefault(split if split not in found else f"{split} {len(found)}", folder)
    return found


def scan_yolo(folder: YoloFolder, class_names: tuple[str, ...] | None, name: str, options: ReadOptions) -> Scan:
    """Read the labels of a folder, and note invalid rows. Images without a label file have no objects.

    Raises:
        DatasetFormatError: The class names cannot be read.
        DatasetError: There are no class names.
    """
    known = _class_names(folder, options)
    names = known or class_names
    if names is None:
        raise DatasetError(
            f"{folder.labels} has no class names: expected a data.yaml or classes.txt beside it, or class_names="
        )
    rows = PictureRows(name)
    pictures = list_pictures(folder.images)
    texts = {file.stem: file for file in sorted(folder.labels.glob("*.txt")) if file.name != "classes.txt"}
    rows.listed = len(pictures.keys() | texts.keys())
    for stem, picture in pictures.items():
        with rows.findings.row(picture.name):
            size = picture_size(picture)
            rows.add_picture(stem, picture, size)
            if stem in texts:
                _read_labels(rows, stem, texts[stem], names, options)
    bare = [stem for stem in pictures if stem not in texts]
    if bare:
        message = f"no label file, and so no objects: {count_of(len(bare), 'image')}, first {shown(bare[0])}"
        rows.findings.add("info", "no-label-file", folder.images.name, message)
    for stem in texts.keys() - pictures.keys():
        message = f"there is no image {shown(stem)} in {folder.images}"
        rows.findings.add("error", "missing-file", f"{folder.labels.name}/{texts[stem].name}", message)
    return rows.scan(names)


def _read_labels(rows: PictureRows, stem: str, file: Path, names: tuple[str, ...], options: ReadOptions) -> None:
    try:
        text, _ = read_text(file, options.encoding)
    except DatasetError as error:
        raise RowError("broken-file", str(error)) from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            with rows.findings.row(f"{file.name} line {number}") as notes:
                name, outline = _read_line(line.split(), names, rows.sizes[stem], options, notes)
                rows.add_outline(stem, name, [outline], notes)


def _read_line(
    words: list[str], names: tuple[str, ...], size: tuple[int, int], options: ReadOptions, notes: Row
) -> tuple[str, list[float]]:
    """Return the class and the outline in pixels of a line; `size` is (height, width)."""
    class_id = whole(words[0])
    if class_id is None or not 0 <= class_id < len(names) - 1:
        raise RowError(
            "unknown-category", f"its class is {shown(words[0])}; expected a number from 0 to {len(names) - 2}"
        )
    notes.label = names[class_id + 1]
    values = [_share(word) for word in words[1:]]
    if len(values) == _BOX:
        if not options.boxes_as_masks:
            raise RowError(
                "no-mask",
                "it has a box and no outline; boxes_as_masks=True (--boxes-as-masks) takes boxes as masks",
            )
        notes.converted("box-as-mask", "its mask is its whole box, because it has no outline")
        x, y, width, height = values
        values = rectangle(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    height, width = size
    return names[class_id + 1], [
        value * side for value, side in zip(values, (width, height) * len(values), strict=False)
    ]


def _share(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RowError("wrong-type", f"it has {shown(word)}; expected numbers from 0 to 1")
    if not -1 <= value <= 2:
        raise RowError("polygon-far", f"it has the coordinate {value:g}; expected shares of the image, from 0 to 1")
    return value


def _class_names(folder: YoloFolder, options: ReadOptions) -> tuple[str, ...] | None:
    """Return the class names, background first."""
    if folder.names is None:
        return None
    path = folder.names
    if not is_yolo_file(path):
        text, _ = read_text(path, options.encoding)
        return _checked([line for line in text.splitlines() if line.strip()], path)
    content = _read_yaml(path)
    if "kpt_shape" in content:
        raise DatasetFormatError(f"{path} describes keypoints, not outlines")
    found = content.get("names")
    if isinstance(found, Mapping):
        numbered = {whole(key): value for key, value in found.items()}
        if set(numbered) != set(range(len(found))):
            raise DatasetFormatError(f"{path}: the keys of names are {shown(list(found))}; expected 0, 1, 2, ...")
        found = [numbered[index] for index in range(len(numbered))]
    if not isinstance(found, list) or not found:
        raise DatasetFormatError(f"{path}: names is {shown(found)}; expected a list of class names")
    count = content.get("nc", str(len(found)))
    if whole(count) != len(found):
        raise DatasetFormatError(f"{path}: nc is {shown(count)}, but there are {len(found)} names")
    return _checked(found, path)


def _checked(found: list[Any], path: Path) -> tuple[str, ...]:
    try:
        checked = [get_name({"name": name}, "name").strip() for name in found]
    except RowError as error:
        raise DatasetFormatError(f"{path}: {error}") from error
    if len({BACKGROUND, *checked}) != len(checked) + 1:
        raise DatasetFormatError(f"{path}: the class names are {shown(checked)}; expected unique names other than BG")
    return (BACKGROUND, *checked)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    text, _ = read_text(path)
    try:
        content = parse_yaml(text, "reading data.yaml")
    except ValueError as error:
        raise DatasetFormatError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise DatasetFormatError(f"{path} is {shown(content)}; expected the description of a dataset, with names")
    return content


def _existing(base: Path, value: Any) -> Path | None:
    """Return the folder of a split; exporters often write it relative to a folder beside their own."""
    if not isinstance(value, str):
        return None
    forward = value.replace("\\", "/").rstrip("/")
    for text in dict.fromkeys((forward, forward.removeprefix("../"), f"{forward.removeprefix('../')}/{_IMAGES}")):
        try:
            folder = base / text
            if text and folder.is_dir() and find_yolo(folder) is not None:
                return folder
        except (OSError, ValueError):
            continue
    return None


def _find_names(images: Path) -> Path | None:
    """Return the file with the class names: beside the images, or in one of the folders above."""
    for folder in list(images.resolve().parents)[:3]:
        for name in ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", f"{_LABELS}/classes.txt"):
            if (folder / name).is_file():
                return folder / name
    return None


def _has_text(labels: Path) -> bool:
    return next(labels.glob("*.txt"), None) is not None
