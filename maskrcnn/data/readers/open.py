"""Any dataset by its path: the format is recognized from what is there."""

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
    "pictures (JPEGImages or images beside SegmentationObject or masks, or ID/images and ID/masks)"
)


class _Source(NamedTuple):
    """What was recognized; `content` is that of a COCO or VIA file."""

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
    """Read a dataset of any known format.

    Args:
        path: A file, or a folder that holds one or is one.
        images: Folder of the pictures, where it is not beside the annotations.
        format: "coco", "via", "labelme" or "masks"; by default recognized.
        class_names: Classes to use, in the order of class ids, with or without "BG" in front; objects of others are
            left out. Where the annotations have no names, it gives them.
        class_attribute: Region attribute of the VGG Image Annotator that holds the class.
        skip_bad: Leave out rows and pictures that cannot be used, instead of refusing the dataset.

    Raises:
        DatasetNotFoundError: There is nothing at `path`, or no picture.
        DatasetFormatError: The format is not known, or a row cannot be used.
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
    """Read several datasets as one; classes are matched by name. See `open_dataset`.

    Raises:
        DatasetError: As `open_dataset`, or no path is given.
    """
    names = with_background(class_names)
    if len({Path(path).resolve() for path in paths}) != len(paths):
        raise DatasetError(f"a dataset is given twice: {', '.join(map(str, paths))}")
    scans = ((path, scan_dataset(path, None, format, names, class_attribute)) for path in paths)
    found = [finish(scan, Path(path), skip_bad=skip_bad) for path, scan in scans]
    _check_known(names, found)
    if len({dataset.name for dataset in found}) != len(found):  # ids of pictures begin with the name
        found = [replace(dataset, name=str(path)) for dataset, path in zip(found, paths, strict=True)]
    return combine(found, names)


def scan_dataset(
    path: str | Path,
    images: str | Path | None = None,
    format: DatasetFormat | None = None,  # noqa: A002
    class_names: tuple[str, ...] | None = None,
    class_attribute: str | None = None,
) -> Scan:
    """Read what is good and note what is bad, of any known format; see `open_dataset`.

    Raises:
        DatasetNotFoundError: There is nothing at `path`.
        DatasetFormatError: The format is not known.
    """
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
            f"{len(class_names) - 1} classes are named, but the regions of {source.path} are of one class: give one, "
            f"or name the region attribute that tells them apart with class_attribute="
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
        raise DatasetFormatError(f"{path} holds no dataset in a known format; {_EXPECTED}")
    first = read_json(files[0])
    if is_labelme(first):
        return _Source(files[0].parent, "labelme")
    if len(files) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in files[:8])
        raise DatasetFormatError(f"{path} holds several JSON files ({names}): give the path of one")
    return _recognize_file(files[0], wanted, first)


def _recognize_file(path: Path, wanted: DatasetFormat | None, content: Any = None) -> _Source:
    if wanted == "masks":
        raise DatasetFormatError(f"{path} is a file; expected a folder of mask pictures")
    if path.suffix.lower() != ".json" and wanted is None:
        raise DatasetFormatError(f"{path} is not a dataset in a known format; {_EXPECTED}")
    content = read_json(path) if content is None else content
    tests: dict[DatasetFormat, Callable[[Any], bool]] = {"via": is_via, "labelme": is_labelme, "coco": _is_coco}
    found = [wanted] if wanted is not None else [name for name, test in tests.items() if test(content)]
    if not found:
        raise DatasetFormatError(f"{path} is JSON, but of no known format; {_EXPECTED}")
    return _Source(path, found[0], content)


def _is_coco(content: Any) -> bool:
    # Two of the three lists: the third one is then named as missing.
    return isinstance(content, dict) and len({"images", "annotations", "categories"} & set(content)) >= 2


def _name(path: Path) -> str:
    """File name without suffix, with its folder where that tells more: every split may have a `via_region_data`."""
    return f"{path.resolve().parent.name}/{path.stem}" if path.is_file() else path.resolve().name


def with_background(class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Class names with "BG" in front.

    Raises:
        DatasetError: There is none, or one is there twice.
    """
    if class_names is None:
        return None
    if isinstance(class_names, str):
        raise DatasetError(f"class_names is {class_names!r}; expected a list of names")
    names = tuple(class_names)
    names = names if names[:1] == (BACKGROUND,) else (BACKGROUND, *names)
    if len(names) < 2 or len(set(names)) != len(names):
        raise DatasetError(f"class_names is {', '.join(names)}: expected at least one name, each once")
    return names
