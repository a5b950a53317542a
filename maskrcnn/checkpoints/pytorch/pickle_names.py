"""The closed list of what pickles of weights may name, and what a call of each gives: plain data, arrays, tensors."""

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.checkpoints.h5_content import RefusedError
from maskrcnn.checkpoints.pytorch.pickle_data import Foreign, Name, Pickle
from maskrcnn.checkpoints.pytorch.tensors import DTYPES, LARGEST, MOST_AXES, Storage, Tensor

_DICTS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict")
# Classes of the standard library that hold values. What is not here, such as os.system, no weights need.
_HARMLESS: dict[str, tuple[str, ...]] = {
    "_codecs": ("encode",),
    "argparse": ("Namespace",),
    "builtins": (
        *("object", "dict", "list", "tuple", "set", "frozenset", "int", "float", "str", "bool", "bytes", "bytearray"),
        *("complex", "slice", "range"),
    ),
    "collections": ("OrderedDict", "defaultdict", "Counter", "deque"),
    "copyreg": ("_reconstructor", "__newobj__"),
    "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    "types": ("SimpleNamespace",),
    "uuid": ("UUID",),
}
_STANDARD = sys.stdlib_module_names | {"__builtin__", "copy_reg", "exceptions", "UserDict", "commands", "posix", "nt"}
# What Python 2, newer Pythons and NumPy 2 call them.
_MOVED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "pathlib._local": "pathlib",
    "numpy._core": "numpy.core",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "torch.storage": "torch",
    "torch.cuda": "torch",
}
_REBUILD_MODULES = ("torch", "numpy")  # functions that begin with an underscore are their helpers for pickles
_FUNCTIONS = {"numpy.core.multiarray.scalar", "numpy.dtype", "numpy.ndarray", "torch.device", "_codecs.encode"}
_LONGEST_SHOWN = 3  # names in a message


def check_names(pickle: Pickle) -> None:
    """Refuse a pickle that names what no weights need, wherever it does; nothing of it has been imported.

    Classes of other packages are accepted, their objects are of no use and stay `Foreign`; calls of functions are not.

    Raises:
        RefusedError: It does.
    """
    unwanted = {name for name in pickle.names if _root(name) in _STANDARD and not _is_harmless(name)}
    unwanted |= {name for name in pickle.called if _root(name) not in _STANDARD and not _may_be_called(name)}
    if unwanted:
        shown = ", ".join(sorted(map(str, unwanted))[:_LONGEST_SHOWN])
        raise RefusedError(
            f"is not loaded: it calls for {shown[:200]}, which weights do not need and which was not run; if you trust "
            "its source, save model.state_dict() alone with torch.save"
        )


def _root(name: Name) -> str:
    return name.module.split(".")[0]


def _full(name: Name) -> str:
    return f"{_MOVED.get(name.module, name.module)}.{name.name}"


def _is_harmless(name: Name) -> bool:
    return name.name in _HARMLESS.get(_MOVED.get(name.module, name.module), ())


def _may_be_called(name: Name) -> bool:
    last = name.name.split(".")[-1]
    is_class = last.lstrip("_")[:1].isupper()
    return is_class or _full(name) in _FUNCTIONS or (last.startswith("_") and _root(name) in _REBUILD_MODULES)


def storage_dtype(value: Any) -> str | None:
    """Return PyTorch's name of the type of values in a storage of a class, such as torch.FloatStorage."""
    if not isinstance(value, Name) or _MOVED.get(value.module, value.module) != "torch":
        return None
    kind = value.name.removesuffix("Storage").lower()
    if not value.name.endswith("Storage"):
        return None
    return {"untyped": "uint8", "byte": "uint8", "char": "int8"}.get(kind, kind)


def call(name: Name, arguments: tuple[Any, ...]) -> Any:
    """Return what a call gives: data if the name is on the list and the arguments are as expected."""
    full = _full(name)
    if full in _DICTS:
        return _dict(arguments)
    least, make = _CALLS.get(full, (0, None))
    found = make(*arguments) if make is not None and len(arguments) >= least else None
    if found is not None:
        return found
    if full == "copyreg.__newobj__" and arguments and isinstance(arguments[0], Name):
        return call(arguments[0], arguments[1:])
    if full == "copyreg._reconstructor" and arguments and isinstance(arguments[0], Name):
        return Foreign(arguments[0], ())
    return Foreign(name, arguments)


def _dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Return a dictionary; old protocols hand over its pairs, and a defaultdict its factory."""
    pairs = arguments[-1] if arguments else {}
    if isinstance(pairs, dict):
        return dict(pairs)
    found: dict[Any, Any] = {}
    for pair in pairs if isinstance(pairs, list) else ():
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str | int | float):
            raise RefusedError("is truncated or damaged: in a pickle, an entry of a dictionary is wrong")
        found[pair[0]] = pair[1]
    return found


def _text_bytes(text: Any, encoding: Any, *_: Any) -> bytes | None:
    """Return bytes as old protocols write them: as text in Latin-1."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        return None
    return _raw(text)


