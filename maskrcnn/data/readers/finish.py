"""The last step of every reader: refuse what was found, or leave it out; and the look at every picture."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from maskrcnn.data.readers.findings import Scan
from maskrcnn.data.readers.json_rows import shown
from maskrcnn.data.records import Dataset, Record
from maskrcnn.errors import DatasetError, DatasetFormatError
from runtime.errors import ImageError

_THREADS = 4  # decoding leaves Python's lock; more threads than that wait for each other


def finish(scan: Scan, path: Path, *, skip_bad: bool) -> Dataset:
    """The dataset to train on.

    Args:
        scan: What the reader found.
        path: Of the dataset, for messages.
        skip_bad: Leave out what cannot be used, after a look at every picture; else refuse it.

    Raises:
        DatasetNotFoundError: No picture at all was found.
        DatasetFormatError: A row cannot be used, or nothing is left.
    """
    dataset = scan.dataset
    if skip_bad:
        bad = check_pictures(scan)
        dataset = replace(dataset, records=tuple(r for r in dataset.records if r.image_id not in bad))
        if not dataset.records or len(dataset.class_names) < 2:
            scan.findings.refuse(path)
    else:
        scan.findings.refuse(path)
    if not dataset.records or len(dataset.class_names) < 2:
        what = "picture" if not dataset.records else "class"
        raise DatasetFormatError(f"{path} has no {what} to train on")
    return dataset


def check_pictures(scan: Scan, progress: Callable[[int], None] | None = None) -> set[int | str]:
    """Decode every picture, compare its size with that of the annotations, and note what is wrong.

    Args:
        scan: The dataset; findings are added to its own.
        progress: Called with the number of pictures done so far.

    Returns:
        Ids of the pictures that cannot be used.
    """
    bad: set[int | str] = set()
    records = scan.dataset.records
    # Functions of somebody else may not stand being called from several threads.
    threads = 1 if any(callable(record.image) for record in records) else _THREADS
    with ThreadPoolExecutor(threads) as pool:
        faults = pool.map(lambda record: _fault(record, scan.sizes.get(record.image_id)), records)
        try:
            for count, (record, fault) in enumerate(zip(records, faults, strict=True), 1):
                if fault is not None:
                    bad.add(record.image_id)
                    where = f"{scan.dataset.name} image {shown(record.image_id)}"
                    scan.findings.add("error", fault[0], where, fault[1])
                if progress is not None:
                    progress(count)
        except BaseException:  # an interrupt shall not wait for thousands of pictures
            pool.shutdown(cancel_futures=True)
            raise
    return bad


def _fault(record: Record, size: tuple[int, int] | None) -> tuple[str, str] | None:
    """Kind and message of what is wrong with a picture or, where they are loaded late, its objects."""
    try:
        found = record.load_image().shape[:2]
    except (ImageError, DatasetError) as error:
        return "broken-image", str(error)
    try:
        sizes = [tuple(instance.mask["size"]) for instance in record.load_instances()]
    except DatasetError as error:
        return "bad-masks", str(error)
    expected = size or (sizes[0] if sizes else found)
    if found == expected:
        return None
    turned = "; is it turned by an EXIF orientation that the annotations ignore?" if found[::-1] == expected else ""
    return "image-size", (
        f"the picture has {found[1]} x {found[0]} pixels (width x height), its annotations {expected[1]} x "
        f"{expected[0]}{turned}"
    )
