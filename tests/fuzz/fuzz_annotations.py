"""Fuzz targets for annotations: run lengths, and files of four tools; functions of bytes."""

import math

import numpy as np
from annotation_files import write_picture
from fuzz_checks import check_message, folder, refused_with

from maskrcnn.data.readers.finish import finish
from maskrcnn.data.readers.open import scan_dataset
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.errors import DatasetError
from runtime.errors import ImageError, InputError
from runtime.masks.rle import area, decode, decode_crop, encode_crop
from runtime.masks.rle_string import read_counts, write_counts

_LARGEST_MASK = 2**16  # pixels that are decoded here; more is slow, and the same
_CLASS_ATTRIBUTE = "kind"


def rle(data):
    """A byte that the height divides, then a compressed string; the width is what the counts add up to."""
    text = data[1:]
    with refused_with(InputError):
        counts = read_counts(text)
        sound = len(counts) > 0 and counts.min() >= 0 and counts.max() < 2**31
        if sound:
            np.testing.assert_array_equal(read_counts(write_counts(counts)), counts)
        total = int(counts.sum())
        height = math.gcd(data[0], total) if data and sound else 1
        size = [height or 1, total // (height or 1)]
        pixels = area({"size": size, "counts": text})
        assert sound or not len(counts) or counts.max() >= 2**31
        assert 0 <= pixels <= size[0] * size[1] == total
        for wrong in ([size[0], size[1] + 1], [-1, -total], size[:1]):
            with refused_with(InputError):
                raise AssertionError(area({"size": wrong, "counts": text}))
        if total <= _LARGEST_MASK:
            _check_mask({"size": size, "counts": text}, pixels, counts)


def _check_mask(rle, pixels, counts=None):
    """Every way to decode a mask gives the same one, and it is encoded to the same again."""
    size = tuple(rle["size"])
    mask = decode(rle)
    assert mask.dtype == np.bool_
    assert mask.shape == size
    assert mask.sum() == pixels
    crop, (y, x) = decode_crop(rle)
    whole = np.zeros(size, np.bool_)
    whole[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    np.testing.assert_array_equal(whole, mask)
    np.testing.assert_array_equal(decode(encode_crop(crop, (y, x), size)), mask)
    if counts is not None:
        np.testing.assert_array_equal(decode({"size": list(size), "counts": counts.tolist()}), mask)


def coco(data):
    """A COCO JSON file beside two pictures."""
    _annotations(data, "coco", {"images/a.png": (40, 60), "images/b.png": (30, 50)})


def via(data):
    """A project of the VGG Image Annotator beside its pictures, its regions of one class and of several."""
    _annotations(data, "via", {"a.png": (40, 60), "b.png": (30, 50)})
    _annotations(data, "via", {"a.png": (40, 60), "b.png": (30, 50)}, _CLASS_ATTRIBUTE)


def labelme(data):
    """A labelme file beside its picture."""
    _annotations(data, "labelme", {"a.png": (40, 60)})


def via_csv(data):
    """A CSV file of the VGG Image Annotator beside its picture."""
    for attribute in (None, _CLASS_ATTRIBUTE, "@key"):
        _annotations(data, "via", {"a.png": (40, 60)}, attribute, "via_csv", "csv")


def yolo(data):
    """A text file of labels, then a NUL and the description of the dataset."""
    labels, _, names = data.partition(b"\0")
    place = folder("yolo")
    for part in ("images", "labels"):
        (place / part).mkdir(exist_ok=True)
    if not (place / "images" / "a.png").exists():
        write_picture(place / "images" / "a.png", 40, 60)
    (place / "labels" / "a.txt").write_bytes(labels)
    (place / "data.yaml").write_bytes(names)
    for path in (place, place / "data.yaml"):
        for options in (ReadOptions(), ReadOptions(boxes_as_masks=True)):
            with refused_with(DatasetError):
                _check_scan(scan_dataset(path, format="yolo", options=options), place / "labels")


def _annotations(data, kind, pictures, class_attribute=None, target=None, suffix="json"):
    place = folder(target or kind)
    for name, size in pictures.items():
        if not (place / name).exists():
            write_picture(place / name, *size)
    path = place / f"data.{suffix}"
    path.write_bytes(data)
    with refused_with(DatasetError):
        scan_dataset(path)  # whatever it is taken for
    with refused_with(DatasetError):
        _check_scan(scan_dataset(path, format=kind, class_attribute=class_attribute), path)
    with refused_with(DatasetError):
        options = ReadOptions(by_name=True, boxes_as_masks=True, encoding="cp1252")
        _check_scan(scan_dataset(path, format=kind, class_attribute=class_attribute, options=options), path)


def _check_scan(scan, path):
    for item in scan.findings.items:
        check_message(item.where)
        check_message(item.message)
    dataset = scan.dataset
    assert dataset.class_names[0] == "BG"
    assert all(isinstance(name, str) for name in dataset.class_names)
    for record in dataset.records:
        if callable(record.image):  # inside a labelme file
            with refused_with(ImageError, DatasetError):
                record.load_image()
        else:
            assert record.image.resolve().is_relative_to(path.parent.parent)
        for instance in record.load_instances():
            assert 0 < instance.class_id < len(dataset.class_names)
            pixels = area(instance.mask)
            assert pixels > 0
            if math.prod(instance.mask["size"]) <= _LARGEST_MASK:
                _check_mask(instance.mask, pixels)
    errors = any(item.level == "error" for item in scan.findings.items)
    try:
        finish(scan, path, skip_bad=False)
    except DatasetError as error:
        check_message(str(error))
        assert errors or not dataset.records or len(dataset.class_names) < 2
    else:
        assert not errors
