"""`read_state`: the weights of a PyTorch program, by name, without PyTorch."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from maskrcnn.checkpoints.h5_classic import SIGNATURE
from maskrcnn.checkpoints.h5_content import RefusedError, check_declared
from maskrcnn.checkpoints.h5_open import check_kind, is_pytorch, other_kind
from maskrcnn.checkpoints.pytorch.pickle_data import Foreign, Pickle, Window, read_pickle
from maskrcnn.checkpoints.pytorch.pickle_names import Array, array_of, build, call, check_names
from maskrcnn.checkpoints.pytorch.safetensors_file import read_safetensors
from maskrcnn.checkpoints.pytorch.tensors import Tensor, checked_bytes, plain_array, read_tensors
from maskrcnn.checkpoints.pytorch.torch_stream import START, TorchStream
from maskrcnn.checkpoints.pytorch.torch_zip import STATE_DICT, TorchZip
from maskrcnn.errors import CheckpointError, CheckpointFormatError

# Where training programs keep the state of the model, the first one that is there; averages come last.
_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "ema", "model_ema", "ema_state_dict")
_PREFIXES = ("module.", "model.", "_orig_mod.")  # of data parallelism, Lightning and torch.compile
_MOST_PLAIN, _DEEPEST = 10_000, 20  # values of an entry beside the weights, and lists in lists
_LARGEST_INTEGER = 2**63
_SAFETENSORS = ".safetensors"
_LARGEST_HEADER = 100_000_000  # bytes of JSON in safetensors
_TAR_MAGIC = 257
_EXPECTED = "expected a .pth or .pt of torch.save, a .pkl of Detectron2, or a .safetensors"


@dataclass(frozen=True)
class StateDict:
    """The weights in a file.

    Attributes:
        tensors: By name, in the order of the file: float32 for all kinds of floating point, other numbers as they are,
            in C order. They may be read-only.
        container: "torch zip", "torch stream" (before PyTorch 1.6), "pickle" (Detectron2's .pkl) or "safetensors".
        key: Under which key of the file they are, such as "model"; "" if the file holds nothing else.
        prefix: What all names began with and no longer do, such as "module.".
        ignored: Names in the state that are no tensors.
        extras: Plain data beside the weights, such as "epoch", "args" or "meta", by key: texts, numbers, lists and
            dictionaries. Objects of classes are left out, but those with named values become dictionaries.
    """

    tensors: dict[str, NDArray[Any]]
    container: str
    key: str = ""
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    extras: dict[str, Any] = field(default_factory=dict)


def is_state_file(path: Path) -> bool:
    """Return whether a file has the name or the beginning of one that `read_state` reads."""
    try:
        if path.is_file():  # reading a pipe could block forever
            with path.open("rb") as stream:
                return is_pytorch(path, stream.read(128))
    except OSError:
        pass
    return is_pytorch(path, b"")


def read_state(path: str | Path) -> StateDict:
    """Read the weights of a PyTorch program from a file that is not trusted; nothing in it is run.

    Only the weights are read: not the state of an optimizer beside them.

    Args:
        path: A .pth or .pt that torch.save wrote, in the zip format or the one before it, with a state dict alone or
            under "model", "state_dict" and similar keys; a .pkl of Detectron2; a .safetensors.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointFormatError: It is truncated or damaged, holds something else (a whole module, TorchScript, weights of
            Caffe2 or TensorFlow), or asks for something that weights do not need.
        MissingPackageError: It is a .safetensors, and that package is not installed.
    """
    path = Path(path)
    check_kind(path, "a file of weights")
    try:
        with path.open("rb") as stream:
            return _read(path, stream)
    except RefusedError as error:
        raise CheckpointFormatError(f"{path} {error}") from error
    except MemoryError as error:
        raise CheckpointFormatError(f"{path} does not fit in memory") from error
    except OSError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointFormatError(f"cannot read the checkpoint {path}: {error.strerror}") from error


def _read(path: Path, stream: BinaryIO) -> StateDict:
    head = stream.read(512)
    size = os.fstat(stream.fileno()).st_size
    if not head:
        raise RefusedError("is empty: copy or download it again")
    if head.startswith(b"PK") and path.suffix != ".keras":
        archive = TorchZip(stream)
        return _from_pickle(archive.read(), size, archive)
    if START in head[:20]:
        file = TorchStream(stream)
        return _from_pickle(file.read(), size, file)
    if _is_safetensors(path, head, size):
        arrays, texts = read_safetensors(path, stream)
        if not arrays:
            raise RefusedError(f"has no weights: {_EXPECTED}")
        return _state("safetensors", arrays, "", (), dict(texts))
    if head[_TAR_MAGIC:].startswith(b"ustar"):
        raise RefusedError(
            f"is a tar archive, as PyTorch older than 0.2 wrote: load it with PyTorch and write {STATE_DICT}"
        )
    other = "an HDF5 file" if head.startswith(SIGNATURE) else other_kind(path, head, stream)
    if other is not None:
        raise RefusedError(f"is {other}" if ": " in other else f"is {other}: {_EXPECTED}")
    if head.startswith(b"\x80") or path.suffix.lower() == ".pkl":
        return _plain_pickle(stream, size)
    raise RefusedError(f"is no file of weights that is known: {_EXPECTED}")


def _is_safetensors(path: Path, head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return path.suffix.lower() == _SAFETENSORS or (
        head[8:9] == b"{" and length < min(_LARGEST_HEADER, size) and not head.startswith(b"\x80")
    )


def _plain_pickle(stream: BinaryIO, size: int) -> StateDict:
    pickle = read_pickle(Window(stream, 0, size), call, build)
    if isinstance(pickle.value, dict) and "blobs" in pickle.value:
        raise RefusedError(
            "has weights of Detectron and Caffe2 ('blobs'), which are other networks: expected a .pkl of Detectron2, "
            "whose weights are under 'model'"
        )
    return _from_pickle(pickle, size, None)


def _from_pickle(pickle: Pickle, size: int, file: TorchZip | TorchStream | None) -> StateDict:
    """Find the weights in a pickle, and read them; without a `file`, they are in the pickle itself."""
    content = _entries(pickle.value)
    for value in (pickle.value, *(content[key] for key in _KEYS if key in content)):
        if isinstance(value, Foreign) and isinstance(value.state, dict) and "_modules" in value.state:
            raise RefusedError(f"holds the whole module {value.name}: in PyTorch, load it and write {STATE_DICT}")
    check_names(pickle)
    key = next((key for key in _KEYS if _has_tensors(content.get(key))), "")
    state = _entries(content[key]) if key else content
    if not _has_tensors(state):
        raise RefusedError(f"has no weights{_found(pickle.value, content)}: expected {STATE_DICT}")
    tensors, arrays, ignored = _sorted(state)
    declared = sum(checked_bytes(name, tensor) for name, tensor in tensors.items())
    check_declared(declared + sum(array.nbytes for array in arrays.values()), size)
    found = {name: plain_array(array) for name, array in arrays.items()}
    if file is not None:
        found |= read_tensors(tensors, file.read_storage, file.byte_order)
    ordered = {name: found[name] for name in state if name in found}
    extras = {name: value for name, value in content.items() if name != key} if key else {}
    return _state("pickle" if file is None else file.container, ordered, key, tuple(ignored), extras)


def _entries(value: Any) -> dict[Any, Any]:
    """Return the entries of a dictionary, also of one of a class that is not known."""
    return value.pairs if isinstance(value, Foreign) else value if isinstance(value, dict) else {}


def _has_tensors(value: Any) -> bool:
    found = _entries(value).values()
    return any(isinstance(entry, Tensor | Array | np.ndarray) or _is_rebuilt(entry) for entry in found)


def _is_rebuilt(value: Any) -> bool:
    """Return whether a value is a tensor of a kind that is not read."""
    return isinstance(value, Foreign) and value.name.name.startswith("_rebuild")


def _found(value: Any, content: dict[Any, Any]) -> str:
    if content:
        return f" under {', '.join(_KEYS[:3])}, only {', '.join(map(_shown, list(content)[:6]))}"
    return f", but {value.name}" if isinstance(value, Foreign) else f", but a {type(value).__name__}"


def _shown(key: Any) -> str:
    return repr(key[:60]) if isinstance(key, str) else f"a {type(key).__name__}"


def _sorted(state: dict[Any, Any]) -> tuple[dict[str, Tensor], dict[str, NDArray[Any]], list[str]]:
    """Return the tensors, the arrays and the names of other entries of a state dict."""
    tensors: dict[str, Tensor] = {}
    arrays: dict[str, NDArray[Any]] = {}
    ignored: list[str] = []
    for name, value in state.items():
        if not isinstance(name, str):
            raise RefusedError(f"has {_shown(name)} as the name of a weight: expected {STATE_DICT}")
        array = array_of(value)
        if isinstance(value, Tensor):
            tensors[name] = value
        elif array is not None:
            arrays[name] = array
        elif isinstance(value, Array) or _is_rebuilt(value):
            raise RefusedError(
                f"has {name} as {_kind(value)}, which is not read: expected plain tensors of numbers, neither "
                "quantized, sparse nor complex"
            )
        else:
            ignored.append(name)
    return tensors, arrays, ignored


def _kind(value: Foreign) -> str:
    inner = value.arguments[0] if value.arguments else None
    return f"{value.name} of {inner.name}" if isinstance(inner, Foreign) else str(value.name)


def _state(
    container: str, tensors: dict[str, NDArray[Any]], key: str, ignored: tuple[str, ...], extras: dict[Any, Any]
) -> StateDict:
    """Put everything together, without the prefix that all names share."""
    removed = ""
    while (prefix := _shared_prefix(tensors)) and len(removed) < _DEEPEST:
        tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
        removed += prefix
    plain = {name: _Plain().of(value) for name, value in extras.items() if isinstance(name, str)}
    return StateDict(tensors, container, key, removed, ignored, {k: v for k, v in plain.items() if v is not _LEFT_OUT})


def _shared_prefix(tensors: dict[str, NDArray[Any]]) -> str:
    return next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in tensors)), "")


_LEFT_OUT = object()


class _Plain:
    """What is plain data of a value that may contain itself, or the same again and again."""

    def __init__(self) -> None:
        self._left = _MOST_PLAIN

    def of(self, value: Any) -> Any:
        """Return the plain data; `_LEFT_OUT` if it is none or too much."""
        found = self._of(value, 0)
        return found if self._left >= 0 else _LEFT_OUT

    def _of(self, value: Any, depth: int) -> Any:
        self._left -= 1 + (len(value) // 1000 if isinstance(value, str) else 0)
        if self._left < 0 or depth > _DEEPEST:
            return _LEFT_OUT
        if isinstance(value, Foreign) and not isinstance(value, Array):
            value = value.pairs or value.state
            if not isinstance(value, dict):
                return _LEFT_OUT
        if isinstance(value, dict):
            parts = ((k, self._of(v, depth + 1)) for k, v in value.items() if isinstance(k, str | int | float))
            return {key: part for key, part in parts if part is not _LEFT_OUT}
        if isinstance(value, list | tuple):
            items = [self._of(item, depth + 1) for item in value]
            return [item for item in items if item is not _LEFT_OUT]
        number = isinstance(value, float) or (isinstance(value, int) and abs(value) < _LARGEST_INTEGER)
        return value if value is None or number or isinstance(value, str) else _LEFT_OUT
