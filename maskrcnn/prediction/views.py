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
from runtime.output.labels import readable_name
from runtime.output.splash import splash_crops


def draw_view(kind: str, pixels: npt.NDArray[np.uint8], rows: Sequence[Row], *, by_class: bool = False) -> Image.Image:
    """Draw the detections of a picture.

    Args:
        kind: "overlay": masks, boxes, names and scores; "splash": gray, except for the masks.
        pixels: uint8 [H, W, 3] RGB; not changed.
        rows: Stored detections.
        by_class: Use one color per class, which does not flicker from frame to frame.

    Returns:
        An RGB image [H, W].
    """
    if kind == "splash":
        return splash_crops(pixels, (decode_crop(row["mask"]) for row in rows))
    colors = [instance_color(row["class_id"] - 1 if by_class else place) for place, row in enumerate(rows)]
    objects = [
        DrawnObject(
            partial(decode_crop, row["mask"]),
            np.rint(row["box"]).astype(int).tolist(),
            readable_name(row["name"], row["class_id"]),
            f" {row['score']:.2f}",
            color,
            area(row["mask"]),
        )
        for row, color in zip(rows, colors, strict=True)
    ]
    return draw_objects(pixels, objects)


def write_picture_views(
    folder: OutputFolder, source: Source, kinds: Sequence[str], pixels: npt.NDArray[np.uint8], rows: Sequence[Row]
) -> None:
    """Write a PNG of each kind, drawn on `pixels`, uint8 [H, W, 3] RGB."""
    for kind in kinds:
        with atomic_write(folder.view(kind, source), overwrite=True) as path:
            draw_view(kind, pixels, rows).save(path, format="PNG")
