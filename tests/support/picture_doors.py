"""Hands every bad picture to a door of ours, in a process of its own: `python picture_doors.py DOOR FOLDER`.

Prints a line of JSON for each case as soon as it is done, so that a process that died has named the culprit; then
the memory that it took.
"""

import json
import logging
import resource
import signal
import sys
import warnings
from pathlib import Path

from bad_pictures import other_sources, write_pictures

sys.path.insert(0, str(Path(__file__).parents[2]))  # the code beside these tests, not what is installed

HANG = 20  # seconds


class Hang(BaseException):
    """A case took too long; no `except Exception` of the code under test takes it for a fault of the input."""


def doors():
    """Each takes a source, and gives back [height, width]."""
    from maskrcnn.data.readers.findings import RowError
    from maskrcnn.data.readers.picture_files import picture_size
    from runtime.errors import ImageError
    from runtime.pictures.letterbox import ResizePolicy
    from runtime.pictures.read import read_image
    from runtime.steps import letterbox_picture

    def prepare(source):
        letterbox, pixels = letterbox_picture(source, 3, ResizePolicy("pad64"))
        assert pixels.dtype == "uint8"
        return letterbox.image_size

    return {
        "read": (lambda source: read_image(source).shape[:2], ImageError),
        "prepare": (prepare, ImageError),
        "size": (lambda source: picture_size(Path(source)), RowError),
    }


def outcome(door, error, source):
    """["read", size], ["refused", message], or anything else with its name."""
    signal.alarm(HANG)
    try:
        return ["read", [int(side) for side in door(source)]]
    except error as refused:
        return ["refused", str(refused)]
    except BaseException as other:  # noqa: BLE001  (it is told by name)
        return [type(other).__name__, str(other)]
    finally:
        signal.alarm(0)


def main(name, folder):
    """Try all."""

    def too_long(*_):
        raise Hang(f"over {HANG} seconds")

    signal.signal(signal.SIGALRM, too_long)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    door, error = doors()[name]
    cases = write_pictures(folder)
    if name != "size":
        cases |= other_sources()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case, (source, comes) in cases.items():
        print(json.dumps([case, comes, *outcome(door, error, source)]), flush=True)  # noqa: T201
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
