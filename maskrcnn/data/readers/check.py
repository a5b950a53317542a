"""Checking a dataset before training: all problems are found in one pass."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from maskrcnn.data.readers.findings import DatasetFinding, Findings, Scan
from maskrcnn.data.readers.finish import check_pictures
from maskrcnn.data.readers.open import DatasetFormat, scan_dataset, with_background
from maskrcnn.data.records import Dataset
from maskrcnn.errors import DatasetError

_SHOWN = 5


def check_dataset(
    dataset: str | Path | Dataset,
    images: str | Path | None = None,
    format: DatasetFormat | None = None,  # noqa: A002 - the word of the command line
    class_names: Sequence[str] | None = None,
    class_attribute: str | None = None,
    *,
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
        progress: Called with the number of images decoded so far.

    Returns:
        The findings, in file order. In `maskrcnn.data.readers.findings`, `has_errors` tells whether any is an error,
        `table_rows` sorts them for display and `summary` counts them.
    """
    if isinstance(dataset, Dataset):
        scan = Scan(dataset, Findings())
    else:
        try:
            scan = scan_dataset(dataset, images, format, with_background(class_names), class_attribute)
        except DatasetError as error:
            found = Findings()
            found.add("error", "unreadable", str(dataset), str(error))
            return found.items
    bad = check_pictures(scan, progress)
    _count_objects(scan, bad)
    if not scan.dataset.records and not any(item.level == "error" for item in scan.findings.items):
        scan.findings.add("error", "empty", scan.dataset.name, "it has no images")
    return scan.findings.items


def _count_objects(scan: Scan, bad: set[int | str]) -> None:
    """Note how many objects each class has, and which images have none."""
    dataset, findings = scan.dataset, scan.findings
    objects: Counter[int] = Counter()
    pictures: Counter[int] = Counter()
    crowds = 0
    bare: list[str] = []
    for record in dataset.records:
        if record.image_id in bad:
            continue
        instances = record.load_instances()
        if not instances:
            bare.append(str(record.image_id))
        crowds += sum(instance.crowd for instance in instances)
        objects.update(instance.class_id for instance in instances if not instance.crowd)
        pictures.update({instance.class_id for instance in instances})
    if bare:
        names = ", ".join(bare[:_SHOWN]) + (", ..." if len(bare) > _SHOWN else "")
        message = f"{len(bare)} of {len(dataset)} images have no objects and only train the background: {names}"
        findings.add("info", "no-objects", dataset.name, message)
    if crowds:
        findings.add(
            "info", "crowds", dataset.name, f"{crowds} crowd regions, which count neither as objects nor as background"
        )
    for class_id, name in enumerate(dataset.class_names[1:], 1):
        count = objects[class_id]
        message = f"{count} objects in {pictures[class_id]} images" if count else "the class has no objects"
        findings.add("info" if count else "warning", "class-count", f"{dataset.name} class {name!r}", message)
