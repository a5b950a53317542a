"""Reader of labelme files: one JSON file per image, with a list of labeled shapes."""

import base64
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.data.readers.findings import Row, RowError, Scan
from maskrcnn.data.readers.json_rows import (
    finite,
    get,
    get_name,
    get_text,
    note_encoding,
    read_json,
    read_text,
    shown,
    whole,
)
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.data.readers.outlines import ellipse, rectangle
from maskrcnn.data.readers.picture_files import picture_size, reason_of
from maskrcnn.data.readers.picture_folder import Listings, PictureFolder
from maskrcnn.data.readers.picture_rows import NamedObject, PictureRows
from maskrcnn.data.records import Image
from maskrcnn.errors import DatasetError, DatasetNotFoundError
from runtime.masks.paste import MaskCrop
from runtime.masks.rle import encode_crop
from runtime.pictures.header import opened
from runtime.pictures.read import read_image

_KEYS = {"imagePath", "shapes"}
# Reserved labels of labelme's converters, which mark no object.
_NO_OBJECT = ("__ignore__", "_background_")
LABELS_FILE = "labels.txt"
_POLYGONS = ("polygon", "rotation")  # "rotation" is how a program of the same format calls turned rectangles
_SHAPES = "polygon, rectangle, circle, mask"


def scan_labelme(path: Path, images: Path | None, name: str, options: ReadOptions) -> Scan:
    """Read a folder of labelme files or a single one, and note invalid rows.

    Classes are the labels: first those in `labels.txt` in the folder, in its order, then the others, sorted. Shapes
    with the same label and `group_id` are one object. A file without shapes is an image without objects. The labels
    `__ignore__` and `_background_` are skipped, and so are other JSON files.

    Args:
        path: The folder or the file.
        images: Folder with the images; by default, each image is where `imagePath` in its file says. If it is not
            there, the copy inside the file is used.
        name: Name of the dataset.
        options: How to read.

    Raises:
        DatasetNotFoundError: There is no JSON file.
    """
    files = [path] if path.is_file() else sorted(each for each in path.glob("*.json") if each.name[0] != ".")
    if not files:
        raise DatasetNotFoundError(f"{path} has no JSON files; expected labelme files, one per image")
    rows, listings = PictureRows(name, listed=len(files)), Listings()
    for file in files:
        with rows.findings.row(file.name) as notes:
            try:
                content, encoding = read_json(file, options.encoding)
            except DatasetError as error:
                raise RowError("broken-file", str(error)) from error
            note_encoding(encoding, notes)
            if not is_labelme(content):
                if len(files) == 1 or (isinstance(content, Mapping) and _KEYS & set(content)):
                    raise RowError("wrong-type", "it is not a labelme file: expected the keys imagePath and shapes")
                rows.findings.add("info", "other-file", file.name, "it is not a labelme file and is left out")
                rows.listed -= 1
                continue
            image_id = _add_picture(rows, file, content, images, options, listings, notes)
            _add_shapes(rows, image_id, get(content, "shapes"), file.name)
    return rows.scan(order=_labels(files[0].parent / LABELS_FILE, options))


def _labels(file: Path, options: ReadOptions) -> list[str]:
    """Return the labels of a file, in which labelme is told them; it may be missing."""
    return [line.strip() for line in read_text(file, options.encoding)[0].splitlines()] if file.is_file() else []


def is_labelme(content: Any) -> bool:
    """Return whether this is the content of a labelme file."""
    return isinstance(content, Mapping) and set(content) >= _KEYS


def _add_picture(
    rows: PictureRows,
    file: Path,
    content: Mapping[str, Any],
    images: Path | None,
    options: ReadOptions,
    listings: Listings,
    notes: Row,
) -> str:
    image_path = get_text(content, "imagePath")
    # labelme writes a path relative to its file; the image is often in a sibling folder.
    root = None if images is not None else file.parent.resolve().parent
    places = PictureFolder(file, images or file.parent, [image_path], root, by_name=options.by_name, listings=listings)
    picture: Path | Callable[[], Image]
    if not content.get("imageData") or places.find(image_path) is not None:
        picture = places.require(image_path, notes)
        size = picture_size(picture)
    else:
        size = picture_size(_image_data(content))
        picture = partial(_read_image_data, file, options.encoding)
        notes.converted("image-data", f"there is no image {shown(image_path)}; the copy in the file is used")
    told = tuple(
        side if content.get(key) is None else _side(content[key], key)
        for key, side in zip(("imageHeight", "imageWidth"), size, strict=True)
    )
    if told != size:
        raise RowError(
            "image-size",
            f"{shown(image_path)} has {size[1]} x {size[0]} pixels (width x height), the file says {shown(told[1])} x "
            f"{shown(told[0])}",
        )
    rows.add_picture(file.stem, picture, size)
    return file.stem


