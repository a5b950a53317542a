"""Mutations of rich HDF5 files: whatever they do to the HDF5 library, the reading process gets an error of ours.

    PYTHONPATH=. python tests/fuzz/fuzz_h5.py --count 20000 --seed 0

Layouts that Keras does not write are read in a child process. A Python for each would take a third of a second, so here
a child is forked, from a process without threads; all else is the code of the product. A mutation that ends in any
other error, or in wrong arrays, ends the run and is kept in `.fuzz/h5`. The last line is a summary in JSON.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from functools import partial
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
from fuzz_checks import check_message

from maskrcnn.checkpoints import h5_apart
from maskrcnn.checkpoints.matterport_h5 import read_arrays
from maskrcnn.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
_SIGNATURES = (b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTLF", b"BTIN", b"FSHD", b"FSSE", b"EAHD")
_SIGNATURES += (b"EAIB", b"EADB", b"FAHD", b"FADB", b"TREE", b"SNOD", b"HEAP", b"GCOL", b"\x89HDF")
_NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def _layers(file, count=6):
    for number in range(count):
        group = file.create_group(f"layer{number}")
        group.attrs["weight_names"] = np.array([f"layer{number}/{name}:0".encode() for name in ("kernel", "bias")])
        group.create_dataset(f"layer{number}/kernel:0", data=np.full((30, 40), number, np.float32))
        group.create_dataset(f"layer{number}/bias:0", data=np.full(40, number, np.float32))


def _links(file):
    """Enough links and attributes in one group for a heap and an index of their own."""
    for number in range(60):
        file.create_dataset(f"many/array {number}", data=np.full(150, number, np.float32))
    for number in range(12):
        file["many"].attrs[f"attribute {number}"] = "text " * number
    file["many"].attrs["numbers"] = np.arange(50)


def _packed(file):
    values = np.random.default_rng(0).normal(size=(64, 50)).astype(np.float32)
    group = file.create_group("packed")
    group.attrs["weight_names"] = np.array([b"fixed", b"grows", b"grows twice", b"one"])
    group.create_dataset("fixed", data=values, chunks=(16, 10), compression="gzip", shuffle=True, fletcher32=True)
    group.create_dataset("grows", data=values, chunks=(8, 8), maxshape=(None, 50), fletcher32=True)
    group.create_dataset("grows twice", data=values, chunks=(8, 8), maxshape=(None, None), compression="gzip")
    group.create_dataset("one", data=values, chunks=(64, 50), shuffle=True, compression="gzip")
    group.create_dataset("unwritten", (5, 5), "f4")
    group.create_dataset("texts", data=np.array(["a", "bc"], h5py.string_dtype()))
    group.create_dataset("truth", data=np.array([True, False]))


def _everything(file):
    _layers(file)
    _links(file)
    _packed(file)


def _large_attribute(file):
    file.attrs["large"] = np.zeros(100_000, np.uint8)  # needs a heap for attributes
    _everything(file)


def seed(fill, **options):
    """The bytes of a file."""
    content = BytesIO()
    with h5py.File(content, "w", **options) as file:
        fill(file)
    return content.getvalue() + bytes(-len(content.getvalue()) % 4096)  # whole pages, as a file on a disk would have


SEEDS = {
    "keras": partial(seed, partial(_layers, count=20), libver="earliest"),
    "classic": partial(seed, _everything, libver="earliest"),
    "tracked": partial(seed, _everything, track_order=True),
    "1.8": partial(seed, _everything, libver=("v108", "v108")),
    "1.10": partial(seed, _everything, libver=("v110", "v110")),
    "latest": partial(seed, _large_attribute, libver="latest"),
    "latest, tracked": partial(seed, _large_attribute, libver="latest", track_order=True),
    "pages": partial(seed, _everything, libver="latest", fs_strategy="page", fs_persist=True, fs_page_size=4096),
}


def places(content):
    """Where structures begin, in contrast to values."""
    found = []
    for signature in _SIGNATURES:
        place = content.find(signature)
        while place >= 0:
            found.append(place)
            place = content.find(signature, place + 1)
    return found


def mutated(content, starts, rng):
    """`content` with some changes, most of them near the start of a structure."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6, 12))):
        near = rng.random() < 0.8
        place = rng.choice(starts) + int(rng.expovariate(1 / 60)) if near else rng.randrange(len(content))
        place = min(place, len(content) - 9)
        match rng.randrange(6):
            case 0:
                content[place] ^= 1 << rng.randrange(8)
            case 1:
                content[place] = rng.randrange(256)
            case 2 | 3:
                size = rng.choice((1, 2, 4, 8))
                value = rng.choice((*_NUMBERS, rng.randrange(len(content)), rng.choice(starts)))
                content[place : place + size] = (value % 256**size).to_bytes(size, "little")
            case 4:
                size, other = rng.choice((2, 8, 16, 64)), rng.choice(starts)
                size = min(size, len(content) - max(place, other))
                content[place : place + size] = content[other : other + size]
            case 5:
                content[place : place + 4] = rng.choice(_SIGNATURES)[:4]
    if rng.random() < 0.02:
        del content[rng.randrange(len(content)) :]
    return bytes(content)


class ForkedChild:
    """What `start_child` returns, without a new Python."""

    def __init__(self, stream, seconds):
        source, out = os.pipe()
        self._pid, self.returncode = os.fork(), None
        if self._pid == 0:
            try:
                os.dup2(stream.fileno(), 0)
                os.dup2(out, 1)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                os.closerange(3, 64)
                h5_apart.child(seconds)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(out)
        self.stdout = os.fdopen(source, "rb")

    def kill(self):
        if self.returncode is None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self):
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self.returncode


def outcome(path):
    """What reading a file came to: "read", "refused", "crashed", "slow" or "stopped"."""
    try:
        arrays, attributes = read_arrays(path)
    except CheckpointError as error:
        check_message(str(error))
        kinds = {"library crashed": "crashed", "did not read": "slow", "stopped early": "stopped"}
        return next((kind for part, kind in kinds.items() if part in str(error)), "refused")
    assert all(array.dtype == np.float32 for array in arrays.values())
    json.dumps(attributes)
    return "read"


def run(count, number, folder):
    """Try `count` mutations; return how often each seed came to what."""
    h5_apart.start_child = ForkedChild
    seeds = {name: make() for name, make in SEEDS.items()}
    starts = {name: places(content) for name, content in seeds.items()}
    path, found = folder / "x.h5", Counter()
    for name, content in seeds.items():
        path.write_bytes(content)
        assert outcome(path) == "read", name
    for index in range(count):
        rng = random.Random(f"{number} {index}")
        name = list(seeds)[index % len(seeds)]
        path.write_bytes(mutated(seeds[name], starts[name], rng))
        try:
            found[f"{name}: {outcome(path)}"] += 1
        except BaseException:
            kept = ROOT / ".fuzz" / "h5" / f"{number}-{index}.h5"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(path.read_bytes())
            raise
    return dict(sorted(found.items())), {name: len(content) for name, content in seeds.items()}


def main():
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found, sizes = run(asked.count, asked.seed, Path(folder))
    seconds = round(time.monotonic() - start)
    print(json.dumps({"mutations": asked.count, "seconds": seconds, "outcomes": found, "bytes": sizes}))  # noqa: T201


if __name__ == "__main__":
    main()
