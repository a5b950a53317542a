"""Reader of VGG Image Annotator files: one entry per image, with a list or object of regions."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from maskrcnn.data.readers.findings import Findings, Row, RowError, Scan
from maskrcnn.data.readers.json_rows import finite, get, get_name, get_numbers, get_text, shown
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.data.readers.outlines import ellipse, rectangle
from maskrcnn.data.readers.picture_files import picture_size
from maskrcnn.data.readers.picture_folder import PictureFolder
from maskrcnn.data.readers.picture_rows import BACKGROUND, PictureRows
from maskrcnn.data.readers.via_forms import Entries, Options, via_entries

CLASS_IS_KEY = "@key"  # in place of an attribute: the class is the name of the region's only attribute
_SHAPES = "polygon, polyline, rect, circle, ellipse"


def scan_via(
    path: Path,
    images: Path | None,
    class_name: str,
    class_attribute: str | None,
    name: str,
    content: Any,
    options: ReadOptions,
) -> Scan:
    """Read the `content` of an exported file (of a CSV file, its text) or a saved project at `path`; see `via_forms`.

    Images without regions are kept. Polylines are closed. All regions have the class `class_name`, unless the region
    attribute `class_attribute` contains the class, as text, as an option, or as check boxes of which one is checked;
    or is "@key", and the class is the name of the only attribute that the region has.

    Raises:
        DatasetNotFoundError: `images` is not a folder.
        DatasetFormatError: It is not a file of the VGG Image Annotator.
    """
    entries, choices = via_entries(content, path)
    named = [entry["filename"] for entry in entries.values() if isinstance(entry, Mapping) and "filename" in entry]
    names = [value for value in named if isinstance(value, str)]
    folder = PictureFolder(path, images, names, by_name=options.by_name)
    rows = PictureRows(name, listed=len(entries))
    if folder.note_if_none_found(rows.findings):
        entries = {}
    for key, entry in entries.items():
        where = f"{path.name} {key[:100]}"
        with rows.findings.row(where) as notes:
            image_id = get_text(entry, "filename")
            picture = folder.require(image_id, notes)
            rows.add_picture(image_id, picture, picture_size(picture))
            for index, region in _regions(entry):
                with rows.findings.row(f"{where} region {index}") as of_region:
                    label = class_name
                    if class_attribute is not None:
                        label = _class_of(region, class_attribute, choices, of_region)
                    of_region.label, of_region.picture = label, image_id
                    outline = outline_of(get(region, "shape_attributes"))
                    rows.add_outline(image_id, label, [outline], of_region)
    if class_attribute is None:
        _note_attributes(entries, path, rows.findings)
    return rows.scan((BACKGROUND, class_name) if class_attribute is None else None)


def _note_attributes(entries: Entries, path: Path, findings: Findings) -> None:
    """Note the attributes of regions that all get the same class."""
    regions = (region for entry in entries.values() for region in _listed(entry))
    attributes: dict[str, set[str]] = {}
    for region in regions:
        found = region.get("region_attributes") if isinstance(region, Mapping) else None
        for key, value in found.items() if isinstance(found, Mapping) else ():
            attributes.setdefault(str(key), set()).add(shown(value))
    if not attributes:
        return
    differ = len(attributes) > 1 or any(len(values) > 1 for values in attributes.values())
    message = (
        f"regions have the attributes {', '.join(sorted(attributes))}, but all get the same class: class_attribute= "
        f"(--class-attribute) reads classes from one, or from the names of all with {CLASS_IS_KEY}"
    )
    findings.add("warning" if differ else "info", "attributes", path.name, message)


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


def _regions(entry: Mapping[str, Any]) -> list[tuple[int | str, Any]]:
    regions = get(entry, "regions")
    if isinstance(regions, Mapping):  # version 1
        return list(regions.items())
    if isinstance(regions, list):
        return list(enumerate(regions))
    raise RowError("wrong-type", f"regions is {shown(regions)}; expected a list or an object")


def _listed(entry: Any) -> Iterable[Any]:
    try:
        return [region for _, region in _regions(entry)]
    except RowError:
        return []


def _class_of(region: Any, attribute: str, choices: Options, notes: Row) -> str:
    attributes = get(region, "region_attributes")
    if attribute == CLASS_IS_KEY:
        return _only_key(attributes)
    value = get(attributes, attribute)
    if isinstance(value, Mapping):
        ticked = [key for key, on in value.items() if on]
        if len(ticked) != 1:
            raise RowError("no-class", f"{len(ticked)} of the check boxes of {attribute!r} are checked; expected one")
        value = ticked[0]
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise RowError("no-class", f"its {attribute!r} is {shown(value)}; expected a class name")
    text = choices.get(attribute, {}).get(str(value), "")
    if isinstance(text, str) and text.strip() and text != value:
        notes.converted("class-option", f"its {attribute!r} is {shown(value)}, the option {shown(text)}")
        value = text
    return get_name({attribute: str(value)}, attribute).strip()


def _only_key(attributes: Any) -> str:
    if not isinstance(attributes, Mapping):
        raise RowError("wrong-type", f"region_attributes is {shown(attributes)}; expected an object")
    keys = [key for key, value in attributes.items() if value not in ("", None, False, {})]
    if len(keys) != 1:
        raise RowError("no-class", f"it has the attributes {shown(keys)}; expected one, whose name is the class")
    return get_name({"attribute": keys[0]}, "attribute").strip()
