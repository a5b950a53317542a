"""Collecting images and objects, for formats with one file or entry per image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maskrcnn.data.readers.coco_objects import check_area, note_overshoot
from maskrcnn.data.readers.findings import Findings, Row, RowError, Scan
from maskrcnn.data.readers.json_rows import shown
from maskrcnn.data.readers.outlines import rasterize
from maskrcnn.data.records import Dataset, Image, Instance, Record
from runtime.masks.rle import RLE

BACKGROUND = "BG"
DEFAULT_CLASS = "object"


@dataclass
class NamedObject:
    """An object with a class name, because class ids are known only after all objects are read.

    `where` is its file and row, for messages.
    """

    name: str
    mask: RLE
    where: str
    crowd: bool = False


@dataclass
class PictureRows:
    """Collects the images and objects of a dataset; `sizes` has (height, width) by image id.

    `listed` is the number of images in the annotations.
    """

    name: str
    findings: Findings = field(default_factory=Findings)
    sizes: dict[int | str, tuple[int, int]] = field(default_factory=dict)
    listed: int = 0
    _images: dict[str, Path | Callable[[], Image]] = field(init=False, default_factory=dict)
    _users: dict[Path, str] = field(init=False, default_factory=dict)
    _objects: dict[str, list[NamedObject]] = field(init=False, default_factory=dict)

    def add_picture(self, image_id: str, image: Path | Callable[[], Image], size: tuple[int, int]) -> None:
        """Add an image, a file or a function that returns it.

        Raises:
            RowError: There is an image with this id or file.
        """
        if image_id in self._images:
            raise RowError("duplicate-image", f"the image {shown(image_id)} appears twice")
        if isinstance(image, Path):
            if image in self._users:
                raise RowError("duplicate-file", f"{image.name} is also the image of {shown(self._users[image])}")
            self._users[image] = image_id
        self._images[image_id], self.sizes[image_id] = image, size

    def add_object(self, image_id: str, found: NamedObject) -> None:
        """Add an object to an image; raise RowError if its mask is empty."""
        check_area(found.mask)
        self._objects.setdefault(image_id, []).append(found)

    def add_outline(self, image_id: str, name: str, outlines: Sequence[object], notes: Row) -> None:
        """Add an object given by outlines; raise RowError if one is invalid, or the mask is empty."""
        notes.label, notes.picture = name, image_id
        mask, overshoot = rasterize(outlines, self.sizes[image_id])
        check_area(mask, overshoot)
        note_overshoot(overshoot, notes)
        self._objects.setdefault(image_id, []).append(NamedObject(name, mask, notes.where))

    @property
    def has_objects(self) -> bool:
        """Whether an object was added."""
        return bool(self._objects)

    def scan(self, class_names: Sequence[str] | None = None, order: Sequence[str] = ()) -> Scan:
        """Return the dataset and the findings.

        `class_names` are in the order of class ids, background first; by default the names of all objects, those in
        `order` first, the others sorted. An object of another class becomes an error finding.
        """
        if class_names is None:
            used = {found.name for objects in self._objects.values() for found in objects}
            first = [name for name in dict.fromkeys(order) if name in used]
            class_names = (BACKGROUND, *first, *sorted(used.difference(first)))
        ids = {name: index for index, name in enumerate(class_names)}
        records = []
        for image_id, image in self._images.items():
            instances = []
            for index, found in enumerate(self._objects.get(image_id, ())):
                with self.findings.row(found.where) as notes:
                    notes.label, notes.picture = found.name, image_id
                    if ids.get(found.name, 0) == 0:
                        raise RowError("unknown-category", f"its class {shown(found.name)} is unknown")
                    instances.append(Instance(ids[found.name], found.mask, found.crowd, None, index))
            records.append(Record(image_id, image, tuple(instances)))
        dataset = Dataset(self.name, tuple(class_names), tuple(records))
        return Scan(dataset, self.findings, self.sizes, self.listed)
