"""Safety check of the structure of an untrusted HDF5 file, without reading its data.

HDF5 follows links, external files and virtual sources wherever they point, and loads plug-ins for unknown filters. The
check refuses all of these, and data that would unpack to far more than the size of the file.
"""

import mmap
import struct
from pathlib import Path
from typing import Any

import h5py

from maskrcnn.errors import CheckpointFormatError

# Built-in filters that only pack bytes: deflate, shuffle, checksum.
_FILTERS = (1, 2, 3)
# Compressed weights hardly shrink; zeros shrink by a factor of a thousand.
_LARGEST_RATIO = 4
# A global heap stores variable-length text: its signature, its header (with its size), and the header of an object.
_HEAP, _HEAP_HEADER, _OBJECT = b"GCOL\x01", struct.Struct("<8xQ"), struct.Struct("<HHIQ")
_MOST_OBJECTS = 1_000_000  # in all heaps


def check_structure(file: h5py.File, path: Path) -> None:
    """Refuse a weights file that refers to anything outside itself, or declares more data than it can hold.

    Raises:
        CheckpointFormatError: The file has a link, external storage, a virtual array, a named type, an unknown filter,
            a group with two names, arrays with more bytes than four times its size, or a heap that HDF5 would read
            forever.
    """
    _check_heaps(file, path)
    limit = path.stat().st_size
    declared = 0  # bytes of arrays so far
    waiting: list[h5py.Group] = [file]
    seen = {_address(file)}
    while waiting:
        group = waiting.pop()
        _check_attributes(group, path, limit)
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise CheckpointFormatError(f"{path} has a link at {where!r}, which is not allowed")
            item = group[name]
            if isinstance(item, h5py.Dataset):
                _check_array(item, path, where)
                declared += item.nbytes  # counted once per name, because each name is read
            elif not isinstance(item, h5py.Group):
                raise CheckpointFormatError(f"{path} has neither a group nor an array at {where!r}")
            elif _address(item) in seen:  # a cycle, or exponentially many paths
                raise CheckpointFormatError(f"{path} has a group with two names, one of them {where!r}")
            else:
                waiting.append(item)
                seen.add(_address(item))
            if declared > _LARGEST_RATIO * limit:
                raise CheckpointFormatError(
                    f"{path} declares more than {declared} bytes of arrays, but is only {limit} bytes long"
                )


def _check_heaps(file: h5py.File, path: Path) -> None:
    """Refuse a heap with an object of size zero: HDF5 (1.14) would loop on it forever."""
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise CheckpointFormatError(f"{path} has addresses or lengths that are not 8 bytes long")
    objects = 0
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
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
                    raise CheckpointFormatError(f"{path} has an endless heap at byte {heap}")
                place += step
            heap = content.find(_HEAP, heap + 1)


def _check_array(array: h5py.Dataset, path: Path, where: str) -> None:
    plan = array.id.get_create_plist()
    if plan.get_external_count() or array.is_virtual:
        raise CheckpointFormatError(f"{path} stores the values of {where!r} outside itself, which is not allowed")
    for index in range(plan.get_nfilters()):
        if (found := plan.get_filter(index)[0]) not in _FILTERS:
            raise CheckpointFormatError(
                f"{path} compresses {where!r} with HDF5 filter {found}: expected gzip or none, repack it with h5repack"
            )
    _check_attributes(array, path, path.stat().st_size)


def _check_attributes(item: Any, path: Path, limit: int) -> None:
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        size = attribute.get_space().get_simple_extent_npoints() * attribute.get_type().get_size()
        if size > limit:
            raise CheckpointFormatError(
                f"{path} declares {size} bytes for the attribute {name!r}, more than its own size"
            )


def _address(group: h5py.Group) -> int:
    """Return the address in the file, which identifies an object with several names."""
    return int(h5py.h5o.get_info(group.id).addr)
