"""Fuzz targets for files of PyTorch programs: weights and configurations; functions of bytes.

    PYTHONPATH=. python tests/fuzz/fuzz_states.py --count 20000 --seed 0

As a program, it changes weights at random, with sums of the zip files corrected, and ends at the first finding.
"""

import argparse
import json
import random
from collections import Counter

import numpy as np
from fuzz_checks import folder, refused_with
from torch_files import FLOATS, mapping, named, numbered, pickled, storage, tensor, text, torch_stream, torch_zip

from maskrcnn.checkpoints.pytorch.detectron2_config import read_detectron2_config
from maskrcnn.checkpoints.pytorch.mmdet_config import read_mmdet_config
from maskrcnn.checkpoints.pytorch.state_dict import read_state
from maskrcnn.errors import CheckpointError, ConfigError

_KINDS = "fiub"
_LARGEST_RATIO = 8  # bytes of arrays per byte of a file: four times its size, and twice that for float16


def torch(data):
    """A file of weights; and a pickle inside a zip file with correct sums, beside two storages."""
    _state(data, "x.pth")
    _state(torch_zip(data, (FLOATS, FLOATS)), "zip.pth")


def detectron2_pickle(data):
    """A .pkl, whatever it begins with."""
    _state(data, "x.pkl")


def safetensors(data):
    """A file for the library."""
    _state(data, "x.safetensors")


def _state(data, name):
    """Read weights; return whether they could be read."""
    path = folder("torch") / name
    path.write_bytes(data)
    with refused_with(CheckpointError):
        found = read_state(path)
        assert found.tensors
        assert all(isinstance(name, str) and array.dtype.kind in _KINDS for name, array in found.tensors.items())
        assert all(array.dtype == np.float32 for array in found.tensors.values() if array.dtype.kind == "f")
        assert sum(array.nbytes for array in found.tensors.values()) <= _LARGEST_RATIO * len(data)
        assert all(array.flags.c_contiguous for array in found.tensors.values())
        json.dumps(found.extras)
        return True
    return False


def detectron2_config(data):
    """A .yaml, and one that builds on it."""
    place = folder("detectron2_config")
    (place / "x.yaml").write_bytes(data)
    (place / "above.yaml").write_text("_BASE_: x.yaml\nMODEL: {A: (1, 2)}\n")
    for name in ("x.yaml", "above.yaml"):
        with refused_with(ConfigError):
            json.dumps(read_detectron2_config(place / name))


def mmdet_config(data):
    """A .py, and the same as the text in a checkpoint."""
    place = folder("mmdet_config")
    (place / "x.py").write_bytes(data)
    for source in (place / "x.py", data.decode(errors="replace") + "\n"):
        with refused_with(ConfigError):
            json.dumps(read_mmdet_config(source))


# Changes at random

_OBJECT = (
    named("mmengine.config", "ConfigDict") + b")\x81(" + text("a") + b"G?\xf0\0\0\0\0\0\0u" + mapping(b=b"N") + b"b"
)
_ARRAY = (
    named("numpy.core.multiarray", "_reconstruct") + b"(" + named("numpy", "ndarray") + b"K\x00\x85C\x01btR(K\x01K\x02"
    b"K\x03\x86"
    + named("numpy", "dtype")
    + b"("
    + text("f4")
    + b"\x89\x88tR(K\x03"
    + text("<")
    + b"NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb\x89C" + bytes([len(FLOATS)]) + FLOATS + b"tb"
)
_PIECES = (
    *(
        b"(",
        b")",
        b"]",
        b"}",
        b"N",
        b"\x88",
        b"0",
        b"1",
        b"2",
        b"a",
        b"b",
        b"d",
        b"e",
        b"l",
        b"o",
        b"s",
        b"t",
        b"u",
        b"R",
    ),
    *(
        b"Q",
        b"\x81",
        b"\x85",
        b"\x86",
        b"\x87",
        b"\x8f",
        b"\x90",
        b"\x91",
        b"\x92",
        b"\x93",
        b"\x94",
        b"q\x00",
        b"h\x00",
    ),
    *(b"q\x01", b"h\x01", b"\x82\x01", b"Px\n", b"(ios\nsystem\n", b"I01\n", b"L9L\n", b"F1.5\n", b"S'a'\n", b"Vab\n"),
    *(
        b"J\xff\xff\xff\xff",
        b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
        b"U\x01a",
    ),
    *(b"K\x02", b"K\x03", b"C\x02ab", b"\x96\x01\0\0\0\0\0\0\0x", b"B\xff\xff\xff\x7f", b"X\xff\xff\xff\xff", b"."),
    *(named("os", "system"), named("builtins", "getattr"), named("torch", "Size"), named("collections", "OrderedDict")),
    *(named("_codecs", "encode"), named("copyreg", "_reconstructor"), named("torch", "HalfStorage"), numbered(2, 3)),
    *(
        named("torch._tensor", "_rebuild_from_type_v2"),
        named("builtins", "set"),
        storage(),
        tensor(),
        tensor((3, 2), (1, 3)),
    ),
    *(text("model"), text("_modules"), text("latin1"), text("a"), text("torch"), text("uint8"), _OBJECT, _ARRAY),
)
_VALUES = (
    mapping(model=mapping(a=tensor(), b=tensor((3, 2), (1, 3))), epoch=b"K\x03", meta=_OBJECT),
    mapping(**{"module.a": tensor(kind="HalfStorage", count=12), "module.b": tensor(key="1")}),
    mapping(model=mapping(a=_ARRAY, b=_ARRAY)),
)


def mutated(data, rng):
    """Change bytes, or put in, take out or move pieces of a pickle."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        place, length = rng.randrange(len(data) + 1), int(rng.expovariate(0.2))
        match rng.randrange(5):
            case 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                data[place:place] = rng.choice(_PIECES)
            case 2:
                data[place : place + rng.randrange(8)] = rng.choice(_PIECES)
            case 3:
                del data[place : place + length]
            case 4:
                other = rng.randrange(len(data) + 1)
                data[place:place] = data[other : other + length]
    return bytes(data)


def _changed_file(rng):
    value = rng.choice(_VALUES)
    match rng.randrange(4):
        case 0:
            return torch_zip(mutated(value, rng), (FLOATS, FLOATS)), "x.pth"
        case 1:
            return torch_stream(mutated(value, rng), (("0", 6, FLOATS), ("1", 6, FLOATS))), "x.pth"
        case 2:
            return pickled(mutated(value, rng), rng.choice((2, 3, 4, 5))), "x.pkl"
        case _:
            whole = rng.choice((torch_zip, torch_stream))(value)
            return mutated(whole, rng), "x.pth"


def run(count, number):
    """Try `count` changes; return how many files could be read and how many were refused."""
    found = Counter()
    for index in range(count):
        data, name = _changed_file(random.Random(f"{number} {index}"))
        try:
            found["read" if _state(data, name) else "refused"] += 1
        except Exception as error:
            raise AssertionError(f"seed {number}, change {index}: {data!r}") from error
    return dict(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(json.dumps(run(asked.count, asked.seed)))  # noqa: T201