def _side(value: Any, key: str) -> int:
    side = whole(value)
    if side is None:
        raise RowError("wrong-type", f"{key} is {shown(value)}; expected a number of pixels")
    return side


def _image_data(content: Any) -> bytes:
    text = get_text(content, "imageData")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise RowError("broken-image", f"its imageData is not base64: {reason_of(error)}") from error


def _read_image_data(file: Path, encoding: str | None) -> Image:
    """Decode the image inside a labelme file, again each time: all of them would fill the memory."""
    try:
        return read_image(_image_data(read_json(file, encoding)[0]))
    except RowError as error:
        raise DatasetError(f"{file}: {error}") from error


def _add_shapes(rows: PictureRows, image_id: str, shapes: Any, file: str) -> None:
    if not isinstance(shapes, list):
        raise RowError("wrong-type", f"shapes is {shown(shapes)}; expected a list")
    groups: dict[tuple[str, Any], tuple[str, list[list[Any]]]] = {}
    for index, shape in enumerate(shapes):
        where = f"{file} shapes[{index}]"
        with rows.findings.row(where) as notes:
            label = get_name(shape, "label").strip()
            if label in _NO_OBJECT:
                continue
            notes.label, notes.picture = label, image_id
            if shape.get("shape_type") == "mask":
                height, width = rows.sizes[image_id]
                crop, origin = _read_mask(shape, (height, width))
                rows.add_object(image_id, NamedObject(label, encode_crop(crop, origin, (height, width)), where))
                continue
            outline = outline_of(shape)
            group = shape.get("group_id")
            if isinstance(group, list | dict):
                raise RowError("wrong-type", f"group_id is {shown(group)}; expected a number, a string or null")
            key = (label, f"alone {index}" if group is None else str(group))
            groups.setdefault(key, (where, []))[1].append(outline)
    for (label, _), (where, outlines) in groups.items():
        with rows.findings.row(where) as notes:
            rows.add_outline(image_id, label, outlines, notes)


def outline_of(shape: Mapping[str, Any]) -> list[float]:
    """Return the outline x, y, x, y, ... of a shape.

    Raises:
        RowError: It is a point or line, has an unknown type, or is malformed.
    """
    kind = shape.get("shape_type") or "polygon"  # early versions had no other type
    points = _points(shape)
    if kind in _POLYGONS:
        return [value for point in points for value in point]
    if kind not in ("rectangle", "circle"):
        raise RowError("shape-type", f"its shape is {shown(kind)}, which has no area; expected one of {_SHAPES}")
    if len(points) not in (2, 4) or (kind == "circle" and len(points) != 2):
        raise RowError("polygon-short", f"a {kind} has {len(points)} points; expected 2")
    if len(points) == 4:  # version 6 writes all four corners
        return [value for point in points for value in point]
    (x1, y1), (x2, y2) = points
    if kind == "rectangle":
        return rectangle(x1, y1, x2, y2)
    radius = float(np.hypot(x2 - x1, y2 - y1))
    return ellipse(x1, y1, radius, radius)


def _points(shape: Mapping[str, Any]) -> list[tuple[float, float]]:
    points = get(shape, "points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise RowError("polygon-odd", f"points is {shown(points)}; expected a list of x, y pairs")
    return [(finite(x, "x"), finite(y, "y")) for x, y in points]


def _read_mask(shape: Mapping[str, Any], size: tuple[int, int]) -> MaskCrop:
    """Decode the bitmap of a mask shape, after checking that it fits into the image of `size` (height, width)."""
    points = _points(shape)
    if not points:
        raise RowError("polygon-short", "a mask has no points; expected its top left corner")
    top, left = round(points[0][1]), round(points[0][0])
    try:
        encoded = base64.b64decode(get_text(shape, "mask"), validate=True)
        with opened(encoded, "it", ("PNG",)) as image:
            _check_inside((top, left), image.size[::-1], size)
            return np.asarray(image.convert("L")) > 0, (top, left)
    except RowError:
        raise
    except Exception as error:  # decoders raise many types for damaged files
        raise RowError("broken-mask", f"its mask is not a base64-encoded PNG: {reason_of(error)}") from error


def _check_inside(origin: tuple[int, int], crop: tuple[int, int], size: tuple[int, int]) -> None:
    if min(origin) < 0 or origin[0] + crop[0] > size[0] or origin[1] + crop[1] > size[1]:
        raise RowError("outside", f"its mask of {list(crop)} at {origin} extends beyond the image")
