"""The forms in which the VGG Image Annotator writes the same: JSON and CSV of versions 1, 2 and 3.

All become what version 2 exports as JSON: one entry per image, with `filename` and `regions`.
"""

import csv
import json
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from maskrcnn.errors import DatasetFormatError

Entries = Mapping[str, Any]
Options = Mapping[str, Mapping[str, Any]]  # text of each option by its id, by attribute

_METADATA = "_via_img_metadata"  # holds the entries in a saved project; exported files have them at the top
_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
_COLUMNS_3 = "# CSV_HEADER"  # version 3 has its column names in a comment
# Shapes of version 3 by number: a name, and the names of the numbers that follow.
_SHAPES = {
    1: ("point", ("cx", "cy")),
    2: ("rect", ("x", "y", "width", "height")),
    3: ("circle", ("cx", "cy", "r")),
    4: ("ellipse", ("cx", "cy", "rx", "ry")),
    5: ("line", ("x1", "y1", "x2", "y2")),
}
_CORNERS = {6: "polyline", 7: "polygon"}


def is_via(content: Any) -> bool:
    """Return whether this is the content of a VGG Image Annotator file; of a CSV file, its text."""
    if isinstance(content, str):
        return _is_csv(content)
    if not isinstance(content, Mapping):
        return False
    entries = content.get(_METADATA, content)
    return _is_version_3(content) or (
        isinstance(entries, Mapping)
        and (
            _METADATA in content
            or any(isinstance(entry, Mapping) and {"filename", "regions"} <= set(entry) for entry in entries.values())
        )
    )


def via_entries(content: Any, path: Path) -> tuple[Entries, Options]:
    """Return the entries of a file, and the options of its attributes.

    Raises:
        DatasetFormatError: It is not a file of the VGG Image Annotator, or is damaged.
    """
    if not is_via(content):
        raise DatasetFormatError(
            f"{path} is not a VGG Image Annotator file: expected entries with filename and regions"
        )
    if isinstance(content, str):
        try:
            return _read_csv(content)
        except csv.Error as error:
            raise DatasetFormatError(f"{path} is not a CSV file of the VGG Image Annotator: {error}") from error
    if _is_version_3(content):
        return _from_version_3(content["file"], content["metadata"], content["attribute"], content.get("view")), {}
    entries: Entries = content.get(_METADATA, content)
    described = content.get("_via_attributes") if _METADATA in content else None
    regions = described.get("region") if isinstance(described, Mapping) else None
    options = {
        name: attribute["options"]
        for name, attribute in (regions.items() if isinstance(regions, Mapping) else ())
        if isinstance(attribute, Mapping) and isinstance(attribute.get("options"), Mapping)
    }
    return entries, options


def _is_version_3(content: Mapping[str, Any]) -> bool:
    return all(isinstance(content.get(key), Mapping) for key in ("file", "metadata", "attribute"))


def _from_version_3(files: Any, metadata: Any, attributes: Any, views: Any) -> Entries:
    entries: dict[str, Any] = {}
    for key, file in files.items():
        name = (file.get("fname") or file.get("src")) if isinstance(file, Mapping) else None
        entries[key] = {"filename": name, "regions": []}
    for key, row in metadata.items():
        place = _file_of(row, views)
        if place not in entries:
            entries[f"metadata {key}"] = {}  # is refused: it belongs to no image
        elif not isinstance(row, Mapping) or row.get("xy") != []:  # without a shape, it describes the whole image
            entries[place]["regions"].append(_region_of(row, attributes))
    return entries


def _file_of(row: Any, views: Any) -> Any:
    view = row.get("vid") if isinstance(row, Mapping) else None
    shown = views.get(view) if isinstance(views, Mapping) and isinstance(view, str) else None
    files = shown.get("fid_list") if isinstance(shown, Mapping) else [view]
    place = files[0] if isinstance(files, list) and len(files) == 1 else None
    return str(place) if isinstance(place, str | int) else None


