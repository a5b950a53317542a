"""Statistics of a dataset: classes, sizes, and how well the boxes in the file fit the masks."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.data.records import Dataset
from runtime.masks.rle import area, decode_crop

# Reading masks takes time, so the first images represent a larger dataset.
MOST_PICTURES = 2000
DIFFERENCES = (1, 5, 10)


@dataclass(frozen=True, eq=False)
class DatasetStatistics:
    """The result of `dataset_statistics`.

    Attributes:
        pictures: Number of images read.
        total: Number of images in the dataset.
        per_class: Objects by class name, including classes without objects.
        objects_per_picture: int64 [pictures].
        sides: float64 [N], square root of each object's area, in image pixels.
        crowds: Number of annotated groups.
        empty: Number of objects without a pixel, which training leaves out.
        file_boxes: Number of other objects with a box in the file.
        box_differences: float64 [file_boxes], largest distance between a side of the box in the file and of the
            mask's box, in pixels.
    """

    pictures: int
    total: int
    per_class: dict[str, int]
    objects_per_picture: npt.NDArray[np.int64]
    sides: npt.NDArray[np.float64]
    crowds: int
    empty: int
    file_boxes: int
    box_differences: npt.NDArray[np.float64]

    @property
    def numbers(self) -> dict[str, Any]:
        """The statistics as JSON values; `boxes_differ` is the share of boxes that differ by so many pixels or more."""
        differ = {
            str(limit): float(np.mean(self.box_differences >= limit)) if self.file_boxes else None
            for limit in DIFFERENCES
        }
        return {
            "pictures": self.pictures,
            "pictures_in_all": self.total,
            "objects": int(self.objects_per_picture.sum()),
            "crowds": self.crowds,
            "empty": self.empty,
            "pictures_without_objects": int(np.sum(self.objects_per_picture == 0)),
            "per_class": self.per_class,
            "median_side": float(np.median(self.sides)) if len(self.sides) else None,
            "file_boxes": self.file_boxes,
            "boxes_differ": differ,
        }


def dataset_statistics(dataset: Dataset, most: int = MOST_PICTURES) -> DatasetStatistics:
    """Count the objects in the first `most` images of a dataset."""
    classes: Counter[int] = Counter()
    per_picture, sides, differences = [], [], []
    crowds = empty = 0
    for record in islice(dataset.records, most):
        instances = record.load_instances()
        per_picture.append(len(instances))
        for instance in instances:
            classes[instance.class_id] += 1
            crowds += instance.crowd
            pixels_of_mask = area(instance.mask)
            empty += not pixels_of_mask
            if pixels_of_mask:
                sides.append(pixels_of_mask**0.5)
            if pixels_of_mask and instance.file_box is not None:
                pixels, (y, x) = decode_crop(instance.mask)
                own = np.array([x, y, x + pixels.shape[1], y + pixels.shape[0]])
                differences.append(float(np.abs(own - np.array(instance.file_box)).max()))
    return DatasetStatistics(
        len(per_picture),
        len(dataset),
        {name: classes[i] for i, name in enumerate(dataset.class_names) if i},
        np.array(per_picture, np.int64),
        np.array(sides, np.float64),
        crowds,
        empty,
        len(differences),
        np.array(differences, np.float64),
    )
