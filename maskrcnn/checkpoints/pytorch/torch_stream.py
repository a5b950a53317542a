"""Files of torch.save before PyTorch 1.6: five pickles in a row, then the bytes of each storage after their number."""

import struct
from typing import Any, BinaryIO

from maskrcnn.checkpoints.h5_content import RefusedError
from maskrcnn.checkpoints.pytorch.pickle_data import Pickle, Window, read_pickle
from maskrcnn.checkpoints.pytorch.pickle_names import build, call
from maskrcnn.checkpoints.pytorch.tensors import ByteOrder, Storage
from maskrcnn.checkpoints.pytorch.torch_zip import STATE_DICT, storage_of

_MAGIC = 0x1950A86A20F9469CFC6C
START = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little") + b"."  # of the first pickle, after its protocol
_PROTOCOL = 1001


class TorchStream:
    """An open file of torch.save in the older format."""

    container = "torch stream"

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = stream.seek(0, 2)
        self._storages: dict[str, Storage] = {}
        self._starts: dict[str, int] = {}
        self.byte_order: ByteOrder = "<"  # on every machine

    def read(self) -> Pickle:
        """Read the pickles.

        Raises:
            RefusedError: As `read_pickle`, or they are not what torch.save writes.
        """
        window = Window(self._stream, 0, self._size)
        for expected in (_MAGIC, _PROTOCOL):
            if read_pickle(window, call, build).value != expected:
                raise RefusedError(f"is damaged: expected {expected:#x} at its beginning")
        read_pickle(window, call, build)  # the machine that wrote it
        found = read_pickle(window, call, build, self._note)
        keys = read_pickle(window, call, build).value
        if not isinstance(keys, list):
            raise RefusedError("is truncated or damaged: the list of its storages is missing")
        self._find(keys, window.tell())
        return found

    def _note(self, identity: Any) -> Any:
        storage = storage_of(identity)
        if isinstance(storage, Storage) and self._storages.setdefault(storage.key, storage) != storage:
            raise RefusedError(f"is damaged: it describes the storage {storage.key} in two ways")
        return storage

    def _find(self, keys: list[Any], place: int) -> None:
        """Note where the bytes of each storage begin."""
        for key in keys:
            if not isinstance(key, str) or key in self._starts:
                raise RefusedError("is damaged: the list of its storages is wrong")
            storage = self._storages.get(key)
            if storage is None:
                raise RefusedError(f"is damaged, or has values of a quantized or complex type: expected {STATE_DICT}")
            self._stream.seek(place)
            if self._stream.read(8) != struct.pack("<q", storage.count):
                raise RefusedError(f"is truncated or damaged: the storage {key} is not where it should be")
            self._starts[key] = place + 8
            place += 8 + storage.nbytes
        if place > self._size:
            raise RefusedError(f"is truncated: it has {self._size} bytes; expected {place}; copy or download it again")

    def read_storage(self, storage: Storage) -> bytes:
        """Read the bytes of a storage.

        Raises:
            RefusedError: They are missing.
        """
        if storage.key not in self._starts:
            raise RefusedError(f"is damaged: the values of the storage {storage.key} are missing")
        self._stream.seek(self._starts[storage.key])
        data = self._stream.read(min(storage.nbytes, self._size))
        if len(data) != storage.nbytes:
            raise RefusedError(f"is truncated: the values of the storage {storage.key} are missing")
        return data
