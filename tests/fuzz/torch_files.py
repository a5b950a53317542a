"""Files of PyTorch made by hand, opcode by opcode, so that they can be wrong in every way."""

import struct
import zipfile
from io import BytesIO

MAGIC = 0x1950A86A20F9469CFC6C
STOP = b"."


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value):
    if 0 <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbered(*values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def storage(key="0", kind="FloatStorage", count=6, view=None):
    """A persistent id; `view` is what follows the count in the format before 1.6."""
    parts = text("storage") + named("torch", kind) + text(key) + text("cpu") + integer(count)
    return b"(" + parts + (b"" if view is None else view) + b"tQ"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, function="_rebuild_tensor_v2", **options):
    arguments = storage(**options) + integer(offset) + numbered(*shape) + numbered(*strides)
    return named("torch._utils", function) + b"(" + arguments + b"\x89" + named("collections", "OrderedDict") + b")RtR"


def mapping(**entries):
    """A dictionary of pickled values."""
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def pickled(value, protocol=2):
    return b"\x80" + bytes([protocol]) + value + STOP


FLOATS = struct.pack("<6f", *range(6))


def torch_zip(value, storages=(FLOATS,), root="archive", extra=(), compression=zipfile.ZIP_STORED):
    """A zip file of torch.save around a pickled value; `extra` are further (name, bytes)."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", pickled(value))
        for index, data in enumerate(storages):
            archive.writestr(f"{root}/data/{index}", data)
        archive.writestr(f"{root}/version", "3\n")
        for name, data in extra:
            archive.writestr(f"{root}/{name}", data)
    return content.getvalue()


def torch_stream(value, storages=(("0", 6, FLOATS),), magic=MAGIC, protocol=1001):
    """A file in the format before 1.6; storages are (key, count, bytes)."""
    magic = b"\x8a\x0a" + magic.to_bytes(10, "little")
    keys = b"](" + b"".join(text(key) for key, _, _ in storages) + b"e"
    start = b"".join(map(pickled, (magic, integer(protocol), mapping(little_endian=b"\x88"), value, keys)))
    return start + b"".join(struct.pack("<q", count) + data for _, count, data in storages)
