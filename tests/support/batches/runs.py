"""What tests of batches share: images, processes that run a batch, and workers that end or fail.

The processes of a cluster import this module too.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from maskrcnn.batch.run import _Worker
from runtime.errors import MissingPackageError

MODEL = Path(__file__).parents[3] / "maskrcnn" / "demo.onnx"
POISON = ("cut.jpg", "empty.png", "gone.png", "text.png")


def write_pictures(folder, count, bad=POISON):
    """Write crops of the demo image in two folders, and files that are no usable images."""
    photo = np.asarray(Image.open(MODEL.with_name("demo.jpg")).convert("RGB"))
    for n in range(count):
        place = folder / f"part{n % 2}"
        place.mkdir(parents=True, exist_ok=True)
        cut = photo[n % 100 : n % 100 + 160, 2 * (n % 90) : 2 * (n % 90) + 192]
        Image.fromarray(cut).save(place / f"{n:03}.{'png' if n % 3 else 'jpg'}")
    place = folder / "part1"
    contents = {
        "empty.png": b"",
        "text.png": b"not a picture",
        "cut.jpg": (folder / "part0/000.jpg").read_bytes()[:900],
    }
    for name in bad:
        if name == "gone.png":
            (place / name).symlink_to("nowhere.png")
        else:
            (place / name).write_bytes(contents[name])
    return folder


def children():
    """Return the command line of each process of Ray that this one started, directly or not, by its number."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in found.splitlines()[1:]]
    ours, before = {os.getpid()}, 0
    while len(ours) != before:
        before = len(ours)
        ours |= {int(pid) for pid, parent, _ in lines if int(parent) in ours}
    return {int(pid): text for pid, _, text in lines if int(pid) in ours and ("ray::" in text or "/ray/" in text)}


def driver(cluster, pictures, output, worker=None, workers=2):
    """Start a process that runs a batch on a cluster, perhaps with a worker of `batch_workers`."""
    code = "import sys\nfrom maskrcnn.batch import BatchOptions, predict_dataset, run\n"
    if worker is not None:
        code += f"from batches import runs\nrun._Worker = runs.{worker}\n"
    code += "found = predict_dataset(sys.argv[1], [sys.argv[2]], sys.argv[3], address=sys.argv[4], "
    code += f"options=BatchOptions(workers={workers}))\nprint(tuple(found.counts))\n"
    command = [sys.executable, "-W", "ignore", "-c", code, str(MODEL), str(pictures), str(output), cluster]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows_of(output):
    """Return all rows of a run, read by pyarrow alone."""
    return [row for path in sorted(output.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


class DyingWorker(_Worker):
    """Ends its process at an image named poison, and writes a line to a file beside it each time."""

    def __call__(self, table):
        for path in table["path"].to_pylist():
            if "poison" in path:
                with Path(path).with_suffix(".log").open("a", encoding="utf-8") as file:
                    file.write("died\n")
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(table)


class SlowWorker(_Worker):
    """Takes time, so that a test can kill it in the middle; writes its process id to the file in MASKRCNN_PIDS."""

    def __call__(self, table):
        with Path(os.environ["MASKRCNN_PIDS"]).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        return super().__call__(table)


class IncompleteWorker(_Worker):
    """A worker on a machine without an engine."""

    def __init__(self, *_, **__):
        raise MissingPackageError("onnxruntime", "onnx", "running .onnx artifacts")
