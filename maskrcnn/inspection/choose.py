"""Which pictures are looked into: files, records of a data set, or the demo's own."""

from collections.abc import Sequence
from pathlib import Path

from maskrcnn.data.records import Dataset, Record, combine
from maskrcnn.demo import demo_dataset
from maskrcnn.errors import DatasetError
from maskrcnn.evaluation.results import match_classes
from maskrcnn.inspection.report import InspectedPicture, first_records
from runtime.errors import ImageError, InputError
from runtime.one_line import printable_path


def choose_pictures(
    images: Sequence[Path], dataset: Dataset | None, class_names: tuple[str, ...], limit: int
) -> tuple[list[InspectedPicture], Dataset | None]:
    """The pictures that were asked for, and the data set with the class ids of the model.

    Args:
        images: Files; with a data set, those of its pictures that have such a path or name.
        dataset: Annotated pictures, or None.
        class_names: Of the model.
        limit: Pictures of the data set where none is named.

    Raises:
        DatasetError: The model lacks a class of the data set, or the data set a picture.
        ImageError: A picture does not exist.
        InputError: Neither a picture nor a data set is given.
    """
    if dataset is None:
        if not images:
            raise InputError("there is no picture to look into: name one, or annotated ones with --dataset")
        missing = next((path for path in images if not path.is_file()), None)
        if missing is not None:  # before minutes are spent on the others
            raise ImageError(f"{str(missing)!r} does not exist; expected a picture file")
        return [
            InspectedPicture(printable_path(path.name), Record(path.name, path, ()), False) for path in images
        ], None
    match_classes(class_names, dataset)
    adapted = combine((dataset,), class_names)
    if not images:
        return first_records(adapted, limit), adapted
    return [_find(path, adapted) for path in images], adapted


def demo_pictures(class_names: tuple[str, ...]) -> tuple[list[InspectedPicture], Dataset | None]:
    """The demo's picture with its objects."""
    adapted = combine((demo_dataset(),), class_names)
    return [InspectedPicture("demo.jpg", adapted.records[0], True)], adapted


def _find(path: Path, dataset: Dataset) -> InspectedPicture:
    """The record of a picture: the one of the same file, else the only one of the same name."""
    files = [record for record in dataset.records if isinstance(record.image, Path)]
    same = [record for record in files if isinstance(record.image, Path) and record.image.resolve() == path.resolve()]
    named = [record for record in files if isinstance(record.image, Path) and record.image.name == path.name]
    found = same or named
    if len(found) != 1:
        what = "no picture" if not found else f"{len(found)} pictures"
        raise DatasetError(f"{dataset.name} has {what} called {path.name}: give the path as the data set has it")
    return InspectedPicture(printable_path(path.name), found[0], True)
