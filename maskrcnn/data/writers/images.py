"""The images of a dataset that is written: their names there, their sizes, and links in place of copies."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import PIL.Image

from maskrcnn.data.readers.findings import RowError
from maskrcnn.data.readers.picture_files import picture_size
from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.data.split import relative_names
from maskrcnn.errors import DatasetFormatError
from runtime.errors import OutputError
from runtime.output.image_links import flat_names, link_image


@dataclass
class Lost:
    """What a format could not hold, or not as it was, counted by what it was and what became of it."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, sentence: str, count: int = 1) -> None:
        """Count something; the number follows the sentence."""
        self.counts[sentence] += count

    @property
    def lines(self) -> list[str]:
        """A line for each kind."""
        return [f"{sentence}: {count}" for sentence, count in self.counts.items() if count]


@dataclass(frozen=True)
class WrittenImage:
    """An image that is written.

    Attributes:
        record: Where it comes from.
        name: Path below the folder of the images, with slashes.
        size: (height, width) in pixels.
        instances: Its objects.
    """

    record: Record
    name: str
    size: tuple[int, int]
    instances: tuple[Instance, ...]


def written_images(dataset: Dataset, *, flat: bool) -> list[WrittenImage]:
    """Return the images of a dataset with their names; `flat` puts all into one folder, with different stems.

    Raises:
        DatasetFormatError: The size of an image cannot be read.
    """
    files = [record.image for record in dataset.records if isinstance(record.image, Path)]
    found = iter(relative_names(files))
    names = [
        next(found) if isinstance(record.image, Path) else f"{str(record.image_id).replace('/', '_')}.png"
        for record in dataset.records
    ]
    if len(set(names)) < len(names):
        names = [f"{number}_{name.replace('/', '_')}" for number, name in enumerate(names, 1)]
    images = []
    for record, name in zip(dataset.records, flat_names(names) if flat else names, strict=True):
        instances = record.load_instances()
        images.append(WrittenImage(record, name, _size(record, instances), instances))
    return images


def _size(record: Record, instances: Sequence[Instance]) -> tuple[int, int]:
    if instances:
        height, width = instances[0].mask["size"]
        return height, width
    if not isinstance(record.image, Path):
        height, width = record.load_image().shape[:2]
        return height, width
    try:
        return picture_size(record.image)
    except RowError as error:
        raise DatasetFormatError(f"image {record.image_id}: {error}") from error


def place_images(images: Sequence[WrittenImage], folder: Path, place: Path, lost: Lost) -> None:
    """Link the images below `folder`, which will be moved to `place`; images that are no files are written as PNG."""
    for image in images:
        link = folder / image.name
        link.parent.mkdir(parents=True, exist_ok=True)
        source = image.record.image
        if isinstance(source, Path):
            link_image(source, link, place / image.name)
        else:
            PIL.Image.fromarray(image.record.load_image()).save(link, format="PNG")
            lost.add("images that were no files of their own, written as PNG")


def check_source(source: Path, place: Path) -> None:
    """Refuse a folder that has the annotations to be read, which replacing the folder would remove.

    Raises:
        OutputError: It has them.
    """
    if source.resolve().is_relative_to(place.resolve()):
        raise OutputError(f"{place} has the dataset itself, which would be lost: choose another folder")


def check_apart(dataset: Dataset, place: Path) -> None:
    """Refuse a folder that has the images of the dataset, which replacing the folder would remove.

    Raises:
        OutputError: It has one.
    """
    real = place.resolve()
    for record in dataset.records:
        if isinstance(record.image, Path) and record.image.resolve().is_relative_to(real):
            raise OutputError(f"{place} has the image {record.image.name}, which would be lost: choose another folder")


def write_plain(path: Path, text: str) -> None:
    """Write a text file as UTF-8 into a folder that is not in its place yet, as `runtime.atomic.write_text` would."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
