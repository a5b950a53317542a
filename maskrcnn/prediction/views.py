"""Overlays and splashes, drawn from the stored detections, so that those drawn later are identical."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskrcnn.prediction.documents import Row
from maskrcnn.prediction.output_folder import OutputFolder
from maskrcnn.prediction.sources import Source
from runtime.atomic import atomic_write
from runtime.masks.rle import area, decode_crop
from runtime.output.draw import DrawnObject, draw_objects, instance_color
from runtime.output.labels import RGB, readable_name
from runtime.output.splash import splash_crops

_NO_TRACK = (160, 160, 160)


def draw_view(kind: str, pixels: npt.NDArray[np.uint8], rows: Sequence[Row], *, by_class: bool = False) -> Image.Image:
    """Draw the detections of a picture.

    Args:
        kind: "overlay": masks, boxes, names and scores; "splash": gray, except for the masks.
        pixels: uint8 [H, W, 3] RGB; not changed.
        rows: Stored detections.
        by_class: Use one color per class, which does not flicker from frame to frame. Rows with a `track_id` have one
            color per id, with the id in the label, and gray without one.

    Returns:
        An RGB image [H, W].
    """
    if kind == "splash":
        return splash_crops(pixels, (decode_crop(row["mask"]) for row in rows))
    objects = [
        DrawnObject(
            partial(decode_crop, row["mask"]),
            np.rint(row["box"]).astype(int).tolist(),
            _label(row),
            f" {row['score']:.2f}",
            _color(row, row["class_id"] - 1 if by_class else place),
            area(row["mask"]),
        )
        for place, row in enumerate(rows)
    ]
    return draw_objects(pixels, objects)


def _label(row: Row) -> str:
    name = readable_name(row["name"], row["class_id"])
    return f"#{row['track_id']} {name}" if row.get("track_id") else name


def _color(row: Row, place: int) -> RGB:
    track = row.get("track_id", place + 1)  # of a video without tracking, no row has one
    return _NO_TRACK if track is None else instance_color(track - 1)


def write_picture_views(
    folder: OutputFolder, source: Source, kinds: Sequence[str], pixels: npt.NDArray[np.uint8], rows: Sequence[Row]
) -> None:
    """Write a PNG of each kind, drawn on `pixels`, uint8 [H, W, 3] RGB."""
    for kind in kinds:
        with atomic_write(folder.view(kind, source), overwrite=True) as path:
            draw_view(kind, pixels, rows).save(path, format="PNG")
