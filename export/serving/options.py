"""What both layouts have in common: names, batches, and the file that marks a folder as one of ours."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from export.errors import LayoutError
from runtime.arguments import count, shown
from runtime.artifact import Metadata
from runtime.errors import InputError

MARKER = "layout.json"  # beside the models' folders; both servers read folders alone
MOST_WAITING = 128  # in a queue, before more are refused
_USUAL_BATCH = 8  # unless chosen
_MOST_BATCH = 2**31 - 1  # an int32 of Triton's configuration
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def allowed_name(name: str, remedy: str) -> str:
    """Return the name of a model; raise LayoutError, which ends with `remedy`, if it cannot be in a URL."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise LayoutError(
            f"the name {shown(name)} cannot be in a URL: expected a name of A to Z, a to z, digits, '_', '-' and '.' "
            f"that begins with a letter or digit; {remedy}"
        )
    return name


def allowed_number(name: str, value: int, least: int, most: int, meaning: str = "") -> int:
    """Return an integer of a range; anything else raises LayoutError."""
    try:
        return count(name, value, least, most, f"an integer from {least} to {most}{meaning}")
    except InputError as error:
        raise LayoutError(str(error)) from error


def allowed_batch(path: Path, metadata: Metadata, asked: int | None, fitting: int = _MOST_BATCH) -> int:
    """Return the most images that a server may run together; unless chosen, no more than are `fitting`.

    Raises:
        LayoutError: It is out of range, or not the batch of an artifact for which that is fixed.
    """
    fixed = metadata.input_shape[0]
    if asked is not None:
        asked = allowed_number("the largest batch", asked, 1, _MOST_BATCH)
    if fixed is not None and asked not in (None, fixed):
        raise LayoutError(
            f"{path} is made for batches of {fixed}, and the largest batch is {asked}: leave --max-batch out, or "
            "export the checkpoint for another batch or target"
        )
    return asked or fixed or min(_USUAL_BATCH, fitting)


def write_marker(folder: Path, digest: str, models: Sequence[str]) -> None:
    """Write the file that allows a folder to be replaced."""
    (folder / MARKER).write_text(json.dumps({"sha256": digest, "models": models}, indent=1) + "\n", encoding="utf-8")
