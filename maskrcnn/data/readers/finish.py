"""The last step of reading a dataset: decode all images if asked, and refuse or drop what is invalid."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from maskrcnn.data.readers.findings import CLASS_COUNT, Findings, Level, Scan
from maskrcnn.data.readers.json_rows import shown
from maskrcnn.data.records import Dataset, Image, Record
from maskrcnn.errors import DatasetError, DatasetFormatError
from runtime.errors import ImageError
from runtime.one_line import count_of
from runtime.pictures.header import BandsError
from runtime.pictures.pixels import PixelPolicy

_SHOWN = 5
_POLICY = "pixels"  # images that need bands or a value range, which the model has and a dataset has not
_ANY_RANGE = PixelPolicy((0, 1))
_THREADS = 4  # decoding releases the GIL; more threads wait for each other


def finish(scan: Scan, path: Path, *, skip_bad: bool) -> Dataset:
    """Return the dataset of a scan, for training.

    With `skip_bad`, every image is decoded, and invalid rows and images are left out.

    Raises:
        DatasetNotFoundError: None of the images was found.
        DatasetFormatError: A row is invalid (without `skip_bad`), or no image or class is left.
    """
    dataset = scan.dataset
    if skip_bad:
        bad = check_pictures(scan)
        note_lost(scan, bad)
        dataset = replace(dataset, records=tuple(r for r in dataset.records if r.image_id not in bad))
        if not dataset.records or len(dataset.class_names) < 2:
            scan.findings.refuse(path)
    else:
        scan.findings.refuse(path)
    if not dataset.records or len(dataset.class_names) < 2:
        what = "image" if not dataset.records else "class"
        raise DatasetFormatError(f"{path} has no {what} to train on")
    return dataset


def note_lost(scan: Scan, bad: set[int | str]) -> None:
    """Count the objects of images that cannot be used as left out."""
    names = scan.dataset.class_names
    for record in scan.dataset.records:
        if record.image_id in bad and not callable(record.instances):
            scan.findings.lost.update((names[instance.class_id], record.image_id) for instance in record.instances)


def count_objects(findings: Findings, dataset: Dataset) -> None:
    """Note how many objects each class has and how many of them are left out, and which images have none."""
    objects: Counter[int] = Counter()
    pictures: Counter[int] = Counter()
    left_out: Counter[str] = Counter()
    crowds = 0
    bare: list[str] = []
    for record in dataset.records:
        instances = record.load_instances()
        found = [instance.class_id for instance in instances if not instance.crowd]
        if not found:
            bare.append(str(record.image_id))
        crowds += len(instances) - len(found)
        objects.update(found)
        pictures.update(set(found))
    for (name, _), count in findings.lost.items():
        left_out[name] += count
    if bare:
        names = ", ".join(bare[:_SHOWN]) + (", ..." if len(bare) > _SHOWN else "")
        message = f"{len(bare)} of {len(dataset)} images have no objects and only train the background: {names}"
        findings.add("info", "no-objects", dataset.name, message)
    if crowds:
        message = f"{count_of(crowds, 'crowd region')}, which count neither as objects nor as background"
        level: Level = "info" if objects else "warning"
        findings.add(level, "crowds", dataset.name, message)
    for class_id, name in enumerate(dataset.class_names[1:], 1):
        count, lost = objects[class_id], left_out[name]
        message = "the class has no objects"
        if count:
            message = f"{count_of(count, 'object')} in {count_of(pictures[class_id], 'image')}"
        if lost:
            message += f"; {lost} are left out" + (", most of the class" if lost > count else "")
        findings.add(
            "info" if count and lost <= count else "warning", CLASS_COUNT, f"{dataset.name} class {name!r}", message
        )
    for name in sorted(set(left_out) - set(dataset.class_names)):
        findings.add(
            "warning",
            CLASS_COUNT,
            f"{dataset.name} class {name!r}",
            f"all its {left_out[name]} objects are left out",
        )


def check_pictures(scan: Scan, progress: Callable[[int], None] | None = None) -> set[int | str]:
    """Decode every image, compare its size with the annotations, and add what is wrong to the scan's findings.

    Returns:
        Ids of the images that cannot be used.
    """
    bad: set[int | str] = set()
    records = scan.dataset.records
    # Functions of a user may not be thread-safe.
    threads = 1 if any(callable(record.image) for record in records) else _THREADS
    with ThreadPoolExecutor(threads) as pool:
        faults = pool.map(lambda record: _fault(record, scan.sizes.get(record.image_id)), records)
        try:
            for count, (record, fault) in enumerate(zip(records, faults, strict=True), 1):
                where = f"{scan.dataset.name} image {shown(record.image_id)}"
                if fault is not None and fault[0] == _POLICY:
                    scan.findings.converted(_POLICY, where, fault[1], "warning")
                elif fault is not None:
                    bad.add(record.image_id)
                    scan.findings.add("error", fault[0], where, fault[1])
                if progress is not None:
                    progress(count)
        except BaseException:  # an interrupt must not wait for thousands of images
            pool.shutdown(cancel_futures=True)
            raise
    return bad


def _load_anyhow(record: Record, error: ImageError) -> Image:
    """Decode an image that cannot be read without bands or a value range: all its bands, with any range.

    Raises:
        ImageError: It cannot be read either.
    """
    count = error.bands.count if isinstance(error, BandsError) else 1
    return record.load_image(count if count > 1 else 3, _ANY_RANGE)


def _fault(record: Record, size: tuple[int, int] | None) -> tuple[str, str] | None:
    """Return kind and message of what is wrong with an image or its objects, or of what training has to be told."""
    needed = None
    try:
        found = record.load_image().shape[:2]
    except ImageError as error:
        needed = _POLICY, str(error)
        try:
            found = _load_anyhow(record, error).shape[:2]
        except ImageError as still:
            return "broken-image", str(still)
    except DatasetError as error:
        return "broken-image", str(error)
    try:
        sizes = [tuple(instance.mask["size"]) for instance in record.load_instances()]
    except DatasetError as error:
        return "bad-masks", str(error)
    expected = size or (sizes[0] if sizes else found)
    if found == expected:
        return needed
    turned = "; do the annotations ignore its EXIF orientation?" if found[::-1] == expected else ""
    return "image-size", (
        f"the image has {found[1]} x {found[0]} pixels (width x height), its annotations say {expected[1]} x "
        f"{expected[0]}{turned}"
    )
