"""Checking a dataset before training: all problems are found in one pass."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from maskrcnn.data.readers.findings import DatasetFinding, Findings, Scan
from maskrcnn.data.readers.finish import check_pictures, count_objects, note_lost
from maskrcnn.data.readers.open import scan_dataset, with_background
from maskrcnn.data.readers.options import DatasetFormat, ReadOptions
from maskrcnn.data.records import NO_OBJECTS, Dataset, has_objects
from maskrcnn.errors import DatasetError


def check_dataset(
    dataset: str | Path | Dataset,
    images: str | Path | None = None,
    format: DatasetFormat | None = None,  # noqa: A002 - the word of the command line
    class_names: Sequence[str] | None = None,
    class_attribute: str | None = None,
    *,
    options: ReadOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[DatasetFinding]:
    """Check every annotation and decode every image.

    Whatever is an error here is refused by `open_dataset`, or left out with `skip_bad`.

    Args:
        dataset: Path as for `open_dataset`, or an open dataset, for instance from `from_python`; its images and masks
            are loaded.
        images: See `open_dataset`.
        format: See `open_dataset`.
        class_names: See `open_dataset`.
        class_attribute: See `open_dataset`.
        options: See `open_dataset`.
        progress: Called with the number of images decoded so far.

    Returns:
        The findings, in file order. In `maskrcnn.data.readers.findings`, `has_errors` tells whether any is an error,
        `table_rows` sorts them for display and `summary` counts them.
    """
    if isinstance(dataset, Dataset):
        scan = Scan(dataset, Findings())
    else:
        try:
            scan = scan_dataset(dataset, images, format, with_background(class_names), class_attribute, options)
        except DatasetError as error:
            found = Findings()
            found.add("error", "unreadable", str(dataset), str(error))
            return found.items
    check_scan(scan, progress)
    return scan.findings.items


def check_scan(scan: Scan, progress: Callable[[int], None] | None = None) -> Dataset:
    """Decode every image of a scan, add what is wrong to its findings, and return the dataset of what can be used."""
    bad = check_pictures(scan, progress)
    note_lost(scan, bad)
    usable = replace(scan.dataset, records=tuple(r for r in scan.dataset.records if r.image_id not in bad))
    count_objects(scan.findings, usable)
    if not any(item.level == "error" for item in scan.findings.items):
        if not scan.dataset.records:
            scan.findings.add("error", "empty", scan.dataset.name, "it has no images")
        elif not has_objects(scan.dataset):
            scan.findings.add("error", "empty", scan.dataset.name, NO_OBJECTS)
    return usable
