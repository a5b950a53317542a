"""Datasets in memory: the common result of all readers.

Masks are COCO run-length encodings in pixels of the decoded image (EXIF orientation applied), a few hundred bytes each,
so that large datasets fit into memory.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskrcnn.errors import DatasetError
from runtime.masks.rle import RLE
from runtime.pictures.pixels import PLAIN, PixelPolicy
from runtime.pictures.read import log_note, read_image

Image = npt.NDArray[np.uint8]

_OF_ONE_IMAGE = re.compile(r"'.*'|\d+")
_noted: set[str] = set()


def _note_once(text: str) -> None:
    """Log a note on an image, unless another image has had the same one: a dataset is read in every epoch."""
    kind = _OF_ONE_IMAGE.sub("", text)
    if kind not in _noted:
        _noted.add(kind)
        log_note(f"{text} (said of the first such image only)")


@dataclass(frozen=True)
class Instance:
    """One annotated object.

    Attributes:
        class_id: Index into the dataset's `class_names`; never 0, the background.
        mask: Run-length encoding in image pixels.
        crowd: Whether the mask covers a group of objects that are not separated. Crowds count neither as objects nor as
            background.
        file_box: Box from the annotation file, x1, y1, x2, y2 in image pixels. Training does not use it: it takes boxes
            from masks.
        annotation_id: Id in the annotation file, for messages.
    """

    class_id: int
    mask: RLE
    crowd: bool = False
    file_box: tuple[float, float, float, float] | None = None
    annotation_id: int | str | None = None


@dataclass(frozen=True)
class Record:
    """One image and its objects.

    Attributes:
        image_id: Id in the annotation file, or file name; unique in the dataset.
        image: Path of the image, or a function that returns uint8 [H, W, C].
        instances: The objects, or a function that returns them; () for an image without objects.
        active_class_ids: Classes that are annotated in this image. In a dataset combined from several sources, objects
            of other classes may be in the image without an annotation. None means all classes.
    """

    image_id: int | str
    image: Path | Callable[[], Image]
    instances: tuple[Instance, ...] | Callable[[], tuple[Instance, ...]]
    active_class_ids: frozenset[int] | None = None

    def load_image(self, channels: int = 3, pixels: PixelPolicy = PLAIN) -> Image:
        """Return the image, uint8 [H, W, channels], with its samples converted as `pixels` says.

        What is surprising in images is logged once for all of them.

        Raises:
            ImageError: The image cannot be read.
        """
        source = self.image() if callable(self.image) else self.image
        return read_image(source, channels, pixels=pixels, note=_note_once)

    def load_instances(self) -> tuple[Instance, ...]:
        """Return the objects of the image."""
        return self.instances() if callable(self.instances) else self.instances

    def instances_of_size(self, image_size: tuple[int, ...]) -> tuple[Instance, ...]:
        """Return the objects, after checking that their masks are as large as the decoded image (height, width).

        Raises:
            DatasetError: A mask has another size.
        """
        instances = self.load_instances()
        for instance in instances:
            height, width = instance.mask["size"]
            if (height, width) != image_size:
                raise DatasetError(
                    f"image {self.image_id}: it has {image_size[0]} x {image_size[1]} pixels, the mask of annotation "
                    f"{instance.annotation_id} has {height} x {width}: run `maskrcnn data check`, or skip such images "
                    "with --skip-bad"
                )
        return instances


@dataclass(frozen=True)
class Dataset:
    """Images with annotated objects.

    Attributes:
        name: Used in messages and reports.
        class_names: Names by class id; 0 is "BG", the background.
        records: One per image.
        category_ids: Category id in the annotation file by class id, for classes that have one.
    """

    name: str
    class_names: tuple[str, ...]
    records: tuple[Record, ...]
    category_ids: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.class_names)) != len(self.class_names) or not self.class_names:
            raise DatasetError(f"{self.name}: class names are {self.class_names}: expected unique names, 'BG' first")

    def __len__(self) -> int:
        return len(self.records)


NO_OBJECTS = (
    "none of its images has an object to learn or to find; crowds (iscrowd, void areas) are no objects: see what "
    "`maskrcnn data check` says"
)


def has_objects(dataset: Dataset) -> bool:
    """Return whether any image has an object that is not a crowd."""
    return any(not instance.crowd for record in dataset.records for instance in record.load_instances())


def require_objects(*datasets: Dataset) -> None:
    """Raise DatasetError if one has no object: training would end in silence, with losses of 0."""
    for dataset in datasets:
        if not has_objects(dataset):
            raise DatasetError(f"{dataset.name} has {len(dataset)} images, but {NO_OBJECTS}")


def combine(datasets: tuple[Dataset, ...] | list[Dataset], class_names: tuple[str, ...] | None = None) -> Dataset:
    """Combine datasets into one; classes are matched by name.

    Args:
        datasets: One or more datasets. If there are several, image ids are prefixed with their names.
        class_names: Classes of the result, background first; by default the classes of all datasets in order of
            appearance. Objects of other classes are dropped.

    Returns:
        A dataset with the records of all datasets, in order.

    Raises:
        DatasetError: There are no datasets, or a dataset has none of the classes.
    """
    if not datasets:
        raise DatasetError("no datasets were given: expected at least one")
    if class_names is None:
        class_names = tuple(dict.fromkeys(name for dataset in datasets for name in dataset.class_names))
    records: list[Record] = []
    several = len(datasets) > 1
    for dataset in datasets:
        ids = {i: class_names.index(name) for i, name in enumerate(dataset.class_names) if name in class_names}
        if not any(ids.get(i) for i in range(1, len(dataset.class_names))):
            raise DatasetError(
                f"{dataset.name} has none of the classes {', '.join(class_names[1:])}: it has "
                f"{', '.join(dataset.class_names[1:]) or 'no classes'}"
            )
        active = frozenset(i for i in ids.values() if i)
        records += [_remap(record, ids, active, dataset.name if several else None) for record in dataset.records]
    name = " + ".join(dataset.name for dataset in datasets)
    category_ids = (
        {}
        if several
        else {
            class_names.index(datasets[0].class_names[i]): category
            for i, category in datasets[0].category_ids.items()
            if datasets[0].class_names[i] in class_names
        }
    )
    return Dataset(name, class_names, tuple(records), category_ids)


def _remap(record: Record, ids: Mapping[int, int], active: frozenset[int], prefix: str | None) -> Record:
    instances = record.instances
    mapped: tuple[Instance, ...] | Callable[[], tuple[Instance, ...]]
    if callable(instances):
        load = instances
        mapped = lambda: _remap_instances(load(), ids)  # noqa: E731
    else:
        mapped = _remap_instances(instances, ids)
    if record.active_class_ids is not None:
        active = frozenset(ids[i] for i in record.active_class_ids if i in ids)
    image_id = record.image_id if prefix is None else f"{prefix}:{record.image_id}"
    return Record(image_id, record.image, mapped, active)


def _remap_instances(instances: tuple[Instance, ...], ids: Mapping[int, int]) -> tuple[Instance, ...]:
    return tuple(
        Instance(ids[i.class_id], i.mask, i.crowd, i.file_box, i.annotation_id) for i in instances if i.class_id in ids
    )
