"""Small square images side by side."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

CELL, _GAP = 112, 4


def cell(pixels: npt.NDArray[np.uint8], side: int = CELL) -> Image.Image:
    """Stretch an array uint8 [h, w] or [h, w, 3] to a square, with its pixels visible."""
    return Image.fromarray(pixels).convert("RGB").resize((side, side), Image.Resampling.NEAREST)


def cut(picture: npt.NDArray[np.uint8], box: npt.NDArray[np.floating]) -> Image.Image:
    """Stretch the part of an image inside a box x1, y1, x2, y2 to a square, like the crops of the heads."""
    x1, y1, x2, y2 = (float(side) for side in box)
    part = (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))
    return Image.fromarray(picture).transform((CELL, CELL), Image.Transform.EXTENT, part, Image.Resampling.BILINEAR)


def strip(cells: Sequence[Image.Image]) -> Image.Image:
    """Put squares side by side, with gaps."""
    side = cells[0].width
    canvas = Image.new("RGB", (len(cells) * (side + _GAP) - _GAP, side), (128, 128, 128))
    for place, each in enumerate(cells):
        canvas.paste(each, (place * (side + _GAP), 0))
    return canvas
