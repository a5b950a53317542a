"""Reader of folders of mask images, in one of two layouts.

Maps: `JPEGImages` or `images` beside `SegmentationObject` or `masks`. The gray or palette value of a pixel, or its
color, is the number of its object; 0 or black is background, and 255 (with 8 bits) is void. `SegmentationClass`
optionally has classes; alone, its values are classes, and each connected region is an object. One mask per object:
`ID/images/ID.png` and `ID/masks/*.png`, in which every pixel above 0 belongs to the object.

What values mean cannot always be told from the files: `ReadOptions.mask_values` says it, and `labelmap.txt` or
`classes.txt` beside the folders names classes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskrcnn.data.readers.findings import Row, RowError, Scan
from maskrcnn.data.readers.json_rows import shown
from maskrcnn.data.readers.mask_classes import read_classes
from maskrcnn.data.readers.mask_components import components, crops_by_value, label_regions, thick_part
from maskrcnn.data.readers.mask_names import pair_masks
from maskrcnn.data.readers.mask_values import Map, MaskMap, read_map
from maskrcnn.data.readers.options import MaskValues, ReadOptions
from maskrcnn.data.readers.picture_files import list_pictures, picture_size
from maskrcnn.data.readers.picture_rows import BACKGROUND, DEFAULT_CLASS, NamedObject, PictureRows
from maskrcnn.errors import DatasetError, DatasetFormatError
from runtime.masks.paste import MaskCrop, crop_of
from runtime.masks.rle import encode_crop
from runtime.one_line import count_of

_NOBODY = 255
_CLASSES = "SegmentationClass"
# VOC draws a void outline of 5 pixels around every object; only wider void areas hide objects.
_WIDER = 7
# More values mean a 16-bit photo instead of a map, which would take minutes to read.
_MAX_OBJECTS = 10_000
_MAX_CLASS = 65_535
_TINY = 10  # pixels; a smaller region is probably a speck


def scan_masks(path: Path, class_names: Sequence[str] | None, name: str, options: ReadOptions) -> Scan:
    """Read a folder in one of the two layouts, and note invalid rows.

    Images without a mask file are left out. Void areas wider than an outline become crowds of the first class, one per
    connected region. If no map has another value than 0 and the largest one of its type, each connected region is an
    object.

    Args:
        path: The folder.
        class_names: Background first, indexed by the value of a class; where values are no classes, there is one class.
            By default those of a file beside the folders, or "object", or "class 1", "class 2", ...
        name: Name of the dataset.
        options: How to read.

    Raises:
        DatasetFormatError: The folder has neither layout.
    """
    rows = PictureRows(name)
    pictures, masks = mask_folders(path)
    if pictures is not None and masks is not None:
        return _Maps(rows, path, pictures, masks, class_names, options).scan()
    if not is_single(path):
        raise DatasetFormatError(
            f"{path} has no masks: expected JPEGImages or images beside SegmentationObject, SegmentationClass "
            f"or masks, or a folder for each image that contains images and masks"
        )
    if options.mask_values == "classes":
        raise DatasetError(
            f"mask_values is 'classes', but {path} has one mask for each object: expected parts or objects"
        )
    return _scan_single(rows, path, class_names, parts=options.mask_values == "parts")


def mask_folders(path: Path) -> tuple[Path | None, Path | None]:
    """Return the folders of the images and of the maps, None for a missing one."""
    pictures = (path / name for name in ("JPEGImages", "images"))
    masks = (path / name for name in ("SegmentationObject", "masks", _CLASSES))
    return next(filter(Path.is_dir, pictures), None), next(filter(Path.is_dir, masks), None)


def is_single(path: Path) -> bool:
    """Return whether a folder has subfolders with `images` and `masks`."""
    return any((folder / "images").is_dir() and (folder / "masks").is_dir() for folder in path.iterdir())


class _Maps:
    """Reads maps; those whose values only other maps explain wait until all were seen."""

    def __init__(
        self,
        rows: PictureRows,
        path: Path,
        pictures: Path,
        masks: Path,
        class_names: Sequence[str] | None,
        options: ReadOptions,
    ) -> None:
        self._rows, self._pictures, self._masks = rows, pictures, masks
        self._values = options.mask_values
        classes = path / _CLASSES
        self._class_maps = list_pictures(classes) if classes.is_dir() and classes != masks else None
        if self._class_maps is not None and self._values is not None:
            raise DatasetError(f"mask_values is {self._values!r}, but {classes} says what the values mean")
        named, self._classes = read_classes(path, options.encoding), None
        if self._class_maps is not None or self._values == "classes" or (masks == classes and self._values is None):
            self._values = None if self._class_maps is not None else "classes"
            self._classes, self._names = named, class_names if named is None else named.names
        else:
            if named is not None and self._values is None and len(named.names) > 2:
                message = f"it names {len(named.names) - 1} classes, but values are read as objects of one class"
                rows.findings.add("warning", "class-names", named.file, f"{message}; see --mask-values classes")
            self._names = _one_class(named.names if named is not None and len(named.names) == 2 else class_names)
        self._palettes = self._classes is not None and self._classes.has_colors
        self._colored = False  # whether a map of classes has colors
        self._highest, self._colors = 0, set[int]()  # of classes without names
        self._void: list[tuple[str, MaskCrop, str]] = []

    def scan(self) -> Scan:
        """Read all maps."""
        files, maps = list_pictures(self._pictures), list_pictures(self._masks)
        pairs = pair_masks(files, maps, self._masks, self._rows.findings)
        self._rows.listed = len(files)
        waiting = [pair for pair in pairs if not self._read(*pair, self._values)]
        binary = not self._rows.sizes and self._values is None and self._class_maps is None
        for pair in waiting:
            self._read(*pair, "parts" if binary else self._values, known=True)
        if binary and self._rows.has_objects:
            message = (
                f"all {len(waiting)} masks have only 0 and their largest value: each connected region is one object, "
                f"also where objects touch; mask_values= (--mask-values) says otherwise"
            )
            self._rows.findings.add("warning", "binary-masks", self._masks.name, message)
        if self._masks.name == _CLASSES and self._rows.has_objects:
            message = "there are classes and no objects: each connected region of a class is one object, also where "
            self._rows.findings.add("warning", "class-masks", self._masks.name, f"{message}objects touch")
        bare = set(files) - {picture.stem for picture, _ in pairs}
        if bare:
            message = f"left out for want of a mask file: {count_of(len(bare), 'image')}, first {min(bare)}"
            self._rows.findings.add("info", "no-mask-file", self._pictures.name, message)
        names = self._names or (BACKGROUND, *self._used_names())
        for stem, part, where in self._void if len(names) > 1 else ():
            _add(self._rows, stem, names[1], part, where, crowd=True)
        return self._rows.scan(names)

    def _read(self, picture: Path, mask: Path, values: MaskValues | None, *, known: bool = False) -> bool:
        """Read a map; return False, having read nothing, if only the other maps tell what its values mean."""
        where, stem = f"{self._masks.name}/{mask.name}", picture.stem
        with self._rows.findings.row(where) as notes:
            size = picture_size(picture)
            found = read_map(mask, size, palette=self._palettes and values == "classes")
            if values is None and not known and found.binary and self._class_maps is None:
                return False
            if self._class_maps is not None and stem not in self._class_maps:
                raise RowError("missing-file", f"there is no {shown(stem)} in {self._masks.parent / _CLASSES}")
            kinds = found if values == "classes" else None
            if self._class_maps is not None:
                kinds = read_map(self._class_maps[stem], size, palette=self._palettes)
            if kinds is not None and kinds.gray and not known:
                return False
            kinds = kinds and self._by_color(kinds)
            found = kinds if kinds is not None and values == "classes" else found
            nobody = found.void & (values in (None, "classes"))
            objects = np.where(nobody, 0, found.objects() if values is None else found.values)
            if found.colored and values is None:
                notes.converted("mask-colors", "each color of the mask is one object; --mask-values says otherwise")
            if values in ("parts", "classes"):
                objects = label_regions(objects)
                _note_tiny(objects, notes)
            elif values is None and kinds is None:
                _note_regions(objects, notes)
            self._rows.add_picture(stem, picture, size)
            self._add(stem, objects, kinds, where)
            self._void += [(stem, part, where) for part in components(thick_part(nobody, _WIDER))]
        return True

    def _by_color(self, kinds: MaskMap) -> MaskMap:
        """Return a map of classes with colors for values, if other maps of classes have them."""
        if kinds.gray and (self._colored or self._palettes):
            kinds = kinds.as_colors()
        self._colored |= kinds.colored
        return kinds if self._classes is None else self._classes.without_background(kinds)

    def _add(self, stem: str, objects: Map, kinds: MaskMap | None, where: str) -> None:
        """Add the objects of a map; without `kinds`, all have the first class."""
        for value, (mask, (top, left)) in crops_by_value(objects, _MAX_OBJECTS).items():
            with self._rows.findings.row(f"{where} object {value}"):
                height, width = mask.shape
                name = DEFAULT_CLASS if self._names is None else self._names[1]
                if kinds is not None:
                    inside = kinds.values[top : top + height, left : left + width][mask]
                    name = self._class_of(inside, colored=kinds.colored)
                _add(self._rows, stem, name, (mask, (top, left)), f"{where} object {value}")

    def _class_of(self, inside: Map, *, colored: bool) -> str:
        inside = inside[(inside != 0) & ((inside != _NOBODY) | colored)]
        if not inside.size:
            raise RowError("no-class", f"none of its pixels has a class in {_CLASSES}")
        found, counts = np.unique(inside, return_counts=True)
        class_id = int(found[counts.argmax()])
        if self._classes is not None:
            return self._classes.of(class_id, colored=colored)
        if colored:
            self._colors.add(class_id)
            return f"#{class_id:06x}"
        if class_id > _MAX_CLASS:
            raise RowError("mask-mode", f"its class is {class_id}; expected a class number: is it a color?")
        if self._names is not None and class_id >= len(self._names):
            raise RowError("unknown-category", f"its class is {class_id}, but there are {len(self._names)} class names")
        self._highest = max(self._highest, class_id)
        return _numbered(class_id) if self._names is None else self._names[class_id]

    def _used_names(self) -> list[str]:
        """Return the names of classes that only their values name."""
        colors = [f"#{color:06x}" for color in sorted(self._colors)]
        return [*map(_numbered, range(1, max(self._highest, not colors) + 1)), *colors]


def _note_regions(objects: Map, notes: Row) -> None:
    """Note that a value has several regions, as classes have, but not objects that nothing hides."""
    regions, values = int(label_regions(objects).max()), int(np.count_nonzero(np.unique(objects)))
    if regions > values:
        notes.converted(
            "split-objects",
            f"it has {count_of(values, 'value')} in {regions} separate regions, and each value is read as one object: "
            "--mask-values parts or classes (mask_values=) says otherwise",
            "warning",
        )


def _note_tiny(regions: Map, notes: Row) -> None:
    """Note regions that are probably specks."""
    tiny = int(np.count_nonzero(np.bincount(regions.ravel())[1:] < _TINY))
    if tiny:
        notes.converted(
            "tiny-regions",
            f"it has {count_of(tiny, 'region')} of fewer than {_TINY} pixels, and each is an object: clean the mask if "
            "they are specks",
            "warning",
        )


def _scan_single(rows: PictureRows, path: Path, class_names: Sequence[str] | None, *, parts: bool) -> Scan:
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
                    for part in components(pixels) if parts else [crop_of(pixels)]:
                        _add(rows, folder.name, names[1], part, where)
    return rows.scan(names)


def _add(rows: PictureRows, stem: str, name: str, mask: MaskCrop, where: str, *, crowd: bool = False) -> None:
    found = encode_crop(*mask, rows.sizes[stem])
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
