"""Reader of folders of mask images, in one of two layouts.

Instance maps: `JPEGImages` or `images` beside `SegmentationObject` or `masks`. The gray or palette value of a pixel is
the number of its object; 0 is background, and 255 (with 8 bits) is void. `SegmentationClass` optionally has classes.
One mask per object: `ID/images/ID.png` and `ID/masks/*.png`, in which every pixel above 0 belongs to the object.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskrcnn.data.readers.findings import RowError, Scan
from maskrcnn.data.readers.mask_components import Bitmap, components, thick_part
from maskrcnn.data.readers.picture_files import list_pictures, opened_row, picture_size
from maskrcnn.data.readers.picture_rows import BACKGROUND, DEFAULT_CLASS, NamedObject, PictureRows
from maskrcnn.errors import DatasetError, DatasetFormatError
from runtime.masks.paste import crop_of
from runtime.masks.rle import encode_crop

Map = npt.NDArray[np.int32]

_NOBODY = 255
# VOC draws a void outline of 5 pixels around every object; only wider void areas hide objects.
_WIDER = 7
# More values mean a 16-bit photo instead of a map, which would take minutes to read.
_MAX_OBJECTS = 10_000
_KINDS = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")


def scan_masks(path: Path, class_names: Sequence[str] | None, name: str) -> Scan:
    """Read a folder in one of the two layouts, and note invalid rows.

    Images without a mask file are left out. Void areas wider than an outline become crowds of the first class, one per
    connected region.

    Args:
        path: The folder.
        class_names: Background first, indexed by the value in `SegmentationClass`; without that folder there is one
            class. By default "object", or "class 1", "class 2", ...
        name: Name of the dataset.

    Raises:
        DatasetFormatError: The folder has neither layout.
    """
    rows = PictureRows(name)
    pictures, masks = mask_folders(path)
    if pictures is not None and masks is not None:
        return _scan_maps(rows, pictures, masks, path / "SegmentationClass", class_names)
    if not is_single(path):
        raise DatasetFormatError(
            f"{path} has no masks: expected JPEGImages or images beside SegmentationObject or masks, or a folder for "
            f"each image that contains images and masks"
        )
    return _scan_single(rows, path, class_names)


def mask_folders(path: Path) -> tuple[Path | None, Path | None]:
    """Return the folders of the images and of the instance maps, None for a missing one."""
    pictures = (path / name for name in ("JPEGImages", "images"))
    masks = (path / name for name in ("SegmentationObject", "masks"))
    return next(filter(Path.is_dir, pictures), None), next(filter(Path.is_dir, masks), None)


def is_single(path: Path) -> bool:
    """Return whether a folder has subfolders with `images` and `masks`."""
    return any((folder / "images").is_dir() and (folder / "masks").is_dir() for folder in path.iterdir())


def _scan_maps(
    rows: PictureRows, pictures: Path, masks: Path, classes: Path, class_names: Sequence[str] | None
) -> Scan:
    files, maps = list_pictures(pictures), list_pictures(masks)
    class_maps = list_pictures(classes) if classes.is_dir() else None
    if class_maps is None:
        class_names = _one_class(class_names)
    highest = 1
    for stem, mask in maps.items():
        where = f"{masks.name}/{mask.name}"
        with rows.findings.row(where):
            if stem not in files:
                raise RowError("missing-file", f"there is no image {stem!r} in {pictures}")
            size = picture_size(files[stem])
            objects, eight_bits = _read_map(mask, size)
            if class_maps is not None and stem not in class_maps:
                raise RowError("missing-file", f"there is no {stem!r} in {classes}")
            kinds = np.minimum(objects, 1) if class_maps is None else _read_map(class_maps[stem], size)[0]
            rows.add_picture(stem, files[stem], size)
            highest = max(highest, _add_objects(rows, stem, objects, kinds, class_names, where, eight_bits))
    bare = [stem for stem in files if stem not in maps]
    if bare:
        message = f"{len(bare)} images have no mask file and are left out, first {bare[0]}"
        rows.findings.add("info", "no-mask-file", pictures.name, message)
    return rows.scan(class_names or (BACKGROUND, *(_numbered(index) for index in range(1, highest + 1))))


def _add_objects(
    rows: PictureRows,
    stem: str,
    objects: Map,
    kinds: Map,
    class_names: Sequence[str] | None,
    where: str,
    eight_bits: bool,
) -> int:
    """Add the objects of an instance map, and return the highest class id."""
    highest = 1
    nobody = (objects == _NOBODY) & eight_bits
    values = np.unique(objects[~nobody]).tolist()
    if len(values) > _MAX_OBJECTS:
        raise RowError("mask-mode", f"the mask has {len(values)} values; expected object numbers: is it a photo?")
    for value in values:
        if value == 0:
            continue
        with rows.findings.row(f"{where} object {value}"):
            mask = objects == value
            inside = kinds[mask]
            inside = inside[(inside != 0) & (inside != _NOBODY)]
            if not inside.size:
                raise RowError("no-class", "none of its pixels has a class in SegmentationClass")
            class_id = int(np.bincount(inside).argmax())
            if class_names is not None and class_id >= len(class_names):
                raise RowError(
                    "unknown-category", f"its class is {class_id}, but there are {len(class_names)} class names"
                )
            highest = max(highest, class_id)
            name = _numbered(class_id) if class_names is None else class_names[class_id]
            _add(rows, stem, name, mask, f"{where} object {value}")
    for part in components(thick_part(nobody, _WIDER)):
        _add(rows, stem, _numbered(1) if class_names is None else class_names[1], part, where, crowd=True)
    return highest


def _scan_single(rows: PictureRows, path: Path, class_names: Sequence[str] | None) -> Scan:
    names = _one_class(class_names)
    for folder in sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith(".")):
        with rows.findings.row(folder.name):
            pictures = list_pictures(folder / "images")
            if len(pictures) != 1:
                raise RowError("missing-file", f"there are {len(pictures)} images in {folder / 'images'}; expected 1")
            if not (folder / "masks").is_dir():
                raise RowError("missing-file", f"there is no folder {folder / 'masks'}")
            picture = next(iter(pictures.values()))
            size = picture_size(picture)
            rows.add_picture(folder.name, picture, size)
            for mask in list_pictures(folder / "masks").values():
                where = f"{folder.name}/masks/{mask.name}"
                with rows.findings.row(where):
                    _add(rows, folder.name, names[1], _read_map(mask, size, colors=True)[0] > 0, where)
    return rows.scan(names)


def _add(rows: PictureRows, stem: str, name: str, mask: Bitmap, where: str, *, crowd: bool = False) -> None:
    found = encode_crop(*crop_of(mask), rows.sizes[stem])
    rows.add_object(stem, NamedObject(name, found, where, crowd))


def _read_map(path: Path, size: tuple[int, int], *, colors: bool = False) -> tuple[Map, bool]:
    """Return pixel values (of palettes, the index), int32 [H, W], and whether the file has 8 bits."""
    with opened_row(path, "mask") as image:
        _check_size(image.size[::-1], size)
        mode = image.mode
        values = _values(image, colors)
    if values.min() < 0:
        raise RowError("mask-mode", "the mask has a negative value")
    return values, mode in ("L", "P")


def _values(image: Image.Image, colors: bool) -> Map:
    if image.mode in _KINDS:
        return np.asarray(image).astype(np.int32)
    if not colors:
        raise RowError(
            "mask-mode", f"the mask has mode {image.mode}; expected gray or palette values that are object numbers"
        )
    return np.asarray(image.convert("RGB")).max(axis=2).astype(np.int32)


def _check_size(found: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise RowError, before decoding, if a mask has another size than its image."""
    if found != size:
        message = f"the mask has {found[1]} x {found[0]} pixels, its image {size[1]} x {size[0]}"
        raise RowError("image-size", message)


def _one_class(class_names: Sequence[str] | None) -> Sequence[str]:
    if class_names is not None and len(class_names) != 2:
        raise DatasetError(
            f"{len(class_names) - 1} class names are given ({', '.join(class_names[1:])}), but these masks do not "
            f"distinguish classes: expected one"
        )
    return class_names or (BACKGROUND, DEFAULT_CLASS)


def _numbered(class_id: int) -> str:
    return f"class {class_id}"
