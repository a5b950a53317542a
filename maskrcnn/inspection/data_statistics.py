"""Statistics of a dataset: images, colors, classes, sizes, and how well the boxes in the file fit the masks."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from maskrcnn.configuration.model import Config
from maskrcnn.data.records import Dataset, Record
from maskrcnn.data.sample import training_resize
from runtime.errors import ImageError
from runtime.masks.rle import area, mask_box
from runtime.pictures.letterbox import plan_letterbox

# Reading images and masks takes time, so the first images represent a larger dataset.
MOST_PICTURES = 2000
DIFFERENCES = (1, 5, 10)

_LEVELS = 256  # of a sample value
_THREADS = 4  # decoding releases the GIL


@dataclass(frozen=True, eq=False)
class DatasetStatistics:
    """The result of `dataset_statistics`.

    Attributes:
        pictures: Number of images read. All other numbers are of these, and crowds are no objects.
        listed: Number of images in the annotations.
        left_out: Number of images that cannot be used.
        per_class: Objects by class name, including classes without objects.
        pictures_per_class: Images with an object of the class, in the same way.
        objects_per_picture: int64 [pictures].
        sides: float64 [N], square root of each object's area, in image pixels.
        boxes: int64 [N, 2], height and width of the boxes of these objects' masks, in image pixels.
        input_sides: float64 [N], square root of height x width of the boxes in the input of training, in pixels.
        crowds: Number of annotated groups.
        empty: Number of objects without a pixel, which training leaves out.
        file_boxes: Number of other objects with a box in the file.
        box_differences: float64 [file_boxes], largest distance between a side of the box in the file and of the
            mask's box, in pixels.
        sizes: int64 [pictures, 2], height and width of the images.
        values: float64 [C, 256], share of pixels with each value in a channel. All images count the same, because
            training scales them to one size.
    """

    pictures: int
    listed: int
    left_out: int
    per_class: dict[str, int]
    pictures_per_class: dict[str, int]
    objects_per_picture: npt.NDArray[np.int64]
    sides: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.int64]
    input_sides: npt.NDArray[np.float64]
    crowds: int
    empty: int
    file_boxes: int
    box_differences: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    @property
    def mean_color(self) -> list[float] | None:
        """Mean of each channel, 0 to 255, for `model.mean_pixel`; None without an image."""
        return [float(mean) for mean in self.values @ np.arange(_LEVELS)] if len(self.sizes) else None

    @property
    def numbers(self) -> dict[str, Any]:
        """The statistics as JSON values; `boxes_differ` is the share of boxes that differ by so many pixels or more."""
        differ = {
            str(limit): float(np.mean(self.box_differences >= limit)) if self.file_boxes else None
            for limit in DIFFERENCES
        }
        return {
            "pictures": self.pictures,
            "pictures_in_all": self.listed,
            "left_out": self.left_out,
            "objects": int(self.objects_per_picture.sum()),
            "crowds": self.crowds,
            "empty": self.empty,
            "pictures_without_objects": int(np.sum(self.objects_per_picture == 0)),
            "per_class": self.per_class,
            "pictures_per_class": self.pictures_per_class,
            "sizes": {f"{width} x {height}": count for (height, width), count in self._common_sizes()},
            "aspect_ratios": _spread(self.sizes[:, 1] / self.sizes[:, 0]),
            "mean_color": self.mean_color,
            "std_color": self._std_color(),
            "median_side": float(np.median(self.sides)) if len(self.sides) else None,
            "box_heights": _spread(self.boxes[:, 0]),
            "box_widths": _spread(self.boxes[:, 1]),
            "box_aspect_ratios": _spread(self.boxes[:, 1] / self.boxes[:, 0]),
            "input_sides": _spread(self.input_sides),
            "objects_per_picture": _spread(self.objects_per_picture),
            "file_boxes": self.file_boxes,
            "boxes_differ": differ,
        }

    def _common_sizes(self) -> list[tuple[tuple[int, int], int]]:
        sizes: Counter[tuple[int, int]] = Counter((int(height), int(width)) for height, width in self.sizes)
        return sizes.most_common()

    def _std_color(self) -> list[float] | None:
        if self.mean_color is None:
            return None
        distances = np.arange(_LEVELS) - np.array(self.mean_color)[:, None]
        return [float(variance) ** 0.5 for variance in np.sum(self.values * distances**2, axis=1)]


def dataset_statistics(
    dataset: Dataset,
    config: Config | None = None,
    most: int | None = None,
    *,
    listed: int | None = None,
    left_out: int = 0,
) -> DatasetStatistics:
    """Describe the first `most` images of a dataset and their objects.

    Args:
        dataset: Images with annotations.
        config: Says how images are read and how large they are in training; by default as in `Config()`.
        most: Number of images to read; by default `MOST_PICTURES`.
        listed: Number of images that the annotations list; by default those of `dataset`.
        left_out: Number of images that cannot be used and are not in `dataset`.
    """
    config, records = config or Config(), dataset.records[: MOST_PICTURES if most is None else most]
    objects, pictures = Counter[int](), Counter[int]()
    per_picture, sides, boxes, input_sides, differences = [], [], [], [], []
    crowds = empty = 0
    read = _read_pictures(records, config)
    for record, picture in zip(records, read, strict=True):
        if picture is None:
            continue
        found = record.load_instances()
        instances = [instance for instance in found if not instance.crowd]
        crowds += len(found) - len(instances)
        per_picture.append(len(instances))
        objects.update(instance.class_id for instance in instances)
        pictures.update({instance.class_id for instance in instances})
        scale = plan_letterbox(picture.size, training_resize(config)).scale
        for instance in instances:
            pixels = area(instance.mask)
            empty += not pixels
            if pixels:
                own = np.array(mask_box(instance.mask))
                width, height = int(own[2] - own[0]), int(own[3] - own[1])
                sides.append(pixels**0.5)
                boxes.append((height, width))
                input_sides.append((height * width) ** 0.5 * scale)
                if instance.file_box is not None:
                    differences.append(float(np.abs(own - np.array(instance.file_box)).max()))
    usable = [picture for picture in read if picture is not None]
    channels = config.model.image_channels
    return DatasetStatistics(
        len(usable),
        len(dataset) if listed is None else listed,
        left_out + len(records) - len(usable),
        {name: objects[i] for i, name in enumerate(dataset.class_names) if i},
        {name: pictures[i] for i, name in enumerate(dataset.class_names) if i},
        np.array(per_picture, np.int64),
        np.array(sides, np.float64),
        np.array(boxes, np.int64).reshape(-1, 2),
        np.array(input_sides, np.float64),
        crowds,
        empty,
        len(differences),
        np.array(differences, np.float64),
        np.array([picture.size for picture in usable], np.int64).reshape(-1, 2),
        np.mean([picture.values for picture in usable], axis=0) if usable else np.zeros((channels, _LEVELS)),
    )


class _Picture(NamedTuple):
    """Height and width of an image, and the share of its pixels with each value, [C, 256]."""

    size: tuple[int, int]
    values: npt.NDArray[np.float64]


def _read_pictures(records: tuple[Record, ...], config: Config) -> list[_Picture | None]:
    """Read images; None for those that cannot be read."""

    def read(record: Record) -> _Picture | None:
        try:
            pixels = record.load_image(config.model.image_channels, config.pixels)
        except ImageError:
            return None
        counts = [np.bincount(pixels[..., c].ravel(), minlength=_LEVELS) for c in range(pixels.shape[2])]
        return _Picture((pixels.shape[0], pixels.shape[1]), np.array(counts) / (pixels.shape[0] * pixels.shape[1]))

    # Functions of a user may not be thread-safe.
    threads = 1 if any(callable(record.image) for record in records) else _THREADS
    with ThreadPoolExecutor(threads) as pool:
        try:
            return list(pool.map(read, records))
        except BaseException:  # an interrupt must not wait for thousands of images
            pool.shutdown(cancel_futures=True)
            raise


def _spread(values: npt.NDArray[np.number]) -> dict[str, float] | None:
    """Return smallest, median and largest value; None of nothing."""
    if not len(values):
        return None
    return {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}
