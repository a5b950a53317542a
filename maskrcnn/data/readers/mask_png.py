"""Reader of folders of mask images, in one of two layouts.

Maps: `JPEGImages` or `images` beside `SegmentationObject` or `masks`. The gray or palette value of a pixel, or its
color, is the number of its object; 0 or black is background, and 255 (with 8 bits) is void. `SegmentationClass`
optionally has classes. One mask per object: `ID/images/ID.png` and `ID/masks/*.png`, in which every pixel above 0
belongs to the object.

What values mean cannot always be told from the files: `ReadOptions.mask_values` says it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskrcnn.data.readers.findings import RowError, Scan
from maskrcnn.data.readers.json_rows import shown
from maskrcnn.data.readers.mask_components import Bitmap, components, label_regions, thick_part
from maskrcnn.data.readers.mask_names import pair_masks
from maskrcnn.data.readers.mask_values import Map, read_map
from maskrcnn.data.readers.options import MaskValues, ReadOptions
from maskrcnn.data.readers.picture_files import list_pictures, picture_size
from maskrcnn.data.readers.picture_rows import BACKGROUND, DEFAULT_CLASS, NamedObject, PictureRows
from maskrcnn.errors import DatasetError, DatasetFormatError
from runtime.masks.paste import crop_of
from runtime.masks.rle import encode_crop
from runtime.one_line import count_of

_NOBODY = 255
# VOC draws a void outline of 5 pixels around every object; only wider void areas hide objects.
_WIDER = 7
# More values mean a 16-bit photo instead of a map, which would take minutes to read.
_MAX_OBJECTS = 10_000
_MAX_CLASS = 65_535


def scan_masks(path: Path, class_names: Sequence[str] | None, name: str, options: ReadOptions) -> Scan:
    """Read a folder in one of the two layouts, and note invalid rows.

    Images without a mask file are left out. Void areas wider than an outline become crowds of the first class, one per
    connected region. If no map has another value than 0 and the largest one of its type, each connected region is an
    object.

    Args:
        path: The folder.
        class_names: Background first, indexed by the value in `SegmentationClass`; without that folder there is one
            class. By default "object", or "class 1", "class 2", ...
        name: Name of the dataset.
        options: How to read.

    Raises:
        DatasetFormatError: The folder has neither layout.
    """
    rows = PictureRows(name)
    pictures, masks = mask_folders(path)
    if pictures is not None and masks is not None:
        return _Maps(rows, pictures, masks, path / "SegmentationClass", class_names, options).scan()
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


class _Maps:
    """Reads maps; those with 0 and one value only wait until all were seen, because others tell what they mean."""

    def __init__(
        self,
        rows: PictureRows,
        pictures: Path,
        masks: Path,
        classes: Path,
        class_names: Sequence[str] | None,
        options: ReadOptions,
    ) -> None:
        self._rows, self._pictures, self._masks, self._classes = rows, pictures, masks, classes
        self._names, self._values = class_names, options.mask_values
        self._class_maps = list_pictures(classes) if classes.is_dir() else None
        if self._class_maps is not None and self._values is not None:
            raise DatasetError(f"mask_values is {self._values!r}, but {classes} says what the values mean")
        if self._class_maps is None and self._values != "classes":  # else one class for each value
            self._names = _one_class(class_names)
        self._highest = 1
        self._colored = False  # whether classes are colors

    def scan(self) -> Scan:
        """Read all maps."""
        files, maps = list_pictures(self._pictures), list_pictures(self._masks)
        pairs = pair_masks(files, maps, self._masks, self._rows.findings)
        self._rows.listed = len(files)
        waiting = [pair for pair in pairs if not self._read(*pair, self._values)]
        binary = not self._rows.sizes
        for pair in waiting:
            self._read(*pair, "parts" if binary else None, known=True)
        if binary and self._rows.has_objects:
            message = (
                f"all {len(waiting)} masks have only 0 and their largest value: each connected region is one object, "
                f"also where objects touch; mask_values= (--mask-values) says otherwise"
            )
            self._rows.findings.add("warning", "binary-masks", self._masks.name, message)
        bare = set(files) - {picture.stem for picture, _ in pairs}
        if bare:
            message = f"left out for want of a mask file: {count_of(len(bare), 'image')}, first {min(bare)}"
            self._rows.findings.add("info", "no-mask-file", self._pictures.name, message)
        if self._names is None and not self._colored:
            return self._rows.scan((BACKGROUND, *map(_numbered, range(1, self._highest + 1))))
        return self._rows.scan(self._names)

    def _read(self, picture: Path, mask: Path, values: MaskValues | None, *, known: bool = False) -> bool:
        """Read a map; return False, having read nothing, if only the other maps tell what its values mean."""
        where, stem = f"{self._masks.name}/{mask.name}", picture.stem
        with self._rows.findings.row(where) as notes:
            size = picture_size(picture)
            found = read_map(mask, size)
            if values is None and not known and found.binary and self._class_maps is None:
                return False
            if self._class_maps is not None and stem not in self._class_maps:
                raise RowError("missing-file", f"there is no {shown(stem)} in {self._classes}")
            kinds = None if self._class_maps is None else read_map(self._class_maps[stem], size).values
            nobody = (found.values == _NOBODY) & (found.eight_bits and values in (None, "classes"))
            objects = found.objects() if values is None else found.values
            if found.colored and values is None:
                notes.converted("mask-colors", "each color of the mask is one object; --mask-values says otherwise")
            if values in ("parts", "classes"):
                objects = label_regions(np.where(nobody, 0, objects))
                nobody = np.zeros(size, np.bool_) if values == "parts" else nobody
                kinds = found.values if values == "classes" else None
                self._colored |= found.colored and values == "classes"
            self._rows.add_picture(stem, picture, size)
            self._add(stem, np.where(nobody, 0, objects), kinds, where)
            for part in components(thick_part(nobody, _WIDER)):
                name = _numbered(1) if self._names is None else self._names[1]
                _add(self._rows, stem, name, part, where, crowd=True)
        return True

    def _add(self, stem: str, objects: Map, kinds: Map | None, where: str) -> None:
        """Add the objects of a map; without `kinds`, all have the first class."""
        values = np.unique(objects).tolist()
        if len(values) > _MAX_OBJECTS:
            raise RowError("mask-mode", f"the mask has {len(values)} values; expected object numbers: is it a photo?")
        for value in values:
            if value == 0:
                continue
            with self._rows.findings.row(f"{where} object {value}"):
                mask = objects == value
                name = self._class_of(np.ones(1, np.int32) if kinds is None else kinds[mask])
                _add(self._rows, stem, name, mask, f"{where} object {value}")

    def _class_of(self, inside: Map) -> str:
        inside = inside[(inside != 0) & (inside != _NOBODY)]
        if not inside.size:
            raise RowError("no-class", "none of its pixels has a class in SegmentationClass")
        if self._colored:
            return f"#{inside[0]:06x}"
        found, counts = np.unique(inside, return_counts=True)
        class_id = int(found[counts.argmax()])
        if class_id > _MAX_CLASS:
            raise RowError("mask-mode", f"its class is {class_id}; expected a class number: is it a color?")
        if self._names is not None and class_id >= len(self._names):
            raise RowError("unknown-category", f"its class is {class_id}, but there are {len(self._names)} class names")
        self._highest = max(self._highest, class_id)
        return _numbered(class_id) if self._names is None else self._names[class_id]


def _scan_single(rows: PictureRows, path: Path, class_names: Sequence[str] | None) -> Scan:
    names = _one_class(class_names)
    for folder in sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith(".")):
        rows.listed += 1
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
                with rows.findings.row(where) as notes:
                    pixels = read_map(mask, size).values > 0
                    if not pixels.any():
                        notes.converted("empty-mask", "the mask has no pixels: it is left out", "warning")
                        continue
                    _add(rows, folder.name, names[1], pixels, where)
    return rows.scan(names)


def _add(rows: PictureRows, stem: str, name: str, mask: Bitmap, where: str, *, crowd: bool = False) -> None:
    found = encode_crop(*crop_of(mask), rows.sizes[stem])
    rows.add_object(stem, NamedObject(name, found, where, crowd))


def _one_class(class_names: Sequence[str] | None) -> Sequence[str]:
    if class_names is not None and len(class_names) != 2:
        raise DatasetError(
            f"{len(class_names) - 1} class names are given ({', '.join(class_names[1:])}), but these masks do not "
            f"distinguish classes: expected one"
        )
    return class_names or (BACKGROUND, DEFAULT_CLASS)


def _numbered(class_id: int) -> str:
    return f"class {class_id}"
