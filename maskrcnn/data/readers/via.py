"""Projects of the VGG Image Annotator, versions 1 and 2: one entry per picture, with a list or object of regions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrcnn.data.readers.findings import NO_PICTURES, RowError, Scan
from maskrcnn.data.readers.finish import finish
from maskrcnn.data.readers.json_rows import finite, get, get_name, get_numbers, get_text, read_json, shown
from maskrcnn.data.readers.outlines import ellipse, rectangle
from maskrcnn.data.readers.picture_files import PictureFolder, picture_size
from maskrcnn.data.readers.picture_rows import BACKGROUND, DEFAULT_CLASS, PictureRows
from maskrcnn.data.records import Dataset
from maskrcnn.errors import DatasetFormatError

_METADATA = "_via_img_metadata"  # where a project that was saved, not exported, keeps its entries
_SHAPES = "polygon, polyline, rect, circle, ellipse"


def read_via(
    annotations: str | Path,
    images: str | Path | None = None,
    class_name: str = DEFAULT_CLASS,
    class_attribute: str | None = None,
    name: str | None = None,
    *,
    skip_bad: bool = False,
) -> Dataset:
    """Read a JSON file of the VGG Image Annotator, exported or saved as a project.

    A picture without regions is kept. The last point of a polyline is joined to its first.

    Args:
        annotations: The JSON file.
        images: Folder of the pictures; by default one beside the file.
        class_name: The one class of all regions, where `class_attribute` is None.
        class_attribute: Region attribute that holds the class: a text, or check boxes of which one is ticked.
        name: For messages; by default that of the file's folder and the file.
        skip_bad: Leave out what cannot be used; every picture is tried.

    Raises:
        DatasetNotFoundError: There is no such file or folder, or none of the pictures.
        DatasetFormatError: It is not such a file, or an entry or region cannot be used.
    """
    path = Path(annotations)
    folder = None if images is None else Path(images)
    return finish(scan_via(path, folder, class_name, class_attribute, name), path, skip_bad=skip_bad)


def scan_via(
    path: Path,
    images: Path | None = None,
    class_name: str = DEFAULT_CLASS,
    class_attribute: str | None = None,
    name: str | None = None,
    content: Any = None,
) -> Scan:
    """Read what is good and note what is bad; arguments as for `read_via`.

    Raises:
        DatasetNotFoundError: There is no such file or folder.
        DatasetFormatError: It is not such a file.
    """
    entries = _entries(read_json(path) if content is None else content, path)
    named = [entry["filename"] for entry in entries.values() if isinstance(entry, Mapping) and "filename" in entry]
    names = [value for value in named if isinstance(value, str)]
    folder = PictureFolder(path, images, names)
    rows = PictureRows(name or path.stem)
    if names and not any(folder.find(value) for value in names):
        message = f"none of its {len(names)} pictures is in {folder.describe()}; give their folder with images="
        rows.findings.add("error", NO_PICTURES, str(path), message)
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
            f"regions have the attributes {', '.join(sorted(attributes))}; class_attribute= takes classes from one"
        )
        rows.findings.add("info", "attributes", path.name, message)
    return rows.scan((BACKGROUND, class_name) if class_attribute is None else None)


def is_via(content: Any) -> bool:
    """Whether this is the content of such a file."""
    if not isinstance(content, Mapping):
        return False
    entries = content.get(_METADATA, content)
    return isinstance(entries, Mapping) and (
        _METADATA in content
        or any(isinstance(entry, Mapping) and {"filename", "regions"} <= set(entry) for entry in entries.values())
    )


def outline_of(shape: Any) -> list[Any]:
    """Outline x, y, x, y, ... of a region's `shape_attributes`.

    Raises:
        RowError: It is a point, of an unknown kind, or damaged.
    """
    kind = get(shape, "name")
    if kind in ("polygon", "polyline"):
        xs, ys = get(shape, "all_points_x"), get(shape, "all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise RowError("polygon-odd", "all_points_x and all_points_y are not lists of one length")
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
        raise DatasetFormatError(f"{path} is not of the VGG Image Annotator: expected entries of filename and regions")
    entries: Mapping[str, Any] = content.get(_METADATA, content)
    return entries


def _regions(entry: Mapping[str, Any]) -> list[tuple[int | str, Any]]:
    regions = get(entry, "regions")
    if isinstance(regions, Mapping):  # version 1 numbers them
        return list(regions.items())
    if isinstance(regions, list):
        return list(enumerate(regions))
    raise RowError("wrong-type", f"regions is {shown(regions)}; expected a list or an object")


def _class_of(region: Any, attribute: str) -> str:
    value = get(get(region, "region_attributes"), attribute)
    if isinstance(value, Mapping):
        ticked = [key for key, on in value.items() if on]
        if len(ticked) != 1:
            raise RowError("no-class", f"{len(ticked)} of the boxes of {attribute!r} are ticked; expected one")
        value = ticked[0]
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise RowError("no-class", f"its {attribute!r} is {shown(value)}; expected the name of a class")
    return get_name({attribute: str(value)}, attribute).strip()