def _raw(value: Any, *_: Any) -> bytes | None:
    """Return bytes; those of Python 2 are texts in Latin-1."""
    if isinstance(value, str):
        try:
            return value.encode("latin1")
        except UnicodeEncodeError:
            return None
    return bytes(value) if isinstance(value, bytearray) else value if isinstance(value, bytes) else None


def _list(items: Any, *_: Any) -> list[Any] | None:
    return list(items) if isinstance(items, list | tuple) else None


def _tuple(items: Any, *_: Any) -> tuple[Any, ...] | None:
    return tuple(items) if isinstance(items, list | tuple) else None


def _plain_set(items: Any, *_: Any) -> set[Any] | None:
    simple = isinstance(items, list | tuple) and all(isinstance(item, str | int | float) for item in items)
    return set(items) if simple else None


# Tensors


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor | None:
    if not isinstance(storage, Storage):
        return None
    return Tensor(storage, storage.dtype, offset, shape, strides)


def _typed_tensor(*arguments: Any) -> Tensor | None:
    storage, offset, shape, strides, _, _, dtype, *_ = arguments
    known = isinstance(dtype, Name) and dtype.module == "torch" and dtype.name in DTYPES
    return Tensor(storage, dtype.name, offset, shape, strides) if known and isinstance(storage, Storage) else None


def _parameter(data: Any, *_: Any) -> Tensor | None:
    return data if isinstance(data, Tensor) else None


def _from_type(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """Return the tensor of a subclass of torch.Tensor."""
    known = isinstance(function, Name) and _full(function).startswith("torch._utils._rebuild")
    return call(function, arguments) if known and isinstance(arguments, tuple) else None


# NumPy


class Dtype(Foreign):
    """A NumPy type, whose byte order comes as its state."""

    def dtype(self) -> np.dtype[Any] | None:
        """Return the type if it is one of numbers or truth values."""
        code = self.arguments[0]
        order: Any = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        if not isinstance(code, str) or code not in _CODES or order not in ("<", ">", "|", "="):
            return None
        return np.dtype(code).newbyteorder(order)


class Array(Foreign):
    """A NumPy array, whose values come as its state."""


_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


def _dtype(code: Any, *flags: Any) -> Dtype:
    return Dtype(Name("numpy", "dtype"), (code, *flags))


def _empty(*arguments: Any) -> Array:
    return Array(Name("numpy.core.multiarray", "_reconstruct"), arguments)


def array_of(value: Any) -> NDArray[Any] | None:
    """Return a NumPy array of a pickle; None for any other value, and for an array of other than numbers.

    Raises:
        RefusedError: It has more or fewer values than its shape says.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Array) and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, fortran, raw = value.state
        return _array(dtype, shape, raw, "F" if fortran else "C")
    return None


def _array(dtype: Any, shape: Any, raw: Any, order: Any) -> NDArray[Any] | None:
    found, data = dtype.dtype() if isinstance(dtype, Dtype) else None, _raw(raw)
    if found is None or data is None or not isinstance(shape, tuple) or len(shape) > MOST_AXES:
        return None
    if not all(type(length) is int and 0 <= length <= LARGEST for length in shape):
        return None
    if math.prod(shape) * found.itemsize != len(data):
        raise RefusedError(f"is damaged: an array of shape {shape} and type {found} has {len(data)} bytes")
    return np.ndarray(shape, found, data or bytes(found.itemsize), order="F" if order == "F" else "C")


def _buffer_array(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> NDArray[Any] | None:
    return _array(dtype, shape, data, order)


def _scalar(dtype: Any, raw: Any, *_: Any) -> Any:
    found = _array(dtype, (), raw, "C")
    return None if found is None else found.item()


# The least number of arguments, and what makes data of them; None if they are not as expected.
_CALLS: dict[str, tuple[int, Callable[..., Any]]] = {
    "_codecs.encode": (2, _text_bytes),
    "builtins.set": (1, _plain_set),
    "builtins.bytes": (1, _raw),
    "builtins.bytearray": (1, _raw),
    "builtins.list": (1, _list),
    "builtins.tuple": (1, _tuple),
    "torch.Size": (1, _tuple),
    "torch._utils._rebuild_tensor": (4, _tensor),
    "torch._utils._rebuild_tensor_v2": (4, _tensor),
    "torch._utils._rebuild_tensor_v3": (7, _typed_tensor),
    "torch._utils._rebuild_parameter": (1, _parameter),
    "torch._utils._rebuild_parameter_with_state": (1, _parameter),
    "torch._tensor._rebuild_from_type": (3, _from_type),
    "torch._tensor._rebuild_from_type_v2": (3, _from_type),
    "numpy.dtype": (1, _dtype),
    "numpy.core.multiarray._reconstruct": (1, _empty),
    "numpy.core.multiarray.scalar": (2, _scalar),
    "numpy.core.numeric._frombuffer": (4, _buffer_array),
}


def build(target: Any, state: Any) -> Any:
    """Return an object after its state was set; the attributes of dictionaries and tensors are left out."""
    if isinstance(target, Foreign):
        target.state = state
    elif not isinstance(target, dict | Tensor):
        raise RefusedError(f"is truncated or damaged: in a pickle, a {type(target).__name__} is given a state")
    return target
