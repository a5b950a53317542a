"""Reader of COCO JSON: polygons, compressed and uncompressed RLE, crowds, images without objects."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn.data.readers.coco_objects import note_other_box, note_overshoot, read_object
from maskrcnn.data.readers.findings import Findings, RowError, Scan
from maskrcnn.data.readers.json_rows import get, get_id, get_name, get_side, get_text, shown
from maskrcnn.data.readers.picture_files import PictureFolder, check_pixels
from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.errors import DatasetFormatError


@dataclass(frozen=True)
class _Picture:
    path: Path | None
    size: tuple[int, int]


def scan_coco(path: Path, images: Path | None, name: str, content: Any) -> Scan:
    """Read the `content` of the JSON file at `path`, and note invalid rows.

    Class ids are 1, 2, ... in the order of category ids, which may have gaps. Images without objects are kept.

    Raises:
        DatasetNotFoundError: `images` is not a folder.
        DatasetFormatError: It is not COCO JSON.
    """
    categories, pictures, objects = (_rows(content, key, path) for key in ("categories", "images", "annotations"))
    findings = Findings()
    class_names, category_ids, class_of = _read_categories(categories, path, findings)
    known = _read_images(pictures, path, images, findings)
    instances = _read_annotations(objects, path, known, class_of, findings)
    records = tuple(
        Record(image_id, picture.path, tuple(instances.get(image_id, ())))
        for image_id, picture in known.items()
        if picture is not None and picture.path is not None
    )
    sizes = {image_id: picture.size for image_id, picture in known.items() if picture is not None}
    return Scan(Dataset(name, class_names, records, category_ids), findings, sizes)


def _rows(content: Any, key: str, path: Path) -> list[Any]:
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise DatasetFormatError(f"{path} has no list {key!r}; expected COCO JSON: categories, images, annotations")
    return rows


def _where(path: Path, key: str, index: int, row: Any) -> str:
    name = row.get("id") if isinstance(row, dict) else None
    return f"{path.name} {key}[{index}]" + ("" if name is None else f" (id {shown(name)})")


def _read_categories(
    rows: list[Any], path: Path, findings: Findings
) -> tuple[tuple[str, ...], dict[int, int], dict[int, int | None]]:
    """Return names and category ids by class id, and class ids by category id (None for an invalid category)."""
    names: dict[int, str] = {}
    class_of: dict[int, int | None] = {}
    for index, row in enumerate(rows):
        with findings.row(_where(path, "categories", index, row)):
            category = get(row, "id")
            if isinstance(category, bool) or not isinstance(category, int):
                raise RowError("wrong-type", f"id is {shown(category)}; expected an integer")
            if category in class_of:
                raise RowError("duplicate-category", f"category id {shown(category)} is used twice")
            class_of[category] = None
            name = get_name(row, "name")
            if name in names.values():
                raise RowError("duplicate-category", f"the category name {shown(name)} is used twice")
            if name == "BG":
                raise RowError("duplicate-category", "the category name 'BG' is reserved for the background")
            names[category] = name
    if not rows:
        findings.add("error", "no-categories", path.name, "it has no categories; expected at least one")
    category_ids = dict(enumerate(sorted(names), 1))
    class_of.update({category: class_id for class_id, category in category_ids.items()})
    return ("BG", *(names[category] for category in category_ids.values())), category_ids, class_of


def _read_images(
    rows: list[Any], path: Path, images: Path | None, findings: Findings
) -> dict[int | str, _Picture | None]:
    """Return images by id; None for an invalid row."""
    names = [row["file_name"] for row in rows if isinstance(row, dict) and isinstance(row.get("file_name"), str)]
    folder = PictureFolder(path, images, names)
    none_found = folder.note_if_none_found(findings)
    known: dict[int | str, _Picture | None] = {}
    used: dict[Path, str] = {}
    for index, row in enumerate(rows):
        where = _where(path, "images", index, row)
        with findings.row(where):
            image_id = get_id(row, "id")
            if image_id in known:
                raise RowError("duplicate-image", f"image id {shown(image_id)} is used twice")
            known[image_id] = None
            file_name = get_text(row, "file_name")
            size = (get_side(row, "height"), get_side(row, "width"))
            check_pixels(*size)
            known[image_id] = _Picture(None, size)
            if none_found:
                continue
            file = folder.require(file_name)
            known[image_id] = _Picture(file, size)
            if file in used:
                findings.add("warning", "duplicate-file", where, f"{file.name} is also the image of {used[file]}")
            used[file] = where
    return known


def _read_annotations(
    rows: list[Any],
    path: Path,
    pictures: dict[int | str, _Picture | None],
    class_of: dict[int, int | None],
    findings: Findings,
) -> dict[int | str, list[Instance]]:
    seen: set[int | str] = set()
    found: dict[int | str, list[Instance]] = {}
    for index, row in enumerate(rows):
        where = _where(path, "annotations", index, row)
        with findings.row(where):
            annotation = get_id(row, "id")
            if annotation in seen:
                raise RowError("duplicate-annotation", f"annotation id {shown(annotation)} is used twice")
            seen.add(annotation)
            image_id, category = get_id(row, "image_id"), get_id(row, "category_id")
            if image_id not in pictures:
                raise RowError("unknown-image", f"image_id is {shown(image_id)}, but no image has this id")
            if category not in class_of:
                raise RowError("unknown-category", f"category_id is {shown(category)}, but no category has this id")
            picture, class_id = pictures[image_id], class_of[int(category)]
            if picture is None:  # its row was reported
                continue
            instance, overshoot = read_object(row, annotation, picture.size, class_id or 0)
            note_overshoot(overshoot, where, findings)
            note_other_box(instance, where, findings)
            if class_id is not None:
                found.setdefault(image_id, []).append(instance)
    return found
