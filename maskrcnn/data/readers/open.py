"""Opening a dataset by its path; the format is recognized."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from maskrcnn.data.readers.coco import scan_coco
from maskrcnn.data.readers.findings import Scan
from maskrcnn.data.readers.finish import finish
from maskrcnn.data.readers.json_rows import read_json
from maskrcnn.data.readers.labelme import is_labelme, scan_labelme
from maskrcnn.data.readers.mask_png import is_single, mask_folders, scan_masks
from maskrcnn.data.readers.picture_rows import BACKGROUND, DEFAULT_CLASS
from maskrcnn.data.readers.via import is_via, scan_via
from maskrcnn.data.records import Dataset, combine
from maskrcnn.errors import DatasetError, DatasetFormatError, DatasetNotFoundError

DatasetFormat = Literal["coco", "via", "labelme", "masks"]

_EXPECTED = (
    "expected a COCO JSON file, a VGG Image Annotator JSON file, a folder of labelme JSON files, or a folder of mask "
    "images (JPEGImages or images beside SegmentationObject or masks, or ID/images and ID/masks)"
)


class _Source(NamedTuple):
    """A recognized dataset; `content` is that of a JSON file."""

    path: Path
    format: DatasetFormat
    content: Any = None


def open_dataset(
    path: str | Path,
    images: str | Path | None = None,
    format: DatasetFormat | None = None,  # noqa: A002 - the word of the command line
    class_names: Sequence[str] | None = None,
    class_attribute: str | None = None,
    *,
    skip_bad: bool = False,
) -> Dataset:
    """Open a dataset in any known format.

    Args:
        path: An annotation file, a folder that contains one, or a folder of labelme files or mask images.
        images: Folder with the images; by default, the usual places around the annotations are searched.
        format: "coco", "via", "labelme" or "masks"; by default recognized.
        class_names: Classes to use, in the order of class ids, with or without "BG" in front; other objects are left
            out. Names the classes if the annotations have no names.
        class_attribute: Region attribute of the VGG Image Annotator that contains the class; by default, all regions
            have one class.
        skip_bad: Leave out invalid rows and images instead of refusing the dataset. Every image is decoded.

    Returns:
        The dataset; class ids are 1, 2, ... in the order of category ids (COCO), sorted labels (labelme, VIA) or pixel
        values (mask images).

    Raises:
        DatasetNotFoundError: There is nothing at `path`, or none of the images exists.
        DatasetFormatError: The format is unknown, or a row is invalid.
        DatasetError: The dataset lacks one of `class_names`.
    """
    names = with_background(class_names)
    dataset = finish(scan_dataset(path, images, format, names, class_attribute), Path(path), skip_bad=skip_bad)
    _check_known(names, [dataset])
    return dataset if names in (None, dataset.class_names) else combine((dataset,), names)


def open_datasets(
    paths: Sequence[str | Path],
    format: DatasetFormat | None = None,  # noqa: A002
    class_names: Sequence[str] | None = None,
    class_attribute: str | None = None,
    *,
    skip_bad: bool = False,
) -> Dataset:
    """Open several datasets and combine them; classes are matched by name.

    Args:
        paths: One or more paths as for `open_dataset`.
        format: See `open_dataset`.
        class_names: Classes to use; by default those of all datasets.
        class_attribute: See `open_dataset`.
        skip_bad: See `open_dataset`.

    Returns:
        The combined dataset; see `combine`.

    Raises:
        DatasetError: As `open_dataset`; or there are no paths, or one is given twice.
    """
    names = with_background(class_names)
    if len({Path(path).resolve() for path in paths}) != len(paths):
        raise DatasetError(f"a dataset is given twice: {', '.join(map(str, paths))}")
    scans = ((path, scan_dataset(path, None, format, names, class_attribute)) for path in paths)
    found = [finish(scan, Path(path), skip_bad=skip_bad) for path, scan in scans]
    _check_known(names, found)
    if len({dataset.name for dataset in found}) != len(found):  # image ids start with the name
        found = [replace(dataset, name=str(path)) for dataset, path in zip(found, paths, strict=True)]
    return combine(found, names)


def scan_dataset(
    path: str | Path,
    images: str | Path | None = None,
    format: DatasetFormat | None = None,  # noqa: A002
    class_names: tuple[str, ...] | None = None,
    class_attribute: str | None = None,
) -> Scan:
    """Read a dataset in any known format, and note invalid rows; see `open_dataset`."""
    if format is not None and format not in get_args(DatasetFormat):
        raise DatasetError(f"format is {format!r}; expected one of {', '.join(get_args(DatasetFormat))}")
    folder = None if images is None else Path(images)
    source = _recognize(Path(path), format)
    name = _name(source.path)
    if source.format == "coco":
        return scan_coco(source.path, folder, name, source.content)
    if source.format == "labelme":
        return scan_labelme(source.path, folder, name)
    if source.format == "masks":
        return scan_masks(source.path, class_names, name)
    if class_attribute is None and class_names is not None and len(class_names) != 2:
        raise DatasetError(
            f"{len(class_names) - 1} class names are given, but the regions of {source.path} have one class: give one "
            f"name, or the region attribute that contains the class with class_attribute="
        )
    label = class_names[1] if class_names and class_attribute is None else DEFAULT_CLASS
    return scan_via(source.path, folder, label, class_attribute, name, source.content)


def _check_known(names: tuple[str, ...] | None, datasets: Sequence[Dataset]) -> None:
    known = dict.fromkeys(name for dataset in datasets for name in dataset.class_names[1:])
    missing = [name for name in names or () if name != BACKGROUND and name not in known]
    if missing:
        raise DatasetError(f"there is no class {', '.join(missing)} in the data: it has {', '.join(known)}")


def _recognize(path: Path, wanted: DatasetFormat | None) -> _Source:
    if path.is_file():
        return _recognize_file(path, wanted)
    if not path.is_dir():
        raise DatasetNotFoundError(f"{path} does not exist; {_EXPECTED}")
    if wanted in ("labelme", "masks"):
        return _Source(path, wanted)
    if wanted is None and (all(mask_folders(path)) or is_single(path)):
        return _Source(path, "masks")
    files = sorted(file for file in path.glob("*.json") if not file.name.startswith("."))
    files = files or sorted(path.glob("annotations/*.json"))
    if not files:
        raise DatasetFormatError(f"{path} contains no dataset in a known format; {_EXPECTED}")
    first = read_json(files[0])
    if is_labelme(first):
        return _Source(files[0].parent, "labelme")
    if len(files) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in files[:8])
        raise DatasetFormatError(f"{path} contains several JSON files ({names}): give the path of one")
    return _recognize_file(files[0], wanted, first)


def _recognize_file(path: Path, wanted: DatasetFormat | None, content: Any = None) -> _Source:
    if wanted == "masks":
        raise DatasetFormatError(f"{path} is a file; expected a folder of mask images")
    if path.suffix.lower() != ".json" and wanted is None:
        raise DatasetFormatError(f"{path} is not a dataset in a known format; {_EXPECTED}")
    content = read_json(path) if content is None else content
    tests: dict[DatasetFormat, Callable[[Any], bool]] = {"via": is_via, "labelme": is_labelme, "coco": _is_coco}
    found = [wanted] if wanted is not None else [name for name, test in tests.items() if test(content)]
    if not found:
        raise DatasetFormatError(f"{path} is JSON, but not in a known format; {_EXPECTED}")
    return _Source(path, found[0], content)


def _is_coco(content: Any) -> bool:
    # Two of the three lists are enough: the error message then names the missing one.
    return isinstance(content, dict) and len({"images", "annotations", "categories"} & set(content)) >= 2


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
