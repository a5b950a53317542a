"""Zip files of torch.save, from 1.6 on: a pickle at NAME/data.pkl, and the values of each storage at NAME/data/KEY.

PyTorch stores entries without compression, so that each is a part of the file.
"""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from maskrcnn.checkpoints.h5_content import RefusedError
from maskrcnn.checkpoints.pytorch.pickle_data import Foreign, Name, Pickle, Window, read_pickle
from maskrcnn.checkpoints.pytorch.pickle_names import build, call, storage_dtype
from maskrcnn.checkpoints.pytorch.tensors import DTYPES, LARGEST, ByteOrder, Storage

_LARGEST_PICKLE = 2**26  # bytes of data.pkl, which has the names and no values
_HEADER, _HEADER_BYTES = b"PK\x03\x04", 30
_ENCRYPTED = 0x1
STATE_DICT = "torch.save(model.state_dict(), 'NAME.pth')"
_BYTE_ORDERS: dict[str, ByteOrder] = {"little": "<", "big": ">"}


@dataclass(frozen=True)
class _Entry:
    start: int
    size: int
    checksum: int


class TorchZip:
    """An open zip file of torch.save."""

    container = "torch zip"

    def __init__(self, stream: BinaryIO) -> None:
        """Read the list of entries.

        Raises:
            RefusedError: It is truncated or damaged, or holds something else than torch.save writes.
        """
        self._stream = stream
        self._entries = _entries(stream)
        pickles = [name for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise RefusedError(f"is a zip archive, but not one of torch.save: expected {STATE_DICT}")
        self._root = pickles[0].removesuffix("data.pkl")
        if f"{self._root}constants.pkl" in self._entries or any(
            name.startswith(f"{self._root}code/") for name in self._entries
        ):
            raise RefusedError(
                "is a TorchScript archive, which holds a program: in PyTorch, load it with torch.jit.load and write "
                f"{STATE_DICT}"
            )
        order = self._read(f"{self._root}byteorder").decode("ascii", "replace") if self._has("byteorder") else "little"
        if order not in _BYTE_ORDERS:
            raise RefusedError(f"is damaged: its byte order is {order[:20]!r}")
        self.byte_order = _BYTE_ORDERS[order]

    def read(self) -> Pickle:
        """Read the pickle.

        Raises:
            RefusedError: As `read_pickle`.
        """
        data = self._read(f"{self._root}data.pkl")
        return read_pickle(Window(BytesIO(data), 0, len(data)), call, build, storage_of)

    def read_storage(self, storage: Storage) -> bytes:
        """Read the bytes of a storage.

        Raises:
            RefusedError: It is missing or damaged, or has another size than the pickle says.
        """
        name = f"{self._root}data/{storage.key}"
        entry = self._entries.get(name)
        if entry is None:
            raise RefusedError(f"is damaged: the values at {name} are missing")
        if entry.size != storage.nbytes:
            raise RefusedError(f"is damaged: {name} has {entry.size} bytes; expected {storage.nbytes}")
        return self._read(name)

    def _has(self, name: str) -> bool:
        return self._root + name in self._entries

    def _read(self, name: str) -> bytes:
        entry = self._entries[name]
        if not name.startswith(f"{self._root}data/") and entry.size > _LARGEST_PICKLE:
            raise RefusedError(f"is no file of weights: {name} in it has {entry.size} bytes")
        self._stream.seek(entry.start)
        data = self._stream.read(entry.size)
        # 0 is what PyTorch writes where checksums are switched off.
        if len(data) != entry.size or (entry.checksum and zlib.crc32(data) != entry.checksum):
            raise RefusedError(f"is damaged: the checksum of {name} is wrong; copy or download it again")
        return data


def storage_of(identity: Any) -> Any:
    """Return the storage that a persistent id of torch.save stands for.

    Raises:
        RefusedError: It is none.
    """
    match identity:
        case ("module", Name() as name, *_):
            raise RefusedError(f"holds the whole module {name}: in PyTorch, load it and write {STATE_DICT}")
        case ("storage", kind, str(key), _, int(count), *rest) if 0 <= count <= LARGEST and isinstance(kind, Name):
            if any(view is not None for view in rest):
                raise RefusedError(
                    f"was written by a PyTorch older than 0.4: load it with PyTorch and write {STATE_DICT}"
                )
            dtype = storage_dtype(kind)
            return Storage(key, dtype, count) if dtype in DTYPES else Foreign(kind, ())
    raise RefusedError("is truncated or damaged: in a pickle, the description of a storage is wrong")


def _entries(stream: BinaryIO) -> dict[str, _Entry]:
    """Return where each entry lies; entries are plain, apart from each other, and inside the file."""
    size = stream.seek(0, 2)
    try:
        with zipfile.ZipFile(stream) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError, OverflowError) as error:
        raise RefusedError(f"is truncated or damaged: {error}; copy or download it again") from error
    found: dict[str, _Entry] = {}
    for info in infos:
        name = info.filename
        if name in found:
            raise RefusedError(f"is damaged: it has two entries {name[:200]!r}")
        if not name or name[0] == "/" or name[-1] == "/" or "\\" in name or ".." in name.split("/"):
            raise RefusedError(f"is not loaded: its entry {name[:200]!r} is none that torch.save writes")
        if (
            info.compress_type != zipfile.ZIP_STORED
            or info.flag_bits & _ENCRYPTED
            or info.compress_size != info.file_size
        ):
            raise RefusedError(
                f"has the compressed or encrypted entry {name[:200]!r}, which torch.save does not write: unpack it and "
                "pack it again with zip -0"
            )
        found[name] = _Entry(_start(stream, info, size), info.file_size, info.CRC)
    end = 0
    for entry in sorted(found.values(), key=lambda entry: entry.start):
        if entry.start < end:
            raise RefusedError("is damaged: two of its entries lie in the same place")
        end = entry.start + entry.size
    return found


def _start(stream: BinaryIO, info: zipfile.ZipInfo, size: int) -> int:
    """Return where the bytes of an entry begin, which only the header before them says."""
    if info.header_offset >= 0:
        stream.seek(info.header_offset)
        header = stream.read(_HEADER_BYTES)
        if header.startswith(_HEADER) and len(header) == _HEADER_BYTES:
            lengths = struct.unpack_from("<HH", header, 26)
            start = info.header_offset + _HEADER_BYTES + sum(lengths)
            if start + info.file_size <= size:
                return start
    raise RefusedError(f"is truncated or damaged: its entry {info.filename[:200]!r} is not where it should be")
