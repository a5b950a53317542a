"""What every reader gives: records of pictures and the objects in them.

Masks are COCO run-length encodings of the picture as it is decoded (EXIF orientation applied), whatever the file that
they come from: a few hundred bytes each, so that a large dataset fits into memory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskrcnn.errors import DatasetError
from runtime.masks.rle import RLE
from runtime.pictures.read import read_image

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Instance:
    """One annotated object.

    Attributes:
        class_id: Index into the dataset's `class_names`; never 0, the background.
        mask: Run-length encoding in picture pixels.
        crowd: Whether the mask covers a group that nobody separated: neither an object to be found nor background.
        file_box: x1, y1, x2, y2 in picture pixels as the file gives it, to be looked at; training takes boxes
            from masks.
        annotation_id: Its name in the file, for messages.
    """

    class_id: int
    mask: RLE
    crowd: bool = False
    file_box: tuple[float, float, float, float] | None = None
    annotation_id: int | str | None = None


@dataclass(frozen=True)
class Record:
    """One picture and its objects.

    Attributes:
        image_id: Its name in the file or folder; unique in the dataset.
        image: Path of the picture, or a function that gives uint8 [H, W, C].
        instances: The objects, or a function that gives them when they are needed; () for a negative picture.
        active_class_ids: Classes its source annotates: where several sources are joined, a class that is not
            among them may be in the picture without an annotation. None means all.
    """

    image_id: int | str
    image: Path | Callable[[], Image]
    instances: tuple[Instance, ...] | Callable[[], tuple[Instance, ...]]
    active_class_ids: frozenset[int] | None = None

    def load_image(self, channels: int = 3) -> Image:
        """The picture, uint8 [H, W, channels].

        Raises:
            ImageError: It cannot be read.
        """
        return read_image(self.image() if callable(self.image) else self.image, channels)

    def load_instances(self) -> tuple[Instance, ...]:
        """The objects."""
        return self.instances() if callable(self.instances) else self.instances


@dataclass(frozen=True)
class Dataset:
    """Pictures with annotated objects.

    Attributes:
        name: For messages and reports.
        class_names: Index is the class id; 0 is "BG", the background.
        records: One per picture.
        category_ids: The file's own category id of each class id, where it has one.
    """

    name: str
    class_names: tuple[str, ...]
    records: tuple[Record, ...]
    category_ids: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.class_names)) != len(self.class_names) or not self.class_names:
            raise DatasetError(f"{self.name}: class names are {self.class_names}: expected different ones, 'BG' first")

    def __len__(self) -> int:
        return len(self.records)


def combine(datasets: tuple[Dataset, ...] | list[Dataset], class_names: tuple[str, ...] | None = None) -> Dataset:
    """Join datasets; classes are matched by name.

    Args:
        datasets: One or more.
        class_names: Classes of the result, background first; by default those of all, in order of appearance.
            Objects of other classes are left out.

    Raises:
        DatasetError: No dataset, or one has none of the classes.
    """
    if not datasets:
        raise DatasetError("no dataset was given: expected at least one")
    if class_names is None:
        class_names = tuple(dict.fromkeys(name for dataset in datasets for name in dataset.class_names))
    records: list[Record] = []
    several = len(datasets) > 1
    for dataset in datasets:
        ids = {i: class_names.index(name) for i, name in enumerate(dataset.class_names) if name in class_names}
        if not any(ids.get(i) for i in range(1, len(dataset.class_names))):
            raise DatasetError(
                f"{dataset.name} has none of the classes {', '.join(class_names[1:])}: it has "
                f"{', '.join(dataset.class_names[1:]) or 'no class'}"
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
