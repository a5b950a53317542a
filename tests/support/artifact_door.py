"""Hands every bad artifact to `Predictor`, each in a process of its own.

    python artifact_door.py FOLDER ONNX SAVEDMODEL

Prints a line of JSON for each case: its name, how its process ended, and what it said.
"""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the code beside these tests, not what is installed

from bad_artifacts import write_artifacts

HANG = 60  # seconds; importing TensorFlow is part of it


def outcome(path):
    """["opened", device], ["refused", message], or anything else with its name."""
    from runtime import Predictor
    from runtime.errors import RuntimeLibraryError

    try:
        return ["opened", Predictor(path, "cpu").device]
    except RuntimeLibraryError as refused:
        return ["refused", str(refused)]
    except BaseException as other:  # noqa: BLE001  (it is told by name)
        return [type(other).__name__, str(other)]


def in_own_process(path):
    """Wait status, and the outcome if it came to one. No engine is imported before the fork."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(HANG)  # ends the process
        os.write(into, json.dumps(outcome(path)).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as stream:
        said = stream.read()
    return os.waitpid(child, 0)[1], json.loads(said) if said else None


def main(folder, onnx, savedmodel):
    """Try all."""
    for name, path in write_artifacts(folder, onnx, savedmodel).items():
        print(json.dumps([name, *in_own_process(path)]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
