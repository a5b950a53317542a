"""Detections as annotations to edit and to train on: labelme files, and labels of YOLO segmentation."""

import json
import os
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.arguments import file_path, shown
from runtime.atomic import write_text
from runtime.errors import InputError, OutputError
from runtime.masks.polygons import Ring, join_polygons, short_polygons

if TYPE_CHECKING:
    from runtime.detections import Detections

_LABELME_VERSION = "5.5.0"  # whose format is written


def to_labelme(
    detections: "Detections", path: str | PathLike[str], image_path: str | PathLike[str] | None = None
) -> None:
    """Write a labelme file: for each detection, one polygon for each part of its mask.

    Polygons have as few corners as an IoU of 0.99 with the mask allows (see `runtime.masks.polygons.short_polygons`).
    Parts of one object share a `group_id`. labelme's polygons have no holes: a line leads from the outline to a hole,
    and the same line leads back. The score is in the description of each shape, which labelme shows, and in a field
    `score`, which it keeps. A mask without pixels is left out.

    Args:
        detections: the detections in one image.
        path: a .json file, replaced if it exists; its folder is created.
        image_path: the image; None for the one that was predicted. The file names it relative to its own folder.

    Raises:
        InputError: the path of the image is neither given nor known, or a path is none.
        OutputError: the file cannot be written, or does not end in .json.
    """
    target = _target(path, ".json", "a labelme file")
    image = detections.image_path if image_path is None else _image(image_path)
    if image is None:
        raise InputError(
            "a labelme file names its image, and these detections know no path: give it, as in "
            "to_labelme('street.json', image_path='street.jpg')"
        )
    rows = zip(detections.names, detections.polygons, detections.scores.tolist(), strict=True)
    height, width = detections.image_size
    write_text(target, labelme_text(rows, (height, width), _relative(image, target)))


def labelme_text(
    objects: Iterable[tuple[str, Sequence[Ring], float | None]], image_size: tuple[int, int], image_path: str
) -> str:
    """Return the content of a labelme file; see `to_labelme`.

    Args:
        objects: Label, rings of the mask (see `runtime.masks.polygons.trace_rings`) and score, or None, of each object.
        image_size: (height, width) of the image in pixels.
        image_path: The image as seen from the folder of the file, with slashes.
    """
    shapes = []
    for row, (name, rings, score) in enumerate(objects):
        polygons = short_polygons(rings) if rings else []
        for polygon in polygons:
            shape: dict[str, Any] = {
                "label": name,
                "points": [[x, y] for x, y in zip(polygon[::2], polygon[1::2], strict=True)],
                "group_id": row if len(polygons) > 1 else None,
                "description": "" if score is None else f"score {score:.2f}",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            shapes.append(shape if score is None else shape | {"score": round(score, 4)})
    content: dict[str, Any] = {
        "version": _LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": int(image_size[0]),
        "imageWidth": int(image_size[1]),
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def to_yolo(detections: "Detections", path: str | PathLike[str]) -> None:
    """Write the label file of one image for a YOLO segmentation dataset: a line with class and polygon per detection.

    Class ids start at 0, without the background: they are those of `class_names[1:]`, which belong into the dataset's
    data.yaml. Polygons are those of `to_labelme`, as shares of width and height. The format has one outline per object:
    parts and holes are joined by lines there and back, as Ultralytics' converter from COCO does. Such a line encloses
    nothing, but programs that draw outlines show it, and Ultralytics' own masks include its pixels. Scores are not
    written. A mask without pixels is left out; without detections the file is empty.

    Args:
        detections: the detections in one image.
        path: a .txt file, replaced if it exists; its folder is created.

    Raises:
        InputError: `path` is no path, or a detection has class id 0, the background.
        OutputError: the file cannot be written, or does not end in .txt.
    """
    target = _target(path, ".txt", "a YOLO label file")
    background = np.flatnonzero(detections.class_ids == 0)
    if len(background):
        raise InputError(
            f"detection {background[0]} has class id 0, the background, which has no number in YOLO labels: leave it "
            "out, or give its class another id"
        )
    size = detections.image_size
    rows = zip(detections.class_ids.tolist(), detections.polygons, strict=True)
    write_text(target, "".join(yolo_line(class_id - 1, rings, size) for class_id, rings in rows if rings))


def yolo_line(number: int, rings: Sequence[Ring], image_size: tuple[int, int]) -> str:
    """Return the line of an object in a YOLO label file; see `to_yolo`.

    Args:
        number: Of the class, from 0.
        rings: Of the mask; at least one.
        image_size: (height, width) of the image in pixels.
    """
    height, width = image_size
    corners = join_polygons(short_polygons(rings))
    shares = (f"{x / width:.6f} {y / height:.6f}" for x, y in zip(corners[::2], corners[1::2], strict=True))
    return f"{number} {' '.join(shares)}\n"


def _target(path: str | PathLike[str], suffix: str, what: str) -> Path:
    target = file_path("path", path)
    if target.suffix.lower() != suffix:
        raise OutputError(f"{target} has the suffix {target.suffix!r}: {what} ends in {suffix}")
    return target


def _image(image_path: str | PathLike[str]) -> str:
    image = str(file_path("image_path", image_path))
    if "\0" in image or os.path.isdir(image):  # noqa: PTH112  (`Path.is_dir` raises for names that are too long)
        raise InputError(f"image_path is {shown(image_path)}: expected the path of an image file")
    return image


def _relative(image: str, target: Path) -> str:
    """Return the path of an image as seen from the folder of a file, where symbolic links have led to the folder."""
    folder, name = os.path.split(image)
    image = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118  (`Path.resolve` follows the last link, too)
    try:
        return Path(os.path.relpath(image, os.path.realpath(target.parent))).as_posix()
    except ValueError:  # another drive on Windows
        return Path(image).as_posix()