def _region_of(row: Any, attributes: Mapping[str, Any]) -> Any:
    if not isinstance(row, Mapping):
        return row
    values = row.get("av")
    described: dict[str, Any] = {}
    for key, value in values.items() if isinstance(values, Mapping) else ():
        attribute = attributes.get(key)
        if isinstance(attribute, Mapping) and isinstance(attribute.get("aname"), str):
            described[attribute["aname"]] = _chosen(value, attribute.get("options"))
    return {"shape_attributes": _shape_of(row.get("xy")), "region_attributes": described}


def _chosen(value: Any, options: Any) -> Any:
    """Return the text of an option, or check boxes by their texts."""
    if not isinstance(value, str) or not isinstance(options, Mapping) or not options:
        return value
    chosen = [options.get(each, each) for each in value.split(",")]
    if len(chosen) == 1:
        return chosen[0]
    return {str(each): True for each in chosen}


def _shape_of(numbers: Any) -> Any:
    if not isinstance(numbers, list) or not numbers or not isinstance(numbers[0], int):
        return numbers
    kind, *values = numbers
    if kind in _CORNERS:
        return {"name": _CORNERS[kind], "all_points_x": values[::2], "all_points_y": values[1::2]}
    name, keys = _SHAPES.get(kind, (f"number {kind}", ()))
    return {"name": name, **dict(zip(keys, values, strict=False))}


def _is_csv(text: str) -> bool:
    return any(_COLUMNS_3 in line for line in _comments(text)) or set(_COLUMNS) <= set(_header(text))


def _comments(text: str) -> list[str]:
    return list(takewhile(lambda line: line.startswith("#"), text.splitlines()))


def _header(text: str) -> list[str]:
    line = text.splitlines()[0] if text else ""
    return [name.strip().lstrip("#").strip('"') for name in line.split(_separator(line))]


def _separator(line: str) -> str:
    return ";" if line.count(";") > line.count(",") else ","


def _read_csv(text: str) -> tuple[Entries, Options]:
    comments = _comments(text)
    if any(_COLUMNS_3 in line for line in comments):
        return _read_csv_3(text, comments), {}
    lines = text.splitlines(keepends=True)
    header = _header(text)
    entries: dict[str, Any] = {}
    for cells in csv.reader(lines[1:], delimiter=_separator(lines[0])):
        if not cells:
            continue
        row = dict(zip(header, cells, strict=False))
        key = f"{row.get('filename')}{row.get('file_size', '')}"
        entry = entries.setdefault(key, {"filename": row.get("filename"), "regions": []})
        shape = _value(row.get("region_shape_attributes"))
        if shape != {}:  # an image without regions has one row
            attributes = _value(row.get("region_attributes"))
            entry["regions"].append({"shape_attributes": shape, "region_attributes": attributes})
    return entries, {}


def _read_csv_3(text: str, comments: list[str]) -> Entries:
    found = [line.partition("=")[2] for line in comments if line.lstrip("# ").startswith("ATTRIBUTE")]
    attributes = _value(found[0]) if found else {}
    header = next(line.partition("=")[2] for line in comments if _COLUMNS_3 in line)
    columns = [name.strip() for name in header.split(",")]
    files: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for cells in csv.reader(text.splitlines(keepends=True)[len(comments) :], skipinitialspace=True):
        if not cells:
            continue
        row = dict(zip(columns, cells, strict=False))
        names = _value(row.get("file_list"))
        name = names[0] if isinstance(names, list) and len(names) == 1 else names
        files[str(name)] = {"fname": name}
        value = {"vid": str(name), "xy": _value(row.get("spatial_coordinates")), "av": _value(row.get("metadata"))}
        metadata[str(row.get("metadata_id"))] = value
    return _from_version_3(files, metadata, attributes if isinstance(attributes, Mapping) else {}, None)


def _value(text: str | None) -> Any:
    """Return the JSON value of a cell; what is none is refused later, as a value of the wrong type."""
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
