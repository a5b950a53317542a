"""Datasets that come in parts: one for training, one for validation and perhaps one for a test."""

from contextlib import suppress
from pathlib import Path

from maskrcnn.data.readers.mask_png import mask_folders
from maskrcnn.data.readers.yolo import find_yolo, is_yolo_file, yolo_splits
from maskrcnn.data.split import TEST, TRAIN, VAL
from maskrcnn.errors import DatasetError

_NAMES = {TRAIN: (TRAIN,), VAL: (VAL, "valid", "validation"), TEST: (TEST,)}


def dataset_parts(path: Path) -> dict[str, Path]:
    """Return the parts of a dataset by name, each a path for `open_dataset`; {} unless there are train and val.

    They are the annotations `train.json` and `val.json` (or `valid.json`, `validation.json`) in a folder or in its
    `annotations`, if it has no other JSON files but `test.json`; the folders `train` and `val`; `images/train` and
    `images/val`; or the splits of a `data.yaml`.
    """
    found = _listed(path)
    parts = {part: found[name] for part, names in _NAMES.items() for name in names[::-1] if name in found}
    return parts if {TRAIN, VAL} <= set(parts) and len(set(parts.values())) == len(parts) else {}


def _listed(path: Path) -> dict[str, Path]:
    """Return what may be parts, by name; {} if the path is a dataset itself."""
    if path.is_file():
        return yolo_splits(path) if is_yolo_file(path) else {}
    for place in (path, path / "annotations"):
        files = {file.stem: file for file in sorted(place.glob("*.json")) if not file.name.startswith(".")}
        if files:
            return files if set(files) <= {name for names in _NAMES.values() for name in names} else {}
    if any(path.glob("*.csv")) or (path.is_dir() and (all(mask_folders(path)) or find_yolo(path) is not None)):
        return {}
    for file in sorted(path.glob("data*.y*ml")):
        with suppress(DatasetError):  # opening it says what is wrong
            return yolo_splits(file)
    folders = [each for place in (path / "images", path) for each in sorted(place.glob("*")) if each.is_dir()]
    return {each.name: each for each in folders}
