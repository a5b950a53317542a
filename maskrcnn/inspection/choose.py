"""Choose the images to inspect: files, records of a dataset, or the demo image."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from maskrcnn.data.records import Dataset, Record, combine
from maskrcnn.demo import demo_dataset
from maskrcnn.errors import ArgumentError, DatasetError
from maskrcnn.evaluation.results import match_classes
from maskrcnn.inspection.data_report import picture_name
from maskrcnn.inspection.report import InspectedPicture
from runtime.errors import ImageError
from runtime.one_line import printable_path


def choose_pictures(
    images: Sequence[Path], dataset: Dataset | None, class_names: tuple[str, ...], limit: int
) -> tuple[list[InspectedPicture], Dataset | None]:
    """Return the images asked for, and the dataset with the class ids of the model.

    Args:
        images: Files; with a dataset, the path or the name of its images.
        dataset: Annotated images, if there are any.
        class_names: The classes of the model.
        limit: Number of images of the dataset to take if `images` is empty.

    Raises:
        DatasetError: The model lacks a class of the dataset, or the dataset an image.
        ImageError: An image does not exist.
        ArgumentError: Neither images nor a dataset are given.
    """
    if dataset is None:
        if not images:
            raise ArgumentError("no images to inspect: name some, or give annotated ones with --dataset")
        missing = next((path for path in images if not path.is_file()), None)
        if missing is not None:  # before minutes are spent on the others
            raise ImageError(f"{str(missing)!r} does not exist; expected an image file")
        return [
            InspectedPicture(printable_path(path.name), Record(path.name, path, ()), False) for path in images
        ], None
    try:
        match_classes(class_names, dataset)
        adapted = combine((dataset,), class_names)
    except DatasetError as error:
        raise DatasetError(f"{error}; the data alone: `maskrcnn inspect --dataset` without a model") from error
    records = [_find(path, adapted) for path in images] or islice(adapted.records, limit)
    return [_annotated(record) for record in records], adapted


def demo_pictures(class_names: tuple[str, ...]) -> tuple[list[InspectedPicture], Dataset | None]:
    """Return the demo image with its objects."""
    adapted = combine((demo_dataset(),), class_names)
    return [InspectedPicture("demo.jpg", adapted.records[0], True)], adapted


def _annotated(record: Record) -> InspectedPicture:
    return InspectedPicture(picture_name(record), record, True)


def _find(path: Path, dataset: Dataset) -> Record:
    """Return the record of an image: the one of the same file, else the only one of the same name."""
    files = [(record, record.image) for record in dataset.records if isinstance(record.image, Path)]
    same = [record for record, image in files if image.resolve() == path.resolve()]
    found = same or [record for record, image in files if image.name == path.name]
    if len(found) != 1:
        what = "no image" if not found else f"{len(found)} images"
        raise DatasetError(f"{dataset.name} has {what} called {path.name}: give the path that the dataset uses")
    return found[0]
