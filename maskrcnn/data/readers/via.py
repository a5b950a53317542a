"""Reader of VGG Image Annotator files, versions 1 and 2: one entry per image, with a list or object of regions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrcnn.data.readers.findings import RowError, Scan
from maskrcnn.data.readers.json_rows import finite, get, get_name, get_numbers, get_text, shown
from maskrcnn.data.readers.outlines import ellipse, rectangle
from maskrcnn.data.readers.picture_files import PictureFolder, picture_size
from maskrcnn.data.readers.picture_rows import BACKGROUND, PictureRows
from maskrcnn.errors import DatasetFormatError

_METADATA = "_via_img_metadata"  # holds the entries in a saved project; exported files have them at the top
_SHAPES = "polygon, polyline, rect, circle, ellipse"


def scan_via(
    path: Path, images: Path | None, class_name: str, class_attribute: str | None, name: str, content: Any
) -> Scan:
    """Read the `content` of an exported file or a saved project at `path`, and note invalid rows.

    Images without regions are kept. Polylines are closed. All regions have the class `class_name`, unless the region
    attribute `class_attribute` contains the class, as text or as check boxes of which one is checked.

    Raises:
        DatasetNotFoundError: `images` is not a folder.
        DatasetFormatError: It is not a file of the VGG Image Annotator.
    """
    entries = _entries(content, path)
    named = [entry["filename"] for entry in entries.values() if isinstance(entry, Mapping) and "filename" in entry]
    names = [value for value in named if isinstance(value, str)]
    folder = PictureFolder(path, images, names)
    rows = PictureRows(name)
    if folder.note_if_none_found(rows.findings):
        entries = {}
    attributes: set[str] = set()
    for key, entry in entries.items():
        where = f"{path.name} {key[:100]}"
        with rows.findings.row(where):
            image_id = get_text(entry, "filename")
            picture = folder.require(image_id)
            rows.add_picture(image_id, picture, picture_size(picture))
            for index, region in _regions(entry):
                with rows.findings.row(f"{where} region {index}"):
                    found = region.get("region_attributes") if isinstance(region, Mapping) else None
                    attributes.update(found if isinstance(found, Mapping) else ())
                    label = class_name if class_attribute is None else _class_of(region, class_attribute)
                    outline = outline_of(get(region, "shape_attributes"))
                    rows.add_outline(image_id, label, [outline], f"{where} region {index}")
    if class_attribute is None and attributes:
        message = (
            f"regions have the attributes {', '.join(sorted(attributes))}; class_attribute= reads classes from one"
        )
        rows.findings.add("info", "attributes", path.name, message)
    return rows.scan((BACKGROUND, class_name) if class_attribute is None else None)


def is_via(content: Any) -> bool:
    """Return whether this is the content of a VGG Image Annotator file."""
    if not isinstance(content, Mapping):
        return False
    entries = content.get(_METADATA, content)
    return isinstance(entries, Mapping) and (
        _METADATA in content
        or any(isinstance(entry, Mapping) and {"filename", "regions"} <= set(entry) for entry in entries.values())
    )


def outline_of(shape: Any) -> list[Any]:
    """Return the outline x, y, x, y, ... of a region's `shape_attributes`.

    Raises:
        RowError: It is a point, has an unknown type, or is malformed.
    """
    kind = get(shape, "name")
    if kind in ("polygon", "polyline"):
        xs, ys = get(shape, "all_points_x"), get(shape, "all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise RowError("polygon-odd", "all_points_x and all_points_y are not lists of the same length")
        return [value for pair in zip(xs, ys, strict=True) for value in pair]
    if kind == "rect":
        x, y, width, height = get_numbers(shape, "x", "y", "width", "height")
        return rectangle(x, y, x + width, y + height)
    if kind == "circle":
        x, y, radius = get_numbers(shape, "cx", "cy", "r")
        return ellipse(x, y, radius, radius)
    if kind == "ellipse":
        angle = finite(shape.get("theta", 0), "theta")
        x, y, rx, ry = get_numbers(shape, "cx", "cy", "rx", "ry")
        return ellipse(x, y, rx, ry, angle)
    raise RowError("shape-type", f"its shape is {shown(kind)}, which has no area; expected one of {_SHAPES}")


def _entries(content: Any, path: Path) -> Mapping[str, Any]:
    if not is_via(content):
        raise DatasetFormatError(
            f"{path} is not a VGG Image Annotator file: expected entries with filename and regions"
        )
    entries: Mapping[str, Any] = content.get(_METADATA, content)
    return entries


def _regions(entry: Mapping[str, Any]) -> list[tuple[int | str, Any]]:
    regions = get(entry, "regions")
    if isinstance(regions, Mapping):  # version 1
        return list(regions.items())
    if isinstance(regions, list):
        return list(enumerate(regions))
    raise RowError("wrong-type", f"regions is {shown(regions)}; expected a list or an object")


def _class_of(region: Any, attribute: str) -> str:
    value = get(get(region, "region_attributes"), attribute)
    if isinstance(value, Mapping):
        ticked = [key for key, on in value.items() if on]
        if len(ticked) != 1:
            raise RowError("no-class", f"{len(ticked)} of the check boxes of {attribute!r} are checked; expected one")
        value = ticked[0]
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise RowError("no-class", f"its {attribute!r} is {shown(value)}; expected a class name")
    return get_name({attribute: str(value)}, attribute).strip()
