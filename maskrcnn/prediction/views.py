"""Overlays, splashes and labelme files, made from the stored detections, so that those made later are identical."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskrcnn.prediction.documents import Row
from maskrcnn.prediction.output_folder import LABELME, OutputFolder
from maskrcnn.prediction.sources import Source
from runtime.atomic import atomic_write, write_text
from runtime.errors import OutputError
from runtime.masks.polygons import rle_rings
from runtime.masks.rle import area, decode_crop
from runtime.output.annotations import labelme_text
from runtime.output.draw import DrawnObject, draw_objects, instance_color
from runtime.output.image_links import link_image
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


def write_labelme(folder: OutputFolder, source: Source, image_size: Sequence[int], rows: Sequence[Row]) -> None:
    """Write a labelme file, with a link to its image beside it.

    Args:
        folder: The folder of the run.
        source: The image.
        image_size: [height, width] in pixels.
        rows: Stored detections.
    """
    link = folder.labelme_image(source)
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link_image(source.path, link)
    except OSError as error:
        raise OutputError(f"cannot write {link}: {error.strerror}") from error
    objects = ((row["name"], rle_rings(row["mask"]), row["score"]) for row in rows)
    height, width = image_size
    write_text(folder.view(LABELME, source), labelme_text(objects, (height, width), link.name))
