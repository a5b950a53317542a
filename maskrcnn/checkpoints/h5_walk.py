"""Safety check of the structure of an untrusted HDF5 file, without reading its data.

HDF5 follows links, external files and virtual sources wherever they point, and loads plug-ins for unknown filters. The
check refuses all of these, and data that would unpack to far more than the size of the file.
"""

import mmap
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py

from maskrcnn.checkpoints.h5_content import RefusedError, check_declared

# Built-in filters that only pack bytes: deflate, shuffle, checksum.
_FILTERS = (1, 2, 3)
# A global heap stores variable-length text: its signature, its header (with its size), and the header of an object.
_HEAP, _HEAP_HEADER, _OBJECT = b"GCOL\x01", struct.Struct("<8xQ"), struct.Struct("<HHIQ")
_MOST_OBJECTS = 1_000_000  # in all heaps


def check_heaps(file: h5py.File, stream: BinaryIO) -> None:
    """Refuse a heap with an object of size zero: HDF5 (1.14) would loop on it forever."""
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise RefusedError("has addresses or lengths that are not 8 bytes long")
    objects = 0
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        heap = content.find(_HEAP)
        while 0 <= heap <= len(content) - _HEAP_HEADER.size:
            end = min(heap + _HEAP_HEADER.unpack_from(content, heap)[0], len(content))
            place = heap + _HEAP_HEADER.size
            while place + _OBJECT.size <= end:
                index, _, _, size = _OBJECT.unpack_from(content, place)
                # Index 0 marks free space, whose size includes this header; HDF5 computes in 64 bits.
                step = (_OBJECT.size + (size + 7) // 8 * 8 if index else size) % 2**64
                objects += 1
                if step == 0 or objects > _MOST_OBJECTS:
                    raise RefusedError(f"has an endless heap at byte {heap}")
                place += step
            heap = content.find(_HEAP, heap + 1)


def walk(file: h5py.File, limit: int) -> Iterator[tuple[str, Any]]:
    """Yield every group and array with its path, the root first, once all that lies before it is known to be safe.

    Args:
        file: An open file.
        limit: Its size in bytes.

    Raises:
        RefusedError: The file has a link, external storage, a virtual array, a named type, an unknown filter, a group
            with two names, or arrays with more bytes than four times its size.
    """
    declared = 0  # bytes of arrays so far
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    seen = {_address(file)}
    while waiting:
        path, group = waiting.pop()
        _check_attributes(group, limit)
        yield path, group
        for name in group:
            inner = f"{path}/{name}" if path else name
            where = f"/{inner}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise RefusedError(f"has a link at {where!r}, which is not allowed")
            item = group[name]
            if isinstance(item, h5py.Dataset):
                _check_array(item, where, limit)
                declared += item.nbytes  # counted once per name, because each name is read
                check_declared(declared, limit)
                yield inner, item
            elif not isinstance(item, h5py.Group):
                raise RefusedError(f"has neither a group nor an array at {where!r}")
            elif _address(item) in seen:  # a cycle, or exponentially many paths
                raise RefusedError(f"has a group with two names, one of them {where!r}")
            else:
                waiting.append((inner, item))
                seen.add(_address(item))


def _check_array(array: h5py.Dataset, where: str, limit: int) -> None:
    plan = array.id.get_create_plist()
    if plan.get_external_count() or array.is_virtual:
        raise RefusedError(f"stores the values of {where!r} outside itself, which is not allowed")
    for index in range(plan.get_nfilters()):
        if (found := plan.get_filter(index)[0]) not in _FILTERS:
            raise RefusedError(
                f"compresses {where!r} with HDF5 filter {found}: expected gzip or none, repack it with h5repack"
            )
    _check_attributes(array, limit)


def _check_attributes(item: Any, limit: int) -> None:
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        size = attribute.get_space().get_simple_extent_npoints() * attribute.get_type().get_size()
        if size > limit:
            raise RefusedError(f"declares {size} bytes for the attribute {name!r}, more than its own size")


def _address(group: h5py.Group) -> int:
    """Return the address in the file, which identifies an object with several names."""
    return int(h5py.h5o.get_info(group.id).addr)
