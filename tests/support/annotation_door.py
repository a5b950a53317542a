"""Opens and checks every invalid dataset, in a separate process: `python annotation_door.py FOLDER`.

Prints a line of JSON for each case as soon as it is done. What reaches pycocotools is looked at on the way.
"""

import json
import signal
import sys
from pathlib import Path

import numpy as np
from bad_annotations import write_cases

sys.path.insert(0, str(Path(__file__).parents[2]))  # the code beside these tests, not what is installed

HANG = 20  # seconds


class Hang(BaseException):
    """A case took too long; no `except Exception` of the code under test takes it for a fault of the input."""


class _Guard:
    """pycocotools with checks of the outlines, because its C code trusts them."""

    def __init__(self, api):
        self._api = api
        self.area, self.toBbox, self.merge = api.area, api.toBbox, api.merge

    def frPyObjects(self, outlines, height, width):  # noqa: N802
        for points in outlines:
            values = np.asarray(points, np.float64)
            assert np.isfinite(values).all(), "not finite in C"
            assert np.abs(values).max() <= 2 * max(height, width), "far away in C"
        return self._api.frPyObjects(outlines, height, width)


def tried(path, kind):
    """["read", classes, findings], ["refused", message, findings], or anything else with its name."""
    from maskrcnn.data.readers.check import check_dataset
    from maskrcnn.data.readers.open import open_dataset
    from maskrcnn.errors import DatasetError

    signal.alarm(HANG)
    try:
        found = [[item.level, item.where, item.message] for item in check_dataset(path, format=kind)]
        try:
            dataset = open_dataset(path, format=kind, report=lambda *_: None)
        except DatasetError as error:
            return ["refused", str(error), found]
        return ["read", [record.load_instances() is not None for record in dataset.records], found]
    except BaseException as other:  # noqa: BLE001  (reported by name)
        return [type(other).__name__, str(other), []]
    finally:
        signal.alarm(0)


def main(folder):
    """Try all."""
    from maskrcnn.data.readers import outlines as polygons

    def too_long(*_):
        raise Hang(f"over {HANG} seconds")

    signal.signal(signal.SIGALRM, too_long)
    guard = _Guard(polygons._mask_api())
    polygons._mask_api = lambda: guard
    for name, (path, kind, comes) in write_cases(folder).items():
        print(json.dumps([name, comes, *tried(path, kind)]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
