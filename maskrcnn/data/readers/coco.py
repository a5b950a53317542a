"""Reader of COCO JSON: polygons, compressed and uncompressed RLE, crowds, images without objects."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn.data.readers.coco_categories import Categories, read_categories, row_name
from maskrcnn.data.readers.coco_objects import note_other_box, note_overshoot, read_object
from maskrcnn.data.readers.findings import Findings, Row, RowError, Scan
from maskrcnn.data.readers.json_rows import get_id, get_side, get_text, shown, whole
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.data.readers.picture_files import check_pixels, picture_size
from maskrcnn.data.readers.picture_folder import PictureFolder
from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.errors import DatasetFormatError


@dataclass(frozen=True)
class _Picture:
    """An image; `first` is the id of an earlier row with the same file, whose objects are joined."""

    path: Path | None
    size: tuple[int, int]
    first: int | str | None = None


_Pictures = dict[int | str, _Picture | None]  # by image id; None for an invalid row


def scan_coco(path: Path, images: Path | None, name: str, content: Any, options: ReadOptions) -> Scan:
    """Read the `content` of the JSON file at `path`, and note invalid rows.

    Class ids are 1, 2, ... in the order of category ids, which may have gaps. Images without objects are kept.

    Raises:
        DatasetNotFoundError: `images` is not a folder.
        DatasetFormatError: It is not COCO JSON.
    """
    categories, pictures, objects = (_rows(content, key, path) for key in ("categories", "images", "annotations"))
    findings = Findings()
    classes = read_categories(categories, objects, path, findings)
    known = _read_images(pictures, path, images, findings, options)
    instances = _read_annotations(objects, path, known, classes, findings, options)
    records = tuple(
        Record(image_id, picture.path, tuple(instances.get(image_id, ())))
        for image_id, picture in known.items()
        if picture is not None and picture.path is not None and picture.first is None
    )
    sizes = {image_id: picture.size for image_id, picture in known.items() if picture is not None}
    joined = sum(picture is not None and picture.first is not None for picture in known.values())
    return Scan(Dataset(name, classes.names, records, classes.ids), findings, sizes, len(pictures) - joined)


def is_coco(content: Any) -> bool:
    """Return whether this is COCO JSON, or nearly: the message about a missing list is better than none."""
    return isinstance(content, dict) and len({"images", "annotations", "categories"} & set(content)) >= 2


def _rows(content: Any, key: str, path: Path) -> list[Any]:
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise DatasetFormatError(f"{path} has no list {key!r}; expected COCO JSON: categories, images, annotations")
    return rows


def _read_images(
    rows: list[Any], path: Path, images: Path | None, findings: Findings, options: ReadOptions
) -> _Pictures:
    names = [row["file_name"] for row in rows if isinstance(row, dict) and isinstance(row.get("file_name"), str)]
    folder = PictureFolder(path, images, names, by_name=options.by_name)
    none_found = folder.note_if_none_found(findings)
    known: _Pictures = {}
    users: dict[Path, int | str] = {}
    for index, row in enumerate(rows):
        with findings.row(row_name(path, "images", index, row)) as notes:
            image_id = get_id(row, "id", notes)
            if image_id in known:
                raise RowError("duplicate-image", f"image id {shown(image_id)} is used twice")
            known[image_id] = None
            file_name = get_text(row, "file_name")
            size = _stated_size(row, notes)
            known[image_id] = None if size is None else _Picture(None, size)
            if none_found:
                continue
            file = folder.require(file_name, notes)
            if size is None:
                size = picture_size(file)
                notes.converted("no-size", f"it has no width and height; its file has {size[1]} x {size[0]} pixels")
            known[image_id] = _joined(file, size, image_id, known, users, options, notes)
    return known


def _stated_size(row: Any, notes: Row) -> tuple[int, int] | None:
    if row.get("height") is None and row.get("width") is None:
        return None
    size = get_side(row, "height", notes), get_side(row, "width", notes)
    check_pixels(*size)
    return size


def _joined(
    file: Path,
    size: tuple[int, int],
    image_id: int | str,
    known: _Pictures,
    users: dict[Path, int | str],
    options: ReadOptions,
    notes: Row,
) -> _Picture:
    """Return the image, joined with an earlier row of the same file if that is asked for."""
    first = users.setdefault(file, image_id)
    if first == image_id:
        return _Picture(file, size)
    earlier = known[first]
    if not options.by_name:
        raise RowError(
            "duplicate-file",
            f"{file.name} is also the image of id {shown(first)}: each would train the other's objects as background; "
            f"by_name=True (--by-name) makes one image of rows with one file",
        )
    if earlier is None or earlier.size != size:
        raise RowError("image-size", f"it has another size than id {shown(first)}, which has the same file")
    notes.converted("image-joined", f"{file.name} is also the image of id {shown(first)}: they are one image")
    return _Picture(file, size, first)


def _read_annotations(
    rows: list[Any],
    path: Path,
    pictures: _Pictures,
    classes: Categories,
    findings: Findings,
    options: ReadOptions,
) -> dict[int | str, list[Instance]]:
    seen: dict[int | str, Any] = {}
    found: dict[int | str, list[Instance]] = {}
    unusable: Counter[int] = Counter()
    for index, row in enumerate(rows):
        where = row_name(path, "annotations", index, row)
        with findings.row(where) as notes:
            annotation, repeated = _read_id(row, seen, notes)
            if repeated:
                continue
            image_id = notes.picture = _image_of(row, pictures, notes)
            category = _category_of(row, classes, notes)
            class_id = classes.class_of[category]
            if class_id is not None:
                notes.label = classes.names[class_id]
            else:
                unusable[category] += 1
            picture = pictures[image_id]
            lost = [(notes.label, image_id)] if notes.label else []
            if picture is None:  # its row was reported
                findings.lost.update(lost)
                continue
            read = read_object(row, annotation, picture.size, class_id or 0, options, notes)
            if read is None:  # it was noted
                findings.lost.update(lost)
                continue
            instance, overshoot = read
            note_overshoot(overshoot, notes)
            note_other_box(instance, notes)
            if class_id is not None:
                found.setdefault(image_id if picture.first is None else picture.first, []).append(instance)
            if picture.path is None:
                findings.lost.update(lost)
    for category, count in unusable.items():
        message = f"category {shown(category)} cannot be used: its {count} objects are left out and train as background"
        findings.add("warning", "class-left-out", path.name, message)
    return found


def _read_id(row: Any, seen: dict[int | str, Any], notes: Row) -> tuple[int | str | None, bool]:
    """Return the id of a row, and whether the row repeats an earlier one entirely.

    Raises:
        RowError: Only its id is that of another row.
    """
    if isinstance(row, Mapping) and row.get("id") is None:
        notes.converted("no-id", "it has no id, which is not needed")
        return None, False
    annotation = get_id(row, "id", notes)
    earlier = seen.setdefault(annotation, row)
    if earlier is row:
        return annotation, False
    if earlier != row:
        raise RowError("duplicate-annotation", f"annotation id {shown(annotation)} is used twice")
    notes.converted("repeated", f"annotation id {shown(annotation)} is there twice with equal values, and is read once")
    return annotation, True


def _image_of(row: Any, pictures: _Pictures, notes: Row) -> int | str:
    value = get_id(row, "image_id", notes)
    if value in pictures:
        return value
    other = str(value) if isinstance(value, int) and value.bit_length() < 64 else whole(value)
    if other is None or other not in pictures:
        raise RowError("unknown-image", f"image_id is {shown(value)}, but no image has this id")
    notes.converted("id-type", f"image_id is {shown(value)}, the id of its image {shown(other)}")
    return other


def _category_of(row: Any, classes: Categories, notes: Row) -> int:
    value = get_id(row, "category_id", notes)
    category = whole(value)
    if category is None or category not in classes.class_of:
        raise RowError("unknown-category", f"category_id is {shown(value)}, but no category has this id")
    if not isinstance(value, int):
        notes.converted("id-type", f"category_id is {shown(value)}, read as {category}")
    return category
