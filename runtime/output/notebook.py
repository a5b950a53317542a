"""Detections as notebooks show them: a small drawn image, and a table of the best."""

from base64 import b64encode
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from runtime.errors import RuntimeLibraryError
from runtime.output.draw import draw_detections
from runtime.output.show import shrunk, small_png

if TYPE_CHECKING:
    from runtime.detections import Detections

_ROWS = 10


def to_bundle(detections: "Detections") -> dict[str, str]:
    """Return by MIME type the image, as base64, and HTML with the image and a table of the best detections.

    If the image cannot be found, the HTML says why. The image is in both, because some programs show only one of them.
    """
    bundle = {}
    try:
        encoded = bundle["image/png"] = b64encode(_drawn(detections)).decode("ascii")
        shown = f'<img src="data:image/png;base64,{encoded}" alt="{escape(repr(detections))}" style="max-width:100%">'
    except (RuntimeLibraryError, OSError, MemoryError) as error:
        shown = f"<p>No image: {_text(str(error) or type(error).__name__)}</p>"
    rows = zip(detections.names, detections.scores, detections.boxes.tolist(), strict=True)
    cells = [
        f"<tr><td>{number}</td><td>{_text(name)}</td><td>{score:.3f}</td>"
        f"<td>{', '.join(f'{side:.0f}' for side in box)}</td></tr>"
        for number, (name, score, box) in enumerate(rows)
        if number < _ROWS
    ]
    more = len(detections) - len(cells)
    if not cells:
        table = ""
    else:
        head = "<tr><th></th><th>class</th><th>score</th><th>x1, y1, x2, y2</th></tr>"
        rest = f'<tr><td></td><td colspan="3">and {more} more</td></tr>' if more else ""
        table = f"<table><thead>{head}</thead><tbody>{''.join(cells)}{rest}</tbody></table>"
    return bundle | {"text/html": f"<div>{shown}<p>{_text(repr(detections))}</p>{table}</div>"}


def _drawn(detections: "Detections") -> bytes:
    """Draw on the shrunk image, so that lines and labels can still be seen."""
    image = shrunk(Image.fromarray(detections.read_image()))
    size = image.height, image.width
    factors = np.divide(size[::-1] * 2, detections.image_size[::-1] * 2)
    boxes = (detections.boxes * factors).astype(np.float32)
    return small_png(draw_detections(image, replace(detections, boxes=boxes, image_size=size, edges=None)))


def _text(text: str) -> str:
    """Escape text; class names may have characters that do not print, or halves of surrogate pairs."""
    return escape(text if text.isprintable() else ascii(text))
