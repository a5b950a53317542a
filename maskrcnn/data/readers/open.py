"""Opening a dataset by its path; the format is recognized."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from maskrcnn.data.readers.coco import is_coco, scan_coco
from maskrcnn.data.readers.findings import DatasetFinding, Scan, summary
from maskrcnn.data.readers.finish import count_objects, finish
from maskrcnn.data.readers.json_rows import UTF_8, note_encoding, read_json, read_text
from maskrcnn.data.readers.labelme import is_labelme, scan_labelme
from maskrcnn.data.readers.mask_png import is_single, mask_folders, scan_masks
from maskrcnn.data.readers.options import DatasetFormat, ReadOptions
from maskrcnn.data.readers.picture_rows import BACKGROUND, DEFAULT_CLASS
from maskrcnn.data.readers.via import scan_via
from maskrcnn.data.readers.via_forms import is_via
from maskrcnn.data.readers.yolo import find_yolo, is_yolo_file, scan_yolo, yolo_splits
from maskrcnn.data.records import Dataset, combine
from maskrcnn.errors import DatasetError, DatasetFormatError, DatasetNotFoundError

# Called with the name of each dataset and what was found in it: conversions, what is left out, objects per class.
Report = Callable[[str, Sequence[DatasetFinding]], None]

_EXPECTED = (
    "expected a COCO JSON file, a VGG Image Annotator JSON or CSV file, a folder of labelme JSON files, a folder of "
    "mask images (JPEGImages or images beside SegmentationObject, SegmentationClass or masks, or ID/images and "
    "ID/masks), or a folder of "
    "images and YOLO labels"
)
_TESTS: dict[DatasetFormat, Callable[[Any], bool]] = {"via": is_via, "labelme": is_labelme, "coco": is_coco}
_MOST_NAMED = 8

_logger = logging.getLogger(__name__)


class _Source(NamedTuple):
    """A recognized dataset; `content` is that of a JSON file, the text of a CSV file, or a YOLO folder."""

    path: Path
    format: DatasetFormat
    content: Any = None
    encoding: str = UTF_8
    others: tuple[Path, ...] = ()  # files beside it that are no datasets


def open_dataset(
    path: str | Path,
    images: str | Path | None = None,
    format: DatasetFormat | None = None,  # noqa: A002 - the word of the command line
    class_names: Sequence[str] | None = None,
    class_attribute: str | None = None,
    *,
    skip_bad: bool = False,
    options: ReadOptions | None = None,
    report: Report | None = None,
) -> Dataset:
    """Open a dataset in any known format.

    Args:
        path: An annotation file, a folder that contains one, or a folder of labelme files, mask images, or YOLO labels.
        images: Folder with the images; by default, the usual places around the annotations are searched.
        format: "coco", "via", "labelme", "masks" or "yolo"; by default recognized.
        class_names: Classes to use, in the order of class ids, with or without "BG" in front; other objects are left
            out. Names the classes if the annotations have no names.
        class_attribute: Region attribute of the VGG Image Annotator that contains the class, or "@key" if the name of
            the region's only attribute is its class; by default, all regions have one class.
        skip_bad: Leave out invalid rows and images instead of refusing the dataset. Every image is decoded.
        options: What annotations alone do not tell, see `ReadOptions`.
        report: Called with the dataset's name and the findings; by default, warnings are logged.

    Returns:
        The dataset; class ids are 1, 2, ... in the order of category ids (COCO, YOLO), sorted labels (labelme, VIA) or
        pixel values (mask images).

    Raises:
        DatasetNotFoundError: There is nothing at `path`, or none of the images exists.
        DatasetFormatError: The format is unknown, or a row is invalid.
        DatasetError: The dataset lacks one of `class_names`.
    """
    names = with_background(class_names)
    dataset = _opened(path, images, format, names, class_attribute, options, skip_bad, report)
    _check_known(names, [dataset])
    return dataset if names in (None, dataset.class_names) else combine((dataset,), names)


def open_datasets(
    paths: Sequence[str | Path],
    format: DatasetFormat | None = None,  # noqa: A002
    class_names: Sequence[str] | None = None,
    class_attribute: str | None = None,
    *,
    images: Sequence[str | Path] | None = None,
    skip_bad: bool = False,
    options: ReadOptions | None = None,
    report: Report | None = None,
) -> Dataset:
    """Open several datasets and combine them; classes are matched by name.

    Args:
        paths: One or more paths as for `open_dataset`.
        format: See `open_dataset`.
        class_names: Classes to use; by default those of all datasets.
        class_attribute: See `open_dataset`.
        images: Folders with the images: one for each of `paths`, or one for all.
        skip_bad: See `open_dataset`.
        options: See `open_dataset`.
        report: See `open_dataset`.

    Returns:
        The combined dataset; see `combine`.

    Raises:
        DatasetError: As `open_dataset`; or there are no paths, one is given twice, or `images` are too many or too few.
    """
    found = open_each(
        paths, format, class_names, class_attribute, images=images, skip_bad=skip_bad, options=options, report=report
    )
    return combine(found, with_background(class_names))


def open_each(
    paths: Sequence[str | Path],
    format: DatasetFormat | None = None,  # noqa: A002
    class_names: Sequence[str] | None = None,
    class_attribute: str | None = None,
    *,
    images: Sequence[str | Path] | None = None,
    skip_bad: bool = False,
    options: ReadOptions | None = None,
    report: Report | None = None,
) -> list[Dataset]:
    """Open several datasets, with different names, for `combine`; see `open_datasets`."""
    names = with_background(class_names)
    if len({Path(path).resolve() for path in paths}) != len(paths):
        raise DatasetError(f"a dataset is given twice: {', '.join(map(str, paths))}")
    folders: list[str | Path | None] = list(images or [None])  # type: ignore[list-item]
    folders = folders * len(paths) if len(folders) == 1 else folders
    if len(folders) != len(paths):
        raise DatasetError(
            f"{len(folders)} folders of images are given for {len(paths)} datasets: expected one for each, or one for "
            f"all"
        )
    found = [
        _opened(path, folder, format, names, class_attribute, options, skip_bad, report)
        for path, folder in zip(paths, folders, strict=True)
    ]
    _check_known(names, found)
    if len({dataset.name for dataset in found}) != len(found):  # image ids start with the name
        found = [replace(dataset, name=str(path)) for dataset, path in zip(found, paths, strict=True)]
    return found


def _opened(
    path: str | Path,
    images: str | Path | None,
    kind: DatasetFormat | None,
    names: tuple[str, ...] | None,
    class_attribute: str | None,
    options: ReadOptions | None,
    skip_bad: bool,
    report: Report | None,
) -> Dataset:
    scan = scan_dataset(path, images, kind, names, class_attribute, options)
    dataset = finish(scan, Path(path), skip_bad=skip_bad)
    count_objects(scan.findings, dataset)
    (report or _log)(str(path), scan.findings.items)
    return dataset


def _log(name: str, found: Sequence[DatasetFinding]) -> None:
    for level, kind, count, text in summary(found):
        if level != "info":
            _logger.warning("%s: %s (%d): %s", name, kind, count, text)


def scan_dataset(
    path: str | Path,
    images: str | Path | None = None,
    format: DatasetFormat | None = None,  # noqa: A002
    class_names: tuple[str, ...] | None = None,
    class_attribute: str | None = None,
    options: ReadOptions | None = None,
) -> Scan:
    """Read a dataset in any known format, and note invalid rows; see `open_dataset`."""
    if format is not None and format not in get_args(DatasetFormat):
        raise DatasetError(f"format is {format!r}; expected one of {', '.join(get_args(DatasetFormat))}")
    options = options or ReadOptions()
    source = _recognize(Path(path), format, options)
    if images is not None and source.format in ("masks", "yolo"):
        raise DatasetError(f"images= (--images) is given, but {source.path} holds its images itself")
    scan = _scan(source, None if images is None else Path(images), class_names, class_attribute, options)
    with scan.findings.row(source.path.name) as notes:
        note_encoding(source.encoding, notes)
    for other in source.others:
        scan.findings.add("info", "other-file", other.name, "it is no dataset in a known format and is left out")
    return scan


def _scan(
    source: _Source,
    images: Path | None,
    class_names: tuple[str, ...] | None,
    class_attribute: str | None,
    options: ReadOptions,
) -> Scan:
    name = _name(source.path)
    if source.format == "coco":
        return scan_coco(source.path, images, name, source.content, options)
    if source.format == "labelme":
        return scan_labelme(source.path, images, name, options)
    if source.format == "masks":
        return scan_masks(source.path, class_names, name, options)
    if source.format == "yolo":
        return scan_yolo(source.content, class_names, name, options)
    if class_attribute is None and class_names is not None and len(class_names) != 2:
        raise DatasetError(
            f"{len(class_names) - 1} class names are given, but the regions of {source.path} have one class: give one "
            f"name, or the region attribute that contains the class with class_attribute="
        )
    label = class_names[1] if class_names and class_attribute is None else DEFAULT_CLASS
    return scan_via(source.path, images, label, class_attribute, name, source.content, options)


def _check_known(names: tuple[str, ...] | None, datasets: Sequence[Dataset]) -> None:
    known = dict.fromkeys(name for dataset in datasets for name in dataset.class_names[1:])
    missing = [name for name in names or () if name != BACKGROUND and name not in known]
    if missing:
        raise DatasetError(f"there is no class {', '.join(missing)} in the data: it has {', '.join(known)}")


def require_existing(paths: Sequence[str | Path]) -> None:
    """Raise DatasetNotFoundError if there is nothing at a path of a dataset, before time is spent on others."""
    for path in paths:
        if not os.path.lexists(path):
            raise DatasetNotFoundError(f"{path} does not exist; {_EXPECTED}")


def _recognize(path: Path, wanted: DatasetFormat | None, options: ReadOptions) -> _Source:
    if path.is_file():
        return _recognize_file(path, wanted, options)
    if not path.is_dir():
        raise DatasetNotFoundError(f"{path} does not exist; {_EXPECTED}")
    if wanted in ("labelme", "masks"):
        return _Source(path, wanted)
    if wanted is None and (all(mask_folders(path)) or is_single(path)):
        return _Source(path, "masks")
    yolo = find_yolo(path) if wanted in (None, "yolo") else None
    if yolo is not None:
        return _Source(path, "yolo", yolo)
    for place in (path, path / "annotations"):
        found = _recognize_files(place, wanted, options)
        if found is not None:
            return found
    splits = _splits(path)
    if splits:
        shown = ", ".join(map(str, splits[:_MOST_NAMED]))
        raise DatasetFormatError(f"{path} has no annotations itself, but splits of a dataset: give one of {shown}")
    raise DatasetFormatError(f"{path} contains no dataset in a known format; {_EXPECTED}")


def _recognize_files(folder: Path, wanted: DatasetFormat | None, options: ReadOptions) -> _Source | None:
    """Return the only dataset among the files of a folder; None if there are no files to look at."""
    others: list[Path] = []
    for pattern in ("*.json", "data*.y*ml", "*.csv"):
        files = sorted(file for file in folder.glob(pattern) if not file.name.startswith("."))
        found: list[_Source] = []
        for file in files:
            try:
                found.append(_recognize_file(file, wanted, options))
            except DatasetFormatError:
                if len(files) == 1 and pattern != "*.csv":  # it says best what is wrong
                    raise
                others.append(file)
                continue
            if found[-1].format == "labelme":
                return _Source(folder, "labelme")
        if len(found) > 1:
            names = ", ".join(str(source.path.relative_to(folder)) for source in found[:_MOST_NAMED])
            raise DatasetFormatError(f"{folder} contains several datasets ({names}): give the path of one")
        if found:
            return found[0]._replace(others=tuple(others))
    if others:
        names = ", ".join(file.name for file in others[:_MOST_NAMED])
        raise DatasetFormatError(f"{folder} has no dataset in a known format among its files ({names}); {_EXPECTED}")
    return None


def _splits(path: Path) -> list[Path]:
    """Return the subfolders that look like datasets, without reading them."""
    folders = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    folders += sorted(each for each in (path / "images").glob("*") if each.is_dir())
    return [
        each
        for each in folders
        if any(each.glob("*.json")) or any(each.glob("*.csv")) or all(mask_folders(each)) or find_yolo(each)
    ]


def _recognize_file(path: Path, wanted: DatasetFormat | None, options: ReadOptions) -> _Source:
    if wanted == "masks":
        raise DatasetFormatError(f"{path} is a file; expected a folder of mask images")
    if is_yolo_file(path) or wanted == "yolo":
        return _recognize_yolo(path)
    content: Any
    if path.suffix.lower() == ".csv":
        content, encoding = read_text(path, options.encoding)
    elif path.suffix.lower() != ".json" and wanted is None:
        raise DatasetFormatError(f"{path} is not a dataset in a known format; {_EXPECTED}")
    else:
        content, encoding = read_json(path, options.encoding)
    found = [wanted] if wanted is not None else [name for name, test in _TESTS.items() if test(content)]
    if not found:
        kind = "CSV" if isinstance(content, str) and path.suffix.lower() == ".csv" else "JSON"
        raise DatasetFormatError(f"{path} is {kind}, but not in a known format; {_EXPECTED}")
    return _Source(path, found[0], content, encoding)


def _recognize_yolo(path: Path) -> _Source:
    if not is_yolo_file(path):
        raise DatasetFormatError(f"{path} is no folder and no data.yaml; expected one of them for a YOLO dataset")
    splits = yolo_splits(path)
    if not splits:
        raise DatasetFormatError(
            f"{path} names no folder of images that exists beside a folder of labels: expected train: images or the "
            f"like, and labels/*.txt"
        )
    if len(set(splits.values())) > 1:
        shown = ", ".join(f"{folder} ({split})" for split, folder in splits.items())
        raise DatasetFormatError(f"{path} has the splits {', '.join(splits)}: give the folder of one: {shown}")
    folder = next(iter(splits.values()))
    return _Source(path, "yolo", find_yolo(folder))


def _name(path: Path) -> str:
    """Return folder name and file stem (splits often have files of the same name), or the name of a folder."""
    return f"{path.resolve().parent.name}/{path.stem}" if path.is_file() else path.resolve().name


def with_background(class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return class names with "BG" in front.

    Raises:
        DatasetError: There are no names, or duplicates.
    """
    if class_names is None:
        return None
    if isinstance(class_names, str):
        raise DatasetError(f"class_names is {class_names!r}; expected a list of names")
    names = tuple(class_names)
    names = names if names[:1] == (BACKGROUND,) else (BACKGROUND, *names)
    if len(names) < 2 or len(set(names)) != len(names):
        raise DatasetError(f"class_names is {', '.join(names)}: expected at least one name, without duplicates")
    return names
