"""What both layouts have in common: names, batches, and the file that marks a folder as one of ours."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from export.errors import LayoutError
from runtime.artifact import Metadata

MARKER = "layout.json"  # beside the models' folders; both servers read folders alone
MOST_WAITING = 128  # images in a queue, before more are refused
_MOST_BATCH = 8  # unless chosen
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def allowed_name(name: str) -> str:
    """Return the name of a model; raise LayoutError if it cannot be in a URL."""
    if not _NAME.fullmatch(name):
        raise LayoutError(f"the name {name!r} cannot be in a URL: expected letters, digits, '_', '-' and '.'")
    return name


def allowed_batch(path: Path, metadata: Metadata, asked: int | None) -> int:
    """Return the most images that a server may run together.

    Raises:
        LayoutError: It is not positive, or not the batch of an artifact for which that is fixed.
    """
    fixed = metadata.input_shape[0]
    if asked is not None and asked < 1:
        raise LayoutError(f"the largest batch is {asked}: expected a positive number")
    if fixed is not None and asked not in (None, fixed):
        raise LayoutError(
            f"{path} is made for batches of {fixed}, and the largest batch is {asked}: leave --max-batch out, or "
            "export the checkpoint for another batch or target"
        )
    return asked or fixed or _MOST_BATCH


def write_marker(folder: Path, digest: str, models: Sequence[str]) -> None:
    """Write the file that allows a folder to be replaced."""
    (folder / MARKER).write_text(json.dumps({"sha256": digest, "models": models}, indent=1) + "\n", encoding="utf-8")
