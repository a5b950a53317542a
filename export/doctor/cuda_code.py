"""Which GPU architectures a library has CUDA code for."""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

CUDA_LIBRARY = "libonnxruntime_providers_cuda.so"
# Of CUDA's container of code for several architectures. Both headers give the size of what follows them.
_MAGIC = struct.pack("<I", 0xBA55ED50)
_CONTAINER, _ENTRY = struct.Struct("<IHHQ"), struct.Struct("<HHIQ12xI")


def architectures(library: Path) -> tuple[int, ...]:
    """Return the architectures, such as 75 and 90, in order; none if the file cannot be read."""
    try:
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return tuple(sorted({architecture for architecture, _, _ in pieces_of_code(content)}))
    except (OSError, ValueError, struct.error):
        return ()


def pieces_of_code(library: bytes | mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Yield architecture, beginning and end of each piece of CUDA code."""
    begin = library.find(_MAGIC)
    while begin >= 0:
        _, _, header, size = _CONTAINER.unpack_from(library, begin)
        entry, end = begin + header, begin + header + size
        while entry < end:
            _, _, header, size, architecture = _ENTRY.unpack_from(library, entry)
            yield architecture, entry + header, entry + header + size
            entry += header + size
        begin = library.find(_MAGIC, end)
